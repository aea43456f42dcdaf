"""Rows of studies as tables for people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from acon_nb.bench import results, stats
from acon_nb.bench.rows import usable
from acon_nb.units import format_bytes
from acon_nb.vm import Clock, End

if TYPE_CHECKING:
    import pandas as pd

_TAIL_LINES = 10
# What a boot is asked for first, on each clock.
_TIMES = {Clock.WALL: "host_ns_init", Clock.INSTRUCTIONS: "guest_ns_reset_to_init"}
_LABELS = {Clock.WALL: "QEMU's start to /init", Clock.INSTRUCTIONS: "reset to /init"}


def study_table(rows: pd.DataFrame) -> pd.DataFrame:
    """A row a cell, the fastest first, the clocks one below the other: time to `/init`, memory, what did not count."""
    found: list[tuple[Any, ...]] = []
    for (clock, cell), part in rows.groupby(["clock", "cell"], sort=False):
        good, left = usable(part)
        column = _TIMES[Clock(str(clock))]
        if good.empty or column not in good or good[column].isna().all():
            found.append((clock, float("inf"), cell, "no whole run", "", left.text()))
            continue
        summary = stats.summarise(list(good[column].dropna()))
        digits = 6 if clock == Clock.INSTRUCTIONS else 3
        memory = format_bytes(good["memavailable_bytes"].median())
        found.append((clock, summary.median, cell, summary.text(1e9, "s", digits), memory, left.text()))
    return results.frame(
        {
            "clock": clock,
            "cell": cell,
            "time": f"{_LABELS[Clock(str(clock))]}: {time}",
            "MemAvailable at /init": memory,
            "not counted": left,
        }
        for clock, _, cell, time, memory, left in sorted(found)
    )


def failures(rows: pd.DataFrame, folder: Path) -> list[str]:
    """The runs that were not whole, in words: cell, end, why, the log's last lines."""
    said = []
    for row in rows[(rows["end"] != End.POWERED_OFF.value) | (rows["error"] != "")].to_dict("records"):
        if row["host_fault"] and row["attempt"] < rows[rows["turn_key"] == row["turn_key"]]["attempt"].max():
            continue  # done again
        why = row["error"] or row["host_fault"]
        lines = [f"{row['cell']} ended: {row['end']}" + (f": {why}" if why else "")]
        if row["log"]:
            path = folder / str(row["log"])
            lines += [f"  | {line}" for line in _tail(path)] + [f"  log: {path}"]
        said.append("\n".join(lines))
    return said


def _tail(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").replace("\r", "").splitlines()[-_TAIL_LINES:]
    except OSError:
        return []
