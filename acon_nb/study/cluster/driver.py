"""Measures a plan on a cluster: the same cells, rows, keys and state as `runner.Study`, on many hosts at a time.

The driver sends each run to one free host (`dispatch`), writes its row, and only then counts it. What is in the store
is never measured again, whichever of the two runners measured it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from acon_nb import results
from acon_nb.errors import InvalidInput
from acon_nb.progress import CancelToken, OnProgress, silent
from acon_nb.study import live
from acon_nb.study.cluster.dispatch import Dispatch
from acon_nb.study.cluster.membership import Membership
from acon_nb.study.cluster.pool import Pool
from acon_nb.study.cluster.resume import counted, kept
from acon_nb.study.cluster.worker import Portable
from acon_nb.study.kinds import experiment_of
from acon_nb.study.plan import Plan
from acon_nb.study.runner import role_of
from acon_nb.study.state import Board, CellState, StudyState
from acon_nb.vm import Clock

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class ClusterStudy:
    """A plan being measured on the hosts of `pool`. `run` measures all that is not in the store yet.

    `state`, `session` and `jobs` are as in `Study`. `host_class` picks the class of hosts if there are several; with
    `skip_unfit` workers that cannot measure are left out instead of refused. When the last host is gone, the study
    waits `patience_s` for another.
    Errors: `InvalidInput` at construction for an experiment whose cells cannot run on other hosts.
    """

    plan: Plan
    experiment: Portable
    store: results.Store
    pool: Pool
    session: str = ""
    jobs: int | None = None
    host_class: str = ""
    skip_unfit: bool = False
    patience_s: float = 60.0
    _board: Board = field(init=False)
    _keys: frozenset[str] | None = field(init=False, default=None)
    _other: live.RunningStudy | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if not all(hasattr(self.experiment, name) for name in ("parts", "findings", "adopt")):
            raise InvalidInput(
                "study", self.plan.study, "cannot be measured on other hosts", hint="acon-nb bench study"
            )
        if self.patience_s < 0:
            raise InvalidInput("patience_s", self.patience_s, "is negative", hint="0 or more seconds")
        runs = {Clock.WALL: self.plan.runs + self.plan.warmups, Clock.INSTRUCTIONS: self.plan.runs}
        clocks = [self.experiment.clock(row) for row in self.plan.all_cells]
        cells = [
            CellState(
                label=row.label,
                clock=clock,
                planned=runs[clock],
                warmups=runs[clock] - self.plan.runs,
                role=role_of(self.experiment, row),
            )
            for row, clock in zip(self.plan.all_cells, clocks, strict=True)
        ]
        self._board = Board(self.plan.name, cells, 1)

    @property
    def state(self) -> StudyState:
        """The current state of the study; may be read from any thread."""
        return self._board.state if self._other is None else self._other.state

    def rows(self) -> pd.DataFrame:
        """Return the rows of this plan in the store, in the order of its cells; after `run` as in `Study`.

        A run that was measured twice (by two runners at once) appears once; `attrs["duplicates"]` counts the others.
        """
        labels = [row.label for row in self.plan.all_cells]
        return counted(self.store.load(self.experiment.kind, self.plan.name), labels, self.session, self._keys)

    def run(self, *, on_progress: OnProgress = silent, cancel: CancelToken | None = None) -> pd.DataFrame:
        """Check the hosts, prepare, send the files to them, run what is missing, and return all rows.

        Errors: those of the builds and of `hosts`; `AconError` when no host is left; `Cancelled`.
        A study that another driver measures is followed to its end. What was measured before is in the store.
        """
        self.measure(on_progress=on_progress, cancel=cancel)
        return self.rows()

    def measure(self, *, on_progress: OnProgress = silent, cancel: CancelToken | None = None) -> None:
        """Measure as `run` does, without reading the rows."""
        stop = cancel or CancelToken()
        with self._board.phases():
            live.join(self.store, self.plan.name, on_progress, stop, self._follow)
            with live.measuring(self.store, self.plan.name, lambda: self._board.state, on_progress, stop) as tell:
                self._measure(tell, stop)

    def _follow(self, other: live.RunningStudy | None) -> None:
        self._other = other

    def _measure(self, on_progress: OnProgress, stop: CancelToken) -> None:
        stored = kept(self.store, self.experiment.kind, self.plan.name, self.session)
        membership = Membership(self.pool, host_class=self.host_class, skip_unfit=self.skip_unfit)
        host_class = membership.muster(stored.classes)  # before anything is built
        self.experiment.prepare(jobs=self.jobs, on_progress=self._board.building(on_progress), cancel=stop)
        for error in self.experiment.unbuilt.values():
            raise error  # do not spend the time of many hosts on an incomplete plan
        stop.check()
        self._board.begin()
        dispatch = Dispatch(
            plan=self.plan,
            experiment=self.experiment,
            store=self.store,
            session=self.session,
            host_class=host_class,
            pool=self.pool,
            membership=membership,
            stored=stored,
            board=self._board,
            patience_s=self.patience_s,
            on_progress=on_progress,
            stop=stop,
        )
        dispatch.run()
        self._keys = frozenset(dispatch.keys)


def cluster_study_of(
    plan: Plan,
    out: Path,
    pool: Pool,
    *,
    session: str = "",
    jobs: int | None = None,
    host_class: str = "",
    skip_unfit: bool = False,
    patience_s: float = 60.0,
) -> ClusterStudy:
    """The study of a plan on a cluster, its rows kept in the folder `out` of this host (parameters: `ClusterStudy`).

    Errors: `InvalidInput` for an invalid cell, or one that cannot run on other hosts.
    """
    if jobs is not None and jobs < 1:
        raise InvalidInput("jobs", jobs, "is out of range", hint="1 or more")
    experiment = experiment_of(plan)
    return ClusterStudy(
        plan=getattr(experiment, "plan", plan),  # some kinds add cells that check the others
        experiment=experiment,  # type: ignore[arg-type] # checked at construction
        store=results.Store(out),
        pool=pool,
        session=session,
        jobs=jobs,
        host_class=host_class,
        skip_unfit=skip_unfit,
        patience_s=patience_s,
    )
