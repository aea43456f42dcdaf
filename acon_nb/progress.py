"""Progress events and cancelling: what slow work says while it runs, and how it is told to stop.

Slow functions take `on_progress` (a callable of one `Progress`) and `cancel` (a `CancelToken`). Widgets, terminals
and logs draw the same events; the functions themselves never print.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

from acon_nb.errors import Cancelled


@dataclass(frozen=True)
class Progress:
    """One event: `task` what is being done, `done` the finished share (0 to 1; None: not known), `text` a detail."""

    task: str
    done: float | None = None
    text: str = ""

    @property
    def line(self) -> str:
        """The event as one line of text."""
        share = "" if self.done is None else f" {100 * self.done:3.0f} %"
        detail = f"  {self.text}" if self.text else ""
        return f"{self.task}{share}{detail}"


OnProgress = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """Take an event and do nothing with it."""


class CancelToken:
    """A thread-safe flag that slow work looks at."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        """Ask the work to stop."""
        self._event.set()

    @property
    def cancelled(self) -> bool:
        """Whether the work was asked to stop."""
        return self._event.is_set()

    def check(self) -> None:
        """Raise `Cancelled` if the work was asked to stop."""
        if self.cancelled:
            raise Cancelled()


class TextProgress:
    """Draw events as lines of text: one a task's start and end, and at most one every `every_s` seconds between."""

    def __init__(self, stream: TextIO | None = None, *, every_s: float = 5.0) -> None:
        self._stream = stream
        self._every_s = every_s
        self._last: dict[str, float] = {}
        self._lock = threading.Lock()

    def __call__(self, event: Progress) -> None:
        """Take an event (safe from any thread)."""
        with self._lock:
            now = time.monotonic()
            last = self._last.get(event.task)
            ended = event.done is not None and event.done >= 1
            if last is not None and now - last < self._every_s and not ended:
                return
            self._last[event.task] = now
            print(event.line, file=self._stream or sys.stderr, flush=True)
