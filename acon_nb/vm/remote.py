"""A terminal, or two pipes, at the console of a guest that another process owns."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
from collections.abc import Iterator

from acon_nb.vm.attach import following, raw_terminal
from acon_nb.vm.runs import NamedRun, keys, window

_CHUNK_BYTES = 4096
_PREFIX, _LEAVE = b"\x01", b"d"


def attach_run(run: NamedRun, keys_fd: int, output_fd: int) -> bool:
    """Show a running guest's console and pass keys on until it ends, or `^A d` leaves it; returns whether it ended.

    The console's last 64 KiB come first. `^A ^A` sends a ^A. At the end of a pipe or file
    of keys the output continues. A terminal's size becomes that of the console. Errors: `AconError` if the guest does
    not run.
    """
    with (
        run.connect() as link,
        raw_terminal(keys_fd),
        _new_sizes(keys_fd) as sizes_fd,
        selectors.DefaultSelector() as selector,
    ):
        selector.register(link, selectors.EVENT_READ)
        selector.register(sizes_fd, selectors.EVENT_READ)
        escape = _Escape() if os.isatty(keys_fd) else None
        try:
            selector.register(keys_fd, selectors.EVENT_READ)
        except PermissionError:  # a plain file, which is always readable
            _send_file(link, keys_fd)
        while True:
            ready = {key.fd for key, _ in selector.select()}
            if link.fileno() in ready:
                data = link.recv(_CHUNK_BYTES)
                if not data:
                    return True
                _write(output_fd, data)
            if sizes_fd in ready:
                os.read(sizes_fd, _CHUNK_BYTES)
                _send_size(link, keys_fd)
            if keys_fd in ready:
                data = os.read(keys_fd, _CHUNK_BYTES)
                if not data:
                    selector.unregister(keys_fd)
                typed, left = escape.take(data) if escape is not None else (data, False)
                link.sendall(keys(typed))
                if left:
                    return False


@contextlib.contextmanager
def _new_sizes(fd: int) -> Iterator[int]:
    """A pipe in which there is a byte when the terminal at `fd` has a new size: a signal handler cannot send frames."""
    wake_r, wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def wake() -> None:
        with contextlib.suppress(BlockingIOError):  # full: there is a byte already
            os.write(wake_w, b".")

    try:
        with following(fd, wake):
            yield wake_r
    finally:
        os.close(wake_r)
        os.close(wake_w)


def _send_size(link: socket.socket, fd: int) -> None:
    with contextlib.suppress(OSError):  # hung up: the keys' end follows
        size = os.get_terminal_size(fd)
        link.sendall(window(size.lines, size.columns))


class _Escape:
    """Takes `^A d` out of what is typed."""

    def __init__(self) -> None:
        self._after_prefix = False

    def take(self, data: bytes) -> tuple[bytes, bool]:
        """What goes to the guest, and whether the guest is left."""
        passed = bytearray()
        for number in data:
            key = bytes([number])
            if self._after_prefix:
                self._after_prefix = False
                if key == _LEAVE:
                    return bytes(passed), True
                passed += key if key == _PREFIX else _PREFIX + key
            elif key == _PREFIX:
                self._after_prefix = True
            else:
                passed += key
        return bytes(passed), False


def _send_file(link: socket.socket, fd: int) -> None:
    while data := os.read(fd, _CHUNK_BYTES):
        link.sendall(keys(data))


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
