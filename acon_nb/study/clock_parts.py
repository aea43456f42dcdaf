"""What the time on the instruction clock was: instructions executed, those of busy waiting, and idle time skipped.

The three add up to what the clock showed, exactly. Busy waiting is known by the function that waits:
`busy_waits.toml` lists them. What such a function calls is not counted as waiting, unless it is listed too.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acon_nb.vm import Moment, Snapshot
from acon_nb.vm.counting import KERNEL_BASE, MODULES_BASE

PARTS = ("executed", "busy_waiting", "idle")
_WAITS = Path(__file__).with_name("busy_waits.toml")
_WAIT = "wait_ns_"


@dataclass(frozen=True, kw_only=True)
class ClockParts:
    """A span of the instruction clock in ns, in three parts; `waits` are the functions of `busy_waiting_ns`."""

    executed_ns: int
    busy_waiting_ns: int
    idle_ns: int
    waits: Mapping[str, int]

    @property
    def clock_ns(self) -> int:
        """What the clock showed: the sum."""
        return self.executed_ns + self.busy_waiting_ns + self.idle_ns

    def columns(self) -> dict[str, int]:
        """The columns of a row: the parts, and `wait_ns_FUNCTION` for each function that waited."""
        waits = {f"wait_ns_{name}": ns for name, ns in self.waits.items()}
        return {**{f"{name}_ns": getattr(self, f"{name}_ns") for name in PARTS}, **waits}


def parts_of(end: Snapshot | None, functions: Mapping[int, str], *, begin: Snapshot | None = None) -> ClockParts | None:
    """Split what the clock showed from `begin` (None: reset) to `end`, both marks; None where a mark is missing.

    `functions` are the kernel's by address. A function that faults and is repeated counts an instruction twice, so
    what was executed is the clock's time less the other two.
    """
    if end is None or end.idle_ns is None or (begin is not None and begin.idle_ns is None):
        return None
    clock_ns = end.tsc_ns - (begin.tsc_ns if begin is not None else 0)
    idle_ns = end.idle_ns - ((begin.idle_ns or 0) if begin is not None else 0)
    waits: dict[str, int] = {}
    for address, count in end.counts.items():
        name = plain_name(functions.get(address, ""))
        waited = count - (begin.counts.get(address, 0) if begin is not None else 0)
        if waited and name in busy_waits():
            waits[name] = waits.get(name, 0) + waited
    busy_ns = sum(waits.values())
    return ClockParts(
        executed_ns=clock_ns - idle_ns - busy_ns,
        busy_waiting_ns=busy_ns,
        idle_ns=idle_ns,
        waits=dict(sorted(waits.items(), key=lambda item: (-item[1], item[0]))),
    )


def parts_of_row(row: Mapping[str, Any]) -> dict[str, int] | None:
    """The three parts of a row by name; None where it has none, as on the wall clock."""
    values = {name: row.get(f"{name}_ns") for name in PARTS}
    if any(value is None or value != value for value in values.values()):
        return None
    return {name: int(str(value)) for name, value in values.items()}


def waits_of_row(row: Mapping[str, Any]) -> list[dict[str, str | int]] | None:
    """The functions that waited and for how many ns, longest first; None where the row has no parts."""
    if parts_of_row(row) is None:
        return None
    waits = {name.removeprefix(_WAIT): row[name] for name in row if name.startswith(_WAIT)}
    known = {name: int(ns) for name, ns in waits.items() if ns is not None and ns == ns}
    return [{"function": name, "ns": known[name]} for name in sorted(known, key=lambda name: (-known[name], name))]


def first(snapshots: Iterable[Snapshot], moment: int) -> Snapshot | None:
    """The first snapshot of a moment; None if there is none."""
    return next((snapshot for snapshot in snapshots if snapshot.moment == moment), None)


def last_span(snapshots: Sequence[Snapshot]) -> tuple[Snapshot, Snapshot] | None:
    """The last beginning and end of what is measured; None where it did not end."""
    begin = None
    span = None
    for snapshot in snapshots:
        if snapshot.moment == Moment.BEGIN:
            begin = snapshot
        elif snapshot.moment == Moment.END and begin is not None:
            span, begin = (begin, snapshot), None
    return span


def top_functions(
    end: Snapshot, functions: Mapping[int, str], *, begin: Snapshot | None = None, most: int = 30
) -> tuple[str, ...]:
    """The functions with the most instructions from `begin` (None: reset) to `end`, "NAME COUNT" each.

    What lies between the kernel's functions is named: user space, modules, and what ran before the kernel.
    """
    counts: dict[str, int] = {}
    for snapshot, sign in ((end, 1), (begin, -1)):
        if snapshot is None:
            continue
        for address, count in snapshot.counts.items():
            name = plain_name(functions.get(address, "")) or _region(address)
            counts[name] = counts.get(name, 0) + sign * count
        for address, count in snapshot.physical.items():
            name = "(before the kernel, below 1 MiB)" if address < 1 << 20 else "(before the kernel, above 1 MiB)"
            counts[name] = counts.get(name, 0) + sign * count
    order = sorted(counts, key=lambda name: (-counts[name], name))
    return tuple(f"{name} {counts[name]}" for name in order[:most] if counts[name])


def _region(address: int) -> str:
    if address < KERNEL_BASE:
        return "(user space)"
    return "(modules)" if address == MODULES_BASE else "(other kernel addresses)"


def plain_name(name: str) -> str:
    """A function's name without what the compiler adds (.isra.0, .constprop.0, .cold)."""
    return name.partition(".")[0]


@functools.cache
def busy_waits() -> Mapping[str, str]:
    """The functions that wait by executing, with the reason for each."""
    rows = tomllib.loads(_WAITS.read_text())["wait"]
    return {name: str(row["why"]) for row in rows for name in row["functions"]}
