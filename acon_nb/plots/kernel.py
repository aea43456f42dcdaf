"""Figures of kernels: size by part, cost by group of options."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acon_nb.plots.style import COLOURS, subplots

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def plot_sizes(parts: pd.DataFrame, *, most: int = 20) -> Figure:
    """Plot the largest parts of a kernel as bars of text, data and bss (columns as in `kernel.tables.size_table`)."""
    figure, axes = subplots(1, width=9)
    figure.set_figheight(0.28 * min(most, len(parts)) + 1.2)
    shown = parts.head(most).iloc[::-1]
    start = [0.0] * len(shown)
    for number, column in enumerate(("text_bytes", "data_bytes", "bss_bytes")):
        widths = [float(value) / 1024 for value in shown[column]]
        label = column.removesuffix("_bytes")
        axes[0].barh(list(shown["part"]), widths, left=start, color=COLOURS[number], label=label)
        start = [left + width for left, width in zip(start, widths, strict=True)]
    axes[0].set_xlabel("KiB in the linked kernel")
    axes[0].legend(frameon=False, loc="lower right")
    figure.suptitle(f"Size by part of the source, the largest {len(shown)} of {len(parts)}")
    return figure


def plot_cost(steps: pd.DataFrame) -> Figure:
    """Plot what each group of options adds: waterfalls of image size, memory and instructions (`boot.kernel_cost`).

    Rows that were not counted show the clock at /init, waits and all.
    """
    counted = "executed_ns" in steps
    panels = (
        ("bzimage_bytes", 1 << 20, "bzImage / MiB"),
        ("gone_bytes", 1 << 20, "memory unavailable at /init / MiB"),
        ("executed_ns", 1e6, "10⁶ instructions to /init, no waits")
        if counted
        else ("init_ns", 1e6, "ms of the clock from reset to /init"),
    )
    figure, axes = subplots(len(panels), width=4.2)
    figure.set_figheight(0.42 * len(steps) + 1.6)
    names = list(steps["name"])
    positions = range(len(names))
    for ax, (column, scale, label) in zip(axes, panels, strict=True):
        totals = [float(value) / scale for value in steps[column]]
        starts = [0.0, *totals[:-1]]
        changes = [total - start for total, start in zip(totals, starts, strict=True)]
        colours = ["0.6", *(COLOURS[1] if change > 0 else COLOURS[2] for change in changes[1:])]
        ax.barh(list(positions), changes, left=starts, color=colours)
        for position, (total, start, change) in enumerate(zip(totals, starts, changes, strict=True)):
            text = f"{change:.2f}" if not position else f"{change:+.2f}"
            ax.annotate(text, (max(total, start), position), xytext=(4, 0), textcoords="offset points", va="center")
        ax.set_xlim(0, 1.25 * max(totals))
        ax.set_ylim(len(names) - 0.5, -0.5)
        ax.set_yticks(list(positions), names if ax is axes[0] else [""] * len(names))
        ax.set_xlabel(label)
    figure.suptitle("What each group of kernel options adds (one build and one boot per step; instruction clock)")
    return figure
