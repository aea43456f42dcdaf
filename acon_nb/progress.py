"""Progress events of slow work, and its cancellation.

Slow functions take `on_progress` (a callable that receives one `Progress`) and `cancel` (a `CancelToken`). Widgets,
terminals and logs show the same events; the functions themselves never print.
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
    """One event: the task, the fraction `done` (0 to 1; None if unknown), and a detail in `text`.

    With `is_log`, the text is a line of a program's output, which is shown however soon it follows another.
    """

    task: str
    done: float | None = None
    text: str = ""
    is_log: bool = False

    @property
    def line(self) -> str:
        """The event as one line of text."""
        share = "" if self.done is None else f" {100 * self.done:3.0f} %"
        detail = f"  {self.text}" if self.text else ""
        return f"{self.task}{share}{detail}"


OnProgress = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """Ignore an event."""


class CancelToken:
    """A thread-safe flag that slow work checks."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        """Request that the work stop."""
        self._event.set()

    @property
    def cancelled(self) -> bool:
        """Whether cancellation was requested."""
        return self._event.is_set()

    def check(self) -> None:
        """Raise `Cancelled` if cancellation was requested."""
        if self.cancelled:
            raise Cancelled()


class TextProgress:
    """Prints events as lines of text: at the start and end of a task, and at most every `every_s` seconds between.

    Lines of logs are all printed.
    """

    def __init__(self, stream: TextIO | None = None, *, every_s: float = 5.0) -> None:
        self._stream = stream
        self._every_s = every_s
        self._last: dict[str, float] = {}
        self._lock = threading.Lock()

    def __call__(self, event: Progress) -> None:
        """Print an event if it is due (safe from any thread)."""
        with self._lock:
            now = time.monotonic()
            last = self._last.get(event.task)
            ended = event.done is not None and event.done >= 1
            if last is not None and now - last < self._every_s and not ended and not event.is_log:
                return
            self._last[event.task] = now
            print(event.line, file=self._stream or sys.stderr, flush=True)
