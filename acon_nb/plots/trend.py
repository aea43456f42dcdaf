"""Figures of many nights: how each measure went, its levels, the nights of its changes, and the limit."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from acon_nb.analysis.history import night_text
from acon_nb.plots.style import COLOURS
from acon_nb.results.metrics import Metric, metric_on
from acon_nb.stats.comparison import Verdict
from acon_nb.stats.intervals import intervals_words
from acon_nb.units import format_share

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 2
_LABELS = 8
_BAD, _GOOD = COLOURS[1], COLOURS[2]


def plot_trend(nights: pd.DataFrame, changes: pd.DataFrame, *, clock: str) -> Figure:
    """All series of one clock, a panel each (`analysis.history.nights_table` and `changes_table`).

    Dots are the nights' medians with their intervals, lines the levels, the grey band what the limit allows, a
    vertical line the night of a change with the nights that it may be.
    """
    from acon_nb.jupyter.show import ShownFigure

    part = nights[nights["clock"] == clock] if len(nights) else nights
    groups = list(part.groupby(["cell", "metric"], sort=False)) if len(part) else []
    rows = max(1, math.ceil(len(groups) / _COLUMNS))
    figure = ShownFigure(figsize=(11, 0.4 + 3.1 * rows), layout="constrained")
    for number, ((cell, name), series) in enumerate(groups):
        ax = figure.add_subplot(rows, _COLUMNS, number + 1)
        own = changes[(changes["cell"] == cell) & (changes["metric"] == name) & (changes["clock"] == clock)]
        _panel(ax, series, own, metric_on(str(name), clock), clock)
    count = part["night"].nunique() if len(part) else 0
    numbers = sorted({int(part["runs"].min()), int(part["runs"].max())}) if len(part) else []
    runs = f", {' to '.join(map(str, numbers))} runs a night" if numbers else ""
    bars = intervals_words([int(n) for n in part["runs"]], "run") if len(part) else "no interval"
    figure.suptitle(f"{count} nights on the {clock} clock{runs} (dots: medians; bars: {bars}; band: the limit)")
    return figure


def _panel(ax: Axes, series: pd.DataFrame, changes: pd.DataFrame, measure: Metric, clock: str) -> None:
    places = range(len(series))
    values, low, high, level = (series[name] / measure.scale for name in ("value", "low", "high", "level"))
    reference, limit = float(series["reference"].iloc[0]) / measure.scale, float(series["limit"].iloc[0])
    verdict = Verdict(series["verdict"].iloc[0])
    colour = {Verdict.WORSE: _BAD, Verdict.BETTER: _GOOD}.get(verdict, COLOURS[0])
    ax.axhspan(reference * (1 - limit), reference * (1 + limit), color="0.92", zorder=0)
    ax.errorbar(
        list(places), values, yerr=[values - low, high - values], fmt="o", markersize=4, capsize=2, color=colour,
        elinewidth=1,
    )  # fmt: skip
    ax.step(list(places), level, where="mid", color="0.25", linewidth=1.2)
    names = list(series["night"])
    for row in changes.to_dict("records"):
        first, night, last = (names.index(row[key]) for key in ("first", "night", "last"))
        ax.axvspan(first - 0.5, last - 0.5, color=COLOURS[4], alpha=0.25, linewidth=0)
        ax.axvline(night - 0.5, color=COLOURS[4], linewidth=1.5)
        ax.annotate(
            format_share(row["ratio"] - 1, sign=True), (night - 0.5, 1), xycoords=("data", "axes fraction"),
            xytext=(3, -3), textcoords="offset points", va="top", fontsize=8,
        )  # fmt: skip
    every = max(1, math.ceil(len(names) / _LABELS))
    ax.set_xticks(list(places)[::every], [name[:10] for name in names[::every]], rotation=30, ha="right", fontsize=8)
    ax.set_xlim(-0.7, len(names) - 0.3)
    _room(ax, [*low, *high, reference * (1 - limit), reference * (1 + limit)])
    ax.set_ylabel(measure.axis_text(clock), fontsize=8)
    title_colour = "black" if verdict is Verdict.NO_CHANGE else colour
    ax.set_title(f"{series['cell'].iloc[0]}: {night_text(verdict)}", fontsize=9, color=title_colour)
    ax.ticklabel_format(axis="y", useOffset=False)
    ax.tick_params(axis="y", labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)


def _room(ax: Axes, values: list[float]) -> None:
    """Axes that show all values and the band, and not the 0 far below them."""
    least, most = min(values), max(values)
    margin = 0.12 * (most - least) or 0.001 * most
    ax.set_ylim(least - margin, most + margin)
