"""The kinds of study, by the name that a plan gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from acon_nb.bench.boot_study import BootExperiment
from acon_nb.bench.plan import Plan
from acon_nb.bench.results import Store
from acon_nb.bench.runner import Experiment, Study
from acon_nb.bench.swap.experiment import SwapExperiment
from acon_nb.errors import InvalidInput

_KINDS: dict[str, Callable[[Plan], Experiment]] = {"boot": BootExperiment, "swap": SwapExperiment}


def experiment_of(plan: Plan) -> Experiment:
    """What the factors of a plan mean. Errors: `InvalidInput` for no kind of study, or for what cannot be a cell."""
    if plan.study not in _KINDS:
        raise InvalidInput("study", plan.study, "is no kind of study", hint=f"one of {', '.join(_KINDS)}")
    return _KINDS[plan.study](plan)


def study_of(
    plan: Plan, out: Path, *, session: str = "", jobs: int | None = None, parallel: int | None = None
) -> Study:
    """The study of a plan, its rows kept in the folder `out`. Errors: `InvalidInput` for what cannot be a cell."""
    for name, number in (("jobs", jobs), ("parallel", parallel)):
        if number is not None and number < 1:
            raise InvalidInput(name, number, "is no such number", hint="1 or more")
    experiment = experiment_of(plan)
    plan = getattr(experiment, "plan", plan)  # some kinds add cells that check the others
    return Study(plan=plan, experiment=experiment, store=Store(out), session=session, jobs=jobs, parallel=parallel)
