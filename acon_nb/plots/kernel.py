"""Figures of kernels: size by part, cost by group of options."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acon_nb.plots.style import COLOURS, subplots

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def plot_sizes(parts: pd.DataFrame, *, most: int = 20) -> Figure:
    """The largest parts of a kernel as bars of text, data and bss in KiB (columns as in `kernel.tables.size_table`)."""
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
    """What each group of options adds: a waterfall for image size, memory and instructions (`bench.kernel_cost`)."""
    panels = (
        ("bzimage_bytes", 1 << 20, "bzImage / MiB"),
        ("gone_bytes", 1 << 20, "memory gone at /init / MiB"),
        ("init_ns", 1e6, "10⁶ instructions from reset to /init"),
    )
    figure, axes = subplots(len(panels), width=4.2)
    figure.set_figheight(0.42 * len(steps) + 1.6)
    names = list(steps["name"])
    places = range(len(names))
    for ax, (column, scale, label) in zip(axes, panels, strict=True):
        totals = [float(value) / scale for value in steps[column]]
        starts = [0.0, *totals[:-1]]
        changes = [total - start for total, start in zip(totals, starts, strict=True)]
        colours = ["0.6", *(COLOURS[1] if change > 0 else COLOURS[2] for change in changes[1:])]
        ax.barh(list(places), changes, left=starts, color=colours)
        for place, (total, start, change) in enumerate(zip(totals, starts, changes, strict=True)):
            text = f"{change:.2f}" if not place else f"{change:+.2f}"
            ax.annotate(text, (max(total, start), place), xytext=(4, 0), textcoords="offset points", va="center")
        ax.set_xlim(0, 1.25 * max(totals))
        ax.set_ylim(len(names) - 0.5, -0.5)
        ax.set_yticks(list(places), names if ax is axes[0] else [""] * len(names))
        ax.set_xlabel(label)
    figure.suptitle("What each group of kernel options adds (one build and one boot a step; instruction clock)")
    return figure
