"""Direct channels: messages both ways, connections that are dropped, and nothing left behind."""

from __future__ import annotations

import queue
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acon_nb.jupyter import channel

HEADS = st.dictionaries(st.text(), st.integers() | st.text() | st.none())


@pytest.fixture
def here():
    return channel.PageChannels()


@pytest.fixture
def heard(here):
    """(key of a channel, the queue of what it receives)"""
    received = queue.Queue()
    return here.open(lambda head, data: received.put((head, data))), received


@given(HEADS, st.binary())
def test_a_message_comes_out_as_it_went_in(head, data) -> None:
    assert channel.unpack(channel.pack(head, data)) == (head, data)


def test_a_view_is_heard_and_answered_until_it_hangs_up(here, heard) -> None:
    key, received = heard
    assert not here.send(key, "a", {}), "nobody has called yet"
    with channel.connect(here.name) as page:
        page.send(channel.pack({"channel": key, "view": "a", "number": 0}, b"\n\x00key\n"))
        assert received.get(timeout=60) == ({"channel": key, "view": "a", "number": 0}, [b"\n\x00key\n"])
        assert here.send(key, "a", {"kind": "output"}, b"echo\n")
        assert channel.unpack(page.recv(1000)) == ({"kind": "output"}, b"echo\n")
        assert not here.send(key, "b", {}), "another view has no channel"
    page = channel.connect(here.name)
    page.send(channel.pack({"channel": key, "view": "b"}, b""))
    received.get(timeout=60)
    assert not here.send(key, "a", {}), "its page is gone"
    here.close(key)
    assert not here.send(key, "b", {}), "the channel is closed"
    page.close()


@pytest.mark.parametrize(
    "message",
    [
        b"no JSON\n",
        b"{}",
        b"[1]\n",
        b'{"view": "a"}\n',
        b'{"channel": "unknown", "view": "a"}\n',
        b'{"channel": "' + b"x" * 100_000,
    ],
)
def test_a_sender_of_invalid_messages_is_dropped_and_others_are_not(here, heard, message) -> None:
    key, received = heard
    with channel.connect(here.name) as page, channel.connect(here.name) as other:
        page.settimeout(5)
        page.send(message)
        assert page.recv(100) == b""
        other.send(channel.pack({"channel": key, "view": "b"}, b"still"))
        assert received.get(timeout=60)[1] == [b"still"]


def test_a_receiver_that_fails_ends_one_connection_only(here) -> None:
    key = here.open(lambda head, data: int(head["number"]))
    with channel.connect(here.name) as page:
        page.settimeout(5)
        page.send(channel.pack({"channel": key, "view": "a", "number": "no number"}, b""))
        assert page.recv(100) == b""
    with channel.connect(here.name) as page:
        page.send(channel.pack({"channel": key, "view": "a", "number": 1}, b""))


def test_a_page_that_takes_nothing_does_not_stop_the_sender(here, heard) -> None:
    key, received = heard
    with channel.connect(here.name) as page:
        page.send(channel.pack({"channel": key, "view": "a"}, b""))
        received.get(timeout=60)
        sent = 0
        while here.send(key, "a", {}, bytes(16 << 10)):
            sent += 1
            assert sent < 10_000
        page.recv(1 << 20)
        assert here.send(key, "a", {}, b"again")


def test_a_name_that_nobody_has_is_an_error_and_a_socket_has_no_file(here) -> None:
    with pytest.raises(OSError, match="refused"):
        channel.connect("0" * 32)
    with channel.connect(here.name) as page:
        assert page.family == socket.AF_UNIX
        assert page.getpeername() == b"\0acon-nb-channels-" + here.name.encode()
