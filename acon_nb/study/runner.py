"""Runs a plan cell after cell: each row is stored when its run ends; a study can be resumed, watched and cancelled.

Rules: one guest at a time on the wall clock on the whole host (a lock), guests on the instruction clock side by side,
since the host does not affect that clock; a block is one run of every cell; warm-ups are kept apart; a run is repeated
only for a fault of the host, named in the row; a guest that fails is a row with its end and its log.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from acon_nb import results
from acon_nb.cache import key_of
from acon_nb.errors import AconError
from acon_nb.host import environment
from acon_nb.host.facts import Environment
from acon_nb.progress import CancelToken, OnProgress, Progress, silent
from acon_nb.results.select import NOT_APPLICABLE
from acon_nb.study import live
from acon_nb.study.estimate import Estimate
from acon_nb.study.faults import NOT_BUILT
from acon_nb.study.host_lock import run_locked
from acon_nb.study.plan import Plan, PlanCell, PlannedRun
from acon_nb.study.room import Sized, check_room, guests_of
from acon_nb.study.state import Board, CellState, StudyState
from acon_nb.vm import Clock, end_text

if TYPE_CHECKING:
    import pandas as pd

_LOG_BYTES = 1 << 20
ATTEMPTS = 3
_GATHERED = 512


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The result of one run: columns of its row, its end, its console's transcript, and the fault of the host, if any.

    `end` is one of `vm.End`, or `NOT_BUILT`. `host_fault` names a fault of the host, not of the guest (a `HostFault`):
    the run is repeated. `kernel_log` is the guest's log as dmesg shows it, where the guest could send it; `profile` its
    profile as JSON, where the plan asks for it; `output` what a program in the guest printed last, which follows the
    console in the row's log.
    """

    row: Mapping[str, Any]
    end: str
    console: Path
    host_fault: str = ""
    error: str = ""
    kernel_log: str = ""
    profile: bytes = b""
    output: bytes = b""


class Experiment(Protocol):
    """What a plan's factors mean: `study.kinds` has one for each kind of study."""

    kind: str

    @property
    def unbuilt(self) -> Mapping[str, AconError]:
        """The cells whose kernel could not be built, by label, with the reason; after `prepare`."""
        ...

    def clock(self, cell: PlanCell) -> Clock:
        """The clock of a cell."""
        ...

    def prepare(self, *, jobs: int | None, on_progress: OnProgress, cancel: CancelToken | None) -> None:
        """Build all that the cells need (cached)."""
        ...

    def identity(self, cell: PlanCell) -> str:
        """A hash of what a cell runs, by content; after `prepare`."""
        ...

    def run(self, cell: PlanCell, planned: PlannedRun, cancel: CancelToken) -> Measured:
        """Run a cell once. A guest that fails is a result, not an error."""
        ...


@dataclass(frozen=True, kw_only=True)
class _Job:
    planned: PlannedRun
    cell: PlanCell
    clock: Clock
    key: str


