"""The size and type of the terminal in front of a guest's console, which our /init passes on to the console.

The port acon.terminal takes a line `ROWS COLUMNS TERM` at the start and at each change. A window of QEMU's own console
device (VIRTIO_CONSOLE_F_SIZE) has no such source: up to QEMU 10 none of its back ends knows a size.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading

_TERM = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,63}")
_LIMIT = 9999
DEFAULT_TERM = "linux"  # the kernel's


class TerminalWindow:
    """The window of one machine's console; it has none until `set`. Safe from any thread and in a signal handler."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._socket: socket.socket | None = None
        self._line = b""

    @property
    def is_set(self) -> bool:
        """Whether there is a window, so that the guest gets a port for it."""
        return bool(self._line)

    def set(self, rows: int, columns: int, term: str = DEFAULT_TERM) -> None:
        """Give the window a size in characters, and the terminal's type; what no terminal can have is ignored."""
        if not (0 < rows <= _LIMIT and 0 < columns <= _LIMIT):
            return
        kind = term if _TERM.fullmatch(term) else DEFAULT_TERM
        with self._lock:
            self._line = f"{rows} {columns} {kind}\n".encode()
            self._send()

    def set_from(self, fd: int) -> None:
        """Take the size of the terminal at a descriptor, and TERM."""
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(fd)
            self.set(size.lines, size.columns, os.environ.get("TERM", DEFAULT_TERM))

    def connect(self, end: socket.socket) -> None:
        """Send to this socket, which is the window's from now on, first what is known already."""
        end.setblocking(False)
        with self._lock:
            self.close()
            self._socket = end
            self._send()

    def close(self) -> None:
        """Close the socket."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
            self._socket = None

    def _send(self) -> None:
        if self._socket is not None and self._line:
            with contextlib.suppress(OSError):  # a guest that never reads: the next size may reach it
                self._socket.send(self._line)
