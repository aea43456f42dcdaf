"""Whether an initrd boots: its segments, its init, its libraries, its services and its memory, against a kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acon_nb.initrd.check.command_line import Start
from acon_nb.initrd.check.examine import Examination, examine
from acon_nb.initrd.check.findings import NO_KERNEL, BootFinding, BootVerdict, Kernel, Severity, Trouble, verdict, weigh
from acon_nb.initrd.check.judge import Image, judge
from acon_nb.initrd.check.memory import Memory
from acon_nb.initrd.check.warn import boot_warnings
from acon_nb.lazy import submodules

__all__ = [
    "NO_KERNEL",
    "BootFinding",
    "BootVerdict",
    "Examination",
    "Image",
    "Kernel",
    "Memory",
    "Severity",
    "Start",
    "Trouble",
    "boot_warnings",
    "examine",
    "judge",
    "verdict",
    "weigh",
]

if not TYPE_CHECKING:
    __getattr__ = submodules(__name__)
