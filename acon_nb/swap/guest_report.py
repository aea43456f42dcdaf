"""What a guest of a swap cell said, as the columns of its row (columns.toml has their meaning).

A guest that was killed, hung or ran out of memory leaves what it had said by then; what is not known is not there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from acon_nb.cache import json_sha256
from acon_nb.swap import group_report, program_report
from acon_nb.swap.calibration import times_of
from acon_nb.swap.factors import SwapFactors
from acon_nb.swap.histogram import Histogram
from acon_nb.swap.levels import PAGE_BYTES
from acon_nb.vm import Clock, End, Outcome

_SECTOR = 512
_TICK_NS = 10_000_000  # USER_HZ, proc(5)
_KILLED = 9
_EVENTS = {
    "pswpin": "pswpin_pages",
    "pswpout": "pswpout_pages",
    "zswpin": "zswpin_pages",
    "zswpout": "zswpout_pages",
    "zswpwb": "zswpwb_pages",
    "swpin_zero": "swpin_zero_pages",
    "swpout_zero": "swpout_zero_pages",
    "pgmajfault": "major_faults",
}
# Over the fill and over the accesses alone: a sample has the few that curves are drawn of
_RECLAIM = {
    "swap_ra": "swap_ra_pages",
    "swap_ra_hit": "swap_ra_hit_pages",
    "workingset_refault_anon": "workingset_refault_anon_pages",
    "workingset_refault_file": "workingset_refault_file_pages",
    "pgscan_kswapd": "pgscan_kswapd_pages",
    "pgscan_direct": "pgscan_direct_pages",
    "pgscan_anon": "pgscan_anon_pages",
    "pgscan_file": "pgscan_file_pages",
    "pgsteal_kswapd": "pgsteal_kswapd_pages",
    "pgsteal_direct": "pgsteal_direct_pages",
    "pgsteal_anon": "pgsteal_anon_pages",
    "pgsteal_file": "pgsteal_file_pages",
}
_STALLS = "allocstall_"  # one for each zone
STEADY_CHANGE = 0.05  # docs/swap.md has the criterion
_MM_STAT = ("orig", "compressed", "used", "limit", "used_max", "same", "compacted", "huge", "huge_since")

Event = Mapping[str, Any]


def row_of(factors: SwapFactors, outcome: Outcome) -> dict[str, Any]:
    """The columns of an ended guest."""
    events = [message.data for message in outcome.messages]
    result = _last(events, "result")
    row: dict[str, Any] = {
        **_timings(events, result),
        **_counters(factors, events),
        "samples": json.dumps(samples(factors, events), separators=(",", ":")),
        "knobs": "\n".join(f"{event['path']}={event['value']}" for event in _all(events, "knob")),
    }
    if result:
        row["corrupt_pages"] = int(result["corrupt"])
        row["first_corrupt_page"] = result.get("first_corrupt")
        row["things"] = int(result["things"])
        row["held_bytes"] = result.get("held")
        row |= steadiness(result)
    row |= group_report.row_of(events)
    if result and _killed(events, result) and (killer := group_report.killer_of(events)):
        row["oom_killer"] = killer
    if factors.workload == "program":
        row |= program_report.columns(events, result)
    classes = _last(events, "classes")
    if classes:
        row |= {f"calibration_guest_{name}_ns": value for name, value in times_of(classes).items()}
    if factors.clock == Clock.INSTRUCTIONS and outcome.end is End.POWERED_OFF:
        row["counters_sha256"] = digest(events)
    return {name: value for name, value in row.items() if value is not None}


def end_of(events: Sequence[Event], outcome: Outcome) -> tuple[End, str]:
    """How the cell ended, and what went wrong in words ("" if nothing)."""
    result, stall = _last(events, "result"), _last(events, "stall")
    reasons = [str(event["what"]) for event in _all(events, "error")]
    reasons += [f"{event['step']}: {event['what']}" for event in _all(events, "init-failure")]
    if stall:
        reasons.append(f"no progress in {stall['phase']} after {stall['done']}: the stacks are in the log")
        return End.HANG, "; ".join(reasons)
    if result and _killed(events, result):
        killer = group_report.killer_text(group_report.killer_of(events))
        reasons.append(f"killed by {killer} in {result['phase']} after {result['done']}")
        reasons += [str(result["failed"])] if result.get("failed") else []
        return End.OUT_OF_MEMORY, "; ".join(reasons)
    if result and result.get("failed"):
        reasons.append(str(result["failed"]))
    if result:
        reasons += program_report.problems(events, result)
    if result and result["corrupt"]:
        reasons.append(f"{result['corrupt']} pages are corrupt, the first is {result.get('first_corrupt')}")
    if outcome.end is End.POWERED_OFF:
        if not result and not _last(events, "classes") and not reasons:
            reasons.append("powered off without a result")
    else:
        reasons += [outcome.hint, *outcome.notes]
    return outcome.end, "; ".join(filter(None, reasons))


def _killed(events: Sequence[Event], result: Event) -> bool:
    return result.get("signal") == _KILLED or program_report.is_out_of_memory(events, result)


def digest(events: Iterable[Event]) -> str:
    """The hash of all that a guest said: counters, samples, histograms. Equal runs have equal hashes."""
    return json_sha256([dict(event) for event in events])


def samples(factors: SwapFactors, events: Iterable[Event]) -> list[dict[str, Any]]:
    """The counters over time: `t_ns` since the fill began, counters since boot."""
    return [sample(factors, event) for event in events if event.get("event") in ("sample", "snapshot", "stall")]


def sample(factors: SwapFactors, event: Event) -> dict[str, Any]:
    """One sample: a guest's line of a few counters, or of all."""
    memory = event.get("meminfo_kib", event)
    counts = event.get("vmstat", event)
    pool, stored = _pool(factors, event)
    used = None if "SwapTotal" not in memory else 1024 * (memory["SwapTotal"] - memory["SwapFree"])
    columns: dict[str, Any] = {
        "t_ns": event["t_ns"],
        "phase": event["phase"],
        "done": event["done"],
        "memavailable_bytes": _kib(memory.get("MemAvailable")),
        "memfree_bytes": _kib(memory.get("MemFree")),
        "pool_bytes": pool,
        "pool_stored_bytes": stored,
        "swap_used_bytes": used,
        **{column: counts.get(name) for name, column in _EVENTS.items()},
        "disk_read_bytes": _sectors(event.get("disk_read_sectors")),
        "disk_written_bytes": _sectors(event.get("disk_written_sectors")),
        "psi_some_ns": _times(event.get("psi_some_us"), 1000),
        "psi_full_ns": _times(event.get("psi_full_us"), 1000),
        "kswapd_cpu_ns": event.get("kswapd_cpu_ns"),
    }
    return {name: value for name, value in columns.items() if value is not None}


