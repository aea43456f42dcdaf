"""What the notebook of boot times tells of a study's rows: comparisons, initcalls and memory, in words."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acon_nb.bench import compare, initcalls, memory, phases
from acon_nb.bench import plan as plans
from acon_nb.bench.plan import Plan
from acon_nb.bench.rows import usable
from acon_nb.errors import InvalidInput
from acon_nb.units import format_bytes
from acon_nb.vm import Clock

if TYPE_CHECKING:
    import pandas as pd

_METRICS = {Clock.WALL: "host_ns_ready", Clock.INSTRUCTIONS: "guest_ns_reset_to_ready"}


def plan_of(name: str, factors: Sequence[str], fixed: Sequence[str], *, runs: int, plan: str = "") -> Plan:
    """A notebook's plan: `plan` (a TOML file or a built-in name), or one of `factors` and `fixed`, lines of TOML each.

    Errors: `InvalidInput` that names the line.
    """
    if plan:
        return plans.load(plan)
    return Plan(name=name, factors=plans.of_lines("factors", factors), fixed=plans.of_lines("fixed", fixed), runs=runs)


def boots(rows: pd.DataFrame, folder: Path) -> dict[str, initcalls.Boot]:
    """The boots whose initcalls were logged, by cell; empty where none was."""
    records: list[dict[str, Any]] = usable(rows)[0].to_dict("records")  # type: ignore[assignment]
    try:
        return initcalls.of_rows(records, folder)
    except InvalidInput:
        return {}


@dataclass(frozen=True)
class Pair:
    """Two boots to be held side by side, with names without what they share."""

    boots: tuple[initcalls.Boot, initcalls.Boot]
    names: tuple[str, str]

    @property
    def clock(self) -> Clock:
        """The clock of both."""
        return self.boots[0].clock


def pair(logged: Mapping[str, initcalls.Boot]) -> Pair | None:
    """The first two boots of one clock, or None where there are none."""
    for (first, one), (second, other) in itertools.combinations(logged.items(), 2):
        if one.clock is other.clock:
            return Pair((one, other), initcalls.apart(first, second))
    return None


def whole_row(rows: pd.DataFrame, cell: str = "") -> dict[str, Any]:
    """The last run that counts of a cell (default: the first of the rows). Errors: `InvalidInput` without one."""
    good, _ = usable(rows)
    part = good[good["cell"] == (cell or good["cell"].iloc[0])] if not good.empty else good
    if part.empty:
        raise InvalidInput("cell", cell, "has no whole run", hint="see the rows' end and error")
    row: dict[str, Any] = part.to_dict("records")[-1]  # type: ignore[assignment]
    return row


def comparison_sentences(rows: pd.DataFrame, plan: Plan, metric: str = "") -> list[str]:
    """Each cell beside the plan's baseline, a sentence a cell, clock by clock (default measure: the time to ready)."""
    said: list[str] = []
    for clock, part in rows.groupby("clock", sort=False):
        labels = list(dict.fromkeys(part["cell"]))
        baseline = plan.baseline_label if plan.baseline_label in labels else labels[0]
        measure = metric or _METRICS[Clock(str(clock))]
        if len(labels) < 2 or measure not in part or not part[measure].notna().any():
            continue
        found = compare.compare(part, measure, baseline=baseline, minimum_effect=plan.minimum_effect)
        said += [compare.sentence({str(key): value for key, value in row.items()}) for row in found.to_dict("records")]
    return said


def findings(rows: pd.DataFrame, folder: Path) -> list[str]:
    """A study's boots in a few sentences: the longest phase and the memory of each cell, its initcalls."""
    table = phases.phase_rows(rows)
    logged = boots(rows, folder)
    said = []
    for (clock, cell), part in table.groupby(["clock", "cell"], sort=False):
        whole = float(part["took_ns"].sum())
        longest = max(part.to_dict("records"), key=lambda phase: phase["took_ns"])
        counted = clock == Clock.INSTRUCTIONS
        text = f"{whole / 1e6:,.1f} × 10⁶ instructions" if counted else f"{whole / 1e9:.2f} s (medians)"
        row = whole_row(rows, str(cell))
        said.append(
            f"{cell}: {text} to the end of /init, most of it {longest['phase']} ({longest['took_ns'] / whole:.0%});"
            f" {format_bytes(row['memavailable_bytes'])} of {format_bytes(row['memory_bytes'])} available"
        )
        if str(cell) in logged:
            said += [f"{cell}: {sentence}" for sentence in initcalls.sentences(logged[str(cell)])[:2]]
        said.append(f"{cell}: {memory.sentences(row)[1]}")
    return said
