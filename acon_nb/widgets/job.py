"""Slow work in a notebook: it runs in a thread, shows its progress, and can be cancelled.

`result = await run(kernel.build, spec)` in a cell. With a person there, a bar and a cancel button are shown; headless,
lines of text go to standard error (reports leave them out).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from acon_nb.errors import Cancelled
from acon_nb.progress import CancelToken, OnProgress, Progress, TextProgress
from acon_nb.widgets.session import headless, steady

T = TypeVar("T")


class Job(Generic[T]):
    """A call of `function(*args, on_progress=..., cancel=..., **kwargs)` in a thread of its own; await it.

    `cancel()` asks it to stop; an interrupted or cancelled cell does the same and waits until it has stopped.
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
        """Ask the work to stop (safe from any thread)."""
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
    """Run slow work with its progress shown; returns what it returns, raises what it raises."""
    if headless():
        return await Job(function, *args, on_progress=TextProgress(every_s=10), **kwargs)
    view = _JobView()
    job: Job[T] = Job(function, *args, on_progress=view.take, **kwargs)
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


class _JobView:
    """A bar, a line of text and a cancel button; made only when it is shown to a person."""

    def __init__(self) -> None:
        import ipywidgets

        self._bar = ipywidgets.FloatProgress(min=0, max=1, layout={"width": "30%"})
        self._text = ipywidgets.Label("starting", layout={"width": "55%"})
        self._button = ipywidgets.Button(description="Cancel", icon="stop", layout={"width": "8em"})
        self._box = steady(ipywidgets.HBox([self._bar, self._text, self._button]))

    def show(self, cancel: Callable[[], None]) -> None:
        from IPython.display import display

        self._button.on_click(lambda _: cancel())
        display(self._box)

    def take(self, event: Progress) -> None:
        self._bar.value = event.done or 0.0
        self._text.value = event.line

    def finish(self, word: str, style: str) -> None:
        self._bar.bar_style = style
        self._bar.value = 1.0 if word == "done" else self._bar.value
        self._text.value = f"{word}: {self._text.value}"
        self._button.disabled = True
