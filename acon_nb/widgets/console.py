"""A guest's console in a notebook: a terminal for users, `expect` and `send_line` for programs.

Use `console = widgets.console(machine)` in a cell. In an unattended run the end of the transcript is shown as text, and
no widget is created. The terminal is xterm.js from the package itself: nothing is loaded from a network.
"""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from acon_nb.errors import AconError, MissingRequirement
from acon_nb.jupyter.channel import PageChannels, page_channels
from acon_nb.vm import ExpectMatch, Machine
from acon_nb.vm.diagnosis import end_text, read_tail
from acon_nb.widgets.session import steady
from acon_nb.widgets.stream import GATHER_S, KEEP_BYTES, Chunk, Streams
from acon_nb.widgets.view import Displayed

ROWS, COLUMNS, TERM = 24, 80, "xterm-256color"
_TAIL_LINES = 40
_IDLE_S = 1.0


class ConsoleView(Displayed):
    """A view of the console of an interactive `machine`; `rows` is the terminal's initial height."""

    def __init__(self, machine: Machine, *, rows: int = ROWS) -> None:
        super().__init__()
        self.machine = machine
        self.rows = rows
        self._feed: _Feed | None = None

    def expect(self, pattern: str, timeout_s: float = 30.0) -> ExpectMatch:
        """Wait until the output matches `pattern`; see `vm.Console.expect`, also for the errors."""
        return self.machine.console.expect(pattern, timeout_s)

    def send_line(self, text: str) -> None:
        """Type a line and press Enter."""
        self.machine.console.send_line(text)

    def widget(self) -> Any:
        """Return the terminal as a widget, to put into others. Errors: `MissingRequirement` without anywidget."""
        try:
            from acon_nb.widgets.terminal import TerminalWidget
        except ImportError as error:
            raise MissingRequirement("anywidget", "the console", hint="pip install 'acon-nb[lab]'") from error
        if self._feed is None:
            widget = steady(TerminalWidget(rows=self.rows, transcript=str(self.machine.console.transcript)))
            self._feed = _Feed(self.machine, widget, page_channels(), self.keep)
        return self._feed.widget

    def report(self) -> Any:
        """Return the end of the transcript as text that stays in a saved notebook."""
        return Transcript(Path(self.machine.console.transcript))

    def close(self) -> None:
        """Stop following the guest; the machine keeps running."""
        if self._feed is not None:
            self._feed.close()

    def parts(self) -> list[Any]:
        """Return the end of the transcript."""
        return [self.report()]


def console(machine: Machine, *, rows: int = ROWS) -> ConsoleView:
    """Create a console of `machine`, to be the last value of a cell. `rows` is the terminal's initial height."""
    return ConsoleView(machine, rows=rows)


class Transcript:
    """The last lines of a transcript, as text and HTML."""

    def __init__(self, path: Path, lines: int = _TAIL_LINES) -> None:
        self.path = path
        self.lines = read_tail(path)[-lines:]

    def __repr__(self) -> str:
        return "\n".join([*self.lines, f"[console: {self.path}]"])

    def _repr_html_(self) -> str:
        style = "font-family: monospace; background: #111; color: #ddd; padding: 0.6em; white-space: pre-wrap"
        text = html.escape("\n".join(self.lines))
        return f'<pre style="{style}">{text}</pre><div>Console: {html.escape(str(self.path))}</div>'