def steadiness(result: Event) -> dict[str, Any]:
    """Whether the second half of the measured accesses kept the rate of the first, from a guest's result.

    Keys: rate_trend (the share by which the rate of the second half is above that of the first), steady (the trend is
    at most `STEADY_CHANGE`, up or down), warmup_accesses (done before). None of a guest that did not end its accesses,
    or whose program did no accesses of ours.
    """
    first_ns, whole_ns, count = result.get("half_ns"), result["access_ns"], result["done"]
    if result["phase"] != "end" or not first_ns or count < 2 or whole_ns <= first_ns:
        return {}
    half = count // 2
    trend = (count - half) / (whole_ns - first_ns) / (half / first_ns) - 1
    columns = {"rate_trend": trend, "steady": abs(trend) <= STEADY_CHANGE, "warmup_accesses": result["warmed"]}
    return columns | ({"zram_rounds": result["rounds"]} if result.get("rounds") else {})


def _timings(events: Sequence[Event], result: Event | None) -> dict[str, Any]:
    timing = {event["name"]: Histogram.of(event) for event in _all(events, "timing")}
    row: dict[str, Any] = {}
    for name, histogram in timing.items():
        row |= histogram.row(name)
    if "hit" in timing and "fault" in timing:
        row |= (timing["hit"] + timing["fault"]).row("access")
    if result and result["fill_ns"] and timing:
        row["fill_elapsed_ns"] = result["fill_ns"]
        pages = result["things"] if result["phase"] != "fill" else result["done"]
        row["fill_pages_per_s"] = pages * 1e9 / result["fill_ns"]
    if result and result["access_ns"] and row.get("access_count"):
        row["access_elapsed_ns"] = result["access_ns"]
        row["access_ops_per_s"] = row["access_count"] * 1e9 / result["access_ns"]
    return row


def _counters(factors: SwapFactors, events: Sequence[Event]) -> dict[str, Any]:
    """Differences over the fill (`fill_`) and over the measured accesses, and the state at the end."""
    whole = _all(events, "snapshot")
    if not whole:
        return {}
    start, last = whole[0], whole[-1]
    filled, warm, done = (_last_in(whole, phase) for phase in ("settle", "warm-up", "access"))
    row = {f"fill_{name}": value for name, value in _change(factors, start, filled or last).items()}
    if factors.workload == "program":
        row |= _change(factors, start, done or last)
    elif warm and warm is not last:
        row |= _change(factors, warm, done or last)
    row["memavailable_start_bytes"] = _kib(start["meminfo_kib"].get("MemAvailable"))
    row["memtotal_bytes"] = _kib(start["meminfo_kib"].get("MemTotal"))
    if "oom_kill" in last["vmstat"]:
        row["oom_kills"] = last["vmstat"]["oom_kill"] - start["vmstat"].get("oom_kill", 0)
    row |= _watched(start, done or last)
    peaks = [values["pool_bytes"] for values in samples(factors, events) if "pool_bytes" in values]
    row["peak_pool_bytes"] = max(peaks) if peaks else None
    return row | _state(factors, done or _last(events, "sample") or last)


