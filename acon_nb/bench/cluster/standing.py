"""A study's state kept up run by run at a cost that does not grow with the study: read as the runner's `StudyState`."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from acon_nb.bench.runner import CellState, StudyState
from acon_nb.progress import Progress
from acon_nb.vm import Clock, End


class Standing:
    """How a study stands; safe from any thread. `planned` are the runs of each cell, in the order of the cells."""

    def __init__(self, name: str, cells: list[CellState]) -> None:
        self._lock = threading.RLock()
        self._cells = cells
        self._whole = StudyState(name=name, total=sum(cell.planned for cell in cells))
        self._snapshot: StudyState | None = None
        self._left = dict.fromkeys(Clock, 0)
        for cell in cells:
            self._left[cell.clock] += cell.planned
        self._seconds: dict[Clock, tuple[int, float]] = {}
        self.width: Mapping[Clock, int] = {}

    @property
    def state(self) -> StudyState:
        """The study as it stands."""
        with self._lock:
            if self._snapshot is None:
                self._snapshot = replace(self._whole, cells=tuple(self._cells), left_s=self._left_s())
            return self._snapshot

    def phase(self, phase: str, error: str = "") -> None:
        """The study goes into another phase: preparing, running, done, cancelled, failed."""
        with self._lock:
            started = time.time() if phase == "preparing" else self._whole.started
            self._whole = replace(self._whole, phase=phase, error=error, started=started)
            self._snapshot = None

    def started(self, number: int) -> None:
        """A run of a cell was sent."""
        self._running(number, +1)

    def stopped(self, number: int) -> None:
        """A run of a cell is no longer on its way."""
        self._running(number, -1)

    def timed(self, clock: Clock, seconds: float) -> None:
        """A run on a clock took so long."""
        with self._lock:
            count, total = self._seconds.get(clock, (0, 0.0))
            self._seconds[clock] = (count + 1, total + seconds)

    def ended(self, number: int, row: Mapping[str, Any], folder: Path, *, kept: bool = False) -> None:
        """A run counts as done: its row is in the store."""
        whole = row["end"] == End.POWERED_OFF.value and not row["error"]
        with self._lock:
            old = self._cells[number]
            self._cells[number] = replace(
                old,
                done=old.done + 1,
                kept=old.kept + kept,
                failed=old.failed + (not whole),
                last_end=str(row["end"]),
                last_error=str(row["error"]),
                log=folder / str(row["log"]) if row["log"] else None,
            )
            self._left[old.clock] -= 1
            self._whole = replace(self._whole, done=self._whole.done + 1, failed=self._whole.failed + (not whole))
            self._snapshot = None

    def event(self, text: str = "") -> Progress:
        """How far it is, as an event."""
        with self._lock:
            whole, left_s = self._whole, self._left_s()
        left = "" if left_s is None else f", some {max(1, round(left_s))} s left"
        failed = f", {whole.failed} failed" if whole.failed else ""
        words = f"{whole.done} of {whole.total} runs{failed}{left}"
        share = whole.done / whole.total if whole.total else 1.0
        return Progress(f"study {whole.name}", share, f"{words}: {text}" if text else words)

    def _running(self, number: int, change: int) -> None:
        with self._lock:
            old = self._cells[number]
            self._cells[number] = replace(old, running=old.running + change)
            self._snapshot = None

    def _left_s(self) -> float | None:
        """The time left: what the runs of each clock took so far on average, side by side as they go."""
        if self._whole.phase in ("done", "cancelled", "failed"):
            return 0.0 if self._whole.phase == "done" else None
        count, total = (sum(part) for part in zip(*self._seconds.values(), strict=True)) if self._seconds else (0, 0.0)
        if not count:
            return None
        left = 0.0
        for clock in Clock:
            runs, seconds = self._seconds.get(clock, (count, total))
            left += self._left[clock] * seconds / runs / max(1, self.width.get(clock, 1))
        return left
