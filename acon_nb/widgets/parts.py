"""Shared parts of forms: escaped text, and buttons that start slow work."""

from __future__ import annotations

import html
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from acon_nb.errors import AconError, InvalidInput
from acon_nb.progress import Progress
from acon_nb.widgets.job import NotebookJob

_LOG_LINES = 10
_EVERY_S = 0.1


def pre(text: str, *, bad: bool = False) -> str:
    """Return HTML that shows a text literally, in the colour of errors if `bad`."""
    colour = "var(--jp-error-color1)" if bad else "inherit"
    role = ' role="alert"' if bad else ""
    return f'<pre{role} style="color: {colour}; white-space: pre-wrap">{html.escape(text)}</pre>'


def error_line(text: str) -> str:
    """Return HTML that shows an error next to its field; screen readers read it at once."""
    style = "color: var(--jp-error-color1); line-height: 1.3; overflow-wrap: anywhere; white-space: pre-wrap"
    return f'<div role="alert" style="{style}">{html.escape(text)}</div>'


def with_error(field: Any, error: Any) -> Any:
    """Return a field with the place of its error below it; `accessible` tells assistive technology that they belong
    together."""
    import ipywidgets as w

    field.add_class("acon-field")
    error.add_class("acon-error")
    return w.VBox([field, error])


def scrolled(w: Any, height: str, text: str = "") -> Any:
    """Return HTML that scrolls from this height on, by keys too: it can have the focus."""
    return w.HTML(text, tabbable=True, layout={"width": "98%", "max_height": height, "overflow": "auto"})


def dense(markup: str) -> str:
    """Give HTML the line height of text instead of that of a button, the default in widgets."""
    return f'<div style="line-height: 1.35">{markup}</div>'


def export_path(text: str) -> Path:
    """Return the path of a file that was typed into a field of a form: a mistyped folder is refused, not made.

    Errors: `InvalidInput`.
    """
    path = Path(text.strip())
    if not text.strip() or path.is_dir():
        raise InvalidInput("file", text.strip(), "is not the name of a file", hint="such as figure.png")
    if not path.parent.is_dir():
        raise InvalidInput("file", path, f"is in a folder that does not exist: {path.parent}", hint="make it first")
    return path


def lines_of(text: str) -> tuple[str, ...]:
    """Return the non-empty lines of a text area, stripped."""
    return tuple(line.strip() for line in text.splitlines() if line.strip())


class Runner:
    """Runs one task at a time in a thread, with a progress bar, a cancel button and the last lines of progress.

    `buttons` are disabled while a task runs, and afterwards unless `ready()`; errors are shown in `result`; `ended` is
    called last.
    """

    def __init__(
        self,
        buttons: tuple[Any, ...],
        result: Any,
        ready: Callable[[], bool],
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        import ipywidgets as w

        self.cancel = w.Button(description="Cancel", icon="stop", disabled=True)
        self.bar = w.FloatProgress(min=0, max=1, layout={"width": "30%"})
        self.log = w.HTML(layout={"width": "98%"})
        self._buttons = buttons
        self._result = result
        self._ready = ready
        self._ended = ended
        self._running = False
        self._job: NotebookJob[Any] | None = None
        self._lines: deque[str] = deque(maxlen=_LOG_LINES)
        self._last = 0.0
        self.cancel.on_click(lambda _: self._job.cancel() if self._job else None)

    def start(self, function: Callable[..., Any], done: Callable[[Any], None], *args: Any) -> None:
        """Call `function(*args, on_progress=..., cancel=...)` in a thread, then there `done` with the result."""
        self._running = True
        self.switch()
        self._result.value = self.log.value = ""
        self._lines.clear()
        self._job = NotebookJob(function, *args, on_progress=self._take)
        self._job.then(lambda future: self._finish(future, done))

    def switch(self) -> None:
        """Update the buttons; call it when `ready()` may have changed."""
        for button in self._buttons:
            button.disabled = self._running or not self._ready()
        self.cancel.disabled = not self._running

    def _take(self, event: Progress) -> None:
        """Show an event; at most ten per second are sent to the browser."""
        self._lines.append(event.line)
        now = time.monotonic()
        ended = event.done is not None and event.done >= 1
        if now - self._last < _EVERY_S and not ended:
            return
        self._last = now
        self.bar.value = event.done or 0.0
        self.log.value = pre("\n".join(self._lines))

    def _finish(self, future: Future[Any], done: Callable[[Any], None]) -> None:
        try:
            done(future.result())
        except AconError as error:
            self._result.value = pre(str(error), bad=True)
        except Exception as error:  # in a thread nothing else would report it
            self._result.value = pre(f"{type(error).__name__}: {error}", bad=True)
        finally:
            self._running = False
            self.switch()
            self._ended()
