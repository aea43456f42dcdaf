"""What a guest said of its control groups, as columns: peaks, events, pressure, parts of memory.stat, and who killed.

Sizes and counts of several groups are summed; `cgroups` has each group's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

Event = Mapping[str, Any]
_PEAKS = {"peak": "cgroup_peak_bytes", "swap_peak": "cgroup_swap_peak_bytes"}
_SIZES = {"swap": "cgroup_swap_bytes", "zswap": "cgroup_zswap_bytes"}  # while the memory is still held
_STAT_SIZES = {name: f"cgroup_{name}_bytes" for name in ("anon", "file", "shmem", "kernel", "zswapped")}
_EVENTS = {
    "low": "cgroup_low_events",
    "high": "cgroup_high_events",
    "max": "cgroup_max_events",
    "oom": "cgroup_oom_events",
    "oom_kill": "cgroup_oom_kills",
}
_STAT_COUNTS = {
    "pgscan": "cgroup_pgscan_pages",
    "pgsteal": "cgroup_pgsteal_pages",
    "pgmajfault": "cgroup_major_faults",
    "workingset_refault_anon": "cgroup_refault_anon_pages",
    "workingset_refault_file": "cgroup_refault_file_pages",
    "pswpin": "cgroup_pswpin_pages",
    "pswpout": "cgroup_pswpout_pages",
    "zswpin": "cgroup_zswpin_pages",
    "zswpout": "cgroup_zswpout_pages",
    "zswpwb": "cgroup_zswpwb_pages",
}
_GROUP, _GUEST = "group", "guest"


def row_of(events: Sequence[Event]) -> dict[str, Any]:
    """The columns of a guest's control groups; none of a guest without."""
    whole = [event for event in events if event.get("event") == "snapshot" and event.get("cgroups")]
    row: dict[str, Any] = {}
    if whole:
        start, last = whole[0]["cgroups"], whole[-1]["cgroups"]
        filled, warm, done = (_last_in(whole, phase) for phase in ("settle", "warm-up", "access"))
        end = done or last
        row |= {column: _sum(last, name) for name, column in _PEAKS.items()}
        row |= {column: _sum(end, name) for name, column in _SIZES.items()}
        row |= {column: _sum(end, "stat", name) for name, column in _STAT_SIZES.items()}
        row |= {column: _sum(last, "events", name) for name, column in _EVENTS.items()}
        for prefix, first, second in (("fill_", start, filled or last), ("", warm, done)):
            if first and second:
                row |= {f"{prefix}{name}": value for name, value in _growth(first, second).items()}
        row["cgroups"] = json.dumps(last, separators=(",", ":"))
    result = next((event for event in reversed(events) if event.get("event") == "result"), {})
    reclaim = result.get("reclaim")
    if reclaim:
        row |= {f"reclaim_{name}": int(value) for name, value in reclaim.items()}
    return {name: value for name, value in row.items() if value is not None}


def killer_of(events: Sequence[Event]) -> str:
    """Whose OOM killer it was, of a guest that has groups: "group" or "guest"; "" where nothing was killed.

    A group's `oom` counts how often its own limit was reached and nothing could be reclaimed; its `oom_kill` counts its
    killed processes, whoever killed them.
    """
    groups = next((event["cgroups"] for event in reversed(events) if event.get("cgroups")), ())
    if not any(group.get("events", {}).get("oom_kill", 0) for group in groups):
        return ""
    return _GROUP if any(group.get("events", {}).get("oom", 0) for group in groups) else _GUEST


def killer_text(killer: str) -> str:
    """An OOM killer in words."""
    return {_GROUP: "the OOM killer of its group (memory.max)", _GUEST: "the guest's OOM killer"}.get(
        killer, "the OOM killer"
    )


def _growth(first: Sequence[Event], last: Sequence[Event]) -> dict[str, int]:
    row = {}
    for name, column in (("psi_some_us", "cgroup_psi_some_ns"), ("psi_full_us", "cgroup_psi_full_ns")):
        before, after = _sum(first, name), _sum(last, name)
        if before is not None and after is not None:
            row[column] = 1000 * (after - before)
    for name, column in _STAT_COUNTS.items():
        before, after = _sum(first, "stat", name), _sum(last, "stat", name)
        if before is not None and after is not None:
            row[column] = after - before
    return row


def _sum(groups: Sequence[Event], *path: str) -> int | None:
    """The sum of a number over all groups; None where one of them does not have it."""
    total = 0
    for group in groups:
        value: Any = group
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        if value is None:
            return None
        total += int(value)
    return total


def _last_in(events: Sequence[Event], phase: str) -> Any:
    return next((event["cgroups"] for event in reversed(events) if event["phase"] == phase), None)
