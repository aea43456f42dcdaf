"""DataFrame in, matplotlib Figure out. Every figure names its clock, its unit and its number of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acon_nb.lazy import submodules
from acon_nb.plots.boot import plot_boot, plot_memory
from acon_nb.plots.boot_memory import plot_memory_parts, plot_qemu_memory
from acon_nb.plots.boot_phases import plot_initcall_difference, plot_initcalls, plot_phases
from acon_nb.plots.initrd import plot_folders, plot_growth, plot_unpack
from acon_nb.plots.kernel import plot_cost, plot_sizes
from acon_nb.plots.measure import plot_chain
from acon_nb.plots.profile import plot_profile, plot_profile_difference
from acon_nb.plots.study import plot_study
from acon_nb.plots.style import COLOURS, picture_format, save
from acon_nb.plots.swap.files import figures_of, flat_table, guest_figure, save_answers
from acon_nb.plots.swap.guests import plot_guest, plot_latency
from acon_nb.plots.swap.study import plot_best, plot_effects, plot_pareto, plot_pressure
from acon_nb.plots.trend import plot_trend

__all__ = [
    "COLOURS",
    "figures_of",
    "flat_table",
    "guest_figure",
    "picture_format",
    "plot_best",
    "plot_boot",
    "plot_chain",
    "plot_cost",
    "plot_effects",
    "plot_folders",
    "plot_growth",
    "plot_guest",
    "plot_initcall_difference",
    "plot_initcalls",
    "plot_latency",
    "plot_memory",
    "plot_memory_parts",
    "plot_pareto",
    "plot_phases",
    "plot_pressure",
    "plot_profile",
    "plot_profile_difference",
    "plot_qemu_memory",
    "plot_sizes",
    "plot_study",
    "plot_trend",
    "plot_unpack",
    "save",
    "save_answers",
]

if not TYPE_CHECKING:
    __getattr__ = submodules(__name__)
