"""The guests of `acon-nb run` by name: which there are, what their consoles said, a hand at a console, an end.

Each has a folder below `runs/` in the user cache. Its owner, the process that waits for the guest, holds a lock on it
and serves the socket `control` in it: one request as a line of JSON ("kill", or "attach"), then, for "attach", the
console's output as it is, and what comes back in frames (`_HEAD`: a kind and a length): K keys, W the rows and columns
of the window (`_SIZE`).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from acon_nb import process
from acon_nb.cache import Cache, atomic_file, default_root
from acon_nb.errors import AconError, InvalidInput
from acon_nb.vm.machine import Machine
from acon_nb.vm.outcome import Outcome
from acon_nb.vm.plumbing import held

_RECORD, _CONTROL, _OUTCOME = "run.json", "control", "outcome.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_HEAD = struct.Struct(">cH")
_SIZE = struct.Struct(">HH")
_REPLAY_BYTES = 64 << 10
_SLOW_S = 1.0
_END_S = 10.0
_LOOK_S = 0.05


@dataclass(frozen=True, kw_only=True)
class NamedRun:
    """A guest that was started by name. `pid` is its owner's, `started` a local time, `end` the code of how it ended.

    `end` is "" while it runs, and for one whose owner was killed.
    """

    name: str
    pid: int
    started: str
    kernel: str
    folder: Path
    running: bool
    end: str = ""

    @property
    def transcript(self) -> Path:
        """What its console said."""
        return self.folder / "console.log"

    def kill(self) -> None:
        """End it at once, and wait for that. Errors: `AconError` if it does not run, or its owner does not answer."""
        with self._connected("kill") as link:
            link.settimeout(_END_S)
            link.recv(1)
        deadline = time.monotonic() + _END_S
        while _is_running(self.folder):
            if time.monotonic() > deadline:
                raise AconError(f"{self.name} does not end", hint=f"kill -9 {self.pid}: its QEMU ends with it")
            time.sleep(_LOOK_S)

    def connect(self) -> socket.socket:
        """A connection with its console: output comes, `keys` and `window` make what to send. Errors: `AconError`."""
        return self._connected("attach")

    def _connected(self, request: str) -> socket.socket:
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with _short_path(self.folder) as folder:
                link.connect(f"{folder}/{_CONTROL}")
            link.sendall(json.dumps({"do": request}).encode() + b"\n")
        except OSError as error:
            link.close()
            reason = "does not answer" if self.running else "does not run"
            raise AconError(f"{self.name} {reason}", hint="acon-nb ps shows the guests that run") from error
        return link


def keys(data: bytes) -> bytes:
    """The frames of keys."""
    pieces = (data[place : place + 0x8000] for place in range(0, len(data), 0x8000))
    return b"".join(_HEAD.pack(b"K", len(piece)) + piece for piece in pieces)


def window(rows: int, columns: int) -> bytes:
    """The frame of a new size of the window in front of the console."""
    return _HEAD.pack(b"W", _SIZE.size) + _SIZE.pack(rows, columns)


def check_name(name: str) -> str:
    """Return a name that a guest can have. Errors: `InvalidInput`."""
    if not _NAME.fullmatch(name):
        hint = "use letters, digits, dots, dashes and underscores, at most 63"
        raise InvalidInput("name", name, "is not a valid name of a guest", hint=hint)
    return name


def all_runs() -> tuple[NamedRun, ...]:
    """The guests that were started by name and are kept, the newest first."""
    runs = (_read(folder) for folder in sorted((default_root() / "runs").glob("*"), reverse=True))
    return tuple(run for run in runs if run is not None)


def find(name: str) -> NamedRun:
    """The guest of a name: the one that runs, else the newest. Errors: `InvalidInput`."""
    named = [run for run in all_runs() if run.name == name]
    if not named:
        raise InvalidInput("name", name, "is not a guest", hint="acon-nb ps --all shows the names")
    return next((run for run in named if run.running), named[0])


@contextlib.contextmanager
def registered(machine: Machine, name: str = "") -> Iterator[None]:
    """Keep a machine under a name (default: vm and the process id) while it runs, and serve those who ask for it.

    Errors: `InvalidInput` for a name that is not valid, or that a running guest has.
    """
    name = check_name(name or f"vm{os.getpid()}")
    with contextlib.ExitStack() as stack:
        with Cache().lock("runs"):
            if any(run.name == name and run.running for run in all_runs()):
                hint = f"choose another, or end it: acon-nb kill {name}"
                raise InvalidInput("name", name, "is a guest that runs already", hint=hint)
            stack.enter_context(held(machine.folder))
            started = time.strftime("%Y-%m-%d %H:%M:%S")
            record = {"name": name, "pid": os.getpid(), "started": started, "kernel": str(machine.spec.kernel)}
            with atomic_file(machine.folder / _RECORD) as path:
                path.write_text(json.dumps(record))
        stack.enter_context(_served(machine))
        yield


def detach(machine: Machine, name: str = "", on_start: Callable[[], None] | None = None) -> None:
    """Run a machine, made with `interactive`, under a name in a process that outlives this one.

    Returns when the guest runs. `on_start` is called then, in a thread of that process.
    Errors: those of `registered` and `Machine.start`, `GuestFailed` if it ends at once.
    """

    def work(started: Callable[[], None]) -> None:
        with registered(machine, name):
            machine.start()
            with contextlib.suppress(AconError):
                machine.qmp("query-status")
            if not machine.running:
                outcome = machine.wait()
                keep_outcome(machine, outcome)
                outcome.check()
            started()
            if on_start is not None:
                threading.Thread(target=on_start, name="acon-on-start", daemon=True).start()
            keep_outcome(machine, machine.wait())

    process.detached(work)


def keep_outcome(machine: Machine, outcome: Outcome) -> None:
    """Keep how a registered machine ended."""
    with atomic_file(machine.folder / _OUTCOME) as path:
        path.write_text(json.dumps({**asdict(outcome), "end": outcome.end.value}, default=str))


def _read(folder: Path) -> NamedRun | None:
    try:
        record = json.loads((folder / _RECORD).read_text())
        running = _is_running(folder)
        end = "" if running or not (folder / _OUTCOME).is_file() else json.loads((folder / _OUTCOME).read_text())["end"]
        return NamedRun(**record, folder=folder, running=running, end=end)
    except (OSError, ValueError, TypeError, KeyError):  # not by name, or being removed
        return None


def _is_running(folder: Path) -> bool:
    try:
        with held(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
            return False
    except BlockingIOError:
        return True
    except OSError:
        return False


@contextlib.contextmanager
def _short_path(folder: Path) -> Iterator[str]:
    """A path of the folder that fits into a socket's address, which takes 107 bytes."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


