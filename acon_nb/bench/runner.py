"""Runs a plan: cell after cell, each row kept as its run ends, resumed by content, watched and cancelled from outside.

Rules: one guest at a time on the wall clock on the whole host (a lock), guests on the instruction clock side by side,
since that clock does not see the host; a block is one run of every cell; warm-ups are kept apart; a run is done again
only for a fault of the host, named in the row; a guest that fails is a row with its end and its log.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from acon_nb.bench import results
from acon_nb.bench.host_lock import host_lock
from acon_nb.bench.plan import Plan, Setting, Turn
from acon_nb.cache import key_of
from acon_nb.errors import AconError, Cancelled
from acon_nb.host import environment
from acon_nb.host.facts import Environment
from acon_nb.progress import CancelToken, OnProgress, Progress, silent
from acon_nb.vm import Clock, End

if TYPE_CHECKING:
    import pandas as pd

LOG_BYTES = 1 << 20
ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one run gave: columns of its row, its end, its console's transcript, and the host's fault if there was one.

    `host_fault` names a fault of the host, not of the guest ("out of memory", "killed from outside"): the run is done
    again.
    """

    row: Mapping[str, Any]
    end: End
    console: Path
    host_fault: str = ""
    error: str = ""


class Experiment(Protocol):
    """What a plan's factors mean: `bench.experiments` has one for each kind of study."""

    kind: str

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
class CellState:
    """A cell as it stands: runs planned, done (`kept`: of them from an earlier session), failed; its latest log."""

    label: str
    clock: Clock
    planned: int
    done: int = 0
    kept: int = 0
    failed: int = 0
    running: int = 0
    last_end: str = ""
    last_error: str = ""
    log: Path | None = None

    @property
    def state(self) -> str:
        """waiting, running, failed (some run was not whole), or done."""
        if self.running:
            return "running"
        if self.done < self.planned:
            return "waiting"
        return "failed" if self.failed else "done"


