"""The kinds of study, by the name that a plan gives: each registers itself (`registry`) and is loaded on first use.

`docs/study.md` shows a complete kind in a package of its own.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acon_nb import registry
from acon_nb.errors import AconError, InvalidInput
from acon_nb.results.metrics import metric
from acon_nb.results.store import Store
from acon_nb.study.estimate import CellSize, Estimate, columns, estimate
from acon_nb.study.kernels import check_kernels
from acon_nb.study.plan import Plan
from acon_nb.study.runner import Experiment, Study
from acon_nb.validation import build
from acon_nb.vm import Clock

if TYPE_CHECKING:
    import pandas as pd


def _all_rows(rows: pd.DataFrame) -> pd.DataFrame:
    return rows


@dataclass(frozen=True, kw_only=True)
class StudyKind:
    """A kind of study: what the factors of its plans mean, and how its rows are analysed.

    **To run it.** `name` is what a plan gives as `study`. `factors` is the frozen dataclass of its factors: a field for
    each, with its default; its `clock` (a factor, or a property) is that of the cell. `applies` says whether a factor
    (its name) applies to a cell of some levels, for factors that some levels of others do not have. `experiment` makes
    the experiment of a plan (`runner.Experiment`). `shown` are the factors with a field of their own in a form; `alike`
    those that an earlier run must share with a cell to predict its time, the most important first (after the clock);
    `typical_s` the quartiles of a run's time in seconds, by clock, which predict it where there is no earlier run.

    **To analyse its rows.** `measures` are the columns that are shown first, in this order (of those that the rows of a
    clock have); `followed` those that nights are compared by (default: `measures`). `measured` takes away the rows that
    measure no cell of the plan (calibrations). `table` makes the table of a study for people (default: the first
    measures of each cell), `more_tables` those that follow it, by their title, `sentences` what else readers need to
    know. With `failures_are_results` a guest that ends badly is a result, not a failure of the command that ran the
    study.

    With `profiles` its experiment keeps the profile of each run for a plan that asks for it.

    **To draw it.** `figures` are functions of the rows, by name; `live` is a class whose `view()` shows a running
    study, made of the `Study`. Both are given as MODULE:NAME and loaded when they are drawn.
    """

    name: str
    factors: type
    experiment: Callable[[Plan], Experiment]
    measures: Sequence[str]
    shown: Sequence[str] = ()
    alike: Sequence[str] = ()
    applies: Callable[[str, Mapping[str, Any]], bool] | None = None
    typical_s: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    followed: Sequence[str] = ()
    measured: Callable[[pd.DataFrame], pd.DataFrame] = _all_rows
    table: Callable[[pd.DataFrame], pd.DataFrame] | None = None
    more_tables: Mapping[str, Callable[[pd.DataFrame], pd.DataFrame]] = field(default_factory=dict)
    sentences: Callable[[pd.DataFrame], Sequence[str]] | None = None
    failures_are_results: bool = False
    figures: Mapping[str, str] = field(default_factory=dict)
    live: str = ""
    profiles: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "followed", tuple(self.followed or self.measures))

    def measure_on(self, clock: str) -> str:
        """Return the measure that is shown first on a clock. Errors: `InvalidInput` for a clock without any."""
        for name in self.measures:
            if metric(name).clock in ("", clock):
                return name
        raise InvalidInput("clock", clock, f"has no measure of {self.name} studies", hint="take the other clock")

    def read(self, levels: Mapping[str, Any]) -> Any:
        """Build the factors of a cell. Errors: `InvalidInput` for a name or a level that the kind does not have."""
        return build(self.factors, levels, what=f"a {self.name} study")

    def check(self, plan: Plan) -> None:
        """Check every cell of a plan. Errors: `InvalidInput`."""
        factors = {cell.label: self.read(cell.levels) for cell in plan.all_cells}
        check_kernels(plan.kernels, {level: None for one in factors.values() if (level := getattr(one, "kernel", ""))})
        if not plan.profile:
            return
        if not self.profiles:
            raise InvalidInput("profile", True, f"is not known of {self.name} studies", hint="omit it")
        for label, levels in factors.items():
            if Clock(str(levels.clock)) is not Clock.INSTRUCTIONS:
                hint = "set clock=instructions"
                raise InvalidInput(
                    "profile", True, f"is counted in instructions: {label} is on the wall clock", hint=hint
                )

    def figure(self, name: str) -> Callable[[pd.DataFrame], Any]:
        """Load the function that draws a figure. Errors: `InvalidInput` for a figure that the kind does not have."""
        if name not in self.figures:
            hint = f"one of {', '.join(self.figures)}" if self.figures else "a measure can be drawn of any kind"
            raise InvalidInput("figure", name, f"is not a figure of {self.name} studies", hint=hint)
        draw: Callable[[pd.DataFrame], Any] = named_object(self.figures[name])
        return draw

    def live_view(self, study: Study) -> Any:
        """The widget that shows a running study, or None for a kind without one."""
        return named_object(self.live)(study).widget() if self.live else None


def names() -> tuple[str, ...]:
    """The names of the installed kinds."""
    return tuple(dict.fromkeys(one.name for one in registry.registrations()))


@registry.cached
def kind(name: str) -> StudyKind:
    """Load a kind of study. Errors: `InvalidInput` for one that is not installed; `AconError` for one that is broken,
    which names its distribution."""
    registration = registry.registered(name)
    loaded = registration.load()
    if not isinstance(loaded, StudyKind) or loaded.name != name:
        actual = f"the kind {loaded.name!r}" if isinstance(loaded, StudyKind) else f"of type {type(loaded).__name__}"
        what = f"{registration.distribution} registers {registration.target} as the kind of study {name!r}"
        raise AconError(f"{what}, which is {actual}", hint="register a study.kinds.StudyKind under its own name")
    return loaded


def kind_of_rows(rows: pd.DataFrame) -> StudyKind | None:
    """The kind of study of rows of results; None for rows of several kinds, or of one that is not installed."""
    kinds = list(rows["kind"].dropna().unique()) if "kind" in rows else []
    return kind(kinds[0]) if len(kinds) == 1 and kinds[0] in names() else None


def experiment_of(plan: Plan) -> Experiment:
    """The experiment of a plan. Errors: `InvalidInput` for an unknown kind of study, or an invalid cell."""
    study = kind(plan.study)
    experiment = study.experiment(plan)
    study.check(plan)
    return experiment


def study_of(
    plan: Plan, out: Path, *, session: str = "", jobs: int | None = None, parallel: int | None = None
) -> Study:
    """The study of a plan, its rows kept in the folder `out`. Errors: `InvalidInput` for an invalid cell."""
    for name, number in (("jobs", jobs), ("parallel", parallel)):
        if number is not None and number < 1:
            raise InvalidInput(name, number, "is out of range", hint="1 or more")
    experiment = experiment_of(plan)
    plan = getattr(experiment, "plan", plan)  # some kinds add cells that check the others
    store = Store(out)
    expected = estimate_of(plan, earlier_runs(store, plan.study), parallel=parallel)
    return Study(
        plan=plan,
        experiment=experiment,
        store=store,
        session=session,
        jobs=jobs,
        parallel=parallel,
        expected=expected,
    )


def earlier_runs(store: Store, name: str) -> pd.DataFrame:
    """Load the columns of a kind of study that an estimate needs."""
    return store.load(name, only=("seconds", *columns(kind(name).alike)))


def estimate_of(plan: Plan, earlier: pd.DataFrame | None = None, *, parallel: int | None = None) -> Estimate:
    """Estimate how long a plan takes, from `earlier_runs` or from typical runs of its kind."""
    study = kind(plan.study)
    cells = []
    for cell in plan.all_cells:
        factors = study.read(cell.levels)
        clock = Clock(str(factors.clock))
        runs = plan.runs + (plan.warmups if clock is Clock.WALL else 0)
        cells.append(CellSize(clock=clock, runs=runs, levels=vars(factors)))
    return estimate(cells, earlier, alike=study.alike, typical_s=study.typical_s, parallel=parallel)


def named_object(reference: str) -> Any:
    """Import the object that MODULE:NAME names."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)
