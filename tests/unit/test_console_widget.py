"""The console without a browser: what headless shows, and what travels between a machine's console and its views."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from acon_nb import vm, widgets
from acon_nb.jupyter.channel import PageChannels
from acon_nb.vm.window import TerminalWindow
from acon_nb.widgets.console import Transcript, _Feed


class Widget:
    """The model's side of a page."""

    def __init__(self) -> None:
        self.sent: list[tuple[dict, list[bytes]]] = []
        self.state = ""
        self.ended = False

    def on_msg(self, receive) -> None:
        self.receive = receive

    def send(self, content, buffers=()) -> None:
        self.sent.append((content, list(buffers)))

    def shown(self, view: str) -> bytes:
        return b"".join(buffers[0] for content, buffers in list(self.sent) if content.get("view") == view and buffers)


@pytest.fixture
def guest(tmp_path: Path):
    """A machine whose guest is this test: (machine, the guest's end of its serial port)."""
    console = vm.Console(tmp_path / "console.log")
    ours, theirs = socket.socketpair()
    console.connect({"serial": ours}, "serial")
    machine = SimpleNamespace(
        console=console, running=True, window=TerminalWindow(), wait=lambda: SimpleNamespace(end="powered_off")
    )
    yield machine, theirs
    machine.running = False
    theirs.close()
    console.join(5)


def until(condition) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_each_view_gets_earlier_and_new_output_and_types_in_order(guest) -> None:
    machine, theirs = guest
    theirs.sendall(b"before ")
    machine.console.expect("before")
    widget = Widget()
    feed = _Feed(machine, widget, PageChannels())
    widget.receive(widget, {"kind": "want", "view": "a", "position": -1}, [])
    theirs.sendall(b"after")
    until(lambda: widget.shown("a") == b"before after")
    widget.receive(widget, {"kind": "want", "view": "b", "position": -1}, [])
    until(lambda: widget.shown("b") == b"before after")
    for number, text in ((1, b"cho x"), (0, b"e"), (2, b"\r")):
        widget.receive(widget, {"kind": "input", "view": "a", "number": number}, [memoryview(text)])
    until(lambda: True)
    assert theirs.recv(100) in (b"echo x", b"echo x\r")
    feed.close()


def test_the_end_is_shown_the_thread_goes_and_comes_for_a_page_loaded_again(guest) -> None:
    machine, theirs = guest
    widget = Widget()
    feed = _Feed(machine, widget, PageChannels())
    until(lambda: widget.state == "running")
    theirs.sendall(b"last words")
    machine.console.expect("words")
    machine.running = False
    theirs.close()
    until(lambda: widget.ended and widget.state == "ended: powered off" and feed._sender is None)
    widget.receive(widget, {"kind": "want", "view": "late", "position": -1}, [])
    until(lambda: widget.shown("late") == b"last words" and feed._sender is None)


def test_the_size_of_a_view_becomes_that_of_the_guests_window(guest) -> None:
    machine, _ = guest
    widget = Widget()
    feed = _Feed(machine, widget, PageChannels())
    sizes: list[tuple[int, int]] = []
    machine.window.follow(lambda rows, columns: sizes.append((rows, columns)))
    for rows, columns in ((30, 100), (30, 100), (0, 0), (12, 40)):
        widget.receive(widget, {"kind": "size", "view": "a", "rows": rows, "columns": columns}, [])
    assert sizes == [(30, 100), (12, 40)]
    feed.close()


def test_a_guest_that_reads_nothing_is_reported_in_the_views_state(guest) -> None:
    machine, _ = guest
    widget = Widget()
    feed = _Feed(machine, widget, PageChannels())
    for number in range(40):
        widget.receive(widget, {"kind": "input", "view": "a", "number": number}, [b"x" * 65536])
    until(lambda: "reads no input" in widget.state)
    feed.close()


def test_without_a_person_the_tail_is_text_and_html_and_no_widget_is_made(
    guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, theirs = guest
    monkeypatch.setenv("ACON_NB_HEADLESS", "1")
    shown: list[object] = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    theirs.sendall(b"\x1b[31m<b>bold</b>\x1b[0m\r\n$ ")
    console = widgets.console(machine)
    console.expect(r"\$")
    monkeypatch.setattr(widgets.ConsoleView, "widget", lambda _: pytest.fail("a widget was made"))
    console._ipython_display_()
    (transcript,) = shown
    assert isinstance(transcript, Transcript)
    assert "<b>bold</b>" in repr(transcript)
    assert "&lt;b&gt;bold" in transcript._repr_html_()
    console.send_line("poweroff")
    assert theirs.recv(100) == b"poweroff\r"
    console.close()


def test_a_long_transcript_is_shown_by_its_tail(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    path.write_text("".join(f"line {number}\n" for number in range(100_000)))
    assert Transcript(path).lines[-1] == "line 99999"
    assert len(Transcript(path).lines) == 40
