"""One QEMU process, from its start to its outcome: its channels, its monitor, its results, and what ends it.

A machine has one after the other if KVM fails at once and TCG is to run the guest instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qemu.qmp import QMPClient, QMPError

from acon_nb import bzimage, kernel_line
from acon_nb.host import QemuMemory, qemu_memory
from acon_nb.process import Child, RawTerminal
from acon_nb.progress import CancelToken
from acon_nb.vm import monitor
from acon_nb.vm.command import Capabilities, Channels, accelerator_of, argument_list, paste
from acon_nb.vm.commands import Agent
from acon_nb.vm.console import Console
from acon_nb.vm.counters import Sampler
from acon_nb.vm.counting import Counter
from acon_nb.vm.diagnosis import (
    LAST_WORDS_BYTES,
    console_device,
    hint_for,
    last_words,
    panic_lines,
    plain_lines,
    read_tail,
)
from acon_nb.vm.outcome import TAIL_LINES, Message, Outcome, full_disk_note, kernel_entry_ns, name_end
from acon_nb.vm.plumbing import held, socket_pairs, take_messages
from acon_nb.vm.ready import Ready, ReadyWatch, Rule
from acon_nb.vm.spec import Clock, VmSpec
from acon_nb.vm.states import Halt, States
from acon_nb.vm.window import TerminalWindow, pass_sizes, takes_sizes

_log = logging.getLogger(__name__)
_CANCEL_POLL_S = 0.1
_DRAIN_S = 2.0
_LAST_WORDS_S = 2.0  # after its kernel's last words a guest gets so long to reset itself
_SETUP_BYTES = 64 << 10  # of a bzImage, more than its setup code ever has
START_S = 20.0


@dataclass(frozen=True, kw_only=True)
class Guest:
    """What every QEMU process of one machine has in common; see the parameters of `vm.Machine`."""

    spec: VmSpec
    folder: Path
    transcript: Path
    console: Console | None
    mux: bool
    attended: bool
    on_message: Callable[[Message], None] | None
    on_notice: Callable[[str], None] | None
    limit_bytes: int
    until: Ready | None
    counter: Counter | None
    cancel: CancelToken
    agent: Agent | None
    window: TerminalWindow
    terminal: RawTerminal | None


class QemuRun:
    """One QEMU process of a guest. `paused`: it waits for `cont`; unless `last`, a silent console stays open after it.

    `ready` is set as soon as there is a `client` for commands.
    """

    def __init__(self, guest: Guest, host: Capabilities, *, paused: bool = False, last: bool = True) -> None:
        self.guest = guest
        self.host = host
        self.paused = paused
        self.last = last
        self.states = States(guest.spec)
        self.halt: Halt | None = None
        self.ready = threading.Event()
        self.continued_ns: int | None = None
        self.child: Child | None = None
        self.client: QMPClient | None = None
        self.sampler: Sampler | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self._awaited = None if guest.until is None else ReadyWatch(guest.until, guest.transcript, guest.spec.clock)
        self._messages: list[Message] = []
        self._shutdown_reason = ""
        self._memory: QemuMemory | None = None
        self._silent = (0, time.monotonic())  # the length of the transcript, and since when

    @property
    def pid(self) -> int | None:
        """QEMU's process id; None before it runs."""
        return None if self.child is None else self.child.pid

    @property
    def _has_window(self) -> bool:
        """Whether the guest gets a port for the size of its window, which may come later: a notebook's, or `attach`.

        On the instruction clock, where the host's timing should not show, only if there is a window already, and in
        a guest of commands (`agent.prepare`), whose console has no shell, too.
        """
        if self.guest.window.is_set:
            return True
        has_shell = self.guest.agent is None or kernel_line.parse(self.guest.spec.append).value("INIT") is None
        return self.guest.console is not None and self.guest.spec.clock is Clock.WALL and has_shell

    def _release(self) -> str:
        """The kernel's release; "" if it cannot be read."""
        with contextlib.suppress(OSError, struct.error), self.guest.spec.kernel.open("rb") as file:
            return bzimage.release(file.read(_SETUP_BYTES))
        return ""

    async def run(self) -> Outcome:
        """Start QEMU, follow it to its end, and say how that was."""
        self.loop = asyncio.get_running_loop()
        trace = self.guest.folder / "fw_cfg.trace"
        errors_path = self.guest.folder / "qemu.stderr"
        names = ["qmp", "commands", "results"]
        if self.guest.console is not None:
            names += ["mux"] if self.guest.mux else ["serial", "hvc"]
        if self.guest.agent is not None:
            names.append("exec")
        if self._has_window:
            names.append("terminal")
        wall_ns = time.time_ns() - time.monotonic_ns()  # the trace has wall-clock times
        with contextlib.ExitStack() as stack:
            stack.enter_context(held(self.guest.folder))
            ours, theirs = socket_pairs(names, stack)
            argv = argument_list(self.guest.spec, self.host, self._channels(theirs, trace))
            self.guest.transcript.write_bytes(b"")
            errors = stack.enter_context(errors_path.open("wb"))
            started_ns = time.monotonic_ns()
            try:
                fds = [end.fileno() for end in theirs.values()]
                child = stack.enter_context(
                    Child(argv, stdin=subprocess.DEVNULL, stderr=errors, pass_fds=fds, terminal=self.guest.terminal)
                )
            finally:
                for end in theirs.values():
                    end.close()
            self.child = child
            self._connect_console(ours)
            if self.guest.agent is not None:
                self.guest.agent.connect(ours["exec"].dup())
                ours["exec"].close()
            if "terminal" in ours:
                self.guest.window.connect(ours["terminal"].dup())
                ours["terminal"].close()
                stack.callback(self.guest.window.close)
            ended_by = await self._watch(child, ours)
            ended_ns = time.monotonic_ns()
            returncode = child.poll()
        if self.guest.console is not None:
            self.guest.console.join(_DRAIN_S)
        entry_ns = kernel_entry_ns(trace, wall_ns)
        notes = full_disk_note(self.guest.transcript) if self.guest.console is None else self.guest.console.notes
        notes = (*self.states.notices, *notes)
        trace.unlink(missing_ok=True)
        stderr = tuple(read_tail(errors_path))
        return self._judge(notes, ended_by, returncode, started_ns, entry_ns, ended_ns, stderr)

    def _channels(self, theirs: Mapping[str, socket.socket], trace: Path) -> Channels:
        fds = {f"{name}_fd": end.fileno() for name, end in theirs.items()}
        transcript = self.guest.transcript if self.guest.console is None else None
        plugin = None if self.guest.counter is None else self.guest.counter.option
        return Channels(console=transcript, trace=trace, plugin=plugin, paused=True, **fds)

    def _connect_console(self, ours: Mapping[str, socket.socket]) -> None:
        if self.guest.console is None:
            return
        ends = {name: ours[name] for name in ("mux", "serial", "hvc") if name in ours}
        keys_to = "mux" if self.guest.mux else "hvc" if console_device(self.guest.spec.append) == "hvc0" else "serial"
        self.guest.console.connect({name: end.dup() for name, end in ends.items()}, keys_to, last=self.last)
        for end in ends.values():
            end.close()

    async def _watch(self, child: Child, ours: Mapping[str, socket.socket]) -> str:
        """Let the guest run and follow it; return what ended it (see `name_end`)."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(child.fileno(), lambda: ended.set() if child.poll() is not None else None)
        reader = asyncio.create_task(take_messages(ours["results"], self._take))
        control = asyncio.create_task(monitor.talk(ours["qmp"], self._control))
        commands = asyncio.create_task(monitor.talk(ours["commands"], self._command))
        end = asyncio.create_task(ended.wait())
        knocking = asyncio.create_task(self._knock())
        look_s = _CANCEL_POLL_S if self._awaited is None else self._awaited.look_s
        deadline = time.monotonic() + self.guest.spec.timeout_s
        try:
            while not ended.is_set():
                if (reason := self._reason_to_end(deadline)) is not None:
                    return reason
                await asyncio.wait((end,), timeout=look_s)  # cheaper per call than wait_for
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reader, _DRAIN_S)
            await self._drain_control(child)
            return "end"
        finally:
            loop.remove_reader(child.fileno())
            child.kill()
            tasks = (reader, control, commands, end, knocking)
            for task in tasks:
                task.cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            for error in done:
                if isinstance(error, Exception):
                    _log.debug("watching the guest: %r", error)

    def _reason_to_end(self, deadline: float) -> str | None:
        """Why the guest must be ended now; None if it may run."""
        if self.guest.cancel.cancelled:
            return "killed"
        if self.halt is not None and not (self.guest.attended and self.halt.resumable):
            return "halt"
        if self._awaited is not None:
            self._awaited.look()
            if self._awaited.settled:
                if self._memory is None:  # the guest sent no message
                    self._sample_memory()
                return "ready"
        if time.monotonic() > deadline:
            return "limit"
        if self.guest.console is None:
            return self._reason_in_transcript()
        why, seen_ns = self.guest.console.last_words or ("", 0)
        if why and not self.guest.attended and time.monotonic_ns() - seen_ns > _LAST_WORDS_S * 1e9:
            return why
        return None

    def _reason_in_transcript(self) -> str | None:
        """Why a guest whose console nobody reads must be ended: it fills the disk, or its kernel goes no further."""
        size = self.guest.transcript.stat().st_size
        if size > self.guest.limit_bytes:
            return "flood"
        written, since_s = self._silent
        if size != written:
            self._silent = (size, time.monotonic())
        elif time.monotonic() - since_s > _LAST_WORDS_S:
            self._silent = (size, math.inf)  # what it wrote is looked at once
            with self.guest.transcript.open("rb") as file:
                file.seek(max(0, size - LAST_WORDS_BYTES))
                return last_words(file.read()) or None
        return None

    async def _knock(self) -> None:
        """Knock at the port at which the guest is to answer, if that is what makes it ready."""
        if self._awaited is None or self._awaited.ready.rule is not Rule.PORT:
            return
        port = self._awaited.ready.port
        rule = next((rule for rule in self.guest.spec.forwards if rule.guest_port == port), None)
        if rule is not None:
            await self._awaited.knock(rule.host_port, self._human)

    async def _human(self, line: str) -> str:
        """A command of QEMU's human monitor, and its answer; "" while there is no monitor."""
        if self.client is None:
            return ""
        return str(await self.client.execute("human-monitor-command", {"command-line": line}))

    async def _drain_control(self, child: Child) -> None:
        """Wait for the reason of QEMU's end: it is sent before QEMU exits but may not have arrived yet."""
        deadline = time.monotonic() + (0.2 if self.guest.mux else _DRAIN_S)  # ^A x ends QEMU without a reason
        while child.poll() == 0 and not self._shutdown_reason and time.monotonic() < deadline:
            await asyncio.sleep(0.005)

    async def _control(self, client: QMPClient) -> None:
        """QMP: let the guest run, then record why it shuts down.

        Nothing else is sent on this connection: a client whose command is pending when QEMU exits drops the events
        before its end.
        """
        if not self.paused:
            self.continued_ns = time.monotonic_ns()
            await client.execute("cont")
        async for event in client.events:
            self._shutdown_reason = self._shutdown_reason or monitor.reason_of(event)
            self._tell(self.states.take(event))
            if event["event"] == "RESUME":
                self.halt = None
            elif event["event"] in ("STOP", "SUSPEND"):
                await self._look_why()

    async def _look_why(self) -> None:
        """Ask QEMU, over the other connection, why the guest does not run."""
        deadline = time.monotonic() + _DRAIN_S
        while self.client is None and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        if self.client is None:
            return
        with contextlib.suppress(QMPError, OSError, EOFError):
            status: Any = await self.client.execute("query-status")
            self.halt = self.states.halt(status["status"])
        if self.halt is not None:
            cause = self.halt.cause
            waits = self.guest.attended and self.halt.resumable
            self.notice(f"{cause}: the guest is paused until it is resumed (monitor: cont)" if waits else cause)

    def notice(self, text: str) -> None:
        """Keep a sentence for the outcome, and tell it to whoever listens."""
        self._tell(self.states.note(text))

    def _tell(self, text: str) -> None:
        if text and self.guest.on_notice is not None:
            self.guest.on_notice(text)

    async def _command(self, client: QMPClient) -> None:
        """QMP: the monitor for the commands of the machine's owner."""
        self.client, self.sampler = client, Sampler(client, self.pid or 0)
        self.ready.set()
        if self._has_window and takes_sizes(self._release()) and console_device(self.guest.spec.append) == "hvc0":
            await pass_sizes(self.guest.window, client, "mux" if self.guest.mux else "hvc")
        await asyncio.Event().wait()  # `_watch` cancels

    def _take(self, data: Mapping[str, Any]) -> None:
        message = Message(time.monotonic_ns(), data)  # first, since reading the memory takes a while
        self._sample_memory()
        self._messages.append(message)
        if self._awaited is not None:
            self._awaited.take(message.host_ns, data)
        if self.guest.on_message is not None:
            self.guest.on_message(message)

    def _sample_memory(self) -> None:
        """Read what QEMU takes of its host; one that ends has given the guest's memory back already."""
        memory = qemu_memory(self.pid or 0, self.guest.spec.memory_bytes)
        if memory is not None and memory.ram:
            self._memory = memory

    def _judge(
        self,
        notes: tuple[str, ...],
        ended_by: str,
        returncode: int | None,
        started_ns: int,
        entry_ns: int | None,
        ended_ns: int,
        stderr: tuple[str, ...],
    ) -> Outcome:
        console = self.guest.console
        lines = read_tail(self.guest.transcript) if console is None else plain_lines(console.scrollback(256 * 1024))
        if ended_by == "halt" and self.halt is not None:
            end = self.halt.end
        else:
            end = name_end(ended_by, returncode, self._shutdown_reason, lines, at_terminal=self.guest.mux)
            end = self.states.end_of(end)
        return Outcome(
            end=end,
            messages=tuple(self._messages),
            command=paste(self.guest.spec, self.host),
            accelerator=accelerator_of(self.guest.spec, self.host),
            console=self.guest.transcript,
            started_ns=started_ns,
            continued_ns=self.continued_ns,
            kernel_entry_ns=entry_ns,
            ended_ns=ended_ns,
            ready_ns=None if self._awaited is None else self._awaited.met_ns,
            qemu_memory=self._memory,
            returncode=returncode,
            tail=tuple(lines[-TAIL_LINES:]),
            panic=tuple(panic_lines(lines)),
            stderr=stderr,
            hint=hint_for(end, [*lines, *stderr]),
            notes=notes,
            snapshots=() if self.guest.counter is None else self.guest.counter.take(),
        )
