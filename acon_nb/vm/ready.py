"""When a guest is ready, as its owner says: /init is reached, a line on the console, a TCP port, a message."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from acon_nb.errors import InvalidInput
from acon_nb.validation import Meta, check_fields
from acon_nb.vm.diagnosis import shown_lines
from acon_nb.vm.spec import Clock

_SYNTAX = "init, console:REGEX, port:NUMBER or message"
_LINE_BYTES = 64 << 10  # of a line that has not ended, the newest
_LOOK_S = {Clock.WALL: 0.002, Clock.INSTRUCTIONS: 0.1}
_SETTLE_NS = 100_000_000  # after the handover to /init a guest tells at once if it cannot be executed
_KNOCK_S, _PATIENCE_S = 0.01, 0.5
# What guest/src/boot_report.c writes on the console, or in the kernel's log, of a guest without a results port
_NO_PORT = r"acon: /init is reached"
_ESTABLISHED = "TCP[ESTABLISHED]"


class Rule(StrEnum):
    """What makes a guest ready: a code for files."""

    INIT = "init"
    CONSOLE = "console"
    PORT = "port"
    MESSAGE = "message"


@dataclass(frozen=True, kw_only=True)
class Ready:
    """When a guest is ready: by rule, with the regular expression of a console's line, or the guest's TCP port."""

    rule: Rule
    pattern: str = ""
    port: Annotated[int, Meta(ge=0, le=65535)] = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if (self.rule is Rule.CONSOLE) != bool(self.pattern) or (self.rule is Rule.PORT) != bool(self.port):
            raise InvalidInput("ready", str(self), "is not complete", hint=_SYNTAX)
        try:
            empty = re.compile(self.pattern).match("")
        except re.error as error:
            hint = "as of Python's re: console:'login: $'"
            raise InvalidInput("ready", self.pattern, f"is not a regular expression: {error}", hint=hint) from error
        if self.pattern and empty:
            raise InvalidInput("ready", self.pattern, "matches nothing at all", hint="name what the line contains")

    def __str__(self) -> str:
        what = self.pattern or (str(self.port) if self.port else "")
        return f"{self.rule}:{what}" if what else str(self.rule)

    @property
    def awaited(self) -> str:
        """What is awaited, in words."""
        return {
            Rule.INIT: "/init",
            Rule.CONSOLE: f"a line on the console that matches {self.pattern!r}",
            Rule.PORT: f"an answer at TCP port {self.port} of the guest",
            Rule.MESSAGE: 'a message {"event": "ready"} on the results port',
        }[self.rule]


def parse_ready(text: str) -> Ready:
    """Parse `init`, `console:REGEX`, `port:NUMBER` or `message`. Errors: `InvalidInput`."""
    rule, colon, rest = text.partition(":")
    if rule not in tuple(Rule) or bool(colon) != (rule in (Rule.CONSOLE, Rule.PORT)):
        raise InvalidInput("ready", text, "is not a rule", hint=_SYNTAX)
    if rule == Rule.PORT:
        if not re.fullmatch(r"[0-9]{1,5}", rest) or not 0 < int(rest) <= 65535:
            raise InvalidInput("ready", text, "does not name a TCP port", hint="port:1 to port:65535")
        return Ready(rule=Rule.PORT, port=int(rest))
    return Ready(rule=Rule(rule), pattern=rest)


def check_ready(text: str, clock: Clock) -> Ready:
    """Parse a rule and refuse one that cannot work on a clock. Errors: `InvalidInput`.

    A connection from the host reaches the guest at a moment of the host's: no two counts would be equal.
    """
    ready = parse_ready(text)
    if ready.rule is Rule.PORT and clock is Clock.INSTRUCTIONS:
        hint = "use clock=wall, or a line on the console that the service writes"
        raise InvalidInput("ready", text, "would disturb the count: the host knocks when it likes", hint=hint)
    return ready


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ReadyWatch:
    """Follows one guest until it is ready; `met_ns` is then the host's monotonic time (None: not yet).

    `transcript` is the console's file, `look_s` how often to look at it.
    """

    def __init__(self, ready: Ready, transcript: Path, clock: Clock) -> None:
        self.ready = ready
        self.met_ns: int | None = None
        self.look_s = _LOOK_S[clock]
        self._transcript = transcript
        self._read_bytes = 0
        self._line = b""
        pattern = {Rule.CONSOLE: ready.pattern, Rule.INIT: _NO_PORT}.get(ready.rule)
        self._pattern = re.compile(pattern) if pattern else None

    def take(self, host_ns: int, message: Mapping[str, Any]) -> None:
        """Take a message of the guest."""
        if message.get("event") == "exec-failure":
            self.met_ns = None
        event = {Rule.INIT: "handover", Rule.MESSAGE: "ready"}.get(self.ready.rule)
        if event is not None and message.get("event") == event:
            self._meet(host_ns)

    def look(self) -> None:
        """Look at what is new on the console."""
        if self._pattern is None or self.met_ns is not None:
            return
        now_ns = time.monotonic_ns()
        with contextlib.suppress(OSError), self._transcript.open("rb") as file:
            file.seek(self._read_bytes)
            data = file.read()
            self._read_bytes += len(data)
            if data:
                lines = self._line + data
                if any(self._pattern.search(line) for line in shown_lines(lines)):
                    self._meet(now_ns)
                self._line = lines[lines.rfind(b"\n") + 1 :][-_LINE_BYTES:]

    @property
    def settled(self) -> bool:
        """Whether the guest is ready, and nothing can take that back."""
        if self.met_ns is None:
            return False
        return self.ready.rule is not Rule.INIT or time.monotonic_ns() - self.met_ns > _SETTLE_NS

    async def knock(self, host_port: int, monitor: Callable[[str], Awaitable[str]]) -> None:
        """Connect to the forwarded port until the guest takes a connection (QEMU takes it at once, and then asks).

        `monitor` runs a command of QEMU's human monitor; `info usernet` lists the connections and their states.
        """
        while self.met_ns is None:
            with contextlib.suppress(OSError, TimeoutError):
                reader, writer = await asyncio.open_connection("127.0.0.1", host_port)
                try:
                    await self._answered(reader, host_port, monitor)
                finally:
                    writer.close()
            await asyncio.sleep(_KNOCK_S)

    async def _answered(
        self, reader: asyncio.StreamReader, host_port: int, monitor: Callable[[str], Awaitable[str]]
    ) -> None:
        until = time.monotonic() + _PATIENCE_S
        while time.monotonic() < until and not reader.at_eof() and reader.exception() is None:
            if any(_is_ours(line, host_port) for line in (await monitor("info usernet")).splitlines()):
                self._meet(time.monotonic_ns())
                return
            await asyncio.sleep(_KNOCK_S)

    def _meet(self, host_ns: int) -> None:
        self.met_ns = self.met_ns or host_ns


def _is_ours(line: str, host_port: int) -> bool:
    words = line.split()
    return bool(words) and words[0] == _ESTABLISHED and str(host_port) in words
