"""Rows of studies as tables for people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from acon_nb import results
from acon_nb.results.metrics import Metric, metric
from acon_nb.results.select import usable
from acon_nb.stats import inference
from acon_nb.study.kinds import kind_of_rows
from acon_nb.vm import GOOD_ENDS, end_text

if TYPE_CHECKING:
    import pandas as pd

_TAIL_LINES = 10
_WIDE = 8


def study_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the table of a study for people, as its kind makes it (default: `cell_table`)."""
    known = kind_of_rows(rows)
    return known.table(rows) if known is not None and known.table is not None else cell_table(rows)


def more_tables(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the tables that follow that of a study, by title; those without a row are omitted."""
    known = kind_of_rows(rows)
    made = {title: make(rows) for title, make in known.more_tables.items()} if known is not None else {}
    return {title: table for title, table in made.items() if len(table)}


def study_sentences(rows: pd.DataFrame) -> list[str]:
    """Return what else the kind of a study reports of its rows, such as the outcome of its own checks."""
    known = kind_of_rows(rows)
    return list(known.sentences(rows)) if known is not None and known.sentences is not None else []


def table_text(table: pd.DataFrame) -> str:
    """Format a table as text: one line per row, or transposed if that is too wide for a terminal."""
    if table.shape[1] > _WIDE:
        return table.T.to_string(header=False)
    return table.to_string(index=False)


def cell_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row per cell and clock: the first measures of its kind, and what did not count.

    A value is the median with its interval, and what that is. Rows of a kind that is not installed have no value.
    """
    known = kind_of_rows(rows)
    lines = []
    for (clock, cell), part in rows.groupby(["clock", "cell"], sort=False) if len(rows) else ():
        good, left = usable(part)
        line: dict[str, Any] = {"clock": clock, "cell": cell, "runs": len(good)}
        for measure in map(metric, known.measures if known is not None else ()):
            if measure.name in good and measure.clock in ("", clock) and good[measure.name].notna().any():
                line[measure.label] = _summary_text(good[measure.name], measure, str(clock))
        lines.append({**line, "not counted": left.text()})
    return results.frame(lines)


def failures(rows: pd.DataFrame, folder: Path) -> list[str]:
    """Describe the runs that failed: cell, end, reason, the last lines of the log."""
    texts = []
    for row in rows[~rows["end"].isin([one.value for one in GOOD_ENDS]) | (rows["error"] != "")].to_dict("records"):
        if row["host_fault"] and row["attempt"] < rows[rows["run_key"] == row["run_key"]]["attempt"].max():
            continue  # repeated
        why = row["error"] or end_text(str(row["host_fault"]))
        lines = [f"{row['cell']} ended: {end_text(str(row['end']))}" + (f": {why}" if why else "")]
        if row["log"]:
            path = folder / str(row["log"])
            lines += [f"  | {line}" for line in _tail(path)] + [f"  log: {path}"]
        texts.append("\n".join(lines))
    return texts


def _summary_text(values: pd.Series[float], measure: Metric, clock: str) -> str:
    summary = inference.summarise(list(values.dropna()))
    low, median, high = (measure.text(value, clock) for value in (summary.low, summary.median, summary.high))
    return median if low == high else f"{median} [{low}, {high}] ({summary.interval.text})"


def _tail(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").replace("\r", "").splitlines()[-_TAIL_LINES:]
    except OSError:
        return []
