"""Runs a plan: cell after cell, each row kept as its run ends, resumed by content, watched and cancelled from outside.

Rules: one guest at a time on the wall clock on the whole host (a lock), guests on the instruction clock side by side,
since that clock does not see the host; a block is one run of every cell; warm-ups are kept apart; a run is done again
only for a fault of the host, named in the row; a guest that fails is a row with its end and its log.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import filelock

from acon_nb.bench import results
from acon_nb.bench.board import Board, CellState, StudyState
from acon_nb.bench.host_lock import host_lock
from acon_nb.bench.plan import Plan, Setting, Turn
from acon_nb.cache import key_of
from acon_nb.errors import AconError, Cancelled
from acon_nb.host import environment
from acon_nb.host.facts import Environment
from acon_nb.progress import CancelToken, OnProgress, silent
from acon_nb.vm import Clock

if TYPE_CHECKING:
    import pandas as pd

_LOG_BYTES = 1 << 20
ATTEMPTS = 3
NOT_BUILT = "not built"  # the end of a cell that has no guest
_GATHERED = 512


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one run gave: columns of its row, its end, its console's transcript, and the host's fault if there was one.

    `end` is one of `vm.End`, or `NOT_BUILT`.
    `host_fault` names a fault of the host, not of the guest ("out of memory", "killed from outside"): the run is done
    again. `kernel_log` is the guest's log as dmesg shows it, where the guest could send it.
    """

    row: Mapping[str, Any]
    end: str
    console: Path
    host_fault: str = ""
    error: str = ""
    kernel_log: str = ""


class Experiment(Protocol):
    """What a plan's factors mean: `bench.experiments` has one for each kind of study."""

    kind: str

    @property
    def unbuilt(self) -> Mapping[str, AconError]:
        """The cells whose kernel could not be built, by label, with the reason; after `prepare`."""
        ...

    def clock(self, setting: Setting) -> Clock:
        """The clock of a cell."""
        ...

    def prepare(self, *, jobs: int | None, on_progress: OnProgress, cancel: CancelToken | None) -> None:
        """Build all that the cells need (cached)."""
        ...

    def identity(self, setting: Setting) -> str:
        """A hash of what a cell boots, by content; after `prepare`."""
        ...

    def run(self, setting: Setting, turn: Turn, cancel: CancelToken) -> Measured:
        """Run a cell once. A guest that fails is a result, not an error."""
        ...


@dataclass(frozen=True, kw_only=True)
class _Job:
    turn: Turn
    setting: Setting
    clock: Clock
    key: str


