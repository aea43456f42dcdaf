"""Starts host programs; no other module does.

Programs take argument lists, never a shell. Each runs under `process_supervisor.py`, which kills it and everything it
started when the owner dies, for whatever reason. An error shows the command, ready to paste, and the last lines.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import selectors
import subprocess
import sys
import termios
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, BinaryIO, Self

from acon_nb.errors import AconError, Cancelled, CommandFailed, CommandTimeout, MissingRequirement, NoSpace
from acon_nb.progress import CancelToken

_log = logging.getLogger(__name__)
_SUPERVISOR = Path(__file__).with_name("process_supervisor.py")
_SYSTEM = ("/usr/sbin", "/sbin")
_TAIL_LINES = 20
_POLL_S = 0.1

Stream = int | BinaryIO | IO[bytes] | None


@dataclass(frozen=True)
class Completed:
    """A finished program: its exit status (negative: the signal), the seconds it took, and its last lines."""

    argv: tuple[str, ...]
    returncode: int
    seconds: float
    tail: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RawTerminal:
    """A terminal in raw mode, and its attributes before: the supervisor restores it when its owner is killed."""

    fd: int
    before: str
    raw: str

    @classmethod
    def of(cls, fd: int, before: list[Any]) -> RawTerminal:
        """The terminal as it is now, with what `termios.tcgetattr` returned before."""
        return cls(fd=fd, before=_as_json(before), raw=_as_json(termios.tcgetattr(fd)))


def _as_json(attributes: list[Any]) -> str:
    *numbers, characters = attributes
    return json.dumps([*numbers, [char if isinstance(char, int) else char[0] for char in characters]])


class Child:
    """A running program. Leaving the context (or `close`) ends it and everything it started.

    `returncode` is None while it runs, then its exit status, or minus the number of the signal that killed it.
    """

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        stdin: Stream = subprocess.DEVNULL,
        stdout: Stream = subprocess.DEVNULL,
        stderr: Stream = subprocess.DEVNULL,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        terminal: RawTerminal | None = None,
    ) -> None:
        self.argv = tuple(str(word) for word in argv)
        self.cwd = cwd
        self.returncode: int | None = None
        self.pid: int | None = None
        self._lock = threading.Lock()
        self._buffer = b""
        control_r, self._control = os.pipe()
        self._status, status_w = os.pipe()
        tty_fd = -1
        try:
            descriptors = [str(os.getpid()), str(control_r), str(status_w)]
            fds = [control_r, status_w, *pass_fds]
            if terminal is not None:
                tty_fd = os.dup(terminal.fd)  # standard input of the supervisor is another
                descriptors += [str(tty_fd), terminal.before, terminal.raw]
                fds.append(tty_fd)
            self._supervisor = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_SUPERVISOR), *descriptors, "--", *self.argv],
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                cwd=cwd,
                env=None if env is None else dict(env),
                pass_fds=fds,
                start_new_session=True,
            )
        except OSError:
            os.close(self._control)
            os.close(self._status)
            raise
        finally:
            if tty_fd >= 0:
                os.close(tty_fd)
            os.close(control_r)
            os.close(status_w)
        try:
            self._read_status(block=True)
        except BaseException:
            self.close()
            raise

    @property
    def stdin(self) -> IO[bytes] | None:
        """The program's standard input, if it is a pipe."""
        return self._supervisor.stdin

    @property
    def stdout(self) -> IO[bytes] | None:
        """The program's standard output, if it is a pipe."""
        return self._supervisor.stdout

    @property
    def stderr(self) -> IO[bytes] | None:
        """The program's standard error, if it is a pipe."""
        return self._supervisor.stderr

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when the program has ended."""
        return self._status

    def poll(self) -> int | None:
        """Return the exit status if the program has ended, else None."""
        with self._lock:
            if self.returncode is None:
                self._read_status(block=False)
            return self.returncode

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait at most `timeout_s` for the program to end; return its exit status, or None if it is still running."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self, selectors.EVENT_READ)
            while self.poll() is None:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return None
                selector.select(left)
        return self.returncode

    def terminate(self) -> None:
        """Send SIGTERM to the program's process group."""
        self._send(b"T")

    def kill(self) -> None:
        """Send SIGKILL to the program's process group."""
        self._send(b"K")

    def close(self) -> None:
        """End the program if it is running (SIGTERM, then SIGKILL after two seconds) and release its resources."""
        if self._control >= 0:
            os.close(self._control)
            self._control = -1
        if self._status >= 0:
            self.wait()
            self._supervisor.wait()
            os.close(self._status)
            self._status = -1
        for pipe in (self.stdin, self.stdout, self.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, word: bytes) -> None:
        if self._control >= 0 and self.poll() is None:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._control, word)

    def _read_status(self, *, block: bool) -> None:
        """Read the supervisor's status lines: `pid N`, then one of `exit N`, `signal N`, `error ERRNO`."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._status, selectors.EVENT_READ)
            while block or selector.select(0):
                block = False
                data = os.read(self._status, 4096)
                if not data:  # the supervisor was killed, and PDEATHSIG has killed its program
                    self.returncode = -9
                    return
                self._buffer += data
                *lines, self._buffer = self._buffer.split(b"\n")
                for line in lines:
                    self._take_status(line.decode())
                if self.returncode is not None:
                    return

    def _take_status(self, line: str) -> None:
        word, number = line.split()
        if word == "pid":
            self.pid = int(number)
        elif word == "exit":
            self.returncode = int(number)
        elif word == "signal":
            self.returncode = -int(number)
        else:
            self.returncode = 127
            error = OSError(int(number), os.strerror(int(number)), self.argv[0])
            if int(number) == errno.ENOENT:
                raise MissingRequirement(
                    self.argv[0], "a command", hint=f"install it, then check with: command -v {self.argv[0]}"
                ) from error
            raise error


def search_path() -> str:
    """Return PATH, with the folders of the system's programs behind it, where a user's shell does not look."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), *_SYSTEM])