@dataclass
class Study:
    """A plan being measured. `run` measures all that is not in the store yet; `state` may be read from any thread.

    `parallel` guests of the instruction clock run at a time (default: one per CPU), `jobs` is for builds only.
    `session` separates one night's runs from another's: rows of the same session are never measured twice. `expected`
    is the estimate of its time, which `run` reports before it starts.
    """

    plan: Plan
    experiment: Experiment
    store: results.Store
    session: str = ""
    jobs: int | None = None
    parallel: int | None = None
    expected: Estimate | None = None
    _board: Board = field(init=False)
    _keys: frozenset[str] | None = field(init=False, default=None)
    _other: live.RunningStudy | None = field(init=False, default=None)
    _written: list[Path] = field(init=False, default_factory=list)
    _lock: threading.RLock = field(init=False, default_factory=threading.RLock)

    def __post_init__(self) -> None:
        cells = self.plan.all_cells
        clocks = [self.experiment.clock(row) for row in cells]
        due = [planned for planned in self.plan.schedule() if is_due(planned, clocks[planned.cell])]
        counts, warmups = Counter(one.cell for one in due), Counter(one.cell for one in due if one.warmup)
        states = [
            CellState(
                label=row.label,
                clock=clocks[number],
                planned=counts[number],
                warmups=warmups[number],
                role=role_of(self.experiment, row),
            )
            for number, row in enumerate(cells)
        ]
        expected = self.expected.cell_s if self.expected else None
        self._board = Board(self.plan.name, states, self._width, expected)

    @property
    def state(self) -> StudyState:
        """The current state of the study."""
        return self._board.state if self._other is None else self._other.state

    @property
    def _width(self) -> int:
        return self.parallel or len(os.sched_getaffinity(0))

    def check(self) -> None:
        """Check that the guests that run at the same time fit into this host's memory. Errors: `InvalidInput`."""
        if isinstance(self.experiment, Sized):
            check_room(guests_of(self.experiment, self.plan.all_cells, self.state.cells), self._width)

    def rows(self) -> pd.DataFrame:
        """The rows of this plan that are in the store, in the order of the plan's cells.

        After `run`, only rows of the cells' present content: rows of an older kernel stay in the store.
        """
        table = self.store.load(self.experiment.kind, self.plan.name)
        if table.empty:
            return table
        order = {row.label: number for number, row in enumerate(self.plan.all_cells)}
        rows = table[(table["session"] == self.session) & table["cell"].isin(list(order))]
        if self._keys is not None:
            rows = rows[rows["run_key"].isin(list(self._keys))]
        return rows.sort_values("cell", key=lambda labels: labels.map(order), kind="stable", ignore_index=True)

    def run(self, *, on_progress: OnProgress = silent, cancel: CancelToken | None = None) -> pd.DataFrame:
        """Report the estimated time, prepare, run what is missing, and return all rows.

        Where this study is running already, in any process, it is followed to its end (`study.live`); a cancel ends it.
        Errors: those of `check` and of the builds, `Cancelled`; what was measured before is in the store.
        """
        stop = cancel or CancelToken()
        with self._board.phases():
            live.join(self.store, self.plan.name, on_progress, stop, self._follow)
            if self.expected is not None:
                on_progress(Progress(f"plan {self.plan.name}", 0.0, self.expected.text()))
            self.check()
            with live.measuring(self.store, self.plan.name, lambda: self._board.state, on_progress, stop) as tell:
                self.experiment.prepare(jobs=self.jobs, on_progress=self._board.building(tell), cancel=stop)
                stop.check()
                self._measure(tell, stop)
        return self.rows()

    def _follow(self, other: live.RunningStudy | None) -> None:
        self._other = other

    def _measure(self, on_progress: OnProgress, stop: CancelToken) -> None:
        identities = {row.label: self._identity(row) for row in self.plan.all_cells}
        jobs = list(self._jobs(lambda row: identities[row.label]))
        self._keys = frozenset(job.key for job in jobs)
        self._board.begin()
        measured = self._kept()
        for job in jobs:
            if job.key in measured:
                self._ended(job, measured[job.key], kept=True)
        missing = [job for job in jobs if job.key not in measured]
        self._board.change(phase="running")
        self._tell(on_progress)
        for job in missing:
            if job.clock is Clock.WALL:
                self._run_job(job, stop, on_progress)
        self._side_by_side([job for job in missing if job.clock is not Clock.WALL], stop, on_progress)

    def _identity(self, cell: PlanCell) -> str:
        """Identify a cell by content; one that cannot be built is measured once it can be, or fails in another way."""
        error = self.experiment.unbuilt.get(cell.label)
        return self.experiment.identity(cell) if error is None else f"{NOT_BUILT}: {error}"

    def _side_by_side(self, jobs: Sequence[_Job], stop: CancelToken, on_progress: OnProgress) -> None:
        run_side_by_side(
            jobs, lambda job, token: self._run_job(job, token, on_progress), parallel=self.parallel, cancel=stop
        )

    def _jobs(self, identity: Callable[[PlanCell], str]) -> Iterator[_Job]:
        """Yield the runs of the plan, each with the hash of all that it measures."""
        cells = self.plan.all_cells
        clocks = [self.experiment.clock(row) for row in cells]
        identities = [identity(row) for row in cells]
        hosts = environment().host_class
        for planned in self.plan.schedule():
            cell, clock = cells[planned.cell], clocks[planned.cell]
            if not is_due(planned, clock):
                continue
            key = run_key(self.experiment.kind, cell, identities[planned.cell], planned, clock, self.session, hosts)
            yield _Job(planned=planned, cell=cell, clock=clock, key=key)

    def _kept(self) -> dict[str, Mapping[str, Any]]:
        """Return the rows of this study that need no second run, by their key."""
        columns = ("run_key", "host_fault", "end", "error", "log")
        table = self.store.load(self.experiment.kind, self.plan.name, only=columns)
        if table.empty:
            return {}
        whole = table[table["host_fault"] == ""]
        return {str(row["run_key"]): row for row in whole.to_dict("records")}  # type: ignore[misc]

    def _run_job(self, job: _Job, stop: CancelToken, on_progress: OnProgress) -> None:
        """Do one run, repeated while the host is at fault; each attempt is a row, and so is a cell without a kernel."""
        error = self.experiment.unbuilt.get(job.cell.label)
        if error is not None:
            self._ended(job, self._keep_unbuilt(job, error))
            return
        for attempt in range(1, ATTEMPTS + 1):
            stop.check()
            self._board.starts(job.planned.cell)
            try:
                self._tell(on_progress, f"{job.cell.label}, {job.clock} clock")
                measured, seconds = run_locked(
                    lambda token: self.experiment.run(job.cell, job.planned, token),
                    alone=job.clock is Clock.WALL,
                    cancel=stop,
                    on_progress=on_progress,
                )
                row = self._keep(job, measured, attempt, seconds)
            finally:
                self._board.stops(job.planned.cell)
            if not measured.host_fault:
                break
        self._ended(job, row, seconds=seconds)
        self._tell(on_progress, f"{job.cell.label}: {end_text(measured.end)}")

    def _keep_unbuilt(self, job: _Job, error: AconError) -> dict[str, Any]:
        """Store a row for a cell whose kernel could not be built; the log has the reason."""
        measured = Measured(row={}, end=NOT_BUILT, console=Path(), error=error.what)
        return self._keep(job, measured, 1, 0.0, log=str(error).encode())

    def _keep(
        self, job: _Job, measured: Measured, attempt: int, seconds: float, log: bytes | None = None
    ) -> dict[str, Any]:
        row = run_row(
            measured,
            plan=self.plan,
            kind=self.experiment.kind,
            session=self.session,
            key=job.key,
            cell=job.cell,
            planned=job.planned,
            clock=job.clock,
            attempt=attempt,
            seconds=seconds,
            host=environment(),
        )
        console = console_tail(measured.console) if log is None else log
        if measured.output:
            console += b"\n--- what the program printed last ---\n" + measured.output
        row |= self.store.keep_logs(row, console, measured.kernel_log) | self.store.keep_profile(measured.profile)
        path = self.store.add(self.experiment.kind, row)
        with self._lock:
            self._written.append(path)
            if len(self._written) >= _GATHERED:  # many thousands of files would take minutes to read
                self.store.gather(self._written)
                self._written.clear()
        return row

    def _ended(self, job: _Job, row: Mapping[str, Any], *, kept: bool = False, seconds: float | None = None) -> None:
        self._board.ends(
            job.planned.cell,
            end=str(row["end"]),
            error=str(row["error"]),
            log=self.store.folder / str(row["log"]) if row["log"] else None,
            kept=kept,
            seconds=seconds,
        )

    def _tell(self, on_progress: OnProgress, text: str = "") -> None:
        on_progress(self._board.progress(text))


