"""A boot in phases: what lies between the moments that a row of results has, on its clock.

On the wall clock from before QEMU's exec, on the instruction clock from reset. A moment that a row does not have joins
the phases around it into one, named after both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from acon_nb.bench import results, stats
from acon_nb.bench.rows import usable
from acon_nb.errors import InvalidInput
from acon_nb.vm import Clock

if TYPE_CHECKING:
    import pandas as pd

# The column of a moment, and the phase that ends there.
_MOMENTS: dict[Clock, tuple[tuple[str, str], ...]] = {
    Clock.WALL: (
        ("host_ns_vmm_start", "VMM start"),
        ("host_ns_kernel_entry", "firmware"),
        ("host_ns_log", "unpacking and early kernel"),
        ("host_ns_init", "kernel init"),
        ("host_ns_ready", "/init"),
    ),
    Clock.INSTRUCTIONS: (
        ("guest_ns_reset_to_kernel_entry", "firmware"),
        ("guest_ns_reset_to_unpack", "real-mode set-up"),
        ("guest_ns_reset_to_kernel", "unpacking"),
        ("guest_ns_reset_to_log", "early kernel"),
        ("guest_ns_reset_to_init", "kernel init"),
        ("guest_ns_reset_to_ready", "/init"),
    ),
}


def phase_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """The phases of each cell, in order: `clock`, `cell`, `phase`, `took_ns` (median), `low_ns`, `high_ns`, `runs`.

    Only runs that count are used. Errors: `InvalidInput` where none has a phase.
    """
    found: list[dict[str, Any]] = []
    for (clock, cell), part in rows.groupby(["clock", "cell"], sort=False):
        good, _ = usable(part)
        begin, label = None, ""
        for column, phase in _MOMENTS[Clock(str(clock))]:
            label = f"{label} + {phase}" if label else phase
            if good.empty or column not in good or good[column].isna().any():
                continue
            took = good[column] - (good[begin] if begin else 0)
            summary = stats.summarise([float(value) for value in took])
            found.append(
                {
                    "clock": str(clock), "cell": str(cell), "phase": label, "took_ns": summary.median,
                    "low_ns": summary.low, "high_ns": summary.high, "runs": summary.n,
                }
            )  # fmt: skip
            begin, label = column, ""
    if not found:
        raise InvalidInput("rows", len(rows), "have no whole run with a phase", hint="see the rows' end and error")
    return results.frame(found)


def phase_table(rows: pd.DataFrame) -> pd.DataFrame:
    """The phases for people: a row a cell and phase with its share; wall times have their interval."""
    found = phase_rows(rows)
    whole = found.groupby(["clock", "cell"])["took_ns"].transform("sum")
    lines = []
    for row, total in zip(found.to_dict("records"), whole, strict=True):
        counted = row["clock"] == Clock.INSTRUCTIONS
        if counted and row["low_ns"] == row["high_ns"]:
            text = f"{row['took_ns'] / 1e6:,.3f} × 10⁶ instructions"
        elif counted:
            text = f"{row['low_ns'] / 1e6:,.3f} to {row['high_ns'] / 1e6:,.3f} × 10⁶ instructions (not equal)"
        else:
            text = f"{row['took_ns'] / 1e9:.3f} s [{row['low_ns'] / 1e9:.3f}, {row['high_ns'] / 1e9:.3f}]"
        lines.append(
            {
                "clock": row["clock"], "cell": row["cell"], "phase": row["phase"], "took": text,
                "share": f"{100 * row['took_ns'] / total:.1f} %", "runs": row["runs"],
            }
        )  # fmt: skip
    return results.frame(lines)
