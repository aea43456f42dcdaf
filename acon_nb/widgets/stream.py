"""What a console's views in pages were sent, have shown, and typed; no Jupyter and no clock in here.

Messages between page and kernel get lost (a connection that breaks) and change places (ipykernel 7.4). So every chunk
of output says where in the console's stream it belongs, a view says from time to time what it has shown and gets again
what is missing, and every piece of input has a number. A view that shows slowly is sent no more than a window ahead;
what leaves memory meanwhile is skipped, and said to be. The page's side is js/console.js.
"""

from __future__ import annotations

from dataclasses import dataclass, field

KEEP_BYTES = 1 << 20
GATHER_S = 0.008  # output is gathered so long: Jupyter Server drops above 1000 messages a second
_CHUNK_BYTES = 16 << 10  # a chunk every GATHER_S: 2 MB/s at most
_WINDOW_BYTES = 256 << 10
_LOST_S = 3.0  # a chunk that a view has not shown by then is sent again
_LATE_S = 2.0  # typed text that is still missing by then is given up
_FORGET_S = 90.0  # longer than a minute: browsers let a hidden page's timers run once a minute


@dataclass(frozen=True)
class Chunk:
    """Output for one view, whose stream starts at `begin`. `position` is that of the first byte of `data`.

    `skipped` bytes before it are gone.
    A `replay` was said before the view came; only a view that has the `lead` answers the guest's questions.
    """

    view: str
    begin: int
    position: int
    data: bytes
    skipped: int
    replay: bool
    lead: bool


@dataclass
class _View:
    begin: int
    sent: int
    live_from: int
    heard_s: float
    shown: int = -1
    sent_s: float = -1.0


@dataclass
class _Typist:
    next: int = 0
    waiting: dict[int, bytes] = field(default_factory=dict)
    since_s: float = 0.0


class Streams:
    """The streams of one console: `feed` what the guest says, ask `due` what to send. The owner locks."""

    def __init__(self, keep_bytes: int = KEEP_BYTES) -> None:
        self._keep_bytes = keep_bytes
        self._kept = bytearray()
        self._start = 0
        self._views: dict[str, _View] = {}
        self._typists: dict[str, _Typist] = {}
        self._lead = ""

    @property
    def end(self) -> int:
        """The position after the last byte."""
        return self._start + len(self._kept)

    @property
    def views(self) -> tuple[str, ...]:
        """The views that were heard of lately."""
        return tuple(self._views)

    @property
    def waiting(self) -> bool:
        """Whether there is something to send."""
        return any(self._owes(view) for view in self._views.values())

    def _owes(self, view: _View) -> bool:
        return view.sent < self.end and view.sent - view.shown < _WINDOW_BYTES

    def feed(self, data: bytes) -> None:
        """Take what the guest said."""
        self._kept += data
        if len(self._kept) > 2 * self._keep_bytes:
            gone = len(self._kept) - self._keep_bytes
            del self._kept[:gone]
            self._start += gone

    def want(self, view: str, shown: int, now_s: float) -> None:
        """A view says what it has shown so far (-1: nothing). A new one gets all that is kept."""
        known = self._views.get(view)
        if known is None or shown > known.sent:
            begin = self._start if shown < 0 else min(shown, self.end)
            self._views[view] = _View(begin, begin, self.end if shown < 0 else begin, now_s, begin)
            self._lead = view
            return
        known.heard_s = now_s
        known.shown = max(known.shown, shown)
        if known.shown < known.sent and now_s - known.sent_s > _LOST_S:
            known.sent = known.shown

    def bye(self, view: str) -> None:
        """A view was closed."""
        self._views.pop(view, None)

    def typed(self, view: str, number: int, data: bytes, now_s: float) -> bytes:
        """Take a numbered piece of a view's input; returns what is in order now."""
        self._lead = view
        typist = self._typists.setdefault(view, _Typist())
        if number >= typist.next:
            if not typist.waiting:
                typist.since_s = now_s
            typist.waiting[number] = data
        return self._in_order(typist)

    def late(self, now_s: float) -> bytes:
        """Input that waits for a piece that never came."""
        found = b""
        for typist in self._typists.values():
            if typist.waiting and now_s - typist.since_s > _LATE_S:
                typist.next = min(typist.waiting)
                found += self._in_order(typist)
        return found

    @staticmethod
    def _in_order(typist: _Typist) -> bytes:
        found = b""
        while typist.next in typist.waiting:
            found += typist.waiting.pop(typist.next)
            typist.next += 1
        return found

    def due(self, now_s: float) -> list[Chunk]:
        """What to send now: at most one chunk a view; nothing to views that have too much to show already."""
        for name in [name for name, view in self._views.items() if now_s - view.heard_s > _FORGET_S]:
            del self._views[name]
        found = []
        for name, view in self._views.items():
            if self._owes(view):
                found.append(self._chunk(name, view))
                view.sent_s = now_s
        return found

    def _chunk(self, name: str, view: _View) -> Chunk:
        begin = max(view.sent, self._start)
        end = min(self.end, begin + _CHUNK_BYTES)
        if begin < view.live_from:
            end = min(end, view.live_from)
        data = bytes(self._kept[begin - self._start : end - self._start])
        chunk = Chunk(name, view.begin, begin, data, begin - view.sent, end <= view.live_from, name == self._lead)
        view.sent = end
        return chunk
