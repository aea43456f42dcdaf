"""Figures of the guests of a swap study: distributions of latencies, and one guest over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from acon_nb.plots.style import COLOURS
from acon_nb.plots.swap.style import Style, clock_words, grid, largest, legend, styles_of, title
from acon_nb.vm import End, end_text

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MIB = float(1 << 20)


def plot_latency(table: pd.DataFrame, *, most: int = 3) -> Figure:
    """Distributions of latencies (`df_latency`): the share up to each latency, and the tail; bands span the seeds."""
    shown = largest(table, "situation", most)
    figure, lines = grid(len(shown), 2, (5.2, 3.6))
    styles = styles_of(table)
    for axes, (situation, part) in zip(lines, shown, strict=True):
        for choice, mine in part.groupby("choice", sort=False):
            _distribution(axes, mine, styles[str(choice)], str(choice))
        axes[0].set_ylabel("share of accesses")
        axes[1].set_ylabel("share of accesses that take longer")
        tail = 1 - part["share"]
        axes[1].set_ylim(max(1e-9, float(tail[tail > 0].min()) / 2) if (tail > 0).any() else 0.1, 1.2)
        axes[1].set_yscale("log")
        for ax in axes:
            ax.set_xscale("log")
            ax.set_xlabel(f"latency / µs ({clock_words(table)})")
        axes[0].set_title(situation or "all rows", fontsize=9)
    kind = str(table["kind"].iloc[0]) if len(table) else "access"
    legend(figure, [axes[0] for axes in lines])
    text = f"Latency of each {kind}; bands: least and greatest of the seeds"
    figure.suptitle(title(text, table, "n", most=most))
    return figure


def plot_guest(table: pd.DataFrame) -> Figure:
    """Memory, pool and swap of one guest over time, and its major faults (`df_guest`); dotted: a new phase."""
    from acon_nb.jupyter.show import ShownFigure

    figure = ShownFigure(figsize=(8.5, 5.2), layout="constrained")
    memory, faults = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    seconds = table["t_ns"].astype(float) / 1e9
    lines = (
        ("memavailable_bytes", "MemAvailable", COLOURS[0], "-"),
        ("pool_bytes", "RAM that the pool takes", COLOURS[1], "--"),
        ("swap_used_bytes", "swap in use", COLOURS[2], "-."),
    )
    for column, label, colour, line in lines:
        values = table[column].astype(float) / _MIB
        if values.notna().any():
            memory.plot(seconds, values, line, color=colour, label=label)
    faults.step(seconds, table["faults_per_s"].astype(float), color=COLOURS[3], where="pre")
    for ax in (memory, faults):
        ax.spines[["top", "right"]].set_visible(False)
        ax.set_ylim(bottom=0)
        for number, (place, phase) in enumerate(_phases(table)):
            ax.axvline(place, color="0.6", linestyle=":", linewidth=1)
            if ax is memory:
                ax.annotate(
                    phase,
                    (place, 1.0 + 0.05 * (number % 2)),
                    xycoords=("data", "axes fraction"),
                    fontsize=8,
                    va="bottom",
                )
    memory.set_ylabel("MiB")
    if memory.get_legend_handles_labels()[0]:
        memory.legend(frameon=False, fontsize=8)
    faults.set_ylabel("major faults / s")
    faults.set_xlabel(f"time since the fill began / s ({clock_words(table)})")
    first = table.iloc[0].to_dict() if len(table) else {}
    ended = f", ended: {end_text(str(first['end']))}" if first.get("end") not in (None, "", End.POWERED_OFF) else ""
    figure.suptitle(f"{first.get('choice') or 'One guest'} over time (n = 1{ended})")
    return figure


def _distribution(axes: Sequence[Axes], mine: pd.DataFrame, style: Style, label: str) -> None:
    """One choice's shares, and what is left of 1 in the tail."""
    xs = [max(float(value), 1.0) / 1e3 for value in mine["latency_ns"]]
    for ax, columns in zip(axes, (("share", "low", "high"), ("share", "high", "low")), strict=True):
        tail = ax is axes[1]
        ys, lows, highs = ([1 - value if tail else value for value in mine[name]] for name in columns)
        if tail:  # the last bucket leaves nothing, which a logarithmic axis cannot show
            ys, lows, highs = ([value if value > 0 else math.nan for value in side] for side in (ys, lows, highs))
        ax.step(xs, ys, style.line, where="post", color=style.colour, label=label)
        ax.fill_between(xs, lows, highs, step="post", color=style.colour, alpha=0.15, linewidth=0)


def _phases(table: pd.DataFrame) -> list[tuple[float, str]]:
    """Where each phase begins: seconds and its name."""
    phases: list[tuple[float, str]] = []
    for row in table.to_dict("records"):
        phase = str(row["phase"] or "")[:20]
        if phase and (not phases or phases[-1][1] != phase):
            phases.append((float(row["t_ns"]) / 1e9, phase))
    return phases
