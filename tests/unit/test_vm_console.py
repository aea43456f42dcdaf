"""The console's two ends, without a guest: sockets on the other side."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acon_nb.errors import AconError, GuestFailed
from acon_nb.vm.console import Console, ExpectTimeout
from acon_nb.vm.diagnosis import console_device


class Guest:
    """The guest's ends of a console's sockets."""

    def __init__(self, console: Console) -> None:
        self.console = console
        ours = {}
        self.ends = {}
        for name in ("serial", "hvc"):
            ours[name], self.ends[name] = socket.socketpair()
        console.connect(ours, "hvc")

    def say(self, data: bytes, port: str = "hvc") -> None:
        self.ends[port].sendall(data)

    def leave(self) -> None:
        for end in self.ends.values():
            end.close()
        self.console.join(10)


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    made = Guest(Console(tmp_path / "console.log", scrollback_bytes=4096))
    yield made
    made.leave()


def test_both_ports_are_one_stream_and_keys_go_to_one(guest: Guest) -> None:
    guest.say(b"early\r\n", "serial")
    guest.console.expect("early")
    guest.say(b"login: ")
    assert guest.console.expect("login: ", 5).text == "login: "
    guest.console.send_line("root")
    assert guest.ends["hvc"].recv(100) == b"root\r"
    guest.leave()
    assert guest.console.transcript.read_bytes() == b"early\r\nlogin: "


def test_keys_typed_before_the_start_are_kept(tmp_path: Path) -> None:
    console = Console(tmp_path / "log")
    console.write(b"early ")
    made = Guest(console)
    console.write(b"bird")
    got = b""
    while len(got) < len("early bird"):
        got += made.ends["hvc"].recv(100)
    assert got == b"early bird"
    made.leave()


@settings(max_examples=25, deadline=None)
@given(chunks=st.lists(st.binary(min_size=1, max_size=3000), max_size=12), when=st.integers(0, 12))
def test_a_view_that_comes_late_sees_each_byte_once(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes], when: int
) -> None:
    made = Guest(Console(tmp_path_factory.mktemp("c") / "log"))
    early: list[bytes] = []
    late: list[bytes] = []
    made.console.subscribe(early.append)
    for number, chunk in enumerate(chunks):
        if number == when:
            made.console.subscribe(late.append, replay_bytes=1 << 20)
        made.say(chunk)
    if when >= len(chunks):
        made.console.subscribe(late.append, replay_bytes=1 << 20)
    made.leave()
    whole = b"".join(chunks)
    assert b"".join(early) == b"".join(late) == made.console.transcript.read_bytes() == whole
    assert early[-1] == late[-1] == b"", "the end is delivered"
    assert made.console.total_bytes == len(whole)


def test_a_subscriber_that_left_or_fails_hears_no_more(guest: Guest) -> None:
    heard: list[bytes] = []
    failed: list[bytes] = []

    def fail(data: bytes) -> None:
        failed.append(data)
        raise RuntimeError("a broken view")

    leave = guest.console.subscribe(heard.append)
    guest.console.subscribe(fail)
    guest.say(b"one")
    guest.console.expect("one")
    time.sleep(0.05)
    leave()
    guest.say(b"two")
    guest.console.expect("two")
    assert (heard, failed) == ([b"one"], [b"one"])


def test_expect_uses_up_what_it_matched(guest: Guest) -> None:
    guest.say(b"a# b# value=42\r\nc# ")
    assert guest.console.expect("# ").before == "a"
    assert guest.console.expect("# ").before == "b"
    assert guest.console.expect(r"value=(\d+)(x)?").groups == ("42", None)
    assert guest.console.expect(r"# $").before == "\r\nc"
    with pytest.raises(ExpectTimeout, match=r"within 0\.1 s") as caught:
        guest.console.expect("# ", 0.1)
    assert any("value=42" in line for line in caught.value.details)


def test_expect_waits_for_what_comes_in_pieces(guest: Guest) -> None:
    def slowly() -> None:
        for byte in b"hello world":
            guest.say(bytes([byte]))
            time.sleep(0.002)

    thread = threading.Thread(target=slowly)
    thread.start()
    assert guest.console.expect("lo wor", 10).before == "hel"
    thread.join()


def test_expect_ends_with_the_console(guest: Guest) -> None:
    guest.say(b"last words")
    threading.Timer(0.1, guest.leave).start()
    with pytest.raises(GuestFailed, match="console ended") as caught:
        guest.console.expect("never", 10)
    assert any("last words" in line for line in caught.value.details)


def test_a_guest_that_reads_no_input_is_reported(guest: Guest) -> None:
    def type_on() -> None:
        for _ in range(1000):
            guest.console.write(bytes(64 * 1024))

    with pytest.raises(AconError, match="reads no input"):
        type_on()
    took = 0
    while took < 1 << 20:
        took += len(guest.ends["hvc"].recv(1 << 20))
    guest.console.write(b"again")


def test_many_writers_do_not_tear_each_others_lines(guest: Guest) -> None:
    def type_lines(name: str) -> None:
        for _ in range(200):
            guest.console.send_line(name * 20)

    threads = [threading.Thread(target=type_lines, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    got = b""
    while len(got) < 3 * 200 * 21:
        got += guest.ends["hvc"].recv(65536)
    for thread in threads:
        thread.join()
    assert {line for line in got.split(b"\r") if line} == {b"a" * 20, b"b" * 20, b"c" * 20}


def test_a_flood_of_100_mb_leaves_a_bounded_transcript_and_scrollback(tmp_path: Path) -> None:
    made = Guest(Console(tmp_path / "log", scrollback_bytes=4096, transcript_limit_bytes=100_000))
    passed: list[int] = []
    made.console.subscribe(lambda data: passed.append(len(data)))
    chunk = b"x" * 1_000_000
    for _ in range(100):
        made.say(chunk)
    made.say(b"THE END")
    made.console.expect("THE END")
    made.leave()
    assert made.console.total_bytes == sum(passed) == 100_000_007
    assert 100_000 <= made.console.transcript.stat().st_size < 100_200
    assert len(made.console.scrollback(1 << 30)) < 100_000
    assert made.console.scrollback(7) == b"THE END"
    assert made.console.notes == ("console flood: the transcript keeps the first 97.7 KiB",)


def test_a_full_disk_cuts_the_transcript_and_nothing_else(small_disk: Path) -> None:
    made = Guest(Console(small_disk / "log"))
    for _ in range(100):
        made.say(b"x" * 10_000)
    made.say(b"THE END")
    made.console.expect("THE END")
    made.leave()
    (note,) = made.console.notes
    assert "no space left" in note
    assert str(small_disk) in note


def test_a_console_leaves_no_descriptor_and_no_thread(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(20):
        made = Guest(Console(tmp_path / "log"))
        made.say(b"x")
        made.leave()
        made.console.write(b"to nobody")
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before


@pytest.mark.parametrize(
    ("append", "device"),
    [
        ("ip=dhcp console=hvc0 earlyprintk=ttyS0", "hvc0"),
        ("console=hvc0 console=ttyS0,115200n8", "ttyS0"),
        ("console=ttyS0 console=hvc0", "hvc0"),
        ("quiet", "ttyS0"),
    ],
)
def test_keys_go_to_the_last_console_of_the_command_line(append: str, device: str) -> None:
    assert console_device(append) == device
