"""Views over the package's dataclasses. Without a person in front of the notebook no widget is ever made."""

from acon_nb.widgets.board import Board, board
from acon_nb.widgets.console import Console, console
from acon_nb.widgets.designer import StudyDesigner, study_designer
from acon_nb.widgets.explorer import Explorer, explorer
from acon_nb.widgets.guest_curves import GuestCurves, guest_curves
from acon_nb.widgets.initrd import InitrdForm, initrd_form
from acon_nb.widgets.job import Job, run
from acon_nb.widgets.kernel import KernelForm, kernel_form
from acon_nb.widgets.measure import MeasureForm, measure_form
from acon_nb.widgets.session import headless
from acon_nb.widgets.vm_panel import VmPanel, vm_panel

__all__ = [
    "Board",
    "Console",
    "Explorer",
    "GuestCurves",
    "InitrdForm",
    "Job",
    "KernelForm",
    "MeasureForm",
    "StudyDesigner",
    "VmPanel",
    "board",
    "console",
    "explorer",
    "guest_curves",
    "headless",
    "initrd_form",
    "kernel_form",
    "measure_form",
    "run",
    "study_designer",
    "vm_panel",
]
