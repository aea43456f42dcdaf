"""One lock for all measurements on a host: a guest on the wall clock runs alone, counted ones may run side by side.

Everything that boots a guest to measure it uses `run_locked`: the runner's cells, a worker's, and single boots.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import gettempdir
from typing import TypeVar

from acon_nb.errors import AconError
from acon_nb.progress import CancelToken, OnProgress, Progress, silent

_NAME = "acon-nb-measure.lock"
_GATE = "acon-nb-measure-gate.lock"
_POLL_S = 0.05
_REPORT_AFTER_S = 1.0
_T = TypeVar("_T")


@contextlib.contextmanager
def host_lock(
    *,
    shared: bool,
    cancel: CancelToken | None = None,
    on_progress: OnProgress = silent,
    folder: Path | None = None,
) -> Iterator[None]:
    """Hold the host's lock, exclusive or `shared` (flock(2): released when its owner exits); a wait is reported.

    A waiter holds the gate, so that guests that share the lock cannot starve one that needs it alone.
    Errors: `Cancelled`, `AconError` when the lock's file is not a plain file.
    """
    directory = folder or _folder()
    handle = _open(directory / _NAME)
    try:
        gate = _open(directory / _GATE)
        try:
            _take(gate, fcntl.LOCK_EX, cancel, on_progress)
            _take(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, cancel, on_progress)
        finally:
            os.close(gate)
        yield
    finally:
        os.close(handle)


def run_locked(
    work: Callable[[CancelToken], _T],
    *,
    alone: bool,
    cancel: CancelToken | None = None,
    on_progress: OnProgress = silent,
) -> tuple[_T, float]:
    """Do `work` under the host's lock; return its result and the seconds that it took, without the wait.

    `alone` is for work that is timed on the host's clock: nothing else is measured meanwhile. `work` gets the token
    that cancels it. Errors: those of `work`, and `Cancelled`, also if `work` returned after a cancel.
    """
    stop = cancel or CancelToken()
    stop.check()
    with host_lock(shared=not alone, cancel=stop, on_progress=on_progress):
        started = time.monotonic()
        result = work(stop)
        seconds = time.monotonic() - started
    stop.check()
    return result, seconds


def _take(handle: int, kind: int, cancel: CancelToken | None, on_progress: OnProgress) -> None:
    started, reported = time.monotonic(), False
    while True:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if cancel is not None:
                cancel.check()
            if not reported and time.monotonic() - started > _REPORT_AFTER_S:
                on_progress(Progress("wait for another measurement on this host", None))
                reported = True
            time.sleep(_POLL_S)


def _open(path: Path) -> int:
    """Open the lock's file for reading, which is enough for flock, so that users can share it."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o444))
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise AconError(f"{path} cannot be opened: {error.strerror}", hint="inspect it, and remove it") from error


def _folder() -> Path:
    directory = Path("/run/lock")
    return directory if os.access(directory, os.W_OK) else Path(gettempdir())
