"""Figures of boots: times, memory, sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acon_nb.plots.style import bars_of, dots, subplots
from acon_nb.stats.intervals import intervals_words

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_CLOCK_LABELS = {
    ("wall", "host_ns_init"): "QEMU start to /init / s\n(host's clock, TCG or KVM)",
    ("instructions", "guest_ns_init"): "kernel's first line to /init / s\n(instruction clock)",
    ("instructions", "guest_ns_reset_to_init"): "reset to /init / s\n(instruction clock)",
}
_COUNTED = {
    ("wall", "host_ns_init"): _CLOCK_LABELS["wall", "host_ns_init"],
    (
        "instructions",
        "executed_ns",
    ): "executed from reset to /init / 10⁹ instructions\n(instruction clock, without waits)",
}


def plot_boot(runs: pd.DataFrame) -> Figure:
    """Time to /init of each kernel, one panel a clock: every run a dot, median and interval next to them.

    `runs` has the columns of `BootRun` (`name`, `clock`, `host_ns_init`, `guest_ns_init`, ...). Of counted runs it is
    what was executed, without waits.
    """
    labels = _COUNTED if "executed_ns" in runs and runs["executed_ns"].notna().any() else _CLOCK_LABELS
    panels = [
        (clock, column)
        for clock, column in labels
        if column in runs and runs.loc[runs["clock"] == clock, column].notna().any()
    ]
    figure, axes = subplots(len(panels), width=3.7)
    for ax, (clock, column) in zip(axes, panels, strict=True):
        part = runs[(runs["clock"] == clock) & runs[column].notna()]
        dots(ax, part, "name", column, 1e9)
        ax.set_ylabel(labels[clock, column])
    counts = list(runs.groupby(["name", "clock"]).size())
    figure.suptitle(f"Boot to /init (dots: runs; bars: median and {intervals_words(counts, 'run')})")
    return figure


def plot_memory(runs: pd.DataFrame) -> Figure:
    """What each kernel leaves of the guest's memory at /init, and the size of its image (MiB)."""
    part = runs.drop_duplicates("name")
    columns = {
        "memory_bytes": "guest's RAM",
        "memtotal_bytes": "MemTotal",
        "memavailable_bytes": "MemAvailable at /init",
    }
    figure, axes = subplots(2, width=4.4)
    bars_of(axes[0], part, list(columns), list(columns.values()), "MiB")
    bars_of(axes[1], part, ["kernel_bytes"], ["bzImage"], "MiB")
    figure.suptitle("Memory and image size")
    return figure
