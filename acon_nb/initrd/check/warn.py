"""Warnings for whoever makes an initrd: what the check finds in its files, whatever the kernel."""

from __future__ import annotations

from acon_nb.archive.tree import FileTree
from acon_nb.initrd.check.command_line import Start
from acon_nb.initrd.check.examine import examine
from acon_nb.initrd.check.findings import NO_KERNEL, Severity, verdict, weigh


def boot_warnings(tree: FileTree) -> list[str]:
    """Return a sentence for each thing that keeps an image from booting, or from doing all that it should."""
    troubles = examine(tree, Start()).troubles
    answer = verdict(finding for trouble in troubles if (finding := weigh(trouble, NO_KERNEL)))
    wanted = [one for one in answer.findings if one.severity in (Severity.ERROR, Severity.WARNING)]
    return [one.line for one in wanted]
