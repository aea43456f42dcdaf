"""Direct lines: what travels both ways, who is heard no more, and that nothing is left."""

from __future__ import annotations

import queue
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acon_nb import lines

HEADS = st.dictionaries(st.text(), st.integers() | st.text() | st.none())


@pytest.fixture
def here():
    return lines.Lines()


@pytest.fixture
def heard(here):
    """(key of a line, the queue of what it hears)"""
    found = queue.Queue()
    return here.open(lambda head, data: found.put((head, data))), found


@given(HEADS, st.binary())
def test_a_message_comes_out_as_it_went_in(head, data) -> None:
    assert lines.unpack(lines.pack(head, data)) == (head, data)


def test_a_view_is_heard_and_answered_until_it_hangs_up(here, heard) -> None:
    key, found = heard
    assert not here.send(key, "a", {}), "nobody has called yet"
    with lines.connect(here.name) as page:
        page.send(lines.pack({"line": key, "view": "a", "number": 0}, b"\n\x00key\n"))
        assert found.get(timeout=5) == ({"line": key, "view": "a", "number": 0}, [b"\n\x00key\n"])
        assert here.send(key, "a", {"kind": "output"}, b"echo\n")
        assert lines.unpack(page.recv(1000)) == ({"kind": "output"}, b"echo\n")
        assert not here.send(key, "b", {}), "another view has no line"
    page = lines.connect(here.name)
    page.send(lines.pack({"line": key, "view": "b"}, b""))
    found.get(timeout=5)
    assert not here.send(key, "a", {}), "its page is gone"
    here.close(key)
    assert not here.send(key, "b", {}), "the line is closed"
    page.close()


@pytest.mark.parametrize(
    "message",
    [
        b"no JSON\n",
        b"{}",
        b"[1]\n",
        b'{"view": "a"}\n',
        b'{"line": "unknown", "view": "a"}\n',
        b'{"line": "' + b"x" * 100_000,
    ],
)
def test_who_sends_no_message_is_heard_no_more_and_others_are(here, heard, message) -> None:
    key, found = heard
    with lines.connect(here.name) as page, lines.connect(here.name) as other:
        page.settimeout(5)
        page.send(message)
        assert page.recv(100) == b""
        other.send(lines.pack({"line": key, "view": "b"}, b"still"))
        assert found.get(timeout=5)[1] == [b"still"]


def test_a_receiver_that_fails_ends_one_connection_only(here) -> None:
    key = here.open(lambda head, data: int(head["number"]))
    with lines.connect(here.name) as page:
        page.settimeout(5)
        page.send(lines.pack({"line": key, "view": "a", "number": "no number"}, b""))
        assert page.recv(100) == b""
    with lines.connect(here.name) as page:
        page.send(lines.pack({"line": key, "view": "a", "number": 1}, b""))


def test_a_page_that_takes_nothing_does_not_stop_the_sender(here, heard) -> None:
    key, found = heard
    with lines.connect(here.name) as page:
        page.send(lines.pack({"line": key, "view": "a"}, b""))
        found.get(timeout=5)
        sent = 0
        while here.send(key, "a", {}, bytes(16 << 10)):
            sent += 1
            assert sent < 10_000
        page.recv(1 << 20)
        assert here.send(key, "a", {}, b"again")


def test_a_name_that_nobody_has_is_an_error_and_a_socket_has_no_file(here) -> None:
    with pytest.raises(OSError, match="refused"):
        lines.connect("0" * 32)
    with lines.connect(here.name) as page:
        assert page.family == socket.AF_UNIX
        assert page.getpeername() == b"\0acon-nb-lines-" + here.name.encode()