def run(
    argv: Sequence[str | Path],
    *,
    stdin: Stream = subprocess.DEVNULL,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
    cancel: CancelToken | None = None,
    on_line: Callable[[str], None] | None = None,
    log: Path | None = None,
    check: bool = True,
    hint: str = "",
) -> Completed:
    """Run a program until it ends, with standard output and error merged and streamed line by line.

    Parameters: `stdin` is what it reads; `on_line` is called with each line; the raw output is appended to `log`;
    `timeout_s` and `cancel` end the program and everything it started; with `check`, an exit status other than 0
    raises.
    Errors: `CommandFailed`, `CommandTimeout`, `Cancelled`, `MissingRequirement`, `NoSpace` (the log's disk is full).
    """
    started = time.monotonic()
    tail: deque[str] = deque(maxlen=_TAIL_LINES)

    def take(line: str) -> None:
        tail.append(line)
        if on_line is not None:
            on_line(line)

    _log.debug("run %s", argv)
    with Child(argv, stdin=stdin, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as child:
        ended_by = _stream(child, take, log, started, timeout_s, cancel)
        if ended_by == "cancel":
            raise Cancelled(f"{Path(child.argv[0]).name} was cancelled")
        if ended_by == "timeout":
            raise CommandTimeout(
                child.argv, -9, tail=list(tail), cwd=cwd, log=log, why=_timed_out(timeout_s), hint=hint
            )
        code = child.wait()
    assert code is not None
    if check and code != 0:
        if any("No space left on device" in line for line in tail):
            raise NoSpace(cwd or Path.cwd(), f"{Path(child.argv[0]).name} could not write")
        raise CommandFailed(child.argv, code, tail=list(tail), cwd=cwd, log=log, hint=hint)
    return Completed(child.argv, code, time.monotonic() - started, tuple(tail))


def output(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    timeout_s: float = 60.0,
    hint: str = "",
) -> str:
    """Run a short program and return its standard output as text (see `run_bytes`)."""
    return run_bytes(argv, cwd=cwd, env=env, stdin=stdin, timeout_s=timeout_s, hint=hint).decode(errors="replace")


def run_bytes(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    timeout_s: float = 60.0,
    hint: str = "",
) -> bytes:
    """Run a short program and return its standard output; errors as in `run`.

    `stdin` is written completely before any output is read, so it must fit into a pipe (64 KiB).
    """
    chunks: list[bytes] = []
    errors: list[bytes] = []
    pipe_in = subprocess.PIPE if stdin else subprocess.DEVNULL
    with Child(argv, cwd=cwd, env=env, stdin=pipe_in, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        if child.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # the exit status shows why the program did not read it
                child.stdin.write(stdin)
                child.stdin.close()
        deadline = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            for pipe, sink in ((child.stdout, chunks), (child.stderr, errors)):
                assert pipe is not None
                selector.register(pipe, selectors.EVENT_READ, sink)
            while selector.get_map():
                left = deadline - time.monotonic()
                if left <= 0:
                    raise CommandTimeout(child.argv, -9, why=_timed_out(timeout_s), hint=hint)
                for key, _ in selector.select(left):
                    data = os.read(key.fd, 65536)
                    if data:
                        key.data.append(data)
                    else:
                        selector.unregister(key.fileobj)
        code = child.wait()
    if code:
        tail = b"".join(errors or chunks).decode(errors="replace").splitlines()[-_TAIL_LINES:]
        raise CommandFailed(child.argv, code, tail=tail, cwd=cwd, hint=hint)
    return b"".join(chunks)


def _timed_out(limit_s: float | None) -> str:
    return f"did not end within {limit_s:g} s"


def _stream(
    child: Child,
    take: Callable[[str], None],
    log: Path | None,
    started: float,
    timeout_s: float | None,
    cancel: CancelToken | None,
) -> str:
    """Forward the program's output until it ends; return why it stopped: "end", "timeout" or "cancel"."""
    assert child.stdout is not None
    rest = b""
    sink = log.open("ab") if log is not None else None
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            while True:
                if cancel is not None and cancel.cancelled:
                    return "cancel"
                if timeout_s is not None and time.monotonic() - started > timeout_s:
                    return "timeout"
                if not selector.select(_POLL_S):
                    continue
                data = os.read(child.stdout.fileno(), 65536)
                if not data:
                    break
                if sink is not None:
                    sink.write(data)
                *lines, rest = (rest + data).replace(b"\r\n", b"\n").split(b"\n")
                for line in lines:
                    take(line.decode(errors="replace"))
        if rest:
            take(rest.decode(errors="replace"))
        return "end"
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(log or Path.cwd(), "the log could not be written") from error
        raise
    finally:
        if sink is not None:
            try:
                sink.close()
            except OSError as error:
                _log.warning("closing %s: %s", log, error)


def detached(work: Callable[[Callable[[], None]], None]) -> None:
    """Run `work` in a process of its own, which outlives this one, without a terminal.

    `work` gets a function to call as soon as it has started what it is for; then this returns. This process must have
    no other threads. Errors: the `AconError` that `work` raises before, with its text, hint and exit status.
    """
    report_r, report_w = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(report_r)
        try:
            os.setsid()
            if os.fork() == 0:
                _work_alone(work, report_w)
        finally:
            os._exit(0)
    os.close(report_w)
    os.waitpid(child, 0)
    with os.fdopen(report_r, "rb") as file:
        text = file.read()
    answer: dict[str, Any] | None = (
        json.loads(text) if text else {"what": "the detached process was killed as it started", "hint": ""}
    )
    if answer:
        error = AconError(answer["what"], hint=answer["hint"], details=answer.get("details", ()))
        error.exit_status = int(answer.get("status", 1))
        raise error


def _work_alone(work: Callable[[Callable[[], None]], None], report: int) -> None:
    """The detached process: all of its life. It reports null, or an error, once."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    reported = False

    def tell(answer: object) -> None:
        nonlocal reported
        if not reported:
            reported = True
            with contextlib.suppress(OSError):
                os.write(report, json.dumps(answer).encode())
            os.close(report)

    try:
        work(lambda: tell(None))
    except AconError as error:
        details = [line[:1000] for line in error.details]
        tell({"what": error.what, "hint": error.hint, "details": details, "status": error.exit_status})
    except Exception as error:
        tell({"what": f"the detached process failed: {error!r}", "hint": "report this"})
