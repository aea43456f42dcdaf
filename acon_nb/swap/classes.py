"""The classes of work that a study's codec cells timed on host and guest: a table, and what it means in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acon_nb import results
from acon_nb.swap.calibration import CLASSES, COMPARABLE, differs, fixed_text, is_comparable

if TYPE_CHECKING:
    import pandas as pd

_WORKLOAD = "factor_workload"


def df_classes(rows: pd.DataFrame) -> pd.DataFrame:
    """A row a clock and class of work: medians of the host's and the guest's ns over the codec cells, the dilation, and
    whether the class can be compared with the disk (`calibration.is_comparable`).

    Columns: clock, class, work, host_ns, guest_ns, dilation, comparable. Empty for rows of an older version.
    """
    records = []
    for clock, part in rows.groupby("clock", sort=False) if {"clock", _WORKLOAD} <= set(rows) else ():
        codec = part[part[_WORKLOAD] == "codec"]
        scaling = _scaling(codec)
        for name, work in CLASSES.items():
            host, guest = (_median(codec, f"calibration_{side}_{name}_ns") for side in ("host", "guest"))
            if scaling is None or host is None or guest is None:
                continue
            record = {"clock": clock, "class": name, "work": work, "host_ns": host, "guest_ns": guest}
            comparable = is_comparable(guest / host, scaling)
            records.append({**record, "dilation": guest / host, "comparable": comparable})
    return results.frame(records)


def class_table(rows: pd.DataFrame) -> pd.DataFrame:
    """`df_classes` for people."""
    return results.frame(
        {
            "clock": row["clock"],
            "class of work": row["work"],
            "host": _time(row["host_ns"]),
            "guest": _time(row["guest_ns"]),
            "dilation": f"{row['dilation']:.2g}",
            "with a disk": "comparable" if row["comparable"] else "not comparable",
        }
        for row in df_classes(rows).to_dict("records")
    )


def class_lines(rows: pd.DataFrame) -> list[str]:
    """For each clock: by what a disk is scaled, the dilation of each class, the classes that cannot be compared with a
    disk, and whether the plan fixed another dilation than was measured."""
    table, lines = df_classes(rows), []
    for clock, part in table.groupby("clock", sort=False) if len(table) else ():
        mine = rows[rows["clock"] == clock]
        measured = _scaling(mine[mine[_WORKLOAD] == "codec"])
        assert measured is not None  # df_classes has no rows without
        what = f"fault, decompression and copy take {measured:g} times the host's time in the codec cell"
        lines.append(f"Calibration, {clock} clock: {what}{_scaled_by(mine)}.")
        shares = [f"{row['work']} {row['dilation']:.2g}" for row in part.to_dict("records")]
        lines.append(f"Dilation of each class: {'; '.join(shares)}.")
        far = [f"{row['work']} ({row['dilation']:.2g})" for row in part.to_dict("records") if not row["comparable"]]
        if far:
            lines.append(f"Not comparable with a disk on this clock, over {COMPARABLE:g} times off: {'; '.join(far)}.")
        lines += _warnings(mine, measured)
    return lines


def _scaled_by(rows: pd.DataFrame) -> str:
    used = [f"{one:g}" for one in sorted(set(_disks(rows)["dilation"]))]
    return f"; disks are scaled by {' and '.join(used)}" if used else ""


def _warnings(rows: pd.DataFrame, measured: float) -> list[str]:
    """A warning for each dilation of a disk that is too far from what was measured, fixed by the plan or kept."""
    lines = []
    for used, part in _disks(rows).groupby("dilation"):
        fixed, calibrated = float(used), _median(part, "dilation_measured") or measured  # type: ignore[arg-type]
        if (_median(part, "factor_dilation") or 0) > 0:
            lines += [f"Warning: {fixed_text(fixed, calibrated)}."] if differs(fixed, calibrated) else []
        elif differs(fixed, measured):
            text = f"disks are scaled by {fixed:g}, as calibrated, but the codec cell measured {measured:g}"
            lines.append(f"Warning: {text}: was the host busy at one of the two?")
    return lines


def _disks(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of guests with a simulated disk."""
    if not {"disk_latency_ns", "dilation"} <= set(rows):
        return rows.iloc[:0].assign(dilation=None)
    return rows[(rows[_WORKLOAD] != "codec") & rows["disk_latency_ns"].notna() & rows["dilation"].notna()]


def _scaling(codec: pd.DataFrame) -> float | None:
    return _median(codec, "dilation_measured")


def _time(ns: float) -> str:
    return f"{ns:.3g} ns" if ns < 1000 else f"{ns / 1e3:.3g} µs"


def _median(rows: pd.DataFrame, column: str) -> float | None:
    if column not in rows or rows[column].isna().all():
        return None
    return float(rows[column].median())
