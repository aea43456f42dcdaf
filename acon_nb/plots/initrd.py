"""Figures of initrds: sizes of folders, cost of compressors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acon_nb.plots.style import COLOURS, subplots
from acon_nb.plots.treemap import Rectangle, squarified
from acon_nb.units import format_bytes

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    from acon_nb.initrd.growth import Growth


def plot_folders(folders: pd.DataFrame, *, most: int = 20) -> Figure:
    """Plot the largest folders of a tree as bars (columns `name`, `bytes`, `names`; `initrd.tables.folder_table`)."""
    figure, axes = subplots(1, width=9)
    shown = folders.head(most).iloc[::-1]
    figure.set_figheight(0.28 * len(shown) + 1.2)
    widths = [float(value) / (1 << 20) for value in shown["bytes"]]
    bars = axes[0].barh(list(shown["name"]), widths, color=COLOURS[0])
    axes[0].bar_label(bars, [f" {count} names" for count in shown["names"]], fontsize=8)
    axes[0].set_xlabel("MiB of files (hard links once)")
    axes[0].set_xlim(0, 1.12 * max(widths, default=1.0))
    figure.suptitle("Size of the initrd by folder")
    return figure


def plot_growth(growth: Growth, *, most: int = 40) -> Figure:
    """Draw a treemap of the right side's sizes, coloured by growth; the areas add up to its size.

    The smallest ones beyond `most`, and those that are less than 0.2 %, are one rectangle. What is only on the left
    side has no area: it is listed below.
    """
    figure, (axes,) = subplots(1, width=8)
    figure.set_figheight(5.2)
    axes.set_axis_off()
    blocks = _blocks(growth, most)
    frame = Rectangle(0.0, 0.0, 1.6, 1.0)
    axes.set_xlim(0, frame.width)
    axes.set_ylim(0, frame.height)
    largest = max((abs(grown) for _, _, grown in blocks), default=0) or 1
    for (name, size, change), box in zip(blocks, squarified([size for _, size, _ in blocks], frame), strict=True):
        axes.add_patch(_patch(box, _shade(change / largest)))
        _label(axes, box, name, size, change, dark=change < -0.6 * largest)
    sizes = f"{format_bytes(growth.left_bytes)} to {format_bytes(growth.right_bytes)}"
    grown = _signed(growth.right_bytes - growth.left_bytes)
    figure.suptitle(f"Size of the files by {growth.by.value}: {sizes} ({grown})")
    gone = [row for row in growth.rows if not row.right_bytes and row.left_bytes]
    legend = "orange: larger than before, blue: smaller, grey: the same"
    texts = [f"{row.name} ({_signed(row.growth_bytes)})" for row in gone[:3]]
    more = f" and {len(gone) - 3} more" if len(gone) > 3 else ""
    axes.text(0, -0.02, legend + (f"\ngone: {', '.join(texts)}{more}" if gone else ""), va="top", fontsize=8)
    return figure


def _blocks(growth: Growth, most: int) -> list[tuple[str, int, int]]:
    """Return (name, bytes, growth) of what has a size on the right side, largest first, the small ones as one."""
    rows = sorted((row for row in growth.rows if row.right_bytes), key=lambda row: (-row.right_bytes, row.name))
    least = growth.right_bytes * 0.002
    large = [row for number, row in enumerate(rows) if number < most and row.right_bytes >= least]
    small = rows[len(large) :]
    blocks = [(row.name, row.right_bytes, row.growth_bytes) for row in large]
    if small:
        size, grown = sum(row.right_bytes for row in small), sum(row.growth_bytes for row in small)
        blocks.append((f"{len(small)} others", size, grown))
    return sorted(blocks, key=lambda block: -block[1])


def _patch(box: Rectangle, colour: str) -> Patch:
    from matplotlib.patches import Rectangle as Patch

    return Patch((box.x, box.y), box.width, box.height, facecolor=colour, edgecolor="white", linewidth=1.2)


def _shade(part: float) -> str:
    """Return a colour between grey (0) and orange (1) or blue (-1)."""
    from matplotlib.colors import to_hex, to_rgb

    full, grey = to_rgb(COLOURS[1] if part > 0 else COLOURS[0]), to_rgb("#D9D9D9")
    weight = 0.0 if part == 0 else 0.25 + 0.6 * abs(part)
    red, green, blue = (weight * one + (1 - weight) * other for one, other in zip(full, grey, strict=True))
    return to_hex((red, green, blue))


def _label(axes: Axes, box: Rectangle, name: str, size: int, grown: int, *, dark: bool) -> None:
    """Write the name, size and growth into a rectangle, as far as they fit."""
    columns, lines = int(box.width / 0.021), int(box.height / 0.045)
    if columns < 4 or lines < 1:
        return
    texts = [name if len(name) <= columns else f"{name[: columns - 1]}…" if columns >= 8 else "", format_bytes(size)]
    texts += [_signed(grown)] if grown else []
    fitting = "\n".join(text for text in texts[:lines] if len(text) <= columns)
    place = box.x + box.width / 2, box.y + box.height / 2
    axes.text(*place, fitting, ha="center", va="center", fontsize=8, color="white" if dark else "black")


def _signed(count: int) -> str:
    return f"{'+' if count > 0 else '−' if count < 0 else '±'}{format_bytes(abs(count))}"


def plot_unpack(rows: pd.DataFrame) -> Figure:
    """Plot compressors of an initrd: size, time to compress, instructions to unpack (`boot.unpack.measure`)."""
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
