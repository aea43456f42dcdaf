"""A running study as others see it: its state, its log and its cancelling, through files in its folder of results.

The process that runs a study holds a lock and writes its state and log next to it; any other process that can read the
folder follows it, on this host or on another one, and one that can write there cancels it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from acon_nb.cache import atomic_file, raising_no_space
from acon_nb.errors import AconError, Cancelled, InvalidInput
from acon_nb.progress import CancelToken, OnProgress, Progress, TextProgress, silent
from acon_nb.results.store import Store
from acon_nb.study.state import CellState, StudyState, headline
from acon_nb.vm import Clock

if TYPE_CHECKING:
    import pandas as pd

_EVERY_S = 0.5
_LOCK_S = 2.0  # a watcher holds the lock for an instant to see whether it is free
_LOCK, _STATE, _LOG, _CANCEL = "run.lock", "run.json", "run.log", "run.cancel"
_ENDED = ("done", "failed", "cancelled")


@contextlib.contextmanager
def alone(store: Store, study: str) -> Iterator[None]:
    """Allow one run of a study in a folder at a time: two would measure everything twice. Errors: `AconError`."""
    try:
        held = filelock.FileLock(_file(store.folder, study, _LOCK)).acquire(timeout=_LOCK_S)
    except filelock.Timeout as error:
        what = f"{study} is being measured into {store.folder} already"
        raise AconError(what, hint="acon-nb bench watch FOLDER shows it, --cancel ends it") from error
    with held:
        yield


@contextlib.contextmanager
def published(store: Store, study: str, state: Callable[[], StudyState], stop: CancelToken) -> Iterator[OnProgress]:
    """Let others follow the study that runs in this block, and cancel it; yields where its progress is logged.

    Call it with the study's lock held (`alone`). Errors: `NoSpace`.
    """
    request = _file(store.folder, study, _CANCEL)
    request.unlink(missing_ok=True)
    ended = threading.Event()

    def follow() -> None:
        seen: StudyState | None = None
        pause = _EVERY_S
        while not ended.wait(pause):
            if request.exists():
                stop.cancel()
            now = state()
            if now is not seen:
                began = time.monotonic()
                _write(store.folder, study, now)
                pause = max(_EVERY_S, 20 * (time.monotonic() - began))  # many thousands of cells take a while to write
                seen = now

    _write(store.folder, study, state())
    thread = threading.Thread(target=follow, name="acon-published", daemon=True)
    end, why = "done", ""
    with raising_no_space(store.folder), _file(store.folder, study, _LOG).open("w") as log:
        thread.start()
        try:
            yield TextProgress(log, every_s=1.0)
        except BaseException as error:
            end, why = "cancelled" if isinstance(error, Cancelled) else "failed", str(error)
            raise
        finally:
            ended.set()
            thread.join()
            _write(store.folder, study, dataclasses.replace(state(), phase=end, error=why))
            request.unlink(missing_ok=True)


@contextlib.contextmanager
def measuring(
    store: Store, study: str, state: Callable[[], StudyState], on_progress: OnProgress, stop: CancelToken
) -> Iterator[OnProgress]:
    """Run a study in this block, alone and where others can follow it; yields where to report its progress.

    Errors: `AconError` where it runs already, `NoSpace`.
    """
    with alone(store, study), published(store, study, state, stop) as log:

        def tell(event: Progress) -> None:
            on_progress(event)
            log(event)

        yield tell


@dataclass(frozen=True)
class RunningStudy:
    """A study that another process, or another cell of this one, runs or ran into a folder; see `attach`."""

    folder: Path
    name: str

    @property
    def running(self) -> bool:
        """Whether it is running now."""
        try:
            handle = os.open(_file(self.folder, self.name, _LOCK), os.O_RDONLY)
        except OSError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False

    @property
    def state(self) -> StudyState:
        """Its state, at most a second old. One whose process was killed has failed."""
        running = self.running  # before its state is read: it may end in between
        state = self._read()
        if state.phase not in _ENDED and not running:
            who = self.owner
            return dataclasses.replace(state, phase="failed", left_s=None, error=f"its process ended early ({who})")
        return state

    @property
    def owner(self) -> str:
        """Who runs it: "process 123 on myhost"."""
        try:
            values = json.loads(_file(self.folder, self.name, _STATE).read_text())
            return f"process {values['pid']} on {values['host']}"
        except (OSError, ValueError, KeyError):
            return "an unknown process"

    def cell(self, label: str) -> CellState:
        """Return the state of one cell. Errors: `InvalidInput` for a cell that it does not have."""
        cells = {cell.label: cell for cell in self.state.cells}
        if label not in cells:
            known = list(cells)
            more = f" and {len(known) - 20} more" if len(known) > 20 else ""
            raise InvalidInput("cell", label, f"is not a cell of {self.name}", hint=", ".join(known[:20]) + more)
        return cells[label]

    def log(self) -> list[str]:
        """Return the lines of its progress so far."""
        try:
            return _file(self.folder, self.name, _LOG).read_text(errors="replace").splitlines()
        except OSError:
            return []

    def cancel(self) -> None:
        """Request that it stop; what it measured is kept. Errors: `AconError` if the folder cannot be written to."""
        if not self.running:
            return
        try:
            _file(self.folder, self.name, _CANCEL).touch()
        except OSError as error:
            what = f"{self.name} cannot be cancelled: {error.strerror}"
            raise AconError(what, hint=f"as the user of {self.owner}") from error

    def run(self, *, on_progress: OnProgress = silent, cancel: CancelToken | None = None) -> pd.DataFrame:
        """Wait for its end and return its rows; a cancel is passed on to it.

        Errors: `Cancelled` if it was cancelled, `AconError` if it failed.
        """
        state = self.wait(on_progress=on_progress, cancel=cancel)
        if state.phase == "failed":
            raise AconError(f"{self.name} failed: {state.error}", hint="run it again: it resumes")
        return Store(self.folder).load("", self.name)

    def wait(self, *, on_progress: OnProgress = silent, cancel: CancelToken | None = None) -> StudyState:
        """Wait for its end, and return its last state. Errors: `Cancelled` if it was cancelled."""
        asked = False
        shown = ""
        while self.running:
            state = self.state
            text = headline(state)
            if text != shown:
                on_progress(Progress(f"study {self.name}", state.done / state.total if state.total else None, text))
                shown = text
            if cancel is not None and cancel.cancelled and not asked:
                self.cancel()
                asked = True
            time.sleep(_EVERY_S / 2)
        state = self.state
        if state.phase == "cancelled":
            raise Cancelled()
        return state

    def _read(self) -> StudyState:
        try:
            values = json.loads(_file(self.folder, self.name, _STATE).read_text())["state"]
            cells = tuple(_cell(self.folder, cell) for cell in values.pop("cells"))
            return StudyState(**values, cells=cells)
        except (OSError, ValueError, KeyError, TypeError):
            return StudyState(name=self.name)


def attach(folder: Path, study: str = "") -> RunningStudy:
    """Return the study that runs in a folder, or that ran there last. Errors: `InvalidInput` for none, or several."""
    names = {path.name[1 : -len(_STATE) - 1]: path for path in folder.glob(f".*.{_STATE}")}
    if study:
        names = {name: path for name, path in names.items() if name == study}
    if not names:
        what = f"holds no study{f' {study}' if study else ''} that was run"
        raise InvalidInput("folder", folder, what, hint="the folder that --out, or a notebook's out, names")
    running = [name for name in names if RunningStudy(folder, name).running]
    if len(running) > 1:
        raise InvalidInput("study", "", f"is one of {', '.join(sorted(running))}", hint="--study NAME")
    latest = max(names, key=lambda name: names[name].stat().st_mtime)
    return RunningStudy(folder, (running or [latest])[0])


def join(
    store: Store,
    study: str,
    on_progress: OnProgress,
    cancel: CancelToken,
    attached: Callable[[RunningStudy | None], None],
) -> None:
    """Follow another run of a study to its end, if there is one, as if it were one's own.

    `attached` is called with it, and with None once none runs.
    Errors: `Cancelled` if it was cancelled. One that failed or was killed is not an error: what is missing is run now.
    """
    other = RunningStudy(store.folder, study)
    if other.running:
        attached(other)
        on_progress(Progress(f"study {study}", None, f"runs already ({other.owner}): attached to it"))
        other.wait(on_progress=on_progress, cancel=cancel)
    attached(None)


def _file(folder: Path, study: str, suffix: str) -> Path:
    return folder / f".{study}.{suffix}"


def _write(folder: Path, study: str, state: StudyState) -> None:
    values = dataclasses.asdict(state)
    for cell in values["cells"]:
        cell["log"] = os.path.relpath(cell["log"], folder) if cell["log"] is not None else None
    text = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "state": values}, default=str)
    # A full disk ends a study at its next row, and not here.
    with contextlib.suppress(OSError, AconError), atomic_file(_file(folder, study, _STATE)) as temporary:
        temporary.write_text(text)


def _cell(folder: Path, values: dict[str, Any]) -> CellState:
    log = folder / values["log"] if values["log"] is not None else None
    return CellState(**{**values, "clock": Clock(values["clock"]), "log": log})