def _watched(first: Event, last: Event) -> dict[str, Any]:
    """Counters of huge pages by size, as JSON: what was counted since the fill began, nr_* as they are at the end."""
    row: dict[str, Any] = {}
    if last.get("huge_pages"):
        before = first.get("huge_pages", {})
        sizes = {
            f"{size}K": {
                name: count if name.startswith("nr_") else count - before.get(size, {}).get(name, 0)
                for name, count in counts.items()
            }
            for size, counts in last["huge_pages"].items()
        }
        row["huge_pages"] = json.dumps(sizes, separators=(",", ":"), sort_keys=True)
    if "damon_reclaimed" in last:
        row["damon_reclaimed_bytes"] = int(last["damon_reclaimed"]) - int(first.get("damon_reclaimed", 0))
    return row


def _state(factors: SwapFactors, event: Event) -> dict[str, Any]:
    """What was held when the accesses ended; of a guest that died, when it was last looked at."""
    values = sample(factors, event)
    row = {name: values.get(name) for name in ("memavailable_bytes", "swap_used_bytes")}
    pool, stored = _pool(factors, event)
    row |= {"pool_bytes": pool, "pool_stored_bytes": stored, **_pool_details(factors, event)}
    if pool and stored:
        row |= {"saved_bytes": stored - pool, "compression_ratio": stored / pool}
    return row


def _last_in(events: Sequence[Event], phase: str) -> Event | None:
    return next((event for event in reversed(events) if event["phase"] == phase), None)


def _change(factors: SwapFactors, first: Event, last: Event) -> dict[str, Any]:
    old, new = sample(factors, first), sample(factors, last)
    names = (*_EVENTS.values(), "disk_read_bytes", "disk_written_bytes", "psi_some_ns", "psi_full_ns", "kswapd_cpu_ns")
    row = {name: new[name] - old[name] for name in names if name in old and name in new}
    row |= _reclaim(first["vmstat"], last["vmstat"])
    before, after = first.get("cpu_ticks"), last.get("cpu_ticks")
    if before and after:
        spent = {name: (after[name] - before[name]) * _TICK_NS for name in after}
        spent["idle"] += spent["iowait"]  # idle while something waits for a disk
        row |= {f"{name}_cpu_ns": value for name, value in spent.items()}
    return row


def _reclaim(old: Event, new: Event) -> dict[str, int]:
    """The growth of reclaim's counters; a kernel without events counted has none."""
    row = {column: new[name] - old[name] for name, column in _RECLAIM.items() if name in old and name in new}
    stalls = [name for name in new if name.startswith(_STALLS) and name in old]
    return row | ({"allocstalls": sum(new[name] - old[name] for name in stalls)} if stalls else {})


def _pool(factors: SwapFactors, event: Event) -> tuple[int | None, int | None]:
    """RAM that the pool takes, and the bytes of the pages in it (zram counts those on its backing device too)."""
    if factors.swap == "zram":
        numbers = _mm_stat(event)
        if "orig" not in numbers:
            return None, None
        return numbers["used"], numbers["orig"] - PAGE_BYTES * sum(_bd_stat(event)[:1])
    if factors.swap != "zswap":
        return None, None
    debug = event.get("zswap", {})
    if "pool_total_size" in debug:
        return debug["pool_total_size"], debug["stored_pages"] * PAGE_BYTES
    memory = event.get("meminfo_kib", event)
    return _kib(memory.get("Zswap")), _kib(memory.get("Zswapped"))


def _pool_details(factors: SwapFactors, event: Event) -> dict[str, Any]:
    """Counts of the pool apart from its size; zram: Documentation/admin-guide/blockdev/zram.rst (mm_stat, bd_stat)."""
    if factors.swap == "zswap":
        return {f"zswap_{name}": value for name, value in event.get("zswap", {}).items()}
    numbers = _mm_stat(event)
    if factors.swap != "zram" or not numbers:
        return {}
    row = {
        "pool_compressed_bytes": numbers["compressed"],
        "pool_same_pages": numbers["same"],
        "pool_huge_pages": numbers.get("huge"),
    }
    written = _bd_stat(event)
    if len(written) == 3:
        row |= {"backing_stored_bytes": written[0] * PAGE_BYTES, "backing_written_bytes": written[2] * PAGE_BYTES}
    return row


def _mm_stat(event: Event) -> dict[str, int]:
    words = str(event.get("zram_mm_stat", "")).split()
    return dict(zip(_MM_STAT, map(int, words), strict=False))


def _bd_stat(event: Event) -> list[int]:
    return [int(word) for word in str(event.get("zram_bd_stat", "")).split()]


def _all(events: Iterable[Event], name: str) -> list[Event]:
    return [event for event in events if event.get("event") == name]


def _last(events: Sequence[Event], name: str) -> Event | None:
    return next((event for event in reversed(events) if event.get("event") == name), None)


def _kib(value: int | None) -> int | None:
    return _times(value, 1024)


def _sectors(value: int | None) -> int | None:
    return _times(value, _SECTOR)


def _times(value: int | None, factor: int) -> int | None:
    return None if value is None else value * factor
