"""The size and type of the terminal in front of a guest's console: `acon-nb run` or `attach`, or a notebook's.

Our /init takes them from the port acon.terminal, as lines `ROWS COLUMNS TERM`: one at the start (of zeros if there is
no terminal yet), one for each new size. It sets the size of the console, whichever device that is.

virtio-console itself has a message for a new size (VIRTIO_CONSOLE_F_SIZE), which needs no program of the guest. QEMU
sends it for its command chardev-window-size-changed ("virtio-console: notify about the terminal size", v6 of January
2026), which no QEMU of the weekly tests has: 7.2, 10.0, 11.1 (test_qemu_matrix). `pass_sizes` asks for it all the
same, and is content with a no. Linux took rows for columns in that message until 6.15 (and in later releases of older
series): such a kernel gets none.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import threading
from collections.abc import Callable

from qemu.qmp import ExecuteError, QMPClient

_TERM = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,63}")
_RELEASE = re.compile(r"([0-9]+)\.([0-9]+)")
_LIMIT = 9999
_NONE = b"0 0 linux\n"
_RIGHT_WAY_ROUND = (6, 15)  # Linux 5326ab737a47 ("virtio_console: fix order of fields cols and rows")
DEFAULT_TERM = "linux"  # the kernel's

OnSize = Callable[[int, int], None]


class TerminalWindow:
    """The window of one machine's console; it has none until `set`. Safe from any thread and in a signal handler."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._socket: socket.socket | None = None
        self._line = b""
        self._size: tuple[int, int] | None = None
        self._on_size: OnSize | None = None

    @property
    def is_set(self) -> bool:
        """Whether there is a window."""
        return bool(self._line)

    def set(self, rows: int, columns: int, term: str = DEFAULT_TERM) -> None:
        """Give the window a size in characters, and the terminal's type; what no terminal can have is ignored.

        The type reaches a guest only before it boots.
        """
        if not (0 < rows <= _LIMIT and 0 < columns <= _LIMIT):
            return
        kind = term if _TERM.fullmatch(term) else DEFAULT_TERM
        line = f"{rows} {columns} {kind}\n".encode()
        with self._lock:
            if line == self._line:
                return
            self._line = line
            self._size = (rows, columns)
            self._send(self._line)
            self._report()

    def set_from(self, fd: int) -> None:
        """Take the size of the terminal at a descriptor, and TERM."""
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(fd)
            self.set(size.lines, size.columns, os.environ.get("TERM", DEFAULT_TERM))

    def connect(self, end: socket.socket) -> None:
        """Send to this socket, which is the window's from now on, first what is known already, or that nothing is."""
        end.setblocking(False)
        with self._lock:
            self.close()
            self._socket = end
            self._send(self._line or _NONE)

    def follow(self, on_size: OnSize) -> None:
        """Call `on_size` with rows and columns at each change, and now if they are known."""
        with self._lock:
            self._on_size = on_size
            self._report()

    def close(self) -> None:
        """Close the socket, and end `follow`."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
            self._socket = self._on_size = None

    def _send(self, line: bytes) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):  # a guest that never reads: the next size may reach it
                self._socket.send(line)

    def _report(self) -> None:
        if self._on_size is not None and self._size is not None:
            with contextlib.suppress(RuntimeError):  # the loop of a guest that has just ended
                self._on_size(*self._size)


async def pass_sizes(window: TerminalWindow, client: QMPClient, chardev: str) -> None:
    """Pass each size to QEMU, which passes it to the virtio-console of that chardev; returns if it cannot."""
    loop = asyncio.get_running_loop()
    sizes: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
    window.follow(lambda rows, columns: _put(loop, sizes, (rows, columns)))
    with contextlib.suppress(ExecuteError):  # CommandNotFound
        while True:
            rows, columns = await sizes.get()
            await client.execute("chardev-window-size-changed", {"id": chardev, "rows": rows, "cols": columns})


def takes_sizes(release: str) -> bool:
    """Whether a kernel of this release reads the message of a new size as it is meant."""
    match = _RELEASE.match(release)
    return match is not None and (int(match[1]), int(match[2])) >= _RIGHT_WAY_ROUND


def _put(loop: asyncio.AbstractEventLoop, sizes: asyncio.Queue[tuple[int, int]], size: tuple[int, int]) -> None:
    loop.call_soon_threadsafe(sizes.put_nowait, size)
