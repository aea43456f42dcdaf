"""One number of one kernel: a cell of a study on the instruction clock, measured once, since its numbers are exact."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from acon_nb.changes import functions, suite
from acon_nb.errors import InvalidInput
from acon_nb.kernel import BuildSpec
from acon_nb.progress import CancelToken, OnProgress, silent
from acon_nb.results import Store
from acon_nb.results.columns import files
from acon_nb.results.metrics import Metric, metric
from acon_nb.results.select import matching
from acon_nb.study import kinds
from acon_nb.study.plan import Plan, load
from acon_nb.study.whole import run_plan
from acon_nb.vm import Clock

_OF_BUILDS = ("kernel", "profile", "source", "settings", "kernel_compression")
_LEAST_TIMEOUT_S = 600.0  # a busy host may take minutes for a boot, which the guest's clock does not show
_READY = "ready"  # in the names of columns that count up to then
BOOT = Plan(name="boot", study="boot", fixed={"clock": Clock.INSTRUCTIONS.value}, runs=1, warmups=0)


@dataclass(frozen=True, kw_only=True)
class CellMeasure:
    """A column of the row that a cell gives. Errors: `InvalidInput` (`of_plan`)."""

    metric: Metric
    plan: Plan
    build: BuildSpec

    @property
    def levels(self) -> Mapping[str, Any]:
        """The levels of the cell's factors."""
        return self.plan.all_cells[0].levels

    @property
    def last_phase(self) -> str:
        """The phase of a profile at whose end the column was taken ("": of the whole): a boot's parts are to /init."""
        return suite.last_phase(self.plan.study) if _READY not in self.metric.name else ""

    def row(
        self,
        image: Path,
        out: Store,
        *,
        profile: bool = False,
        on_progress: OnProgress = silent,
        cancel: CancelToken | None = None,
    ) -> dict[str, Any]:
        """The row of the cell with a kernel; one that is in `out` is not measured again.

        With `profile` it has the path of its profile, where its guests and this QEMU can be profiled.
        Errors: those of `run_plan`, such as `GuestFailed`; `InvalidInput` where it does not have the column.
        """
        plan = replace(with_kernel(self.plan, image), profile=profile and functions.are_profiled(self.plan.study))
        rows = run_plan(plan, kinds.experiment_of(plan), out=out, on_progress=on_progress, cancel=cancel)
        return functions.with_path(rows.iloc[0].to_dict(), out)

    def check_exact(
        self,
        image: Path,
        out: Store,
        *,
        on_progress: OnProgress = silent,
        cancel: CancelToken | None = None,
    ) -> None:
        """Measure a kernel a second time where the column's description does not promise equal numbers.

        Errors: `InvalidInput` if the two differ.
        """
        if self.metric.is_exact(Clock.INSTRUCTIONS):
            return
        stores = (out, Store(out.folder / "again"))
        values = [self.value(self.row(image, one, on_progress=on_progress, cancel=cancel)) for one in stores]
        if values[0] != values[1]:
            reason = f"is not exact: two runs of one kernel gave {values[0]:.15g} and {values[1]:.15g}"
            raise InvalidInput("metric", self.metric.name, reason, hint="take a number that the guest counts")

    def value(self, row: Mapping[str, Any]) -> float:
        """The number of a row. Errors: `InvalidInput` where it has none."""
        value = row.get(self.metric.name)
        if not isinstance(value, int | float) or not math.isfinite(value):
            known = ", ".join(name for name in row if _is_measure(name) and row[name] == row[name])
            reason = f"is not in the rows of {self.plan.study} cells like this one"
            raise InvalidInput("metric", self.metric.name, reason, hint=f"one of {known}")
        return float(value)

    def text(self, before: float, after: float) -> str:
        """Two values and their difference for people."""
        clock, difference = Clock.INSTRUCTIONS, after - before
        values = f"{self.metric.text(before, clock)} before, {self.metric.text(after, clock)} after"
        if not difference:
            return values
        words = f"{self.metric.difference_text(difference, clock)} {self.metric.change(difference, clock)}"
        return f"{values}: {words}"


def of_plan(metric_name: str, plan_name: str = "", cell: str = "") -> CellMeasure:
    """The measure of a column in a cell of a plan (default: a boot of the guide's kernel), on the instruction clock.

    `cell` is the label of one of its cells, or a part that only one has.
    Errors: `InvalidInput` for a column that is not exact or not of the plan's kind, and for a cell that does not build
    its kernel, is on the wall clock, or is not in the plan.
    """
    measure = metric(metric_name)
    plan = load(plan_name) if plan_name else BOOT
    _check_column(measure, plan.study)
    chosen = _cell_of(plan, cell)
    factors = kinds.kind(plan.study).read(chosen)
    if Clock(str(factors.clock)) is not Clock.INSTRUCTIONS:
        raise InvalidInput("cell", cell, "is on the wall clock, where numbers are not exact", hint="take another one")
    if factors.kernel != "build":
        raise InvalidInput("cell", cell, f"has the kernel {factors.kernel}", hint="take one that is built")
    if getattr(factors, "dilation", 1) == 0:
        hint = "a plan that fixes it (dilation = 10.0), such as tour"
        raise InvalidInput("dilation", 0, "would give each kernel a disk of another speed", hint=hint)
    if hasattr(factors, "timeout_s"):
        chosen["timeout_s"] = max(factors.timeout_s, _LEAST_TIMEOUT_S)
    plan = replace(plan, factors={}, cells=(), fixed=chosen, runs=1, warmups=0, baseline={})
    return CellMeasure(metric=measure, plan=plan, build=factors.build_spec())


def with_kernel(plan: Plan, image: Path) -> Plan:
    """The plan with a kernel that is built already."""
    levels = {name: level for name, level in plan.fixed.items() if name not in _OF_BUILDS}
    return replace(plan, fixed={**levels, "kernel": str(image)})


def _cell_of(plan: Plan, label: str) -> dict[str, Any]:
    """The levels of the cell that a label, or a part of one, names."""
    cells = {row.label: row for row in plan.all_cells}
    chosen = matching(cells, label)
    if len(chosen) != 1:
        names = "; ".join(list(cells)[:12])
        reason = f"names {len(chosen)} cells of {plan.name}" if label else f"has to name one of {plan.name}'s cells"
        raise InvalidInput("cell", label, reason, hint=f"one of: {names}")
    return dict(cells[chosen[0]].levels)


def _check_column(measure: Metric, kind: str) -> None:
    if measure.clock == Clock.WALL:
        hint = "such as guest_ns_reset_to_init, executed_ns, memavailable_bytes, kernel_bytes"
        raise InvalidInput("metric", measure.name, "is of the wall clock, which is not exact", hint=hint)
    owners = {file.owner for file in files() for column in file.columns if column.part(measure.name) is not None}
    if owners.isdisjoint(("", kind)):
        hint = f"give --plan, a plan of {' or '.join(sorted(owners))} studies"
        raise InvalidInput("metric", measure.name, f"is not a measure of {kind} studies", hint=hint)


def _is_measure(name: str) -> bool:
    try:
        return metric(name).clock != Clock.WALL
    except InvalidInput:
        return False