def is_due(planned: PlannedRun, clock: Clock) -> bool:
    """Whether a run is needed: the instruction clock needs no warm-up."""
    return not planned.warmup or clock is Clock.WALL


def role_of(experiment: Experiment, cell: PlanCell) -> str:
    """Return what a cell is for that the experiment added to those of its plan, such as a calibration; or nothing."""
    role: Callable[[PlanCell], str] = getattr(experiment, "role", lambda _: "")
    return role(cell)


def run_key(
    kind: str, cell: PlanCell, identity: str, planned: PlannedRun, clock: Clock, session: str, host_class: str
) -> str:
    """Return the key of a run by content: a run whose key is in the store need not be measured again.

    On the wall clock the key includes the host's class: times of another host do not count as times of this one.
    """
    inputs = {
        "kind": kind,
        "cell": cell.label,
        "identity": identity,
        "host_class": host_class if clock is Clock.WALL else "",
        "block": planned.block,
        "warmup": planned.warmup,
        "session": session,
    }
    return key_of(inputs)


def run_row(
    measured: Measured,
    *,
    plan: Plan,
    kind: str,
    session: str,
    key: str,
    cell: PlanCell,
    planned: PlannedRun,
    clock: Clock,
    attempt: int,
    seconds: float,
    host: Environment,
) -> dict[str, Any]:
    """Return the row of a run on `host` that took `seconds` of wall time; the caller stores and names its log."""
    return {
        **results.stamp(host),
        "kind": kind,
        "study": plan.name,
        "session": session,
        "run_key": key,
        "cell": cell.label,
        "baseline": plan.baseline_label,
        "minimum_effect": float(plan.minimum_effect),
        **{f"factor_{name}": level for name, level in cell.levels.items()},
        "replicate": planned.block,
        "block": planned.block,
        "position": planned.position,
        "warmup": planned.warmup,
        "attempt": attempt,
        "host_fault": str(measured.host_fault),
        "seconds": seconds,
        **measured.row,
        "clock": clock.value,
        "end": str(measured.end),
        "error": measured.error,
        **_without(cell),
    }


