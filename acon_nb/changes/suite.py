"""The fixed suite of guests that a series of patches is judged by (`suite.toml`), and its cells with some kernels."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acon_nb.changes import functions
from acon_nb.errors import AconError
from acon_nb.kernel import BuildSpec
from acon_nb.progress import CancelToken, OnProgress, silent
from acon_nb.results import Store
from acon_nb.study import kinds
from acon_nb.study.plan import Plan
from acon_nb.study.runner import Study
from acon_nb.validation import build, check_fields, one_of

_FILE = Path(__file__).with_name("suite.toml")


@dataclass(frozen=True, kw_only=True)
class SuiteCell:
    """A guest of the suite: its name, the suites that have it, its kind of study and the levels of its factors.

    `measures` make the verdict, `shown` are reported only. Functions are compared up to the end of `last_phase` of the
    profiles ("": all of it).
    """

    name: str
    suites: tuple[str, ...]
    study: str
    levels: Mapping[str, Any]
    measures: tuple[str, ...]
    shown: tuple[str, ...] = ()
    last_phase: str = ""

    def __post_init__(self) -> None:
        check_fields(self)


@functools.cache
def _table() -> Mapping[str, Any]:
    return tomllib.loads(_FILE.read_text())


def suites() -> tuple[str, ...]:
    """The names of the suites, the shortest first."""
    return tuple(dict.fromkeys(name for row in _table()["cell"] for name in row["suites"]))


def cells(suite: str) -> tuple[SuiteCell, ...]:
    """The cells of a suite. Errors: `InvalidInput` for an unknown one."""
    one_of("suite", suite, suites())
    table = _table()
    return tuple(
        build(
            SuiteCell,
            {
                **row,
                "levels": {**table["fixed"][row["study"]], **row.get("levels", {})},
                "measures": tuple(table["measures"][row["study"]]),
                "shown": tuple(table["shown"].get(row["study"], ())),
                "last_phase": last_phase(row["study"]),
                "suites": tuple(row["suites"]),
            },
            what="a cell of the suite",
        )
        for row in table["cell"]
        if suite in row["suites"]
    )


def last_phase(study: str) -> str:
    """The phase of the profiles of a kind of study up to whose end functions are compared; "": all of it."""
    return str(_table()["last_phase"].get(study, ""))


def build_spec(suite: str) -> BuildSpec:
    """The options of the kernels of a suite: all of its cells have the same kernel."""
    one_of("suite", suite, suites())
    return BuildSpec(profiles=tuple(_table()["profile"].split(",")))


def plan_of(chosen: Sequence[SuiteCell], study: str, kernels: Sequence[str]) -> Plan:
    """The plan that a suite is: its cells of one kind of study with each of some kernels, once.

    `kernels` are levels of the factor kernel, such as debian:6.12 or a bzImage's path. The same plan with more runs
    (`dataclasses.replace`) is a study of seeds, whose kernels are compared as choices (`Question.decide`).
    """
    of_kind = [cell for cell in chosen if cell.study == study]
    levels = [{**cell.levels, "kernel": level} for level in kernels for cell in of_kind]
    return Plan(
        name=f"series-{study}", study=study, cells=levels, runs=1, warmups=0, profile=functions.are_profiled(study)
    )


def rows_of(
    chosen: Sequence[SuiteCell],
    images: Sequence[Path],
    out: Store,
    *,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> list[dict[str, dict[str, Any]]]:
    """The row of each cell with each of some different kernels, by the cell's name; those in `out` are not repeated.

    A guest that does not end well is a row with its `end`. Errors: those of `Study.run`.
    """
    rows: list[dict[str, dict[str, Any]]] = [{} for _ in images]
    for study in dict.fromkeys(cell.study for cell in chosen):
        of_kind = [cell for cell in chosen if cell.study == study]
        plan = plan_of(chosen, study, [str(image) for image in images])
        measured = Study(plan=plan, experiment=kinds.experiment_of(plan), store=out)
        table = measured.run(on_progress=on_progress, cancel=cancel).groupby("run_key", sort=False).tail(1)
        if len(table) != len(plan.cells):
            raise AconError(f"{plan.name} has {len(table)} rows of {len(plan.cells)} guests", hint="give another --out")
        for number, row in enumerate(table.to_dict("records")):
            which, cell = divmod(number, len(of_kind))
            rows[which][of_kind[cell].name] = functions.with_path(row, out)
    return rows
