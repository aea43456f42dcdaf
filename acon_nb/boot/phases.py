"""A boot in phases: what lies between the moments that a row of results has, on its clock.

On the wall clock from before QEMU's exec, on the instruction clock from reset. A moment that a row does not have joins
the phases around it into one, named after both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from acon_nb import results
from acon_nb.errors import InvalidInput
from acon_nb.results.select import usable
from acon_nb.stats import inference
from acon_nb.stats.intervals import Interval
from acon_nb.vm import Clock
from acon_nb.vm.ready import Rule

if TYPE_CHECKING:
    import pandas as pd

PARTS = ("executed_ns", "busy_waiting_ns", "idle_ns")
_RESET_TO = "guest_ns_reset_to_"
_LOG, _KERNEL = f"{_RESET_TO}log", f"{_RESET_TO}kernel"

_USER = "/init"
# The column of a moment, and the phase that ends there.
_MOMENTS: dict[Clock, tuple[tuple[str, str], ...]] = {
    Clock.WALL: (
        ("host_ns_vmm_start", "VMM start"),
        ("host_ns_kernel_entry", "firmware"),
        ("host_ns_log", "unpacking and early kernel"),
        ("host_ns_init", "kernel init"),
        ("host_ns_ready", _USER),
    ),
    Clock.INSTRUCTIONS: (
        ("guest_ns_reset_to_kernel_entry", "firmware"),
        ("guest_ns_reset_to_unpack", "real-mode set-up"),
        ("guest_ns_reset_to_kernel", "unpacking"),
        ("guest_ns_reset_to_log", "early kernel"),
        ("guest_ns_reset_to_init", "kernel init"),
        ("guest_ns_reset_to_ready", _USER),
    ),
}


def _at_init(rows: pd.DataFrame) -> bool:
    """Whether guests were ready as /init was reached, so that the time to ready has nothing of /init in it."""
    return "ready" in rows and bool((rows["ready"] == Rule.INIT).all())


def phase_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """The phases of each cell, in order: `clock`, `cell`, `phase`, `took_ns` (median), `low_ns`, `high_ns`, `runs`.

    A phase between two moments at which instructions were counted has its parts too, which add up to it: `executed_ns`,
    `busy_waiting_ns`, `idle_ns` (medians). Where the kernel's entry is such a moment, the beginning of the kernel's
    clock, which is none, parts no phases.
    Only runs that count are used. Errors: `InvalidInput` where none has a phase.
    """
    phases: list[dict[str, Any]] = []
    for (clock, cell), part in rows.groupby(["clock", "cell"], sort=False):
        good, _ = usable(part)
        begin, label = None, ""
        for column, phase in _MOMENTS[Clock(str(clock))]:
            if phase != _USER or not _at_init(good):
                label = f"{label} + {phase}" if label else phase
            if not _known(good, column) or (column == _LOG and _known(good, _parts_at(_KERNEL)[0])):
                continue
            took = good[column] - (good[begin] if begin else 0)
            summary = inference.summarise([float(value) for value in took])
            phases.append(
                {
                    "clock": str(clock), "cell": str(cell), "phase": label, "took_ns": summary.median,
                    "low_ns": summary.low, "high_ns": summary.high, "runs": summary.n,
                    **_parts(good, begin, column),
                }
            )  # fmt: skip
            begin, label = column, ""
    if not phases:
        raise InvalidInput(
            "rows",
            len(rows),
            "have no whole run with a phase",
            hint="see the rows' end and error; without a virtio console a guest cannot report",
        )
    return results.frame(phases)


def _known(rows: pd.DataFrame, column: str) -> bool:
    return not rows.empty and column in rows and not bool(rows[column].isna().any())


def _parts_at(column: str) -> tuple[str, str]:
    """The columns of the idle time and of the busy waiting from reset to a moment."""
    moment = column.removeprefix(_RESET_TO)
    if moment == "init":
        return "idle_ns", "busy_waiting_ns"
    return f"idle_ns_reset_to_{moment}", f"busy_waiting_ns_reset_to_{moment}"


def _parts(rows: pd.DataFrame, begin: str | None, end: str) -> dict[str, float | None]:
    """The parts of a phase; None where they are not known at one of its ends. Nothing of the kernel waits before it."""
    spans: list[Any] = []
    for at_end, at_begin in zip(_parts_at(end), _parts_at(begin or ""), strict=True):
        if not _known(rows, at_end) or (begin and not _known(rows, at_begin)):
            return dict.fromkeys(PARTS)
        spans.append(rows[at_end] - (rows[at_begin] if begin else 0))
    idle, busy = spans
    executed = rows[end] - (rows[begin] if begin else 0) - idle - busy
    return {name: float(values.median()) for name, values in zip(PARTS, (executed, busy, idle), strict=True)}


def phase_table(rows: pd.DataFrame) -> pd.DataFrame:
    """The phases for people: a row a cell and phase with its share; wall times have their interval."""
    phases = phase_rows(rows)
    whole = phases.groupby(["clock", "cell"])["took_ns"].transform("sum")
    lines = []
    for row, total in zip(phases.to_dict("records"), whole, strict=True):
        counted = row["clock"] == Clock.INSTRUCTIONS
        if counted and row["low_ns"] == row["high_ns"]:
            text = f"{row['took_ns'] / 1e6:,.3f} × 10⁶ ns"
        elif counted:
            text = f"{row['low_ns'] / 1e6:,.3f} to {row['high_ns'] / 1e6:,.3f} × 10⁶ ns (not equal)"
        else:
            text = f"{row['took_ns'] / 1e9:.3f} s"
            if row["runs"] > 1:
                kind = Interval.of(row["runs"]).text
                text += f" [{row['low_ns'] / 1e9:.3f}, {row['high_ns'] / 1e9:.3f}] ({kind})"
        parts = {part_words(name): _in_millions(row[name]) for name in PARTS} if counted else {}
        lines.append(
            {
                "clock": row["clock"], "cell": row["cell"], "phase": row["phase"], "took": text,
                **parts, "share": f"{100 * row['took_ns'] / total:.1f} %", "runs": row["runs"],
            }
        )  # fmt: skip
    return results.frame(lines)


def part_words(name: str) -> str:
    """A part for people: "busy waiting" of `busy_waiting_ns`."""
    return name.removesuffix("_ns").replace("_", " ")


def _in_millions(value: float | None) -> str:
    return "" if value is None or value != value else f"{value / 1e6:,.3f}"
