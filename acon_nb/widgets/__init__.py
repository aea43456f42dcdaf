"""Views of the package's dataclasses. In an unattended notebook no widget is ever created."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acon_nb.lazy import submodules
from acon_nb.widgets.board import BoardView, board, watch
from acon_nb.widgets.console import ConsoleView, console
from acon_nb.widgets.designer import StudyDesigner, study_designer
from acon_nb.widgets.explorer import Explorer, explorer
from acon_nb.widgets.guest_curves import GuestCurves, guest_curves
from acon_nb.widgets.image import ImageForm, image_form
from acon_nb.widgets.initrd import InitrdForm, initrd_form
from acon_nb.widgets.job import NotebookJob, run
from acon_nb.widgets.kernel import KernelForm, kernel_form
from acon_nb.widgets.measure import MeasureForm, measure_form
from acon_nb.widgets.profile import ProfileExplorer, profile_explorer
from acon_nb.widgets.session import headless
from acon_nb.widgets.vm_panel import VmPanel, vm_panel

__all__ = [
    "BoardView",
    "ConsoleView",
    "Explorer",
    "GuestCurves",
    "ImageForm",
    "InitrdForm",
    "KernelForm",
    "MeasureForm",
    "NotebookJob",
    "ProfileExplorer",
    "StudyDesigner",
    "VmPanel",
    "board",
    "console",
    "explorer",
    "guest_curves",
    "headless",
    "image_form",
    "initrd_form",
    "kernel_form",
    "measure_form",
    "profile_explorer",
    "run",
    "study_designer",
    "vm_panel",
    "watch",
]

if not TYPE_CHECKING:
    __getattr__ = submodules(__name__)
