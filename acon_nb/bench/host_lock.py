"""One lock for all measurements of a host: a guest on the wall clock runs alone, counted ones may run side by side."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import gettempdir

from acon_nb.errors import AconError
from acon_nb.progress import CancelToken, OnProgress, Progress, silent

_NAME = "acon-nb-measure.lock"
_GATE = "acon-nb-measure-gate.lock"
_POLL_S = 0.05
_SAY_AFTER_S = 1.0


@contextlib.contextmanager
def host_lock(
    *,
    shared: bool,
    cancel: CancelToken | None = None,
    on_progress: OnProgress = silent,
    folder: Path | None = None,
) -> Iterator[None]:
    """Hold the host's lock (flock(2): it goes with its owner), alone or `shared`; says when it must wait.

    Who waits holds the gate, so that guests that share the lock cannot keep one out that needs it alone.
    Errors: `Cancelled`, `AconError` when the lock's file is not a plain file.
    """
    place = folder or _folder()
    handle = _open(place / _NAME)
    try:
        gate = _open(place / _GATE)
        try:
            _take(gate, fcntl.LOCK_EX, cancel, on_progress)
            _take(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, cancel, on_progress)
        finally:
            os.close(gate)
        yield
    finally:
        os.close(handle)


def _take(handle: int, kind: int, cancel: CancelToken | None, on_progress: OnProgress) -> None:
    started, said = time.monotonic(), False
    while True:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if cancel is not None:
                cancel.check()
            if not said and time.monotonic() - started > _SAY_AFTER_S:
                on_progress(Progress("wait for another measurement on this host", None))
                said = True
            time.sleep(_POLL_S)


def _open(path: Path) -> int:
    """The lock's file, open for reading: that is enough for flock, so users share it."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o444))
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise AconError(f"{path} cannot be opened: {error.strerror}", hint="look at it, and remove it") from error


def _folder() -> Path:
    place = Path("/run/lock")
    return place if os.access(place, os.W_OK) else Path(gettempdir())
