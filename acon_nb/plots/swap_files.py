"""All figures and tables of a swap study at once, and as files that a paper takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from acon_nb.bench import results
from acon_nb.bench import swap_tables as tables
from acon_nb.bench.answers import Explanation, Question, explain
from acon_nb.bench.swap_guests import df_guest, df_latency
from acon_nb.bench.swap_rows import THROUGHPUT, Counted, counted
from acon_nb.cache import atomic_file
from acon_nb.errors import InvalidInput
from acon_nb.plots.style import save
from acon_nb.plots.swap_guests import plot_guest, plot_latency
from acon_nb.plots.swap_study import plot_best, plot_effects, plot_pareto, plot_pressure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_FORMATS = ("pdf", "png")
_AXES = ("pressure", "disk_latency")


def figures_of(found: Counted, metric: str = THROUGHPUT) -> dict[str, Figure]:
    """The figures that the rows allow, by name: one along an axis needs two levels of it, latencies need histograms."""
    figures = {"best": plot_best(tables.df_best(found, metric))} if _has(found, "data", "pressure") else {}
    effects = tables.df_effects(found, metric)
    if len(effects):
        figures["effects"] = plot_effects(effects)
    if tables.SAVED in found.frame:
        figures["pareto"] = plot_pareto(tables.df_pareto(found, metric))
    for axis in _AXES:
        if axis in found.situations:
            points = tables.df_breakeven(found, metric, axis=axis)
            figures[axis] = plot_pressure(tables.df_pressure(found, metric, axis=axis), points)
    for kind in ("access", "fault"):
        shares = df_latency(found, kind)
        if len(shares):
            figures[f"latency-{kind}"] = plot_latency(shares)
    return figures


def tables_of(found: Counted, metric: str = THROUGHPUT) -> dict[str, pd.DataFrame]:
    """The tables behind the figures and sentences, by name; those without a row are left out."""
    made = {
        "choices": tables.df_choices(found, metric),
        "effects": tables.df_effects(found, metric),
        "outcomes": tables.df_outcomes(found),
    }
    if _has(found, "data", "pressure"):
        made["best"] = tables.df_best(found, metric)
    if tables.SAVED in found.frame:
        made["pareto"] = tables.df_pareto(found, metric)
    for axis in _AXES:
        if axis in found.situations:
            made[axis] = tables.df_pressure(found, metric, axis=axis)
            made[f"breakeven-{axis}"] = tables.df_breakeven(found, metric, axis=axis)
    return {name: table for name, table in made.items() if len(table)}


def guest_figure(rows: pd.DataFrame, choice: str = "", seed: int | None = None, clock: str = "") -> Figure:
    """Memory, pool and faults of one guest over time: the last row of the choice and seed (default: any) with samples.

    Errors: `InvalidInput` where no such row has samples.
    """
    found = counted(rows, clock)
    part = found.frame[(found.frame["choice"] == choice) | (choice == "")]
    part = part[(part["pair"] == seed) | (seed is None)]
    for row in reversed(part.to_dict("records")):
        table = df_guest(row)
        if len(table):
            return plot_guest(table)
    hint = f"one of {', '.join(dict.fromkeys(found.frame['choice']))}"
    raise InvalidInput("choice", choice, "has no guest with samples", hint=hint)


def save_answers(rows: pd.DataFrame, folder: Path, question: Question | None = None) -> list[Path]:
    """Write every figure (PDF for print, PNG), every table (CSV) and the explanation (text); returns the files.

    Rows of two clocks give two sets of files, each with the clock in its names. Errors: those of `explain`.
    """
    asked = question or Question()
    written = []
    for told in explain(rows, asked):
        found = counted(rows, told.clock if "clock" in rows else "")
        for name, figure in figures_of(found, asked.metric).items():
            for suffix in _FORMATS:
                written.append(folder / f"{told.clock}-{name}.{suffix}")
                save(figure, written[-1])
        for name, table in tables_of(found, asked.metric).items():
            written.append(results.export(table, folder / f"{told.clock}-{name}.csv"))
        written.append(_text(folder / f"{told.clock}-explanation.txt", told))
    return written


def _text(path: Path, told: Explanation) -> Path:
    with atomic_file(path) as temporary:
        temporary.write_text("\n".join(told.lines) + "\n")
    return path


def _has(found: Counted, *factors: str) -> bool:
    return all(f"factor_{name}" in found.frame for name in factors)