def _without(cell: PlanCell) -> dict[str, Any]:
    """The columns of the factors that do not apply to a cell: no level, whatever the experiment takes for them."""
    if not cell.without:
        return {}
    return {NOT_APPLICABLE: "\n".join(cell.without), **{f"factor_{name}": None for name in cell.without}}


def run_side_by_side(
    jobs: Sequence[Any],
    work: Callable[[Any, CancelToken], None],
    *,
    parallel: int | None = None,
    cancel: CancelToken | None = None,
) -> None:
    """Do `work(job, cancel)` for each job, `parallel` at a time (default: one per CPU); the first error ends all."""
    if not jobs:
        return
    stop = _Both(cancel)
    workers = max(1, min(len(jobs), parallel or len(os.sched_getaffinity(0))))
    with ThreadPoolExecutor(max_workers=workers) as pool:
        futures = [pool.submit(work, job, stop) for job in jobs]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            stop.cancel()
            for future in futures:
                future.cancel()
            raise


class _Both(CancelToken):
    """A token that is also cancelled when another one is."""

    def __init__(self, outer: CancelToken | None) -> None:
        super().__init__()
        self._outer = outer

    @property
    def cancelled(self) -> bool:
        return super().cancelled or (self._outer is not None and self._outer.cancelled)


def console_tail(console: Path) -> bytes:
    """Return the last MiB of a transcript, or nothing if it does not exist."""
    try:
        with console.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG_BYTES))
            return file.read()
    except (OSError, AconError):
        return b""
