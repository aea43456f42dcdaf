"""The console's transport: whatever gets lost or changes places, what is shown and typed is right."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from acon_nb.widgets.stream import KEEP_BYTES, Streams


class Page:
    """The page's side, as js/console.js has it."""

    def __init__(self) -> None:
        self.next = -1
        self.shown = b""
        self.skipped = 0
        self.early: dict[int, object] = {}

    def take(self, chunk) -> None:
        begin = chunk.position - chunk.skipped
        if self.next < 0:
            self.next = chunk.begin
        if begin > self.next:
            self.early[begin] = chunk
            return
        end = chunk.position + len(chunk.data)
        if end > self.next:
            self.skipped += chunk.skipped
            self.shown += chunk.data[max(0, self.next - chunk.position) :]
            self.next = end
        for key in sorted(self.early):
            if key <= self.next:
                self.take(self.early.pop(key))
                return


@given(st.permutations(range(12)), st.randoms(use_true_random=False))
def test_typed_pieces_arrive_in_order_whatever_their_messages_do(order, random: Random) -> None:
    streams = Streams()
    window = [order[i : i + 3] for i in range(0, 12, 3)]
    found = b"".join(streams.typed("v", number, b"%d," % number, 0.0) for part in window for number in part)
    found += streams.late(1.0)
    assert found == b"".join(b"%d," % number for number in range(12))


def test_a_lost_piece_is_given_up_and_the_rest_continues() -> None:
    streams = Streams()
    assert streams.typed("v", 0, b"a", 0.0) == b"a"
    assert streams.typed("v", 2, b"c", 0.0) == b""
    assert streams.late(1.0) == b""
    assert streams.late(3.0) == b"c"
    assert streams.typed("v", 1, b"b", 3.0) == b""
    assert streams.typed("v", 3, b"d", 3.0) == b"d"


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 40_000).map(Random(0).randbytes), max_size=6), st.randoms(use_true_random=False))
def test_a_view_shows_each_byte_once_though_messages_are_lost_and_swapped(output: list[bytes], random: Random) -> None:
    streams, page, now = Streams(), Page(), 0.0
    streams.feed(b"before")
    streams.want("v", -1, now)
    for data in [*output, *[b""] * 5]:
        streams.feed(data)
        for _ in range(6):
            now += 1.0
            chunks = [chunk for _ in range(3) for chunk in streams.due(now)]
            random.shuffle(chunks)
            for chunk in chunks:
                if random.random() < 0.8:
                    page.take(chunk)
            if random.random() < 0.8:
                streams.want("v", page.next, now)
    for _ in range(30):
        now += 4.0
        streams.want("v", page.next, now)
        for chunk in streams.due(now):
            page.take(chunk)
    assert page.shown == b"before" + b"".join(output)
    assert page.skipped == 0


def test_a_flood_is_skipped_for_a_slow_view_and_never_kept_whole() -> None:
    streams, page = Streams(), Page()
    streams.want("v", -1, 0.0)
    for number in range(1600):
        streams.feed(bytes([number % 251]) * 65536)
        for chunk in streams.due(0.0):
            page.take(chunk)
    assert len(page.shown) <= 256 * 1024 + 16 * 1024, "no more than a window without an answer"
    assert len(streams._kept) <= 2 * KEEP_BYTES
    while page.next < streams.end:
        streams.want("v", page.next, 0.0)
        for chunk in streams.due(0.0):
            page.take(chunk)
    assert page.skipped + len(page.shown) == 1600 * 65536
    assert page.shown.endswith(bytes([1599 % 251]) * 65536)


def test_only_the_latest_view_answers_the_guest_and_never_what_is_shown_again() -> None:
    streams = Streams()
    streams.feed(b"old")
    streams.want("a", -1, 0.0)
    (old,) = streams.due(0.0)
    assert (old.replay, old.lead) == (True, True)
    streams.want("b", -1, 0.0)
    streams.feed(b"new")
    streams.want("a", 3, 0.0)
    heads = {(chunk.view, chunk.replay, chunk.lead) for _ in range(2) for chunk in streams.due(0.0)}
    assert heads == {("a", False, False), ("b", True, True), ("b", False, True)}
    streams.typed("a", 0, b"x", 0.0)
    streams.feed(b"more")
    assert {(chunk.view, chunk.lead) for chunk in streams.due(0.0)} == {("a", True), ("b", False)}


def test_a_view_of_which_nothing_is_heard_is_forgotten_and_comes_back_where_it_was() -> None:
    streams, page = Streams(), Page()
    streams.feed(b"one")
    streams.want("v", -1, 0.0)
    for chunk in streams.due(0.0):
        page.take(chunk)
    streams.feed(b"two")
    assert streams.due(1000.0) == []
    assert streams.views == ()
    streams.want("v", page.next, 1001.0)
    (chunk,) = streams.due(1001.0)
    page.take(chunk)
    assert page.shown == b"onetwo"
