"""Commands in a guest: the host's side of `guest/src/exec_agent.c`, over the virtio-serial port acon.exec.

The guest is not trusted: a frame that is too long, or of a command that is not there, ends the conversation.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

from acon_nb.errors import AconError, CommandTimeout, GuestFailed, InvalidInput
from acon_nb.progress import CancelToken

NOT_STARTED = 125  # as of env(1)
_CANNOT_RUN, _NOT_FOUND = 126, 127
_HEAD = struct.Struct("<BxHI")
_LIMIT_BYTES = 1 << 20
_WINDOW_BYTES = 65536
_CHUNK_BYTES = 32768
_ARGUMENTS_BYTES = 128 << 10  # the kernel's limit of one argument (MAX_ARG_STRLEN); all of ours together
_LOOK_S = 0.1

OnOutput = Callable[[bytes], None]


@dataclass(frozen=True, kw_only=True)
class Executed:
    """A command that ran in a guest. `status` is that of a shell: 128 and the signal for one that a signal ended."""

    argv: tuple[str, ...]
    status: int
    signal: int | None
    stdout: bytes
    stderr: bytes

    def check(self) -> Executed:
        """Return self if the status is 0. Errors: `GuestFailed`."""
        if self.status:
            lines = self.stderr.decode(errors="replace").splitlines()[-20:]
            raise GuestFailed(f"{self.argv[0]} ended with status {self.status}", end="status", details=lines)
        return self


@dataclass(frozen=True, kw_only=True)
class GuestCommand:
    """A command for a guest: its words, and how it runs.

    `stdin` is what it reads; its output is kept, or passed to `on_stdout` and `on_stderr` as it comes, in the agent's
    thread. `folder` is its working directory ("": the root), `environment` is added to init's. It is killed after
    `timeout_s`, or by `cancel`. Errors: `InvalidInput` for words that cannot be arguments.
    """

    argv: Sequence[str]
    stdin: bytes | BinaryIO | None = None
    folder: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float | None = None
    cancel: CancelToken | None = None
    on_stdout: OnOutput | None = None
    on_stderr: OnOutput | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "argv", tuple(self.argv))
        self.payload()

    @classmethod
    def of(cls, command: GuestCommand | Sequence[str], **fields: Any) -> GuestCommand:
        """A command as it is, or of words; `fields` change it."""
        return replace(command, **fields) if isinstance(command, GuestCommand) else cls(argv=command, **fields)

    def payload(self) -> bytes:
        """What the agent gets to start it."""
        argv = self.argv
        if not argv or not argv[0]:
            raise InvalidInput("argv", list(argv), "names no program", hint='such as ["free", "-h"]')
        texts = [self.folder, *argv, *(f"{name}={value}" for name, value in self.environment.items())]
        raw = [os.fsencode(text) for text in texts]
        if any(b"\0" in text for text in raw):
            raise InvalidInput("argv", list(argv), "has a NUL, which no argument of a program can have")
        if len(argv) > 0xFFFF or sum(map(len, raw)) > _ARGUMENTS_BYTES:
            hint = "give what is large as standard input"
            raise InvalidInput("argv", f"{len(argv)} words", f"is more than {_ARGUMENTS_BYTES} bytes", hint=hint)
        return struct.pack("<HH", len(argv), len(self.environment)) + b"".join(text + b"\0" for text in raw)


class _Running:
    def __init__(self, command: GuestCommand) -> None:
        self.command = command
        self.kept = {"O": bytearray(), "2": bytearray()}
        self.listeners = {"O": command.on_stdout, "2": command.on_stderr}
        self.end: tuple[int, int] | None = None
        self.credit = _WINDOW_BYTES


class Agent:
    """The conversation with one guest's agent. Safe from any thread; several commands may run at once."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._sending = threading.Lock()
        self._commands: dict[int, _Running] = {}
        self._number = 0
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._broken = ""
        self.connected = False
        self.is_our_script = False
        self.set_up = False

    def connect(self, end: socket.socket) -> None:
        """Converse over this socket, which is the agent's from now on."""
        self._socket, self._broken = end, ""
        self._thread = threading.Thread(target=self._serve, args=(end,), name="acon-agent", daemon=True)
        self._thread.start()

    def wait(self, ready: Callable[[], bool], running: Callable[[], bool]) -> None:
        """Wait until `ready()`, looked at whenever the agent reports something. Errors: `GuestFailed` (it ended)."""
        with self._changed:
            while not ready():
                if not running():
                    raise GuestFailed("the guest ended before it was ready for commands", end="not_ready")
                self._changed.wait(_LOOK_S)

    def run(
        self, command: GuestCommand | Sequence[str], *, running: Callable[[], bool] = lambda: True, **fields: Any
    ) -> Executed:
        """Run a command to its end (see `Machine.execute`)."""
        wanted = GuestCommand.of(command, **fields)
        state = _Running(wanted)
        with self._changed:
            self._number = self._number % 0xFFFF + 1
            number = self._number
            self._commands[number] = state
        try:
            self._send("S", number, wanted.payload())
            threading.Thread(target=self._feed, args=(number, state), name="acon-stdin", daemon=True).start()
            self._await(number, state, running)
        finally:
            with self._changed:
                self._commands.pop(number, None)
                self._changed.notify_all()
        return _executed(state)

    def power_off(self) -> None:
        """Have the guest power off at once."""
        with contextlib.suppress(AconError):
            self._send("P", 0, b"")

    def _await(self, number: int, state: _Running, running: Callable[[], bool]) -> None:
        command = state.command
        deadline = time.monotonic() + (math.inf if command.timeout_s is None else command.timeout_s)
        with self._changed:
            while state.end is None:
                if self._broken or not running():
                    raise GuestFailed("the guest ended before its command did", end="guest_ended", hint=self._broken)
                late = time.monotonic() > deadline
                if late or (command.cancel is not None and command.cancel.cancelled):
                    self._send("K", number, bytes([signal.SIGKILL]))
                    if command.cancel is not None:
                        command.cancel.check()
                    why = f"did not end within {command.timeout_s:g} s"
                    raise CommandTimeout(command.argv, -signal.SIGKILL, why=why)
                self._changed.wait(_LOOK_S)

    def _feed(self, number: int, state: _Running) -> None:
        """Send the command's standard input, as fast as it takes it."""
        try:
            for chunk in _chunks(state.command.stdin):
                with self._changed:
                    self._changed.wait_for(lambda: state.credit >= len(chunk) or self._gone(number, state))  # noqa: B023
                    if self._gone(number, state):
                        return
                    state.credit -= len(chunk)
                self._send("I", number, chunk)
            self._send("E", number, b"")
        except (OSError, ValueError, AconError) as error:  # what reads as an end of the input for the command
            with contextlib.suppress(AconError):
                self._send("E", number, b"")
            if isinstance(error, OSError) and error.errno not in (errno.EBADF, errno.EPIPE):
                raise

    def _gone(self, number: int, state: _Running) -> bool:
        return state.end is not None or bool(self._broken) or number not in self._commands

    def _send(self, kind: str, number: int, payload: bytes) -> None:
        with self._sending:
            if self._socket is None or self._broken:
                raise AconError("the guest's agent is gone", hint="wait() returns how the guest ended")
            try:
                self._socket.sendall(_HEAD.pack(ord(kind), number, len(payload)) + payload)
            except OSError as error:
                raise AconError("the guest's agent is gone", hint="wait() returns how the guest ended") from error

    def _serve(self, end: socket.socket) -> None:
        reason = "the guest closed its port"
        try:
            with end.makefile("rb") as file:
                while len(head := file.read(_HEAD.size)) == _HEAD.size:
                    kind, number, length = _HEAD.unpack(head)
                    if length > _LIMIT_BYTES:
                        reason = f"its agent sent a frame of {length} bytes"
                        break
                    payload = file.read(length)
                    if len(payload) < length:
                        break
                    self._take(chr(kind), number, payload)
        except OSError as error:
            reason = str(error)
        with self._changed:
            self._broken = reason
            self._changed.notify_all()
        end.close()

    def _take(self, kind: str, number: int, payload: bytes) -> None:
        listener: OnOutput | None = None
        with self._changed:
            command = self._commands.get(number)
            if kind == "H":
                self.connected, self.is_our_script = True, payload == b"script"
            elif kind == "R":
                self.set_up = True
            elif command is not None and kind in ("O", "2"):
                listener = command.listeners[kind]
                if listener is None:
                    command.kept[kind] += payload
            elif command is not None and kind == "C" and len(payload) == 4:
                command.credit = min(_WINDOW_BYTES, command.credit + struct.unpack("<I", payload)[0])
            elif command is not None and kind == "Z" and len(payload) == 5:
                command.end = struct.unpack("<BI", payload)
            self._changed.notify_all()
        if listener is not None:
            listener(payload)


