"""Connect a guest's console to a terminal, or to two pipes: keys go in, output comes out."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator

from acon_nb.errors import AconError
from acon_nb.process import RawTerminal
from acon_nb.vm.machine import Machine
from acon_nb.vm.outcome import Outcome
from acon_nb.vm.typist import Typist

_CHUNK_BYTES = 4096  # PIPE_BUF: a pipe that can be written to takes as much without blocking
_WAITING_BYTES = 1 << 20
_DRAIN_S = 2.0
_BUSY_S = 0.02


def attach(
    machine: Machine,
    keys_fd: int,
    output_fd: int,
    *,
    on_notice: Callable[[str], None] | None = None,
    on_start: Callable[[], None] | None = None,
) -> Outcome:
    """Run a machine (made with `mux` or `interactive`) with these descriptors as its console; return its outcome.

    A terminal at `keys_fd` is in raw mode meanwhile, so that ^C and ^Z go to the guest, and is restored afterwards,
    even if this process is killed; its size and TERM reach a guest with our /init.
    A script on a pipe or in a file is typed line by line, each as soon as the guest waits for it (`Typist`); at its
    end the guest keeps running, and `on_notice` is called. A reader of the output that is slow makes the guest wait,
    but never its end; one that is gone ends the guest, as it would end a program. `on_start` is called in a thread of
    its own as soon as the guest runs.
    """
    output = _Output(output_fd, on_closed=machine.kill)
    unsubscribe = machine.console.subscribe(output.put)
    stop_r, stop_w = os.pipe()
    feed = _pump if os.isatty(keys_fd) else _type
    notice = on_notice or (lambda _: None)
    keys = threading.Thread(target=feed, args=(machine, keys_fd, stop_r, notice), name="acon-keys", daemon=True)
    try:
        with following(keys_fd, lambda: machine.window.set_from(keys_fd)), raw_terminal(keys_fd) as machine.terminal:
            machine.start()
            keys.start()
            if on_start is not None:
                threading.Thread(target=on_start, name="acon-on-start", daemon=True).start()
            try:
                return machine.wait()
            finally:
                machine.close()
                os.write(stop_w, b".")
                output.close()
                keys.join()
    finally:
        output.close()
        unsubscribe()
        os.close(stop_r)
        os.close(stop_w)


class _Output:
    """Writes to a descriptor, blocking or not, in a thread of its own, so that its reader cannot hold up the end."""

    def __init__(self, fd: int, on_closed: Callable[[], None]) -> None:
        self._fd = fd
        self._on_closed = on_closed
        self._changed = threading.Condition()
        self._waiting = bytearray()
        self._closing = False
        self._broken = False
        self._wake_r, self._wake_w = os.pipe()
        self._thread = threading.Thread(target=self._serve, name="acon-output", daemon=True)
        self._thread.start()

    def put(self, data: bytes) -> None:
        """Write as soon as the reader takes it; waits while a MiB waits already."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) < _WAITING_BYTES or self._closing or self._broken)
            if not self._broken and data:
                self._waiting += data
                self._changed.notify_all()

    def close(self) -> None:
        """End: what waits is written if its reader takes it within two seconds."""
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._waiting or self._broken, _DRAIN_S)
            self._broken = True
            self._changed.notify_all()
        os.write(self._wake_w, b".")
        self._thread.join()
        os.close(self._wake_r)
        os.close(self._wake_w)

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._broken)
                if self._broken:
                    return
                chunk = bytes(self._waiting[:_CHUNK_BYTES])
            if not self._writable():
                return
            try:
                written = os.write(self._fd, chunk)
            except BlockingIOError:
                time.sleep(_BUSY_S)  # a terminal or socket that is writable, but not for so much
                continue
            except OSError:  # the reader is gone
                self._stop()
                self._on_closed()
                return
            with self._changed:
                del self._waiting[:written]
                self._changed.notify_all()

    def _writable(self) -> bool:
        """Wait until the descriptor can be written to; False if this ends first."""
        with selectors.PollSelector() as selector:
            selector.register(self._wake_r, selectors.EVENT_READ)
            selector.register(self._fd, selectors.EVENT_WRITE)
            return self._wake_r not in {key.fd for key, _ in selector.select()}

    def _stop(self) -> None:
        with self._changed:
            self._broken = True
            self._waiting.clear()
            self._changed.notify_all()


def _pump(machine: Machine, keys_fd: int, stop_fd: int, _: Callable[[str], None]) -> None:
    """Pass a terminal's keys on as they come."""
    for data in _chunks(keys_fd, stop_fd):
        while machine.running:
            with contextlib.suppress(AconError):  # the guest is slow to read: make the terminal wait
                machine.console.write(data)
                break
            time.sleep(_BUSY_S)


def _type(machine: Machine, keys_fd: int, stop_fd: int, notice: Callable[[str], None]) -> None:
    """Type a script that comes through a pipe or from a file."""
    typist = Typist(machine)
    typed = False
    rest = b""
    for data in _chunks(keys_fd, stop_fd):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            typed = typist.type(line + b"\r") or typed
        if not machine.running:
            return
    if rest and machine.running:
        typed = typist.type(rest) or typed
    if typed and machine.running:
        notice("standard input has ended; the guest keeps running until it powers off or --timeout ends it")


def _chunks(fd: int, stop_fd: int) -> Iterator[bytes]:
    """What can be read from a descriptor until its end, or until there is something at `stop_fd`."""
    with selectors.DefaultSelector() as selector:
        selector.register(stop_fd, selectors.EVENT_READ)
        try:
            selector.register(fd, selectors.EVENT_READ)
            pollable = True
        except PermissionError:  # a plain file is always readable, and epoll does not accept one
            pollable = False
        while True:
            ready = {key.fd for key, _ in selector.select(None if pollable else 0)}
            if stop_fd in ready:
                return
            try:
                data = os.read(fd, _CHUNK_BYTES)
            except BlockingIOError:
                continue
            except OSError:  # the terminal hung up
                return
            if not data:
                return
            yield data


@contextlib.contextmanager
def raw_terminal(fd: int) -> Iterator[RawTerminal | None]:
    """Put a terminal into raw mode, so that ^C and ^Z are keys like others; anything else stays as it is."""
    if not os.isatty(fd):
        yield None
        return
    before = termios.tcgetattr(fd)
    tty.setraw(fd, termios.TCSADRAIN)
    try:
        yield RawTerminal.of(fd, before)
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


@contextlib.contextmanager
def following(fd: int, on_size: Callable[[], None]) -> Iterator[None]:
    """Call `on_size` now and whenever the terminal at a descriptor has a new size, then in a signal handler."""
    if not os.isatty(fd):
        yield
        return
    on_size()
    if threading.current_thread() is not threading.main_thread():  # signals reach only that one
        yield
        return
    before = signal.signal(signal.SIGWINCH, lambda *_: on_size())
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
