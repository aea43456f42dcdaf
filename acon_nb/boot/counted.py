"""What the instruction clock showed of a boot: executed, busy waiting and idle, from reset to `/init`.

The moment is the first instruction of user space. The wrapper that is put in front of any initrd marks it; an initrd
that reports itself has a program of a few hundred bytes for it, which the kernel starts and which becomes /init
(`guest/src/boot_mark.c`). The clock and the counts are read by the same instruction.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from acon_nb.study import clock_parts
from acon_nb.study.functions import functions_of
from acon_nb.vm import Moment, Outcome, Snapshot


def init_mark(outcome: Outcome) -> Snapshot | None:
    """What had been counted as the guest reached /init; None if it did not, or was not counted."""
    return clock_parts.first(outcome.snapshots, Moment.INIT)


def fields(outcome: Outcome, kernel: Path, system_map: Path | None) -> dict[str, Any]:
    """The fields of a `BootRun` that say what the clock was; empty where the guest was not counted."""
    mark = init_mark(outcome)
    functions = {} if mark is None else functions_of(kernel, system_map)
    parts = clock_parts.parts_of(mark, functions)
    if mark is None or parts is None:
        return {}
    values: dict[str, Any] = {name: getattr(parts, name) for name in ("executed_ns", "busy_waiting_ns", "idle_ns")}
    values |= {"wait_ns": parts.waits, "functions": clock_parts.top_functions(mark, functions)}
    ready = clock_parts.parts_of(clock_parts.first(outcome.snapshots, Moment.READY), functions)
    if ready is not None:
        values |= {
            "idle_ns_reset_to": {"ready": ready.idle_ns},
            "busy_waiting_ns_reset_to": {"ready": ready.busy_waiting_ns},
        }
    return values
