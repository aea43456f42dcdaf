"""Views over the package's dataclasses. Without a person in front of the notebook no widget is ever made."""

from acon_nb.widgets.board import Board, board
from acon_nb.widgets.console import Console, console
from acon_nb.widgets.explorer import Explorer, explorer
from acon_nb.widgets.initrd import InitrdForm, initrd_form
from acon_nb.widgets.job import Job, run
from acon_nb.widgets.kernel import KernelForm, kernel_form
from acon_nb.widgets.session import headless
from acon_nb.widgets.vm_panel import VmPanel, vm_panel

__all__ = [
    "Board",
    "Console",
    "Explorer",
    "InitrdForm",
    "Job",
    "KernelForm",
    "VmPanel",
    "board",
    "console",
    "explorer",
    "headless",
    "initrd_form",
    "kernel_form",
    "run",
    "vm_panel",
]
