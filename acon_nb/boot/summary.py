"""What the notebook of boot times tells of a study's rows: comparisons, initcalls and memory, in words."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acon_nb.analysis import compare
from acon_nb.boot import initcalls, memory, phases
from acon_nb.errors import InvalidInput
from acon_nb.results import metrics
from acon_nb.results.select import matching, usable
from acon_nb.study import plan as plans
from acon_nb.study.plan import Plan
from acon_nb.units import format_bytes
from acon_nb.vm import Clock

if TYPE_CHECKING:
    import pandas as pd

# What is compared: the time to ready, or to /init where ready is not known on the clock.
_METRICS = {
    Clock.WALL: ("host_ns_ready", "host_ns_init"),
    Clock.INSTRUCTIONS: ("guest_ns_reset_to_ready", "guest_ns_reset_to_init"),
}


def plan_of(
    name: str,
    factors: Sequence[str],
    fixed: Sequence[str],
    *,
    runs: int,
    plan: str = "",
    kernel: str = "",
    initrd: str = "",
    ready: str = "",
    profile: bool = False,
) -> Plan:
    """A notebook's plan: `plan` (a TOML file or a built-in name), or one of `factors` and `fixed`, lines of TOML each.

    `kernel` and `initrd`, files of yours, and `ready` take the place of the plan's levels where they are given.
    With `profile` each run keeps its profile. Errors: `InvalidInput` that names the line.
    """
    if plan:
        asked = plans.load(plan)
    else:
        varied, same = plans.of_lines("factors", factors), plans.of_lines("fixed", fixed)
        asked = Plan(name=name, study="boot", factors=varied, fixed=same, runs=runs)
    given = {"kernel": kernel, "initrd": f"file:{initrd}" if initrd else "", "ready": ready}
    own = {factor: level for factor, level in given.items() if level}
    kept = {factor: levels for factor, levels in asked.factors.items() if factor not in own}
    own_plan = replace(asked, factors=kept, fixed={**asked.fixed, **own}) if own else asked
    return replace(own_plan, profile=True) if profile else own_plan


def check(plan: Plan, *, metric: str = "", cell: str = "", cells: Sequence[str] = (), most: int = 1) -> None:
    """Check what a notebook is to show of a plan before it is run: a measure, a cell by its label, cells by a part of
    it, how many lines. Errors: `InvalidInput`.
    """
    if metric:
        metrics.metric(metric)
    labels = [one.label for one in plan.all_cells]
    if cell and cell not in labels:
        raise InvalidInput("cell", cell, "is not a cell of the plan", hint="; ".join(labels[:20]))
    for part in cells:
        if len(matching(labels, part)) != 1:
            raise InvalidInput("cells", part, "is not one cell of the plan", hint="; ".join(labels[:20]))
    if len(cells) > 2:
        raise InvalidInput("cells", ", ".join(cells), "are more than two", hint="one, or two to compare")
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise InvalidInput("most", most, "is not a number of lines", hint="1 or more")


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
    """Compare each cell with the plan's baseline, a sentence per cell, clock by clock (default: the time to ready)."""
    texts: list[str] = []
    for clock, part in rows.groupby("clock", sort=False):
        labels = list(dict.fromkeys(part["cell"]))
        baseline = plan.baseline_label if plan.baseline_label in labels else labels[0]
        known = [one for one in _METRICS[Clock(str(clock))] if one in part and part[one].notna().any()]
        measure = metric or next(iter(known), "")
        if len(labels) < 2 or measure not in part or not part[measure].notna().any():
            continue
        comparisons = compare.compare(part, measure, baseline=baseline, minimum_effect=plan.minimum_effect)
        texts += [
            compare.sentence({str(key): value for key, value in row.items()}) for row in comparisons.to_dict("records")
        ]
    return texts


def findings(rows: pd.DataFrame, folder: Path) -> list[str]:
    """A study's boots in a few sentences: the longest phase and the memory of each cell, its initcalls."""
    table = phases.phase_rows(rows)
    logged = boots(rows, folder)
    texts = []
    for (clock, cell), part in table.groupby(["clock", "cell"], sort=False):
        whole = float(part["took_ns"].sum())
        longest = max(part.to_dict("records"), key=lambda phase: phase["took_ns"])
        counted = clock == Clock.INSTRUCTIONS
        text = f"{whole / 1e6:,.1f} × 10⁶ instructions" if counted else f"{whole / 1e9:.2f} s (medians)"
        row = whole_row(rows, str(cell))
        known = memory.is_known(row)
        sentence = f"{cell}: {text} to {_end_of(row, part)}, most of it {longest['phase']}"
        sentence += f" ({longest['took_ns'] / whole:.0%})"
        if known:
            free, ram = format_bytes(row["memavailable_bytes"]), format_bytes(row["memory_bytes"])
            sentence += f"; {free} of {ram} available"
        texts.append(sentence)
        if str(cell) in logged:
            texts += [f"{cell}: {sentence}" for sentence in initcalls.sentences(logged[str(cell)])[:2]]
        texts += [f"{cell}: {memory.sentences(row)[1]}"] if known else []
    return texts


def _end_of(row: Mapping[str, Any], phases_of_cell: pd.DataFrame) -> str:
    """What the last phase of a cell ends at, in words."""
    if not str(phases_of_cell["phase"].iloc[-1]).endswith("/init"):
        return "/init"
    taken = row.get("report_ns")
    if taken is None or taken != taken:  # the report came at the end of /init, not before it
        return "the end of /init"
    return f"ready ({row.get('ready')})"
