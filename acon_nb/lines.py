"""Direct lines from pages to this process, past Jupyter's messages: quick, and no matter how busy the kernel is.

The server's extension (`acon_nb.lab_server`) passes a page's websocket on to a socket of this process, message by
message. The socket lies in Linux's abstract namespace: it has no file to be left behind and goes with the process. Its
name is a secret of 128 bits, and only processes of the same user are heard.

A message is a head in JSON, a line break, and bytes. The head says which line is meant (`line`) and which view speaks.
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

_PREFIX = "\0acon-nb-lines-"
_MESSAGE_BYTES = 64 << 10
_BACKLOG = 16
_CREDENTIALS = struct.Struct("3i")


def pack(head: dict[str, Any], data: bytes) -> bytes:
    """A message."""
    return json.dumps(head).encode() + b"\n" + data


def unpack(message: bytes) -> tuple[dict[str, Any], bytes]:
    """Head and bytes of a message. Errors: `ValueError` for what is none."""
    head, separator, data = message.partition(b"\n")
    found = json.loads(head)
    if not separator or not isinstance(found, dict):
        raise ValueError("a message is a JSON object, a line break, and bytes")
    return found, data


def connect(name: str) -> socket.socket:
    """The server's end of the lines of the process that has them under `name`. Errors: `OSError` if none has."""
    found = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        found.connect(_PREFIX + name)
        if not _of_this_user(found):
            raise PermissionError(f"{name}: of another user")
    except OSError:
        found.close()
        raise
    return found


def _of_this_user(connection: socket.socket) -> bool:
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return bool(_CREDENTIALS.unpack(found)[1] == os.geteuid())


class Lines:
    """The lines of this process: one thread hears them all. `name` is what `connect` wants."""

    def __init__(self) -> None:
        self.name = secrets.token_hex(16)
        self._receivers: dict[str, Receive] = {}
        self._views: dict[tuple[str, str], socket.socket] = {}
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(_PREFIX + self.name)
        self._listener.listen(_BACKLOG)
        self._ready = selectors.DefaultSelector()
        self._ready.register(self._listener, selectors.EVENT_READ, self._accept)
        threading.Thread(target=self._hear, name="acon-lines", daemon=True).start()

    def open(self, receive: Receive) -> str:
        """A new line, whose messages go to `receive` in this object's thread. Returns its key, for the page."""
        key = secrets.token_hex(16)
        self._receivers[key] = receive
        return key

    def close(self, key: str) -> None:
        """End a line."""
        self._receivers.pop(key, None)
        for line, view in list(self._views):
            if line == key:
                self._views.pop((line, view), None)

    def send(self, key: str, view: str, head: dict[str, Any], data: bytes = b"") -> bool:
        """Send a message to a view; False if it has no direct line or that takes no more now. Never waits."""
        connection = self._views.get((key, view))
        if connection is None:
            return False
        try:
            connection.send(pack(head, data), socket.MSG_DONTWAIT)
        except OSError:
            return False
        return True

    def _hear(self) -> None:
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
        """Take one message; whoever sends what is none is heard no more."""
        try:
            message, _, flags, _ = connection.recvmsg(_MESSAGE_BYTES)
            if not message or flags & socket.MSG_TRUNC:
                raise ValueError("the end, or a message too long")
            head, data = unpack(message)
            key, view = str(head["line"]), str(head["view"])
            receive = self._receivers.get(key)
            if receive is None:
                raise ValueError(f"no line {key}")
            self._views[key, view] = connection
            receive(head, [data])
        except (OSError, ValueError, KeyError, TypeError):
            self._drop(connection)

    def _drop(self, connection: socket.socket) -> None:
        for place, known in list(self._views.items()):
            if known is connection:
                self._views.pop(place, None)
        self._ready.unregister(connection)
        connection.close()


@functools.cache
def lines() -> Lines:
    """The lines of this process, made when first asked for. Errors: `OSError` where the system has no such sockets."""
    return Lines()
