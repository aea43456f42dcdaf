"""Direct channels from pages to this process that bypass Jupyter's messages: fast, even while the kernel is busy.

The server extension (`acon_nb.jupyter.server_extension`) relays a page's websocket to a socket of this process, message
by message. The socket is in Linux's abstract namespace: it leaves no file behind and disappears with the process. Its
name is a secret of 128 bits, and only processes of the same user are accepted.

A message is a JSON object (the head), a line break, and bytes. The head names the channel and the view that sent it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import secrets
import selectors
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

Receive = Callable[[dict[str, Any], list[bytes]], None]

_PREFIX = "\0acon-nb-channels-"
_MESSAGE_BYTES = 64 << 10
_BACKLOG = 16
_CREDENTIALS = struct.Struct("3i")


def pack(head: dict[str, Any], data: bytes) -> bytes:
    """Encode a message."""
    return json.dumps(head).encode() + b"\n" + data


def unpack(message: bytes) -> tuple[dict[str, Any], bytes]:
    """Decode a message into its head and bytes. Errors: `ValueError`."""
    text, separator, data = message.partition(b"\n")
    head = json.loads(text)
    if not separator or not isinstance(head, dict):
        raise ValueError("a message is a JSON object, a line break, and bytes")
    return head, data


def connect(name: str) -> socket.socket:
    """Connect to the channels of the process that serves them under `name`. Errors: `OSError` if there is none."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.connect(_PREFIX + name)
        if not _of_this_user(connection):
            raise PermissionError(f"{name}: belongs to another user")
    except OSError:
        connection.close()
        raise
    return connection


def _of_this_user(connection: socket.socket) -> bool:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return bool(_CREDENTIALS.unpack(credentials)[1] == os.geteuid())


class PageChannels:
    """The channels of this process, served by one thread. `name` is the argument for `connect`."""

    def __init__(self) -> None:
        self.name = secrets.token_hex(16)
        self._receivers: dict[str, Receive] = {}
        self._views: dict[tuple[str, str], socket.socket] = {}
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(_PREFIX + self.name)
        self._listener.listen(_BACKLOG)
        self._ready = selectors.DefaultSelector()
        self._ready.register(self._listener, selectors.EVENT_READ, self._accept)
        threading.Thread(target=self._serve, name="acon-channels", daemon=True).start()

    def open(self, receive: Receive) -> str:
        """Open a channel whose messages go to `receive` in this object's thread; return its key for the page."""
        key = secrets.token_hex(16)
        self._receivers[key] = receive
        return key

    def close(self, key: str) -> None:
        """Close a channel."""
        self._receivers.pop(key, None)
        for channel, view in list(self._views):
            if channel == key:
                self._views.pop((channel, view), None)

    def send(self, key: str, view: str, head: dict[str, Any], data: bytes = b"") -> bool:
        """Send a message to a view without waiting; return False if it has no channel or its buffer is full."""
        connection = self._views.get((key, view))
        if connection is None:
            return False
        try:
            connection.send(pack(head, data), socket.MSG_DONTWAIT)
        except OSError:
            return False
        return True

    def _serve(self) -> None:
        while True:
            for key, _ in self._ready.select():
                key.data(key.fileobj)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            if _of_this_user(connection):
                self._ready.register(connection, selectors.EVENT_READ, self._take)
            else:
                connection.close()

    def _take(self, connection: socket.socket) -> None:
        """Receive one message; a connection that sends an invalid one is dropped."""
        try:
            message, _, flags, _ = connection.recvmsg(_MESSAGE_BYTES)
            if not message or flags & socket.MSG_TRUNC:
                raise ValueError("the connection ended, or the message is too long")
            head, data = unpack(message)
            key, view = str(head["channel"]), str(head["view"])
            receive = self._receivers.get(key)
            if receive is None:
                raise ValueError(f"no channel {key}")
            self._views[key, view] = connection
            receive(head, [data])
        except (OSError, ValueError, KeyError, TypeError):
            self._drop(connection)

    def _drop(self, connection: socket.socket) -> None:
        for view, known in list(self._views.items()):
            if known is connection:
                self._views.pop(view, None)
        self._ready.unregister(connection)
        connection.close()


@functools.cache
def page_channels() -> PageChannels:
    """Return the channels of this process, created on first use. Errors: `OSError` if the system lacks such sockets."""
    return PageChannels()
