"""Figures of initrds: where the bytes are, what compressors cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acon_nb.plots.style import COLOURS, subplots

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def plot_folders(folders: pd.DataFrame, *, most: int = 20) -> Figure:
    """The largest folders of a tree as bars in MiB (`name`, `bytes`, `names`; `initrd.tables.folder_table`)."""
    figure, axes = subplots(1, width=9)
    shown = folders.head(most).iloc[::-1]
    figure.set_figheight(0.28 * len(shown) + 1.2)
    widths = [float(value) / (1 << 20) for value in shown["bytes"]]
    bars = axes[0].barh(list(shown["name"]), widths, color=COLOURS[0])
    axes[0].bar_label(bars, [f" {count} names" for count in shown["names"]], fontsize=8)
    axes[0].set_xlabel("MiB of files (hard links once)")
    axes[0].set_xlim(0, 1.12 * max(widths, default=1.0))
    figure.suptitle("Where the initrd's bytes are")
    return figure


def plot_unpack(rows: pd.DataFrame) -> Figure:
    """Compressors of an initrd: size, time to make, instructions to unpack (`bench.unpack.measure`)."""
    panels = (
        ("image_bytes", 1 << 20, "image / MiB"),
        ("make_s", 1.0, "time to make / s\n(wall clock, n = 1)"),
        ("added_init_ns", 1e6, "10⁶ instructions to unpack\n(instruction clock, exact)"),
    )
    figure, axes = subplots(len(panels), width=3.4)
    names = list(rows["compression"])
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(names))]
    for ax, (column, scale, label) in zip(axes, panels, strict=True):
        heights = [float(value) / scale for value in rows[column]]
        bars = ax.bar(range(len(names)), heights, color=colours)
        ax.bar_label(bars, fmt="%.3g", fontsize=8)
        ax.set_xticks(range(len(names)), names)
        ax.set_ylabel(label)
    figure.suptitle("What the initrd's compression costs")
    return figure
