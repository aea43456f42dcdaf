"""What a guest said of the program that it ran: how it ended, what it printed, what it reported of its own work."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from acon_nb.swap.histogram import Histogram
from acon_nb.units import format_seconds

AT_ONCE_NS = 20_000_000  # a program that ended so soon has not got as far as its work
_LIBRARY = re.compile(rb"error while loading shared libraries: ([^\n]{1,300})")
_WHAT = {
    "root": "its root cannot be entered",
    "folder": "program_folder is not a folder of the guest's",
    "user": "program_user is not a user of the guest's",
    "group": "the group of program_user is not one of the guest's",
    "stdin": "stdin cannot be read",
}
_REASONS = {
    errno.ENOEXEC: "it is neither a program for this machine nor a script with #! and an interpreter",
    errno.EACCES: "it may not be executed: it is a folder, or lacks the permission",
    errno.E2BIG: "its arguments and environment are too long",
    errno.ELIBBAD: "its interpreter is damaged",
}

Event = Mapping[str, Any]


class ProgramEnd(StrEnum):
    """How a program ended."""

    EXITED = "exited"
    AT_ONCE = "at_once"
    FAILED = "failed"
    SIGNAL = "signal"
    OUT_OF_MEMORY = "out_of_memory"
    STOPPED = "stopped"
    NOT_STARTED = "not_started"
    NO_LIBRARY = "no_library"
    NO_END = "no_end"


def columns(events: Sequence[Event], result: Event | None) -> dict[str, Any]:
    """The columns of a program: its end, status, signal and time; and of what it reported, rates and latencies."""
    row: dict[str, Any] = {"program_end": str(end_of(events, result)), **_reported(events)}
    if result and "program_status" in result:
        status = int(result["program_status"])
        row |= {"program_elapsed_ns": result["access_ns"], "program_left_running": result.get("program_left")}
        if os.WIFSIGNALED(status):
            row["program_signal"] = os.WTERMSIG(status)
        else:
            row["program_status"] = os.WEXITSTATUS(status)
    return row


def end_of(events: Sequence[Event], result: Event | None) -> ProgramEnd:
    """How the program of a guest ended."""
    if result is None or "program_status" not in result:
        return ProgramEnd.NO_END
    status = int(result["program_status"])
    if result.get("program_what"):
        return ProgramEnd.NOT_STARTED
    if result.get("program_stopped"):
        return ProgramEnd.STOPPED
    if is_out_of_memory(events, result):
        return ProgramEnd.OUT_OF_MEMORY
    if os.WIFSIGNALED(status):
        return ProgramEnd.SIGNAL
    if os.WEXITSTATUS(status) == 127 and _LIBRARY.search(output(events)):
        return ProgramEnd.NO_LIBRARY
    if status:
        return ProgramEnd.FAILED
    return ProgramEnd.AT_ONCE if int(result["access_ns"]) < AT_ONCE_NS else ProgramEnd.EXITED


def is_out_of_memory(events: Sequence[Event], result: Event) -> bool:
    """Whether the OOM killer ended the program, or a part of it without which it failed."""
    if not result.get("program_status") or result.get("program_stopped"):
        return False
    counts = [event["vmstat"].get("oom_kill", 0) for event in events if event.get("event") == "snapshot"]
    return bool(counts and counts[-1] > counts[0])


def problems(events: Sequence[Event], result: Event) -> list[str]:
    """Why the run of a program does not count, in words; none if it ended well."""
    end, status = end_of(events, result), int(result.get("program_status", 0))
    if end is ProgramEnd.NOT_STARTED:
        return [f"the program did not start: {_not_started(result)}"]
    if end is ProgramEnd.SIGNAL:
        return [f"the program was ended by {_signal_name(os.WTERMSIG(status))}: its output is in the log"]
    if end is ProgramEnd.NO_LIBRARY:
        missing = _LIBRARY.search(output(events))
        return [f"the program lacks a library: {missing[1].decode(errors='replace').strip() if missing else ''}"]
    if end is ProgramEnd.FAILED:
        return [f"the program ended with status {os.WEXITSTATUS(status)}: its output is in the log"]
    elapsed = format_seconds(int(result.get("access_ns", 0)) / 1e9)
    if end is ProgramEnd.STOPPED and not _reported(events).get("reported_operations"):
        return [f"the program was stopped after program_time, {elapsed}, and had reported no operations"]
    if end is ProgramEnd.AT_ONCE and not _reported(events):
        return [f"the program ended at once, after {elapsed}, with status 0: there is nothing to measure"]
    if end is ProgramEnd.EXITED and (left := int(result.get("program_left", 0))) > 0:
        what = f"the program ended after {elapsed} with {left} of its processes still running"
        return [f"{what}: a service must stay in the foreground"]
    return []


def _not_started(result: Event) -> str:
    what, number = str(result["program_what"]), int(result.get("program_errno", 0))
    if what != "exec":
        return f"{_WHAT.get(what, what)} ({os.strerror(number)})"
    if number == errno.ENOENT:
        there = "its interpreter (the loader, or what #! names) is missing in the guest"
        return there if result.get("program_there") else "there is no such program in the guest"
    return _REASONS.get(number, os.strerror(number))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def output(events: Sequence[Event]) -> bytes:
    """What the program printed last, up to 64 KiB."""
    texts = [str(event.get("text", "")) for event in events if event.get("event") == "output"]
    return "".join(texts).encode("latin-1", "replace")


def _reported(events: Sequence[Event]) -> dict[str, Any]:
    """Operations a second and latencies over all names, and each name's as JSON; none of a program that is silent."""
    totals = next((event for event in reversed(events) if event.get("event") == "reports"), None)
    if totals is None:
        return {}
    operations = {str(name): int(count) for name, count in totals["operations"].items()}
    elapsed_ns, total = int(totals["elapsed_ns"]), sum(operations.values())
    timings = {str(event["name"]): Histogram.of(event) for event in events if event.get("event") == "reported-timing"}
    row: dict[str, Any] = {
        "reported_operations": total,
        "reported_elapsed_ns": elapsed_ns,
        "reported_lines": int(totals["lines"]),
        "reported_invalid": int(totals["invalid"]),
    }
    if elapsed_ns:
        row["reported_ops_per_s"] = total * 1e9 / elapsed_ns
    by_name: dict[str, dict[str, Any]] = {name: {"operations": count} for name, count in operations.items()}
    for name, histogram in timings.items():
        by_name.setdefault(name, {}).update(_quantiles(histogram))
    if timings:
        first, *others = timings.values()
        row |= {f"reported_{key}": value for key, value in _quantiles(sum(others, first)).items()}
    row["reported"] = json.dumps(by_name, separators=(",", ":"), sort_keys=True)
    return row


def _quantiles(histogram: Histogram) -> dict[str, Any]:
    row = histogram.row("latency")
    wanted = {"p50_ns": "p50_ns", "p99_ns": "p99_ns", "p999_ns": "p999_ns", "mean_ns": "mean_ns", "max_ns": "max_ns"}
    return {name: row[f"latency_{key}"] for key, name in wanted.items() if f"latency_{key}" in row}