class _Feed:
    """Connects a machine's console with a widget: one thread sends; messages from the page only update its state.

    A view is sent to through its direct channel if it has one, otherwise through kernel messages; `streams` works with
    any mixture of the two.
    """

    def __init__(
        self, machine: Machine, widget: Any, channels: PageChannels, ended: Callable[[], None] = lambda: None
    ) -> None:
        self.widget = widget
        self._channels = channels
        self._at_end = ended
        self._channel = channels.open(self._take_message)
        self._machine = machine
        self._console = machine.console
        self._streams = Streams()
        self._wake = threading.Condition()
        self._closed = False
        self._ended = False
        self._complaint = ""
        self._next_s = 0.0
        self._sender: threading.Thread | None = None
        self._unsubscribe = self._console.subscribe(self._take, replay_bytes=KEEP_BYTES)
        widget.on_msg(lambda _, content, buffers: self._take_message(content, buffers))
        widget.channel = f"{channels.name}/{self._channel}"
        with self._wake:
            self._wake_sender()

    def close(self) -> None:
        self._unsubscribe()
        self._channels.close(self._channel)
        with self._wake:
            self._closed = True
            self._wake.notify()

    def _wake_sender(self) -> None:
        """Start the thread if necessary and wake it; it ends with the guest. The caller holds the lock."""
        if self._sender is None and not self._closed:
            self._sender = threading.Thread(target=self._send_all, name="acon-console-view", daemon=True)
            self._sender.start()
        self._wake.notify()

    def _take(self, data: bytes) -> None:
        """Take output in the console's thread, and send it if that is allowed already; else the sender does."""
        with self._wake:
            self._streams.feed(data)
            self._ended = not data
            chunks = self._due()
            if self._ended or self._streams.waiting:
                self._wake_sender()
        self._send(chunks)

    def _due(self) -> list[Chunk]:
        now = time.monotonic()
        chunks = self._streams.due(now) if now >= self._next_s else []
        if chunks:
            self._next_s = now + GATHER_S
        return chunks

    def _send(self, chunks: list[Chunk]) -> None:
        for chunk in chunks:
            head = {name: value for name, value in vars(chunk).items() if name != "data"}
            self._send_to(chunk.view, {"kind": "output", **head}, [chunk.data])

    def _send_to(self, view: str, head: dict[str, Any], buffers: list[bytes]) -> None:
        if not self._channels.send(self._channel, view, head, b"".join(buffers)):
            self.widget.send(head, buffers=buffers)

    def _take_message(self, content: dict[str, Any], buffers: list[Any]) -> None:
        """Handle a message from the page, in the thread of the kernel, a subshell or the channels: never block."""
        now, view, kind = time.monotonic(), str(content.get("view")), content.get("kind")
        with self._wake:
            if kind == "input" and buffers:
                self._complaint = ""
                typed = self._streams.typed(view, int(content["number"]), bytes(buffers[0]), now)
                self._write(typed)  # inside the lock: the next message may come in another thread
            elif kind == "size":
                self._machine.window.set(int(content["rows"]), int(content["columns"]), TERM)
            elif kind == "want":
                self._streams.want(view, int(content["position"]), now)
            elif kind == "bye":
                self._streams.bye(view)
            self._wake_sender()
        if kind == "want":
            self._send_to(view, {"kind": "here", "view": view}, [])

    def _write(self, data: bytes) -> None:
        try:
            if data:
                self._console.write(data)
        except AconError as error:  # the guest reads nothing: drop what was typed, and report that
            self._complaint = error.what

    def _send_all(self) -> None:
        while True:
            with self._wake:
                chunks = self._due()
                if not chunks and not self._closed:
                    self._wake.wait(max(0.001, self._next_s - time.monotonic()) if self._streams.waiting else _IDLE_S)
                    chunks = self._due()
                self._write(self._streams.late(time.monotonic()))
                idle = not chunks and not self._streams.waiting
                done = self._closed or (self._ended and idle and not self._machine.running)
                if done:
                    self._sender = None
            self._send(chunks)
            self._show_state()
            if done:
                if self._ended:
                    self._at_end()
                return

    def _show_state(self) -> None:
        state = _state(self._machine, self._ended)
        if self._complaint and not self._ended:
            state += f": {self._complaint}"
        if state != self.widget.state:
            self.widget.state = state
        if self._ended != self.widget.ended:
            self.widget.ended = self._ended


def _state(machine: Machine, ended: bool) -> str:
    if machine.running:
        return "running"
    if not ended:
        return "not started"
    try:
        return f"ended: {end_text(machine.wait().end)}"
    except Exception as error:  # from starting QEMU: `wait` raises it to its callers; here it is only shown
        return f"failed: {error}"
