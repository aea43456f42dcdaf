"""A guest's interactive console: keys in, output out, with a transcript, scrollback and `expect`.

QEMU's serial port and hvc0 are sockets (no mux, so no key has a second meaning); their output is one stream. One thread
reads them as fast as the disk takes the transcript; in a flood it is the guest that waits.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import selectors
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from acon_nb.errors import AconError, GuestFailed, NoSpace
from acon_nb.units import format_bytes
from acon_nb.vm.diagnosis import LAST_WORDS_BYTES, last_words, plain_lines

_log = logging.getLogger(__name__)
_CHUNK_BYTES = 64 * 1024
_PENDING_LIMIT_BYTES = 1 << 20
_OVERLAP_BYTES = 4096  # the longest match that may straddle two searches
_CUT = b"\r\n[acon_nb: the transcript ends here, at its limit; the console continues]\r\n"

OnOutput = Callable[[bytes], None]
Unsubscribe = Callable[[], None]


class ExpectTimeout(AconError):
    """The expected output did not appear on the console within the time limit."""


@dataclass(frozen=True)
class ExpectMatch:
    """What `Console.expect` matched: the text before the match, the match itself, its groups."""

    before: str
    text: str
    groups: tuple[str | None, ...]


class Console:
    """The console of one guest; `Machine(spec, interactive=True).console`. Safe from any thread.

    Parameters: `transcript` is the file that gets the raw output, up to `transcript_limit_bytes`; at least the newest
    `scrollback_bytes` are kept in memory. `notes` reports why a transcript was cut (a flood, a full disk).
    """

    def __init__(
        self, transcript: Path, *, scrollback_bytes: int = 1 << 20, transcript_limit_bytes: int = 256 << 20
    ) -> None:
        self.transcript = transcript
        self.notes: tuple[str, ...] = ()
        self._scrollback_bytes = scrollback_bytes
        self._limit_bytes = transcript_limit_bytes
        self._delivery = threading.RLock()  # held while a chunk goes to the subscribers
        self._changed = threading.Condition()
        self._kept = bytearray()
        self._total = 0
        self._expected = 0
        self._ended = False
        self._last = True
        self._subscribers: dict[int, OnOutput] = {}
        self._sending = threading.Lock()
        self._pending = bytearray()
        self._input: socket.socket | None = None
        self._wake = -1
        self._thread: threading.Thread | None = None
        self._written = 0
        self._last_words: tuple[str, int] | None = None

    def write(self, data: bytes) -> None:
        """Send keys to the guest, in order. Errors: `AconError` if the guest reads none and a MiB is waiting."""
        with self._sending:
            if self._ended:
                return
            if len(self._pending) + len(data) > _PENDING_LIMIT_BYTES:
                raise AconError(
                    f"the guest reads no input: {format_bytes(len(self._pending))} wait already",
                    hint="wait until it has read them, or write less at once",
                )
            self._pending += data
            self._flush()
            if self._pending and self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def send_line(self, text: str) -> None:
        """Type a line and press Enter. Wait for the prompt first: a shell does not read keys while a command runs."""
        self.write(text.encode() + b"\r")

    def subscribe(self, callback: OnOutput, *, replay_bytes: int = 0) -> Unsubscribe:
        """Call `callback` with each chunk of output, in the console's thread, until the returned function is called.

        The first call, made at once in the caller's thread, passes up to `replay_bytes` of earlier output; nothing is
        lost or repeated in between. An empty chunk means that the console ended. A callback that raises is dropped.
        """
        with self._delivery:
            key = max(self._subscribers, default=0) + 1
            replay = self.scrollback(replay_bytes)
            if replay:
                callback(replay)
            if self._ended:
                callback(b"")
            self._subscribers[key] = callback

        def unsubscribe() -> None:
            with self._delivery:
                self._subscribers.pop(key, None)

        return unsubscribe

    def scrollback(self, max_bytes: int = 1 << 20) -> bytes:
        """Return the newest output, at most `max_bytes`."""
        with self._changed:
            return bytes(self._kept[max(0, len(self._kept) - max_bytes) :])

    @property
    def total_bytes(self) -> int:
        """The number of bytes the console has output since its start."""
        return self._total

    @property
    def ended(self) -> bool:
        """Whether the console has ended: no more output will come."""
        return self._ended

    @property
    def last_words(self) -> tuple[str, int] | None:
        """Why the kernel goes no further (`diagnosis.last_words`), and since when (host's monotonic time, ns)."""
        return self._last_words

    def expect(self, pattern: str | bytes, timeout_s: float = 30.0) -> ExpectMatch:
        """Wait until the output matches a regular expression, and consume the output up to the end of the match.

        The first call searches from the start of the console (as far back as the scrollback goes), each later one from
        the end of the previous match. Errors: `ExpectTimeout` with the last lines; `GuestFailed` if the console ended.
        """
        regex = re.compile(pattern.encode() if isinstance(pattern, str) else pattern, re.MULTILINE)
        deadline = time.monotonic() + timeout_s
        with self._changed:
            searched = self._expected
            while True:
                first = self._total - len(self._kept)
                self._expected = max(self._expected, first)
                match = regex.search(self._kept, max(searched, first) - first)
                if match is not None:
                    before = bytes(self._kept[self._expected - first : match.start()])
                    self._expected = first + match.end()
                    return ExpectMatch(_text(before) or "", _text(match[0]) or "", tuple(map(_text, match.groups())))
                searched = max(self._expected, self._total - _OVERLAP_BYTES)
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    raise self._no_match(pattern, timeout_s)
                self._changed.wait(left)

    def _no_match(self, pattern: str | bytes, timeout_s: float) -> AconError:
        lines = plain_lines(bytes(self._kept[-4096:]))[-20:]
        if self._ended:
            return GuestFailed(
                f"the console ended before {pattern!r} appeared on it",
                end="console_ended",
                details=lines,
                hint="machine.wait() returns how the guest ended",
            )
        hint = "raise timeout_s, or read the transcript"
        return ExpectTimeout(
            f"{pattern!r} did not appear on the console within {timeout_s:g} s", details=lines, hint=hint
        )

    def connect(self, sockets: Mapping[str, socket.socket], keys_to: str, *, last: bool = True) -> None:
        """Serve these sockets, which the console owns from now on; `keys_to` names the one that takes the keys.

        The console ends with them; unless `last`, one without output stays open for other sockets, or for `end`.
        """
        self._last = last
        self.transcript.write_bytes(b"")
        for end in sockets.values():
            end.setblocking(False)
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        with self._sending:
            self._input = sockets[keys_to]
            self._flush()
        self._thread = threading.Thread(target=self._serve, args=(dict(sockets),), name="acon-console", daemon=True)
        self._thread.start()

    def join(self, timeout_s: float | None = None) -> None:
        """Wait until everything that QEMU wrote has been read (QEMU must have ended)."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def end(self) -> None:
        """End the console, if it has not ended: no output will come."""
        if self._ended:
            return
        with self._sending:
            self._ended = True
        with self._delivery:
            with self._changed:
                self._changed.notify_all()
            self._deliver(b"")

    def _serve(self, sockets: dict[str, socket.socket]) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(self._disconnect)
            for end in sockets.values():
                stack.enter_context(end)
            selector = stack.enter_context(selectors.DefaultSelector())
            for name, end in sockets.items():
                selector.register(end, selectors.EVENT_READ, name)
            selector.register(self._wake, selectors.EVENT_READ, "")
            file = stack.enter_context(self.transcript.open("ab", buffering=0))
            open_ends = len(sockets)
            while open_ends:
                with self._sending:
                    pending = bool(self._pending)
                for name, end in sockets.items():
                    events = selectors.EVENT_READ
                    if pending and end is self._input:
                        events |= selectors.EVENT_WRITE
                    if end.fileno() in selector.get_map():
                        selector.modify(end, events, name)
                for key, events in selector.select():
                    if not key.data:
                        os.eventfd_read(self._wake)
                        continue
                    end = sockets[key.data]
                    if events & selectors.EVENT_WRITE:
                        with self._sending:
                            self._flush()
                    if events & selectors.EVENT_READ and not self._take(end, file.fileno()):
                        selector.unregister(end)
                        open_ends -= 1

    def _take(self, end: socket.socket, transcript: int) -> bool:
        try:
            data = end.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not data:
            return False
        self._keep(transcript, data)
        with self._delivery:
            with self._changed:
                self._kept += data
                self._total += len(data)
                if len(self._kept) > 2 * self._scrollback_bytes:
                    del self._kept[: -self._scrollback_bytes]
                why = last_words(bytes(self._kept[-LAST_WORDS_BYTES:]))
                if not why or self._last_words is None:  # they are its last only if little follows
                    self._last_words = (why, time.monotonic_ns()) if why else None
                self._changed.notify_all()
            self._deliver(data)
        return True

    def _deliver(self, data: bytes) -> None:
        for key, callback in tuple(self._subscribers.items()):
            try:
                callback(data)
            except Exception:
                _log.exception("a subscriber of the console raised and is dropped")
                self._subscribers.pop(key, None)

    def _keep(self, transcript: int, data: bytes) -> None:
        """Write to the transcript until its limit or until the disk is full; the console continues without it."""
        if self.notes:
            return
        room = self._limit_bytes - self._written
        if len(data) > room:
            limit = format_bytes(self._limit_bytes)
            self.notes += (f"console flood: the transcript keeps the first {limit}",)
            data = data[: max(0, room)] + _CUT
        self._written += len(data)
        try:
            while data:
                data = data[os.write(transcript, data) :]
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            why = NoSpace(self.transcript, "the transcript is cut here").what if full else f"transcript: {error}"
            self.notes += (why,)

    def _flush(self) -> None:
        """Send as much as the guest's socket takes now (the caller holds `_sending`)."""
        try:
            while self._pending and self._input is not None:
                del self._pending[: self._input.send(self._pending)]
        except BlockingIOError:
            return
        except OSError:  # QEMU is gone
            self._pending.clear()

    def _disconnect(self) -> None:
        with self._sending:
            self._input = None
            os.close(self._wake)
            self._wake = -1
        if self._last or self._total:
            self.end()


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode(errors="replace")
