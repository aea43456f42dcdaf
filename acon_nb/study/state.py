"""The state of a study: its cells, what is done, and the time left. Only the runner changes it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from acon_nb.errors import Cancelled
from acon_nb.progress import OnProgress, Progress
from acon_nb.vm import GOOD_ENDS, Clock
from acon_nb.vm.diagnosis import end_text, read_tail

_LOG_LINES = 40
_ORDER = ("running", "failed", "done", "waiting")


@dataclass(frozen=True, kw_only=True)
class CellState:
    """The state of a cell: its runs planned, done (`kept`: from an earlier session) and failed; its latest log.

    `warmups` of the planned runs are warm-ups; `role` names a cell that the experiment added to those of the plan.
    """

    label: str
    clock: Clock
    planned: int
    warmups: int = 0
    role: str = ""
    done: int = 0
    kept: int = 0
    failed: int = 0
    running: int = 0
    last_end: str = ""
    last_error: str = ""
    log: Path | None = None

    @property
    def state(self) -> str:
        """waiting, running, failed (some run did not succeed), or done."""
        if self.running:
            return "running"
        if self.done < self.planned:
            return "waiting"
        return "failed" if self.failed else "done"


@dataclass(frozen=True, kw_only=True)
class StudyState:
    """The state of a study; `left_s` is the time left, estimated from the runs so far (None: not known yet).

    `made_of` divides the total where it holds runs that nobody planned; `doing` is what is built before the first run.
    """

    name: str
    phase: str = "new"
    done: int = 0
    total: int = 0
    made_of: str = ""
    doing: str = ""
    failed: int = 0
    started: float | None = None
    left_s: float | None = None
    cells: tuple[CellState, ...] = ()
    error: str = ""


def headline(state: StudyState) -> str:
    """Describe a study in one line: "running: 12 of 40 runs, 1 failed, some 35 s left; cells: 3 done, 1 running"."""
    left = "" if state.left_s is None or state.done == state.total else f", some {format_left(state.left_s)} left"
    failed = f", {state.failed} failed" if state.failed else ""
    counts = Counter(cell.state for cell in state.cells)
    cells = ", ".join(f"{counts[name]} {name}" for name in _ORDER if counts[name])
    why = f" ({state.error.splitlines()[0]})" if state.error and state.phase == "failed" else ""
    made_of = f" ({state.made_of})" if state.made_of else ""
    doing = f" {state.doing}:" if state.doing and state.phase == "building" else ":"
    return f"{state.phase}{why}{doing} {state.done} of {state.total} runs{made_of}{failed}{left}; cells: {cells}"


def made_of(cells: Sequence[CellState]) -> str:
    """Divide the runs of a study: "3 planned, 1 calibration"; nothing if all are runs that the plan asks for."""
    extra: Counter[str] = Counter()
    for cell in cells:
        if cell.role:
            extra[cell.role] += cell.planned
        elif cell.warmups:
            extra["warm-up"] += cell.warmups
    planned = sum(cell.planned for cell in cells) - sum(extra.values())
    return ", ".join([f"{planned} planned", *(f"{count} {name}" for name, count in extra.items())]) if extra else ""


def log_of(cell: CellState) -> str:
    """Return how a cell's latest run ended, and the end of its log."""
    end = f"{cell.label}: {end_text(cell.last_end) or 'no run yet'}" + (
        f": {cell.last_error}" if cell.last_error else ""
    )
    lines = [] if cell.log is None else read_tail(cell.log)[-_LOG_LINES:]
    return "\n".join([end, *lines, f"log: {cell.log}" if cell.log else ""]).rstrip()


