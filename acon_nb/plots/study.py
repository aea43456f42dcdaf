"""Figures of any study: one measure by its factors, as an explorer's view defines it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acon_nb.analysis.explore import grouped, levels
from acon_nb.plots.style import COLOURS
from acon_nb.results.metrics import metric_on
from acon_nb.stats.inference import summarise
from acon_nb.stats.intervals import intervals_words

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from acon_nb.analysis.explore import Explored

_WRAP = 24


def plot_study(explored: Explored) -> Figure:
    """Draw every run as a dot, and medians with intervals, by the view's x, colour and facet."""
    from acon_nb.jupyter.show import ShownFigure

    view, rows = explored.view, explored.rows
    panels = grouped(rows, [view.facet] if view.facet else [])
    level_names = levels(rows, view.x)
    wide = max(3.0, 0.8 + 0.9 * len(level_names)) * max(1, len(panels))
    figure = ShownFigure(figsize=(min(16.0, max(7.0, wide)), 4.2), layout="constrained")
    measure = metric_on(view.metric, explored.clock)
    first: Axes | None = None
    for number, (key, part) in enumerate(panels):
        ax = figure.add_subplot(1, len(panels), number + 1, sharey=first)
        first = first or ax
        _panel(ax, part, explored, level_names, measure.scale)
        if key:
            ax.set_title(f"{view.facet} = {key[0]}", fontsize=9)
    if first is not None:  # the panels share their axis
        first.set_ylim(0, 1.1 * float(rows[view.metric].max()) / measure.scale)
        first.set_ylabel(f"{measure.axis_text(explored.clock)}\n({explored.clock} clock)")
    counts = [len(part) for _, part in grouped(rows, [name for name in (view.facet, view.colour, view.x) if name])]
    runs = f"n = {min(counts)}" if len(set(counts)) == 1 else f"n = {min(counts)} to {max(counts)}"
    title = f"{measure.label} by {view.x} ({explored.clock} clock, {runs})"
    figure.suptitle(f"{title}\ndots: runs; bars: medians and {intervals_words(counts, 'run')}", fontsize=10)
    return figure


def _panel(ax: Axes, rows: pd.DataFrame, explored: Explored, level_names: list[str], scale: float) -> None:
    view = explored.view
    colours = levels(explored.rows, view.colour) if view.colour else [""]
    width = 0.8 / len(colours)
    for (*colour, x), part in grouped(rows, [name for name in (view.colour, view.x) if name]):
        number = colours.index(colour[0]) if colour else 0
        centre = level_names.index(x) - 0.4 + width * (number + 0.5)
        values = [float(value) / scale for value in part[view.metric]]
        shade = COLOURS[number % len(COLOURS)]
        spread = [centre - 0.25 * width + 0.25 * width * (i + 0.5) / len(values) for i in range(len(values))]
        ax.plot(spread, values, "o", color=shade, alpha=0.5, markersize=4)
        summary = summarise(values)
        error = [[summary.median - summary.low], [summary.high - summary.median]]
        ax.errorbar(
            [centre + 0.2 * width], [summary.median], yerr=error, fmt="_", color=shade, markersize=12, capsize=3
        )
    for number, name in enumerate(colours if view.colour else []):
        ax.plot([], [], "o", color=COLOURS[number % len(COLOURS)], label=f"{view.colour} = {name}")
    if view.colour:
        ax.legend(frameon=False, fontsize=8, loc="best")
    ax.set_xticks(range(len(level_names)), [_wrapped(name) for name in level_names], fontsize=8)
    ax.set_xlim(-0.6, len(level_names) - 0.4)
    ax.set_xlabel(view.x)
    ax.spines[["top", "right"]].set_visible(False)


def _wrapped(text: str) -> str:
    """Wrap a label at its commas."""
    import textwrap

    lines = [line for part in text.split(", ") for line in textwrap.wrap(part, _WRAP)]
    return "\n".join(lines[:4]) + ("..." if len(lines) > 4 else "")
