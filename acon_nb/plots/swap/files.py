"""All figures of a swap study at once, and figures, tables and sentences as files that a paper takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from acon_nb import results
from acon_nb.cache import atomic_file
from acon_nb.errors import InvalidInput
from acon_nb.plots.style import save
from acon_nb.plots.swap.guests import plot_guest, plot_latency
from acon_nb.plots.swap.study import plot_best, plot_effects, plot_pareto, plot_pressure
from acon_nb.swap.analysis.guests import df_guest
from acon_nb.swap.analysis.outcomes import failures_text
from acon_nb.swap.analysis.rows import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from acon_nb.swap.analysis.study import ClockAnalysis, SwapAnalysis

_FORMATS = ("pdf", "png")


def figures_of(analysis: ClockAnalysis) -> dict[str, Figure]:
    """The figures that the rows allow, by name: one along an axis needs two levels of it, latencies need histograms."""
    figures = {"best": plot_best(analysis.best)} if analysis.best is not None else {}
    if len(analysis.effects):
        figures["effects"] = plot_effects(analysis.effects)
    if analysis.pareto is not None:
        figures["pareto"] = plot_pareto(analysis.pareto)
    for axis, table in analysis.along.items():
        figures[axis] = plot_pressure(table, analysis.break_evens[axis])
    return figures | {f"latency-{kind}": plot_latency(table) for kind, table in analysis.latencies.items()}


def guest_figure(rows: pd.DataFrame, choice: str = "", seed: int | None = None, clock: str = "") -> Figure:
    """Memory, pool and faults of one guest over time: the last row of the choice and seed (default: any) with samples.

    Errors: `InvalidInput` where no such row has samples.
    """
    known = counted(rows, clock)
    part = known.frame
    if choice:
        part = part[part["choice"].map(str) == choice]
    if seed is not None:
        part = part[part["pair"] == seed]
    for row in reversed(part.to_dict("records")):
        table = df_guest(row)
        if len(table):
            return plot_guest(table)
    hint = f"one of {', '.join(map(str, known.choices))}"
    raise InvalidInput("choice", choice, "has no guest with samples", hint=hint)


def save_answers(analysis: SwapAnalysis, folder: str | Path) -> list[Path]:
    """Write every figure (PDF for print, PNG), every table (CSV) and the explanation (text); returns the files.

    Rows of two clocks give two sets of files, each with the clock in its names. Errors: those of the analysis.
    """
    folder, written = Path(folder), []
    for clock in analysis.clocks:
        for name, figure in figures_of(clock).items():
            files = [folder / f"{clock.clock}-{name}.{suffix}" for suffix in _FORMATS]
            save(figure, *files)
            written += files
        for name, table in clock.tables.items():
            written.append(results.export(flat_table(table), folder / f"{clock.clock}-{name}.csv"))
        written.append(folder / f"{clock.clock}-explanation.txt")
        with atomic_file(written[-1]) as temporary:
            temporary.write_text("\n".join(clock.explanation.lines) + "\n")
    return written


def flat_table(table: pd.DataFrame) -> pd.DataFrame:
    """A table for programs that know no lists: several values of a cell, and ends with their counts, as one text."""
    flat = table.copy()
    if "failures" in flat:
        flat["failures"] = list(map(failures_text, flat["failures"], flat["runs"]))
    if "died" in flat:
        flat["died"] = [
            "; ".join(f"{label}: {failures_text(ends, runs)}" for label, ends, runs in died) for died in flat["died"]
        ]
    for name in ("best", "beaten_by", "errors"):
        if name in flat:
            flat[name] = flat[name].map("; ".join)
    return flat
