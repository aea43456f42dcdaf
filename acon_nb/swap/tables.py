"""Rows of swap studies as tables for people, and the checks that come with every study in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from acon_nb import results
from acon_nb.results.select import usable
from acon_nb.stats import inference
from acon_nb.stats.intervals import interval_words
from acon_nb.swap.analysis.inert import inert_lines
from acon_nb.swap.analysis.measures import level_text
from acon_nb.swap.calibration import CODECS
from acon_nb.swap.classes import class_lines
from acon_nb.swap.data import ALGORITHMS, Ratios
from acon_nb.swap.experiment import determinism
from acon_nb.swap.guest_report import STEADY_CHANGE
from acon_nb.units import format_bytes, format_seconds

if TYPE_CHECKING:
    import pandas as pd

_NAMED = 8
_CAME_BACK = ("pswpin_pages", "zswpin_pages", "swpin_zero_pages")
_LEFT = ("pgsteal_kswapd_pages", "pgsteal_direct_pages")
_FEWEST_PAGES = 100  # that came back: fewer are no pressure
_UNEVEN = 2.0
_LIMITS = {
    "disk_iops_hardware": "reads/s",
    "disk_write_iops_hardware": "writes/s",
    "disk_bandwidth_hardware_bytes_per_s": "MB/s read",
    "disk_write_bandwidth_hardware_bytes_per_s": "MB/s written",
    "disk_queue": "at a time",
}
_DISK = ("disk_latency_hardware_ns", "disk_latency_ns", *_LIMITS)
_CELL = ("clock", "factor_workload", "factor_pattern", "factor_data", "factor_pressure", "cell")


def data_table(ratios: Mapping[str, Ratios]) -> pd.DataFrame:
    """What each algorithm makes of the data, known before anything boots: ratio, deviation of a page's size, and the
    share of pages that lz4 leaves whole."""
    return results.frame(
        {
            "data": name,
            **{algorithm: _ratio(measured, algorithm) for algorithm in ALGORITHMS},
            "whole (lz4)": f"{100 * measured.whole_share.get('lz4', 0):.1f} %",
        }
        for name, measured in ratios.items()
    )


def setups_text(rows: Sequence[Mapping[str, Any]], release: str) -> str:
    """The named set-ups (`needs.setup_rows`) for people, and what a kernel of that release ("": none) has of them."""
    head = f"Linux {release}" if release else "No kernel was looked at: build the study's, or give --kernel"
    parts = [f"{head}."]
    for row in rows:
        levels = ", ".join(f"{name}={level_text(level) or 'none'}" for name, level in row["levels"].items())
        version = f" ({row['as_of']})" if row["as_of"] else ""
        lines = [f"{row['name']}: {row['description']}", f"  {levels}", f"  source: {row['source']}{version}"]
        lines += [f"  not verified: {row['unverified']}"] if row["unverified"] else []
        has = {"has": "it has all of that", "unknown": "cannot know"}.get(row["kernel"], "; ".join(row["lacks"]))
        parts.append("\n".join([*lines, f"  kernel: {has}"]))
    return "\n\n".join(parts)


def swap_table(rows: pd.DataFrame) -> pd.DataFrame:
    """A row a cell: the swap, how it ended, accesses a second with their interval, faults, the pool, the disk."""
    if rows.empty:
        return results.frame([])
    measured = rows[(rows["factor_workload"] != "codec") & (rows["factor_copy"] == "")]
    records = []
    for (clock, workload, pattern, data, pressure, _), part in measured.groupby(list(_CELL), sort=False):
        good, left = usable(part)
        records.append(
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
    return results.frame(records)


def checks(rows: pd.DataFrame) -> list[str]:
    """Calibration, determinism, steady state, reclaim and factors that did nothing, one line per check."""
    return [
        *calibration_lines(rows),
        *determinism_lines(rows),
        *steadiness_lines(rows),
        *reclaim_lines(rows),
        *inert_lines(rows),
    ]


def calibration_lines(rows: pd.DataFrame) -> list[str]:
    """The dilations as the codec cells measured them, and how long the disks took."""
    lines = class_lines(rows)
    for clock, part in rows.groupby("clock", sort=False):
        codec = part[part["factor_workload"] == "codec"]
        if "codec_guest_lz4_ns" in codec and codec["codec_guest_lz4_ns"].notna().any():  # of an older version
            times = [
                f"{name} {codec[f'codec_host_{name}_ns'].median() / 1e3:.1f} -> "
                f"{codec[f'codec_guest_{name}_ns'].median() / 1e3:.1f} µs"
                for name in CODECS
            ]
            text = f"{codec['dilation'].median():g} times the host's ({', '.join(times)} a page)"
            lines.append(f"Calibration, {clock} clock: the guest's time is {text}.")
        disks = part[part["factor_workload"] != "codec"]
        if "disk_latency_ns" in disks:
            columns = [name for name in _DISK if name in disks]
            known = disks[disks["disk_latency_ns"].notna()]
            for disk in known[columns].drop_duplicates().to_dict("records"):
                lines.append(f"Disk, {clock} clock: {_disk_words(disk)}.")
    return lines


def _disk_words(disk: Mapping[Any, Any]) -> str:
    """A simulated disk in a sentence: its latency on hardware and in the guest, and its limits on hardware."""
    real, declared = (format_seconds(disk[name] / 1e9) for name in _DISK[:2])
    limits = [
        f"{disk[name]:,.0f} {unit}" if name.endswith(("iops_hardware", "queue")) else f"{disk[name] / 1e6:,.0f} {unit}"
        for name, unit in _LIMITS.items()
        if name in disk and disk[name] == disk[name]
    ]
    words = f"a disk of {real} answers after {declared} of the guest's time"
    return f"{words} (on hardware {', '.join(limits)})" if limits else words


def determinism_lines(rows: pd.DataFrame) -> list[str]:
    """Whether cells that ran twice with one seed gave the same counters and latencies."""
    repeats = determinism(rows)
    if repeats.empty:
        return []
    same = int(repeats["same"].sum())
    text = f"{same} of {len(repeats)} repeated runs gave the same counters and latencies, bit for bit"
    return [f"Determinism: {text}." if same == len(repeats) else f"Determinism FAILS: only {text}."]


def steadiness_lines(rows: pd.DataFrame) -> list[str]:
    """Whether the cells' rates were steady while they were measured, by the median of each cell's seeds; those whose
    were not are named with their trend."""
    if "rate_trend" not in rows:
        return []
    measured, _ = usable(rows[(rows["factor_workload"] != "codec") & (rows["factor_copy"] == "")])
    trends = measured.dropna(subset=["rate_trend"]).groupby(["clock", "cell"], sort=False)["rate_trend"].median()
    limit = f"{100 * STEADY_CHANGE:g} %"
    cells = [str(cell) for cell in trends.index.get_level_values("cell")]
    moving = [(cell, float(trend)) for cell, trend in zip(cells, trends, strict=True) if abs(trend) > STEADY_CHANGE]
    if not moving:
        what = f"the rate of the second half of the measured accesses is within {limit} of the first's"
        return [f"Steady state: in every cell {what}."] if len(trends) else []
    shown = sorted(moving, key=lambda item: -abs(item[1]))
    named = "; ".join(f"{cell} ({100 * trend:+.1f} %)" for cell, trend in shown[:_NAMED])
    more = f"; and {len(shown) - _NAMED} more" if len(shown) > _NAMED else ""
    what = f"the rate of the second half of their measured accesses differs from that of the first by more than {limit}"
    remedy = "raise accesses, or give until_steady"
    return [f"Steady state: {len(moving)} of {len(trends)} cells are not steady, {what}: {named}{more}; {remedy}."]


def reclaim_lines(rows: pd.DataFrame) -> list[str]:
    """The cells with guests in whose counted accesses far fewer, or far more, pages left memory than came back.

    A guest whose kernel does not count events (VM_EVENT_COUNTERS) cannot be judged.
    """
    if not {*_CAME_BACK, *_LEFT, "access_count"} <= set(rows.columns):
        return []
    measured, _ = usable(rows[(rows["factor_workload"] != "codec") & (rows["factor_copy"] == "")])
    measured = measured.dropna(subset=["access_count", *_LEFT])
    came_back = measured[list(_CAME_BACK)].sum(axis=1)
    share = (measured[list(_LEFT)].sum(axis=1) / came_back)[came_back >= _FEWEST_PAGES]
    uneven = measured.loc[share.index[(share < 1 / _UNEVEN) | (share > _UNEVEN)]]
    if uneven.empty:
        return []
    guests = measured.groupby("cell", sort=False).size()
    named = [f"{cell} ({len(part)} of {guests[cell]})" for cell, part in uneven.groupby("cell", sort=False)]
    where = "; ".join(named[:_NAMED]) + (f"; and {len(named) - _NAMED} more" if len(named) > _NAMED else "")
    what = (
        "while accesses were counted, pages left memory less than half, or more than twice, as often as pages came back"
    )
    why = "the kernel reclaims in bursts, and between them faults are served from free memory: raise accesses"
    return [f"Reclaim: in {len(uneven)} of {len(share)} guests, {what}: {where}; {why}."]


def _ratio(ratios: Ratios, name: str) -> str:
    if name not in ratios.ratio:
        return "nothing to compress"
    return f"{ratios.ratio[name]:.2f} (sd {ratios.deviation[name]:.2f})"


def _summary(rows: pd.DataFrame, column: str) -> str:
    values = _values(rows, column)
    if not values:
        return ""
    summary = inference.summarise(values)
    interval = f" [{summary.low:,.0f}, {summary.high:,.0f}]" if summary.n > 1 else ""
    return f"{summary.median:,.0f}{interval} ({interval_words(summary.n)})"


def _values(rows: pd.DataFrame, column: str) -> list[float]:
    return [float(value) for value in rows[column].dropna()] if column in rows else []


def _median(rows: pd.DataFrame, column: str) -> float | None:
    values = _values(rows, column)
    return inference.summarise(values).median if values else None


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