class Board:
    """The state of a study that many threads change: each change costs the same, however many cells there are.

    `parallel` is how many guests of the instruction clock run at a time, and `expected` how many seconds a run of each
    cell is expected to take, for the time left.
    """

    def __init__(
        self, name: str, cells: Sequence[CellState], parallel: int, expected: Sequence[float] | None = None
    ) -> None:
        self._lock = threading.RLock()
        self._cells = list(cells)
        self._width = {Clock.WALL: 1, Clock.INSTRUCTIONS: parallel}
        total = sum(cell.planned for cell in cells)
        self._fields: dict[str, Any] = {"name": name, "total": total, "made_of": made_of(cells)}
        self._seconds = dict.fromkeys(Clock, 0.0)
        self._timed = dict.fromkeys(Clock, 0)
        self._expected = expected
        self._timed_expected = dict.fromkeys(Clock, 0.0)
        self._snapshot: StudyState | None = None
        self.begin()

    @property
    def state(self) -> StudyState:
        """The current state of the study; the tuple of its cells is built on demand."""
        with self._lock:
            if self._snapshot is None:
                self._snapshot = StudyState(**self._fields, cells=tuple(self._cells))
            return self._snapshot

    def begin(self) -> None:
        """Reset all counts: a study that is run again starts from nothing."""
        with self._lock:
            self._cells = [
                replace(cell, done=0, kept=0, failed=0, running=0) if cell.done or cell.running else cell
                for cell in self._cells
            ]
            self._left = {clock: sum(cell.planned for cell in self._cells if cell.clock is clock) for clock in Clock}
            self._left_expected = dict.fromkeys(Clock, 0.0)
            for cell, seconds in zip(self._cells, self._expected or (), strict=False):
                self._left_expected[cell.clock] += cell.planned * seconds
            self.change(done=0, failed=0, left_s=self._left_s() if self._expected else None)

    def change(self, **fields: Any) -> None:
        """Set fields of the state."""
        with self._lock:
            self._fields |= fields
            self._snapshot = None

    @contextlib.contextmanager
    def phases(self) -> Iterator[None]:
        """Note that the study is prepared, and at the block's end that it is done, failed or cancelled, and why."""
        self.change(phase="preparing", started=time.time(), error="", doing="")
        try:
            yield
        except BaseException as error:
            phase = "cancelled" if isinstance(error, Cancelled) else "failed"
            self.change(phase=phase, error=str(error), left_s=None)
            raise
        self.change(phase="done", left_s=0.0)

    def building(self, on_progress: OnProgress) -> OnProgress:
        """Return where to report what is built before the first run: it is noted, and passed on."""

        def tell(event: Progress) -> None:
            self.change(phase="building", doing=event.line)
            on_progress(event)

        return tell

    def widen(self, *, wall: int, instructions: int) -> None:
        """Set how many guests of each clock run at a time (on several hosts, more than one on the wall clock)."""
        with self._lock:
            self._width = {Clock.WALL: max(1, wall), Clock.INSTRUCTIONS: max(1, instructions)}

    def starts(self, number: int) -> None:
        """Note that a run of a cell starts."""
        with self._lock:
            self._cell(number, running=self._cells[number].running + 1)

    def stops(self, number: int) -> None:
        """Note that a run of a cell stops, whatever its result."""
        with self._lock:
            self._cell(number, running=self._cells[number].running - 1)

    def ends(
        self, number: int, *, end: str, error: str, log: Path | None, kept: bool = False, seconds: float | None = None
    ) -> None:
        """Note that a run of a cell is done: its end, and its time unless it is `kept` from an earlier session."""
        whole = end in GOOD_ENDS and not error
        with self._lock:
            old = self._cells[number]
            self._cell(
                number, done=old.done + 1, kept=old.kept + kept, failed=old.failed + (not whole), last_end=end,
                last_error=error, log=log,
            )  # fmt: skip
            self._left[old.clock] -= 1
            expected = self._expected[number] if self._expected else 0.0
            self._left_expected[old.clock] -= expected
            if seconds is not None:
                self._timed_expected[old.clock] += expected
                self._seconds[old.clock] += seconds
                self._timed[old.clock] += 1
            fields = self._fields
            self.change(done=fields["done"] + 1, failed=fields["failed"] + (not whole), left_s=self._left_s())

    def progress(self, text: str = "") -> Progress:
        """The state as an event: "3 of 9 runs, some 12 s left: memory=1G: powered off"."""
        with self._lock:
            name, total, done, parts = (self._fields[key] for key in ("name", "total", "done", "made_of"))
            failed, left_s = self._fields["failed"], self._fields["left_s"]
        left = "" if left_s is None or done == total else f", some {format_left(left_s)} left"
        runs = f"{done} of {total} runs{f' ({parts})' if parts and not done else ''}"
        event = f"{runs}{f', {failed} failed' if failed else ''}{left}"
        return Progress(f"study {name}", done / total if total else 1.0, f"{event}: {text}" if text else event)

    def _cell(self, number: int, **fields: Any) -> None:
        with self._lock:
            self._cells[number] = replace(self._cells[number], **fields)
            self._snapshot = None

    def _left_s(self) -> float | None:
        """Estimate the time left: as expected, scaled by how the runs so far took compared with their expectation; from
        the mean time of each clock's runs so far where nothing was expected."""
        if self._expected:
            return sum(self._left_expected[clock] * self._pace(clock) / self._width[clock] for clock in Clock)
        runs = sum(self._timed.values())
        if not runs:
            return None
        overall = sum(self._seconds.values()) / runs
        mean = {clock: self._seconds[clock] / self._timed[clock] if self._timed[clock] else overall for clock in Clock}
        return sum(self._left[clock] * mean[clock] / self._width[clock] for clock in Clock)

    def _pace(self, clock: Clock) -> float:
        """How many times the expected time the runs of a clock took so far (of any clock, if none of that one did)."""
        for clocks in ([clock], list(Clock)):
            expected = sum(self._timed_expected[one] for one in clocks)
            if expected > 0:
                return sum(self._seconds[one] for one in clocks) / expected
        return 1.0


def format_left(seconds: float) -> str:
    """A time left, roughly: "12 s", "5 min", "3.5 h", "4.1 days"."""
    if seconds < 120:
        return f"{max(1, round(seconds))} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 72 * 3600 else f"{seconds / 86400:.1f} days"
