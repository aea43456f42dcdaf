"""What the figures of a swap study share: how a choice looks, panels, axes of levels, titles."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from acon_nb.plots.style import COLOURS
from acon_nb.stats.intervals import intervals_words

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_KINDS = {"none": ("x", ":"), "disk": ("o", ":"), "zram": ("s", "-"), "zswap": ("^", "--")}
_MORE = {"x": "+", "o": "D", "s": "P", "^": "v", "d": "p"}  # the markers once all colours are taken
_VARIANT = ("compressor", "encryption", "knobs")  # what two kinds of swap may share
_LEAST_WIDTH = 8.0  # inches: room for a title
_CLOCKS = {"instructions": "instruction clock", "wall": "wall clock"}


@dataclass(frozen=True)
class Style:
    """How a choice looks."""

    colour: str
    marker: str
    line: str


def styles_of(table: pd.DataFrame) -> dict[str, Style]:
    """How each choice of a table looks, by its label: marker and line by its kind of swap, colour by all else."""
    styles: dict[str, Style] = {}
    variants: list[tuple[Any, ...]] = []
    for label, swap, *variant in table[["choice", "swap", *_VARIANT]].drop_duplicates().itertuples(index=False):
        key = tuple(variant)
        if any(key) and key not in variants:
            variants.append(key)
        marker, line = _KINDS.get(swap, ("d", "-."))
        turn, number = divmod(variants.index(key), len(COLOURS)) if any(key) else (0, 0)
        styles[str(label)] = Style(COLOURS[number] if any(key) else "0.35", _MORE[marker] if turn else marker, line)
    return styles


def grid(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, list[list[Axes]]]:
    """A figure of `rows` times `columns` panels, each of `size` (inches), and its axes row by row."""
    from acon_nb.jupyter.show import ShownFigure

    figure = ShownFigure(
        figsize=(max(_LEAST_WIDTH, size[0] * columns), size[1] * max(1, rows) + 0.4), layout="constrained"
    )
    panels = [
        [figure.add_subplot(rows, columns, row * columns + column + 1) for column in range(columns)]
        for row in range(rows)
    ]
    for ax in (ax for line in panels for ax in line):
        ax.spines[["top", "right"]].set_visible(False)
    return figure, panels


def largest(table: pd.DataFrame, by: str, most: int) -> list[tuple[str, pd.DataFrame]]:
    """The parts of a table by a column, at most `most`: those with the most rows, in the table's order.

    A study has situations that one cell alone is in; the figure is for those in which much was compared.
    """
    groups = [(str(name), part) for name, part in table.groupby(by, sort=False)]
    kept = sorted(range(len(groups)), key=lambda number: -len(groups[number][1]))[:most]
    return [groups[number] for number in sorted(kept)]


def axis_of_levels(ax: Axes, part: pd.DataFrame) -> None:
    """The numeric factor below: its name, its unit, its measured levels."""
    axis = str(part["axis"].iloc[0])
    levels = sorted(set(part["level"]))
    if axis == "disk_latency":
        ax.set_xscale("log")
        ax.set_xticks(levels, [f"{level / 1e3:g}" for level in levels])
        ax.set_xticks([], minor=True)
        ax.set_xlabel("disk latency as on hardware / µs")
        return
    if axis != "pressure" or not part["measured"].all():
        ax.set_xticks(levels, [f"{level:g}" for level in levels])
        ax.set_xlabel("nominal pressure: working set / RAM" if axis == "pressure" else axis)
        return
    nominal = dict(zip(part["level"], part["nominal"], strict=True))
    ax.set_xticks(levels, [f"{level:.2f}\n({nominal[level]})" for level in levels])
    ax.set_xlabel("working set / available memory (nominal pressure)")


def plain_ticks(ax: Axes, which: str) -> None:
    """Numbers, not powers of ten, on a logarithmic axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis = ax.xaxis if which == "x" else ax.yaxis
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.3g}"))
    axis.set_minor_formatter(NullFormatter())


def legend(figure: Figure, axes: Iterable[Axes]) -> None:
    """One legend for all panels, at the right of them, each choice once."""
    shown: dict[str, Any] = {}
    for ax in axes:
        handles, labels = ax.get_legend_handles_labels()
        shown |= {label: handle for label, handle in zip(labels, handles, strict=True) if label not in shown}
    if shown:
        figure.legend(list(shown.values()), list(shown), loc="outside right center", frameon=False, fontsize=8)


def title(text: str, table: pd.DataFrame, column: str, *, most: int | None = None) -> str:
    """A title with the clock and the number of seeds; with `most`, how many situations are not shown."""
    counts = seed_counts(table, column)
    if not counts:
        seeds = "no seeds"
    elif len(counts) == 1:
        seeds = "1 seed" if counts == [1] else f"n = {counts[0]} seeds"
    else:
        seeds = f"n = {counts[0]} to {counts[-1]} seeds"
    shown = table["situation"].nunique() if "situation" in table else 1
    more = f", {most} of {shown} situations" if most and shown > most else ""
    return f"{text}\n({clock_words(table)}, {seeds}{more})"


def seed_counts(table: pd.DataFrame, column: str) -> list[int]:
    """The numbers of seeds in a table, each once, the least first."""
    return sorted({int(value) for value in table[column].dropna()} - {0}) if column in table else []


def bars_words(table: pd.DataFrame, column: str) -> str:
    """What the bars of a figure are: "bars: bootstrap 95 % of the median"."""
    return f"bars: {intervals_words(seed_counts(table, column)) or 'none'}"


def clock_words(table: pd.DataFrame) -> str:
    """The clock of a table for people."""
    names = [str(name) for name in table["clock"].unique()] if "clock" in table else []
    return ", ".join(_CLOCKS.get(name, name) for name in names)


def wrapped(text: str, width: int) -> str:
    """A text on lines of at most `width` characters."""
    return "\n".join(textwrap.wrap(text[:200], width, break_on_hyphens=False)) or text


def is_known(value: Any) -> bool:
    """Whether a value of a table is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)
