"""What the figures of a swap study share: how a choice looks, panels, axes of levels, titles."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from acon_nb.plots.style import COLOURS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_KINDS = {"none": ("x", ":"), "disk": ("o", ":"), "zram": ("s", "-"), "zswap": ("^", "--")}
_MORE = {"x": "+", "o": "D", "s": "P", "^": "v", "d": "p"}  # the markers once all colours are taken
_LEAST_WIDTH = 8.0  # inches: room for a title
_CLOCKS = {"instructions": "instruction clock", "wall": "wall clock"}


@dataclass(frozen=True)
class Style:
    """How a choice looks."""

    colour: str
    marker: str
    line: str


def styles_of(names: Iterable[Any]) -> dict[str, Style]:
    """How each choice looks: marker and line by its kind of swap, colour by the rest of its label."""
    found: dict[str, Style] = {}
    rests: list[str] = []
    for name in dict.fromkeys(map(str, names)):
        kind, _, rest = name.partition(" ")
        if rest and rest not in rests:
            rests.append(rest)
        marker, line = _KINDS.get(kind, ("d", "-."))
        turn, number = divmod(rests.index(rest), len(COLOURS)) if rest else (0, 0)
        found[name] = Style(COLOURS[number] if rest else "0.35", _MORE[marker] if turn else marker, line)
    return found


def grid(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, list[list[Axes]]]:
    """A figure of `rows` times `columns` panels, each of `size` (inches), and its axes row by row."""
    from acon_nb.show import ShownFigure

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
    ax.set_xticks(levels, [f"{level:g}" for level in levels])
    ax.set_xlabel("pressure: working set / RAM" if axis == "pressure" else axis)


def plain_ticks(ax: Axes, which: str) -> None:
    """Numbers, not powers of ten, on a logarithmic axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis = ax.xaxis if which == "x" else ax.yaxis
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.3g}"))
    axis.set_minor_formatter(NullFormatter())


def legend(figure: Figure, axes: Iterable[Axes]) -> None:
    """One legend for all panels, at the right of them, each choice once."""
    found: dict[str, Any] = {}
    for ax in axes:
        handles, labels = ax.get_legend_handles_labels()
        found |= {label: handle for label, handle in zip(labels, handles, strict=True) if label not in found}
    if found:
        figure.legend(list(found.values()), list(found), loc="outside right center", frameon=False, fontsize=8)


def title(text: str, table: pd.DataFrame, column: str, *, most: int | None = None) -> str:
    """A title with the clock and the number of seeds; with `most`, how many situations are not shown."""
    counts = sorted({int(value) for value in table[column].dropna()} - {0}) if column in table else []
    seeds = "no" if not counts else f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"
    shown = table["situation"].nunique() if "situation" in table else 1
    more = f", {most} of {shown} situations" if most and shown > most else ""
    return f"{text}\n({clock_words(table)}, {seeds} seeds{more})"


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
