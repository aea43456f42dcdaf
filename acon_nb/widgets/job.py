"""Runs slow work of a notebook in a thread, with its progress shown, and cancellable.

Use `result = await run(kernel.build, spec)` in a cell. Interactively it shows a progress bar and a cancel button; in
headless runs it prints lines of text to standard error (reports omit them).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from acon_nb.errors import Cancelled
from acon_nb.jupyter import show
from acon_nb.progress import CancelToken, OnProgress, Progress, TextProgress
from acon_nb.widgets.session import headless
from acon_nb.widgets.view import Displayed, accessible

T = TypeVar("T")


class NotebookJob(Generic[T]):
    """A call of `function(*args, on_progress=..., cancel=..., **kwargs)` in a thread of its own, to be awaited.

    `cancel()` requests that it stop; an interrupted or cancelled cell does the same and waits for it.
    """

    def __init__(self, function: Callable[..., T], *args: Any, on_progress: OnProgress, **kwargs: Any) -> None:
        self._token = CancelToken()
        self._future: Future[T] = Future()

        def work() -> None:
            try:
                self._future.set_result(function(*args, on_progress=on_progress, cancel=self._token, **kwargs))
            except BaseException as error:
                self._future.set_exception(error)

        self._thread = threading.Thread(target=work, name="acon-job", daemon=True)
        self._thread.start()

    def cancel(self) -> None:
        """Request that the work stop (safe from any thread)."""
        self._token.cancel()

    def then(self, done: Callable[[Future[T]], None]) -> None:
        """Call `done` with the finished future, in the job's thread, whether it gave a result or an error."""
        self._future.add_done_callback(done)

    def __await__(self) -> Generator[Any, None, T]:
        waiting = asyncio.wrap_future(self._future)
        try:
            return (yield from asyncio.shield(waiting).__await__())
        except (asyncio.CancelledError, KeyboardInterrupt):
            self.cancel()
            self._thread.join()
            raise


async def run(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Run slow work with its progress shown; return its result, or raise its error."""
    if headless():
        return await NotebookJob(function, *args, on_progress=TextProgress(every_s=10), **kwargs)
    view = _JobView()
    job: NotebookJob[T] = NotebookJob(function, *args, on_progress=view.take, **kwargs)
    view.show(job.cancel)
    try:
        result = await job
    except Cancelled:
        view.finish("cancelled", "warning")
        raise
    except BaseException:
        view.finish("failed", "danger")
        raise
    view.finish("done", "success")
    return result


_STARTING = "starting"


class _JobView(Displayed):
    """A progress bar, a line of text and a cancel button, created only when displayed."""

    def __init__(self) -> None:
        import ipywidgets

        self._bar = ipywidgets.FloatProgress(min=0, max=1, layout={"width": "30%"})
        self._text = ipywidgets.Label(_STARTING, layout={"width": "55%"})
        self._button = ipywidgets.Button(description="Cancel", icon="stop", layout={"width": "8em"})
        self._box = accessible(ipywidgets.HBox([self._bar, self._text, self._button]))
        super().__init__()

    def parts(self) -> list[Any]:
        return [show.ShownText(self._text.value)]

    def widget(self) -> Any:
        return self._box

    def show(self, cancel: Callable[[], None]) -> None:
        self._button.on_click(lambda _: cancel())
        self._ipython_display_()

    def take(self, event: Progress) -> None:
        self._bar.value = event.done or 0.0
        self._text.value = event.line

    def finish(self, word: str, style: str) -> None:
        self._bar.bar_style = style
        self._bar.value = 1.0 if word == "done" else self._bar.value
        # What came from the cache said nothing on its way.
        self._text.value = word if self._text.value == _STARTING else f"{word}: {self._text.value}"
        self._button.disabled = True
        self.keep()