@dataclass(frozen=True, kw_only=True)
class StudyState:
    """A study as it stands: `left_s` is the time left by the runs so far (None: not known yet)."""

    name: str
    phase: str = "new"
    done: int = 0
    total: int = 0
    failed: int = 0
    started: float | None = None
    left_s: float | None = None
    cells: tuple[CellState, ...] = ()
    error: str = ""


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
    _state: StudyState = field(init=False)
    _lock: threading.RLock = field(init=False, default_factory=threading.RLock)
    _seconds: list[tuple[Clock, float]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        cells = tuple(
            CellState(label=row.label, clock=self.experiment.clock(row), planned=0) for row in self.plan.settings
        )
        self._state = StudyState(name=self.plan.name, cells=cells)
        for job in self._jobs(lambda _: ""):
            self._cell(job.turn.setting, planned=self._state.cells[job.turn.setting].planned + 1)
        self._change(total=sum(row.planned for row in self._state.cells))

    @property
    def state(self) -> StudyState:
        """The study as it stands."""
        with self._lock:
            return self._state

    def rows(self) -> pd.DataFrame:
        """The rows of this plan that are in the store, in the order of the plan's cells."""
        table = self.store.load(self.experiment.kind, self.plan.name)
        if table.empty:
            return table
        order = {row.label: number for number, row in enumerate(self.plan.settings)}
        mine = table[(table["session"] == self.session) & table["cell"].isin(list(order))]
        return mine.sort_values("cell", key=lambda labels: labels.map(order), kind="stable", ignore_index=True)

    def run(self, *, on_progress: OnProgress = silent, cancel: CancelToken | None = None) -> pd.DataFrame:
        """Prepare, run what is missing, and return all rows.

        Errors: those of the builds, `Cancelled`; what was measured before is in the store.
        """
        stop = cancel or CancelToken()
        self._change(phase="preparing", started=time.time(), error="")
        try:
            self.experiment.prepare(jobs=self.jobs, on_progress=on_progress, cancel=stop)
            stop.check()
            self._measure(on_progress, stop)
        except BaseException as error:
            self._change(phase="cancelled" if isinstance(error, Cancelled) else "failed", error=str(error), left_s=None)
            raise
        self._change(phase="done", left_s=0.0)
        return self.rows()

    def _measure(self, on_progress: OnProgress, stop: CancelToken) -> None:
        identities = {row.label: self.experiment.identity(row) for row in self.plan.settings}
        jobs = list(self._jobs(lambda row: identities[row.label]))
        there = self._kept()
        for job in jobs:
            if job.key in there:
                self._ended(job, there[job.key], kept=True)
        left = [job for job in jobs if job.key not in there]
        self._change(phase="running")
        self._tell(on_progress)
        for job in left:
            if job.clock is Clock.WALL:
                self._take_turn(job, stop, on_progress)
        self._side_by_side([job for job in left if job.clock is not Clock.WALL], stop, on_progress)

    def _side_by_side(self, jobs: Sequence[_Job], stop: CancelToken, on_progress: OnProgress) -> None:
        run_side_by_side(
            jobs, lambda job, token: self._take_turn(job, token, on_progress), parallel=self.parallel, cancel=stop
        )

    def _jobs(self, identity: Callable[[Setting], str]) -> Iterator[_Job]:
        """The turns of the plan; the instruction clock needs no warm-up."""
        settings = self.plan.settings
        clocks = [self.experiment.clock(row) for row in settings]
        for turn in self.plan.turns():
            setting, clock = settings[turn.setting], clocks[turn.setting]
            if turn.warmup and clock is not Clock.WALL:
                continue
            key = turn_key(self.experiment.kind, identity(setting), turn, self.session)
            yield _Job(turn=turn, setting=setting, clock=clock, key=key)

    def _kept(self) -> dict[str, Mapping[str, Any]]:
        """The rows of this study that need no second run, by their key."""
        table = self.store.load(self.experiment.kind, self.plan.name)
        if table.empty:
            return {}
        whole = table[table["host_fault"] == ""]
        return {str(row["turn_key"]): row for row in whole.to_dict("records")}  # type: ignore[misc]

    def _take_turn(self, job: _Job, stop: CancelToken, on_progress: OnProgress) -> None:
        """One run, again while the host is at fault; each attempt is a row."""
        for attempt in range(1, ATTEMPTS + 1):
            stop.check()
            self._cell(job.turn.setting, running=+1)
            try:
                self._tell(on_progress, f"{job.setting.label}, {job.clock} clock")
                with host_lock(shared=job.clock is not Clock.WALL, cancel=stop, on_progress=on_progress):
                    started = time.monotonic()
                    measured = self.experiment.run(job.setting, job.turn, stop)
                    seconds = time.monotonic() - started
                stop.check()  # a cancel kills the guest: that is no result
                row = self._keep(job, measured, attempt, seconds)
            finally:
                self._cell(job.turn.setting, running=-1)
            if not measured.host_fault:
                break
        with self._lock:
            self._seconds.append((job.clock, seconds))
        self._ended(job, row)
        self._tell(on_progress, f"{job.setting.label}: {measured.end}")

    def _keep(self, job: _Job, measured: Measured, attempt: int, seconds: float) -> dict[str, Any]:
        row = run_row(
            measured,
            kind=self.experiment.kind,
            study=self.plan.name,
            session=self.session,
            key=job.key,
            setting=job.setting,
            turn=job.turn,
            clock=job.clock,
            attempt=attempt,
            seconds=seconds,
            host=environment(),
        )
        place = self.store.log_path(row)
        row["log"] = str(place) if keep_log(measured.console, self.store.folder / place) else ""
        self.store.add(self.experiment.kind, row)
        return row

    def _ended(self, job: _Job, row: Mapping[str, Any], *, kept: bool = False) -> None:
        whole = row["end"] == End.POWERED_OFF.value and not row["error"]
        with self._lock:
            old = self._state.cells[job.turn.setting]
            self._cell(
                job.turn.setting,
                done=old.done + 1,
                kept=old.kept + kept,
                failed=old.failed + (not whole),
                last_end=str(row["end"]),
                last_error=str(row["error"]),
                log=self.store.folder / str(row["log"]) if row["log"] else None,
            )
            cells = self._state.cells
            self._change(done=sum(cell.done for cell in cells), failed=sum(cell.failed for cell in cells))
            self._change(left_s=self._left_s())

    def _left_s(self) -> float | None:
        """The time left: what the runs of each clock took so far, on average."""
        width = {Clock.WALL: 1, Clock.INSTRUCTIONS: self.parallel or len(os.sched_getaffinity(0))}
        known = {clock: [s for c, s in self._seconds if c is clock] for clock in Clock}
        everything = [seconds for _, seconds in self._seconds]
        if not everything:
            return None
        left = 0.0
        for cell in self._state.cells:
            times = known[cell.clock] or everything
            left += (cell.planned - cell.done) * sum(times) / len(times) / width[cell.clock]
        return left

    def _cell(self, number: int, *, running: int = 0, **changes: Any) -> None:
        with self._lock:
            cells = list(self._state.cells)
            cells[number] = replace(cells[number], running=cells[number].running + running, **changes)
            self._state = replace(self._state, cells=tuple(cells))

    def _change(self, **changes: Any) -> None:
        with self._lock:
            self._state = replace(self._state, **changes)

    def _tell(self, on_progress: OnProgress, text: str = "") -> None:
        state = self.state
        left = "" if state.left_s is None else f", some {max(1, round(state.left_s))} s left"
        failed = f", {state.failed} failed" if state.failed else ""
        share = state.done / state.total if state.total else 1.0
        event = f"{state.done} of {state.total} runs{failed}{left}"
        on_progress(Progress(f"study {state.name}", share, f"{event}: {text}" if text else event))


def turn_key(kind: str, identity: str, turn: Turn, session: str) -> str:
    """What a run is by content: a row with this key need not be measured again."""
    inputs = {"kind": kind, "identity": identity, "block": turn.block, "warmup": turn.warmup, "session": session}
    return key_of(inputs)


def run_row(
    measured: Measured,
    *,
    kind: str,
    study: str,
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
        "study": study,
        "session": session,
        "turn_key": key,
        "cell": setting.label,
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
        "end": measured.end.value,
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


def keep_log(console: Path, place: Path) -> bool:
    """Copy the last MiB of a transcript to `place`; whether there was any."""
    try:
        with console.open("rb") as file:
            file.seek(max(0, console.stat().st_size - LOG_BYTES))
            data = file.read()
    except (OSError, AconError):
        return False
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    return True
