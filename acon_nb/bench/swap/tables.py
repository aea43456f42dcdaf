"""Rows of swap studies as tables for people, and the checks that come with every study in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from acon_nb.bench import results, stats
from acon_nb.bench.rows import usable
from acon_nb.bench.swap.calibration import CODECS
from acon_nb.bench.swap.data import ALGORITHMS, Ratios
from acon_nb.bench.swap.experiment import determinism
from acon_nb.units import format_bytes, format_seconds

if TYPE_CHECKING:
    import pandas as pd

_CELL = ("clock", "factor_workload", "factor_pattern", "factor_data", "factor_pressure", "cell")


def data_table(ratios: Mapping[str, Ratios]) -> pd.DataFrame:
    """What each algorithm makes of the data, known before anything boots: ratio, deviation of a page's size, and the
    share of pages that lz4 leaves whole."""
    return results.frame(
        {
            "data": name,
            **{algorithm: _ratio(found, algorithm) for algorithm in ALGORITHMS},
            "whole (lz4)": f"{100 * found.whole_share.get('lz4', 0):.1f} %",
        }
        for name, found in ratios.items()
    )


def swap_table(rows: pd.DataFrame) -> pd.DataFrame:
    """A row a cell: the swap, how it ended, accesses a second with their interval, faults, the pool, the disk."""
    if rows.empty:
        return results.frame([])
    measured = rows[(rows["factor_workload"] != "codec") & (rows["factor_copy"] == "")]
    found = []
    for (clock, workload, pattern, data, pressure, _), part in measured.groupby(list(_CELL), sort=False):
        good, left = usable(part)
        found.append(
            {
                "clock": clock,
                "work": f"{workload}, {pattern}, {data}",
                "pressure": f"{pressure:g}",
                "swap": part["configuration"].iloc[0],
                "accesses/s": _summary(good, "access_ops_per_s"),
                "fault p50, p99": f"{_time(good, 'fault_p50_ns')}, {_time(good, 'fault_p99_ns')}",
                "faults": _share(good),
                "pool": _pool(good),
                "disk, read": _bytes(good, "disk_read_bytes"),
                "corrupt": _most(part, "corrupt_pages"),
                "not counted": left.text(),
            }
        )
    return results.frame(found)


def checks(rows: pd.DataFrame) -> list[str]:
    """Calibration and determinism in a line each."""
    return [*calibration_lines(rows), *determinism_lines(rows)]


def calibration_lines(rows: pd.DataFrame) -> list[str]:
    """The dilation as the codec cells measured it, and the one by which the disks were slowed down."""
    said = []
    for clock, part in rows.groupby("clock", sort=False):
        codec = part[part["factor_workload"] == "codec"]
        if "codec_guest_lz4_ns" in codec and codec["codec_guest_lz4_ns"].notna().any():
            times = [
                f"{name} {codec[f'codec_host_{name}_ns'].median() / 1e3:.1f} -> "
                f"{codec[f'codec_guest_{name}_ns'].median() / 1e3:.1f} µs"
                for name in CODECS
            ]
            text = f"{codec['dilation'].median():g} times the host's ({', '.join(times)} a page)"
            said.append(f"Calibration, {clock} clock: the guest's time is {text}.")
        disks = part[part["factor_workload"] != "codec"]
        if "disk_latency_ns" in disks:
            pairs = disks[["disk_latency_hardware_ns", "disk_latency_ns"]].dropna().drop_duplicates()
            for real, told in pairs.itertuples(index=False):
                words = f"a disk of {format_seconds(real / 1e9)} answers after {format_seconds(told / 1e9)}"
                said.append(f"Disk, {clock} clock: {words} of the guest's time.")
    return said


def determinism_lines(rows: pd.DataFrame) -> list[str]:
    """Whether cells that ran twice with one seed gave the same counters and latencies."""
    found = determinism(rows)
    if found.empty:
        return []
    same = int(found["same"].sum())
    text = f"{same} of {len(found)} repeated runs gave the same counters and latencies, bit for bit"
    return [f"Determinism: {text}." if same == len(found) else f"Determinism FAILS: only {text}."]


def _ratio(found: Ratios, name: str) -> str:
    if name not in found.ratio:
        return "nothing to compress"
    return f"{found.ratio[name]:.2f} (sd {found.deviation[name]:.2f})"


def _summary(rows: pd.DataFrame, column: str) -> str:
    values = _values(rows, column)
    if not values:
        return ""
    found = stats.summarise(values)
    return f"{found.median:,.0f}" + (f" [{found.low:,.0f}, {found.high:,.0f}], n={found.n}" if found.n > 1 else "")


def _values(rows: pd.DataFrame, column: str) -> list[float]:
    return [float(value) for value in rows[column].dropna()] if column in rows else []


def _median(rows: pd.DataFrame, column: str) -> float | None:
    values = _values(rows, column)
    return stats.summarise(values).median if values else None


def _time(rows: pd.DataFrame, column: str) -> str:
    value = _median(rows, column)
    return "none" if value is None else format_seconds(value / 1e9)


def _bytes(rows: pd.DataFrame, column: str) -> str:
    value = _median(rows, column)
    return "" if value is None else format_bytes(value)


def _share(rows: pd.DataFrame) -> str:
    faults, count = _median(rows, "fault_count"), _median(rows, "access_count")
    return "" if faults is None or not count else f"{100 * faults / count:.1f} %"


def _pool(rows: pd.DataFrame) -> str:
    pool, saved = _median(rows, "pool_bytes"), _median(rows, "saved_bytes")
    if not pool or saved is None:
        return "no pool"
    return f"{format_bytes(pool)}, saves {format_bytes(saved)}"


def _most(rows: pd.DataFrame, column: str) -> Any:
    values = _values(rows, column)
    return int(max(values)) if values else ""