@dataclass
class Study:
    """A plan on its way. `run` does all that is not in the store yet; `state` may be read from any thread.

    `parallel` guests of the instruction clock run at a time (default: a CPU each), `jobs` is for builds alone.
    `session` parts one night's runs from another's: rows of the same session are never measured twice.
    """

    plan: Plan
    experiment: Experiment
    store: results.Store
    session: str = ""
    jobs: int | None = None
    parallel: int | None = None
    _board: Board = field(init=False)
    _keys: frozenset[str] | None = field(init=False, default=None)
    _written: list[Path] = field(init=False, default_factory=list)
    _lock: threading.RLock = field(init=False, default_factory=threading.RLock)

    def __post_init__(self) -> None:
        settings = self.plan.settings
        clocks = [self.experiment.clock(row) for row in settings]
        planned = Counter(turn.setting for turn in self.plan.turns() if is_due(turn, clocks[turn.setting]))
        cells = [
            CellState(label=row.label, clock=clocks[number], planned=planned[number])
            for number, row in enumerate(settings)
        ]
        self._board = Board(self.plan.name, cells, self.parallel or len(os.sched_getaffinity(0)))

    @property
    def state(self) -> StudyState:
        """The study as it stands."""
        return self._board.state

    def rows(self) -> pd.DataFrame:
        """The rows of this plan that are in the store, in the order of the plan's cells.

        After `run` those of what the cells are now alone: rows of an older kernel stay in the store.
        """
        table = self.store.load(self.experiment.kind, self.plan.name)
        if table.empty:
            return table
        order = {row.label: number for number, row in enumerate(self.plan.settings)}
        mine = table[(table["session"] == self.session) & table["cell"].isin(list(order))]
        if self._keys is not None:
            mine = mine[mine["turn_key"].isin(list(self._keys))]
        return mine.sort_values("cell", key=lambda labels: labels.map(order), kind="stable", ignore_index=True)

    def run(self, *, on_progress: OnProgress = silent, cancel: CancelToken | None = None) -> pd.DataFrame:
        """Prepare, run what is missing, and return all rows.

        Errors: those of the builds, `AconError` when another run of this study goes on, `Cancelled`; what was measured
        before is in the store.
        """
        stop = cancel or CancelToken()
        self._board.change(phase="preparing", started=time.time(), error="")
        try:
            with alone(self.store, self.plan.name):
                self.experiment.prepare(jobs=self.jobs, on_progress=on_progress, cancel=stop)
                stop.check()
                self._measure(on_progress, stop)
        except BaseException as error:
            phase = "cancelled" if isinstance(error, Cancelled) else "failed"
            self._board.change(phase=phase, error=str(error), left_s=None)
            raise
        self._board.change(phase="done", left_s=0.0)
        return self.rows()

    def _measure(self, on_progress: OnProgress, stop: CancelToken) -> None:
        identities = {row.label: self._identity(row) for row in self.plan.settings}
        jobs = list(self._jobs(lambda row: identities[row.label]))
        self._keys = frozenset(job.key for job in jobs)
        self._board.begin()
        there = self._kept()
        for job in jobs:
            if job.key in there:
                self._ended(job, there[job.key], kept=True)
        left = [job for job in jobs if job.key not in there]
        self._board.change(phase="running")
        self._tell(on_progress)
        for job in left:
            if job.clock is Clock.WALL:
                self._take_turn(job, stop, on_progress)
        self._side_by_side([job for job in left if job.clock is not Clock.WALL], stop, on_progress)

    def _identity(self, setting: Setting) -> str:
        """What a cell is by content; one that cannot be built is measured as soon as it can, or fails otherwise."""
        error = self.experiment.unbuilt.get(setting.label)
        return self.experiment.identity(setting) if error is None else f"{NOT_BUILT}: {error}"

    def _side_by_side(self, jobs: Sequence[_Job], stop: CancelToken, on_progress: OnProgress) -> None:
        run_side_by_side(
            jobs, lambda job, token: self._take_turn(job, token, on_progress), parallel=self.parallel, cancel=stop
        )

    def _jobs(self, identity: Callable[[Setting], str]) -> Iterator[_Job]:
        """The turns of the plan, each with the hash of all that it measures."""
        settings = self.plan.settings
        clocks = [self.experiment.clock(row) for row in settings]
        identities = [identity(row) for row in settings]
        here = environment().host_class
        for turn in self.plan.turns():
            setting, clock = settings[turn.setting], clocks[turn.setting]
            if not is_due(turn, clock):
                continue
            key = turn_key(self.experiment.kind, setting, identities[turn.setting], turn, clock, self.session, here)
            yield _Job(turn=turn, setting=setting, clock=clock, key=key)

    def _kept(self) -> dict[str, Mapping[str, Any]]:
        """The rows of this study that need no second run, by their key."""
        columns = ("turn_key", "host_fault", "end", "error", "log")
        table = self.store.load(self.experiment.kind, self.plan.name, only=columns)
        if table.empty:
            return {}
        whole = table[table["host_fault"] == ""]
        return {str(row["turn_key"]): row for row in whole.to_dict("records")}  # type: ignore[misc]

    def _take_turn(self, job: _Job, stop: CancelToken, on_progress: OnProgress) -> None:
        """One run, again while the host is at fault; each attempt is a row. A cell without a kernel is one too."""
        error = self.experiment.unbuilt.get(job.setting.label)
        if error is not None:
            self._ended(job, self._keep_unbuilt(job, error))
            return
        for attempt in range(1, ATTEMPTS + 1):
            stop.check()
            self._board.starts(job.turn.setting)
            try:
                self._tell(on_progress, f"{job.setting.label}, {job.clock} clock")
                with host_lock(shared=job.clock is not Clock.WALL, cancel=stop, on_progress=on_progress):
                    started = time.monotonic()
                    measured = self.experiment.run(job.setting, job.turn, stop)
                    seconds = time.monotonic() - started
                stop.check()  # a cancel kills the guest: that is no result
                row = self._keep(job, measured, attempt, seconds)
            finally:
                self._board.stops(job.turn.setting)
            if not measured.host_fault:
                break
        self._ended(job, row, seconds=seconds)
        self._tell(on_progress, f"{job.setting.label}: {measured.end}")

    def _keep_unbuilt(self, job: _Job, error: AconError) -> dict[str, Any]:
        """A cell whose kernel could not be built is a row, and why is its log."""
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
            setting=job.setting,
            turn=job.turn,
            clock=job.clock,
            attempt=attempt,
            seconds=seconds,
            host=environment(),
        )
        console = console_tail(measured.console) if log is None else log
        row |= self.store.keep_logs(row, console, measured.kernel_log)
        path = self.store.add(self.experiment.kind, row)
        with self._lock:
            self._written.append(path)
            if len(self._written) >= _GATHERED:  # many thousands of files would take minutes to read
                self.store.gather(self._written)
                self._written.clear()
        return row

    def _ended(self, job: _Job, row: Mapping[str, Any], *, kept: bool = False, seconds: float | None = None) -> None:
        self._board.ends(
            job.turn.setting,
            end=str(row["end"]),
            error=str(row["error"]),
            log=self.store.folder / str(row["log"]) if row["log"] else None,
            kept=kept,
            seconds=seconds,
        )

    def _tell(self, on_progress: OnProgress, text: str = "") -> None:
        on_progress(self._board.progress(text))


