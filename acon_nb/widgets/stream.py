"""Track what a console's views in pages were sent, have shown, and typed; independent of Jupyter and of any clock.

Messages between page and kernel get lost (broken connections) and reordered (ipykernel 7.4). So every chunk of output
has its position in the console's stream, a view regularly reports what it has shown and is sent again what is missing,
and every piece of input has a number. A slow view is sent at most a window ahead; output that leaves memory meanwhile
is skipped and reported as such. The page's side is js/console.js.
"""

from __future__ import annotations

from dataclasses import dataclass, field

KEEP_BYTES = 1 << 20
GATHER_S = 0.008  # how long output is gathered: Jupyter Server drops messages above 1000 per second
_CHUNK_BYTES = 16 << 10  # one chunk per GATHER_S: at most 2 MB/s
_WINDOW_BYTES = 256 << 10
_LOST_S = 3.0  # a chunk that a view has not shown after this time is sent again
_LATE_S = 2.0  # input that waited this long for a missing piece is passed on without it
_FORGET_S = 90.0  # over a minute, because browsers run a hidden page's timers once a minute


@dataclass(frozen=True)
class Chunk:
    """Output for one view, whose stream starts at `begin`; `position` is that of the first byte of `data`.

    `skipped` bytes before it are lost. A `replay` is output from before the view existed. Only the view that has the
    `lead` answers the guest's terminal queries.
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
    """The streams of one console: `feed` takes output, `due` returns what to send. The owner does the locking."""

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
        """The views that reported recently."""
        return tuple(self._views)

    @property
    def waiting(self) -> bool:
        """Whether there is something to send."""
        return any(self._is_due(view) for view in self._views.values())

    def _is_due(self, view: _View) -> bool:
        return view.sent < self.end and view.sent - view.shown < _WINDOW_BYTES

    def feed(self, data: bytes) -> None:
        """Add output of the guest."""
        self._kept += data
        if len(self._kept) > 2 * self._keep_bytes:
            excess = len(self._kept) - self._keep_bytes
            del self._kept[:excess]
            self._start += excess

    def want(self, view: str, shown: int, now_s: float) -> None:
        """Record what a view has shown so far (-1: nothing). A new view will get everything that is kept."""
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
        """Forget a view that was closed."""
        self._views.pop(view, None)

    def typed(self, view: str, number: int, data: bytes, now_s: float) -> bytes:
        """Add a numbered piece of a view's input; return the input that is now in order."""
        self._lead = view
        typist = self._typists.setdefault(view, _Typist())
        if number >= typist.next:
            if not typist.waiting:
                typist.since_s = now_s
            typist.waiting[number] = data
        return self._in_order(typist)

    def late(self, now_s: float) -> bytes:
        """Return input that has waited too long for a missing piece."""
        data = b""
        for typist in self._typists.values():
            if typist.waiting and now_s - typist.since_s > _LATE_S:
                typist.next = min(typist.waiting)
                data += self._in_order(typist)
        return data

    @staticmethod
    def _in_order(typist: _Typist) -> bytes:
        data = b""
        while typist.next in typist.waiting:
            data += typist.waiting.pop(typist.next)
            typist.next += 1
        return data

    def due(self, now_s: float) -> list[Chunk]:
        """Return what to send now: at most one chunk per view, none for views that already have too much to show."""
        for name in [name for name, view in self._views.items() if now_s - view.heard_s > _FORGET_S]:
            del self._views[name]
        chunks = []
        for name, view in self._views.items():
            if self._is_due(view):
                chunks.append(self._chunk(name, view))
                view.sent_s = now_s
        return chunks

    def _chunk(self, name: str, view: _View) -> Chunk:
        begin = max(view.sent, self._start)
        end = min(self.end, begin + _CHUNK_BYTES)
        if begin < view.live_from:
            end = min(end, view.live_from)
        data = bytes(self._kept[begin - self._start : end - self._start])
        chunk = Chunk(name, view.begin, begin, data, begin - view.sent, end <= view.live_from, name == self._lead)
        view.sent = end
        return chunk