@contextlib.contextmanager
def _served(machine: Machine) -> Iterator[None]:
    """Answer requests for a machine, each in a thread of its own."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        with _short_path(machine.folder) as folder:
            server.bind(f"{folder}/{_CONTROL}")
        server.listen()
        thread = threading.Thread(target=_accept, args=(server, machine), name="acon-control", daemon=True)
        thread.start()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            thread.join()
            with contextlib.suppress(OSError):
                (machine.folder / _CONTROL).unlink()


def _accept(server: socket.socket, machine: Machine) -> None:
    while True:
        try:
            link, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=_answer, args=(link, machine), name="acon-control-link", daemon=True).start()


def _answer(link: socket.socket, machine: Machine) -> None:
    with link, contextlib.suppress(OSError, ValueError, KeyError, TypeError, AconError, struct.error):
        link.settimeout(_SLOW_S)
        with link.makefile("rb", buffering=0) as file:  # what follows the line is not the request's
            request = json.loads(file.readline(4096))["do"]
        if request == "kill":
            machine.kill()
            link.sendall(b".")
        elif request == "attach":
            _attach(link, machine)


def _attach(link: socket.socket, machine: Machine) -> None:
    """Pass the console's output to a client, and its keys to the console. A client that is slow is dropped."""

    def send(data: bytes) -> None:
        try:
            if data:
                link.sendall(data)
            else:
                link.shutdown(socket.SHUT_WR)
        except OSError:
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)

    unsubscribe = machine.console.subscribe(send, replay_bytes=_REPLAY_BYTES)
    try:
        while head := _exactly(link, _HEAD.size, machine):
            kind, length = _HEAD.unpack(head)
            data = _exactly(link, length, machine)
            if kind == b"K":
                machine.console.write(data)
            elif kind == b"W":
                machine.window.set(*_SIZE.unpack(data))
    finally:
        unsubscribe()


def _exactly(link: socket.socket, count: int, machine: Machine) -> bytes:
    """So many bytes of a client; none if it hung up."""
    data = b""
    while len(data) < count:
        try:
            part = link.recv(count - len(data))
        except TimeoutError:
            if not machine.running:
                return b""
            continue
        if not part:
            return b""
        data += part
    return data
