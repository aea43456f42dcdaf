"""DataFrame in, matplotlib Figure out. Every figure names its clock, its unit and its number of runs."""

from acon_nb.plots.boot import plot_boot, plot_memory
from acon_nb.plots.initrd import plot_folders, plot_unpack
from acon_nb.plots.kernel import plot_cost, plot_sizes
from acon_nb.plots.measure import plot_chain
from acon_nb.plots.style import COLOURS, picture_format, save
from acon_nb.plots.swap import plot_swap

__all__ = [
    "COLOURS",
    "picture_format",
    "plot_boot",
    "plot_chain",
    "plot_cost",
    "plot_folders",
    "plot_memory",
    "plot_sizes",
    "plot_swap",
    "plot_unpack",
    "save",
]
