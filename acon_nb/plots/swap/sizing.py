"""The size of zram along pressure: the lines of a fitted model, one a ratio, and the cells that it was fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from acon_nb.plots.style import COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from acon_nb.swap.analysis.sizing import Sizing

_STEPS = 120


def plot_sizing(sizing: Sizing, ratios: Sequence[float], most_pressure: float = 3.0) -> Figure:
    """RAM that the pool takes along pressure, both over the available memory; a cross is where all lies in zram.

    Points are the study's cells of zram, with the codec's ratio on their data. Without a model that holds there are
    points alone.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    ax = figure.subplots()
    pressures = [1 + (most_pressure - 1) * step / _STEPS for step in range(_STEPS + 1)]
    for colour, ratio in zip(COLOURS, ratios if sizing.holds else (), strict=False):
        full = sizing.model.full_at(ratio)
        shown = [pressure for pressure in pressures if pressure <= full]
        pools = [sizing.model.size(ratio, pressure, 1.0).pool for pressure in shown]
        ax.plot(shown, pools, color=colour, label=f"ratio {ratio:g}")
        if full <= most_pressure:
            ax.plot([full], [sizing.model.size(ratio, full, 1.0).pool], marker="x", color=colour, linestyle="")
    for cell in sizing.cells:
        if not cell.limit:
            place = (cell.working_set / cell.available, cell.pool / cell.available)
            ax.plot(*place, marker="o", color="black", markersize=4)
            ax.annotate(f"{cell.ratio:.2f}", place, xytext=(4, -8), textcoords="offset points", fontsize=7)
    ax.set_xlabel("working set / available memory")
    ax.set_ylabel("RAM that zram takes / available memory")
    ax.set_ylim(bottom=0)
    error = f"largest error {100 * sizing.error:.0f} %, each by a fit to the others"
    ax.set_title(f"{len(sizing.cells)} cells, {error}", fontsize=9)
    if sizing.holds and ratios:
        ax.legend(fontsize=8)
    return figure