def _chunks(stdin: bytes | BinaryIO | None) -> list[bytes] | _Reader:
    if isinstance(stdin, bytes):
        return [stdin[start : start + _CHUNK_BYTES] for start in range(0, len(stdin), _CHUNK_BYTES)]
    return [] if stdin is None else _Reader(stdin)


class _Reader:
    """What a file has, as it comes: read1 does not wait for a whole chunk."""

    def __init__(self, file: BinaryIO) -> None:
        self._read = getattr(file, "read1", file.read)

    def __iter__(self) -> _Reader:
        return self

    def __next__(self) -> bytes:
        if not (data := self._read(_CHUNK_BYTES)):
            raise StopIteration
        return bytes(data)


def _executed(state: _Running) -> Executed:
    assert state.end is not None
    kind, value = state.end
    listener = state.listeners["2"]
    stderr = bytes(state.kept["2"])
    status, by_signal = value & 0xFF, None
    if kind == 1:
        status, by_signal = 128 + value, value
    elif kind == 2:
        status = _NOT_FOUND if value == errno.ENOENT else _CANNOT_RUN
        text = f"acon-nb: the guest cannot run {state.command.argv[0]}: {os.strerror(value)}\n".encode()
        if listener is None:
            stderr += text
        else:
            listener(text)
    return Executed(
        argv=tuple(state.command.argv), status=status, signal=by_signal, stdout=bytes(state.kept["O"]), stderr=stderr
    )