@contextlib.contextmanager
def alone(store: results.Store, study: str) -> Iterator[None]:
    """One run of a study in a folder at a time: two would measure everything twice. Errors: `AconError`."""
    try:
        held = filelock.FileLock(store.folder / f".{study}.run.lock").acquire(timeout=0)
    except filelock.Timeout as error:
        what = f"{study} is being measured into {store.folder} already"
        raise AconError(what, hint="wait for it, cancel it, or choose another folder") from error
    with held:
        yield


def is_due(turn: Turn, clock: Clock) -> bool:
    """Whether a turn is run at all: the instruction clock needs no warm-up."""
    return not turn.warmup or clock is Clock.WALL


def turn_key(
    kind: str, setting: Setting, identity: str, turn: Turn, clock: Clock, session: str, host_class: str
) -> str:
    """What a run is by content: a row with this key need not be measured again.

    On the wall clock that is the host's class too: times of another host are no times of this one.
    """
    inputs = {
        "kind": kind,
        "cell": setting.label,
        "identity": identity,
        "host_class": host_class if clock is Clock.WALL else "",
        "block": turn.block,
        "warmup": turn.warmup,
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
    setting: Setting,
    turn: Turn,
    clock: Clock,
    attempt: int,
    seconds: float,
    host: Environment,
) -> dict[str, Any]:
    """The row of a run on `host`, `seconds` of wall time long; its log is the caller's to keep and to name."""
    return {
        **results.stamp(host),
        "kind": kind,
        "study": plan.name,
        "session": session,
        "turn_key": key,
        "cell": setting.label,
        "baseline": plan.baseline_label,
        "minimum_effect": float(plan.minimum_effect),
        **{f"factor_{name}": level for name, level in setting.levels.items()},
        "replicate": turn.block,
        "block": turn.block,
        "position": turn.position,
        "warmup": turn.warmup,
        "attempt": attempt,
        "host_fault": measured.host_fault,
        "seconds": seconds,
        **measured.row,
        "clock": clock.value,
        "end": str(measured.end),
        "error": measured.error,
    }


def run_side_by_side(
    jobs: Sequence[Any],
    work: Callable[[Any, CancelToken], None],
    *,
    parallel: int | None = None,
    cancel: CancelToken | None = None,
) -> None:
    """Do `work(job, cancel)` for each job, `parallel` at a time (default: a CPU each); the first error ends all."""
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
    """A token of its own that is cancelled with another one too."""

    def __init__(self, outer: CancelToken | None) -> None:
        super().__init__()
        self._outer = outer

    @property
    def cancelled(self) -> bool:
        return super().cancelled or (self._outer is not None and self._outer.cancelled)


def console_tail(console: Path) -> bytes:
    """The last MiB of a transcript; nothing where there is none."""
    try:
        with console.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG_BYTES))
            return file.read()
    except (OSError, AconError):
        return b""
