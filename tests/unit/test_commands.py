"""The host's side of the agent's frames: hostile guests, and words that cannot be arguments."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acon_nb.agent import guest
from acon_nb.errors import AconError, GuestFailed, InvalidInput
from acon_nb.vm.commands import Agent

HEAD = struct.Struct("<BxHI")


def frame(kind: str, number: int, payload: bytes = b"") -> bytes:
    return HEAD.pack(ord(kind), number, len(payload)) + payload


@pytest.fixture
def pair() -> Iterator[tuple[Agent, socket.socket]]:
    ours, theirs = socket.socketpair()
    agent = Agent()
    agent.connect(ours)
    yield agent, theirs
    theirs.close()


def answer(guest: socket.socket, *frames: bytes) -> threading.Thread:
    """A guest that answers the first frame with these."""

    def serve() -> None:
        guest.recv(1 << 16)
        for data in frames:
            guest.sendall(data)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


def test_frames_in_pieces_and_of_others_are_sorted(pair: tuple[Agent, socket.socket]) -> None:
    agent, guest = pair
    data = frame("O", 7, b"not ours") + frame("O", 1, b"abc") + frame("2", 1, b"err") + frame("?", 1, b"later kinds")
    data += frame("Z", 1, struct.pack("<BI", 0, 3))
    answer(guest, *(data[place : place + 1] for place in range(len(data))))
    done = agent.run(["x"])
    assert (done.status, done.stdout, done.stderr) == (3, b"abc", b"err")


@pytest.mark.parametrize(
    "data",
    [HEAD.pack(ord("O"), 1, 0xFFFFFFFF), b"", frame("O", 1, b"abc")[:-1], b"\xff" * 8],
    ids=["too long", "nothing", "cut", "noise"],
)
def test_a_guest_that_breaks_off_ends_the_command(pair: tuple[Agent, socket.socket], data: bytes) -> None:
    agent, guest = pair
    thread = answer(guest, data)

    def hang_up() -> None:
        thread.join()
        with suppress(OSError):
            guest.shutdown(socket.SHUT_RDWR)

    threading.Thread(target=hang_up, daemon=True).start()
    with pytest.raises(GuestFailed):
        agent.run(["x"])


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_of_a_guest_are_an_end_or_nothing(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    agent = Agent()
    agent.connect(ours)
    with suppress(OSError):
        theirs.sendall(data)
    theirs.close()
    with suppress(AconError):
        agent.run(["x"], running=lambda: False)


@pytest.mark.parametrize("argv", [[], [""], ["a\0b"], ["x"] * 70_000, ["x" * 200_000]])
def test_what_cannot_be_arguments_is_refused(pair: tuple[Agent, socket.socket], argv: list[str]) -> None:
    with pytest.raises(InvalidInput):
        pair[0].run(argv)


def test_input_waits_for_credit(pair: tuple[Agent, socket.socket]) -> None:
    agent, guest = pair
    sent: list[int] = []

    def serve() -> None:
        with guest.makefile("rb") as file:
            while head := file.read(HEAD.size):
                kind, number, length = HEAD.unpack(head)
                file.read(length)
                if chr(kind) == "I":
                    sent.append(length)
                    if sum(sent) % 65536 == 0:
                        guest.sendall(frame("C", number, struct.pack("<I", 65536)))
                elif chr(kind) == "E":
                    guest.sendall(frame("Z", number, struct.pack("<BI", 0, 0)))
                    return

    threading.Thread(target=serve, daemon=True).start()
    assert agent.run(["x"], stdin=bytes(300_000)).status == 0
    assert sum(sent) == 300_000


@pytest.mark.parametrize(
    ("append", "started", "program"),
    [
        ("quiet", "rdinit=/acon/exec quiet INIT=/acon/exec-ready", "/init"),
        ("rdinit=/bin/sh -c x", "rdinit=/acon/exec -c x INIT=/acon/exec-ready", "/bin/sh"),
        ("INIT=/mine quiet", "rdinit=/acon/exec INIT=/mine quiet", "/init"),
        ("quiet -- one", "rdinit=/acon/exec quiet INIT=/acon/exec-ready -- one", "/init"),
        ("quiet --", "rdinit=/acon/exec quiet INIT=/acon/exec-ready --", "/init"),
        ("quiet\t-- INIT=/a", "rdinit=/acon/exec quiet INIT=/acon/exec-ready\t-- INIT=/a", "/init"),
        ('x="p -- q" y', 'rdinit=/acon/exec x="p -- q" y INIT=/acon/exec-ready', "/init"),
        ('x="INIT=/a" "INIT=/b c"', 'rdinit=/acon/exec x="INIT=/a" "INIT=/b c"', "/init"),
    ],
)
def test_words_for_init_stay_behind_its_name(append: str, started: str, program: str) -> None:
    """The kernel forgets the arguments for init that come before a rdinit=."""
    assert guest._command_line(append) == (started, program)
