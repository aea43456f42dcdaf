"""Views over the package's dataclasses. Without a person in front of the notebook no widget is ever made."""

from acon_nb.widgets.console import Console, console
from acon_nb.widgets.job import Job, run
from acon_nb.widgets.kernel import KernelForm, kernel_form
from acon_nb.widgets.session import headless

__all__ = ["Console", "Job", "KernelForm", "console", "headless", "kernel_form", "run"]
