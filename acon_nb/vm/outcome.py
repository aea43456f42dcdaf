"""How a guest ended: its end by name, and the evidence."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acon_nb.errors import GuestFailed, NoSpace
from acon_nb.host import QemuMemory
from acon_nb.vm.counting import Snapshot
from acon_nb.vm.diagnosis import GOOD_ENDS, End, end_of_reset

TAIL_LINES = 20
_LINE_CHARACTERS = 400
_FW_CFG = re.compile(rb"@(\d+)\.(\d+):fw_cfg_select .*'(kernel_data|setup_data|cmdline_data|initrd_data)'")


@dataclass(frozen=True)
class Message:
    """One JSON line from the guest, and the host's monotonic time of its arrival in ns."""

    host_ns: int
    data: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of running a guest.

    `end` names its end. `started_ns` (before QEMU's exec), `continued_ns` (the vCPUs start to run) and `ended_ns` are
    host monotonic times; `kernel_entry_ns` is when the loader read the last piece over fw_cfg, just before it jumps
    into the kernel (None if QEMU cannot trace), `ready_ns` when it was ready, if that was awaited. `tail` is the end of
    the transcript, `panic` the oops, `qemu_memory` what QEMU took as the last message arrived, or as the guest was
    ready. `command` can be pasted into a shell. `notes` are what a person should know: what QEMU reported of the guest
    (a disk that failed, a watchdog), a fall back from KVM to TCG, why a transcript was cut (a flood, a full disk).
    `snapshots` are a counted guest's, in order.
    """

    end: End
    messages: tuple[Message, ...]
    command: str
    accelerator: str
    console: Path
    started_ns: int
    continued_ns: int | None
    kernel_entry_ns: int | None
    ended_ns: int
    qemu_memory: QemuMemory | None
    returncode: int | None
    tail: tuple[str, ...]
    panic: tuple[str, ...]
    stderr: tuple[str, ...]
    hint: str
    notes: tuple[str, ...] = ()
    snapshots: tuple[Snapshot, ...] = ()
    ready_ns: int | None = None

    @property
    def qemu_pss_bytes(self) -> int | None:
        """QEMU's proportional set size in bytes; None if it was not read."""
        return None if self.qemu_memory is None else self.qemu_memory.total_bytes

    def check(self) -> Outcome:
        """Return self if the guest ended well, else raise `GuestFailed` with the evidence."""
        if self.end not in GOOD_ENDS:
            raise self.failure(f"the guest ended: {self.end.text}")
        return self

    def failure(self, what: str) -> GuestFailed:
        """Return an error that says what went wrong, with the evidence."""
        messages = [f"QEMU: {line}" for line in self.stderr[-TAIL_LINES:]]
        details = [
            *map(_short, [*(self.panic or self.tail)[-TAIL_LINES:], *messages]),
            *self.notes,
            f"console: {self.console}",
            f"command: {self.command}",
        ]
        return GuestFailed(what, end=self.end, details=details, hint=self.hint)


_ENDED_BY_US = {"ready": End.READY, "limit": End.HANG, "flood": End.FLOOD, "halted": End.HALTED}


def _short(line: str) -> str:
    """A line for people: a guest may write without end and without a line feed."""
    return line if len(line) <= _LINE_CHARACTERS else f"{line[:_LINE_CHARACTERS]} ..."


def name_end(ended_by: str, returncode: int | None, reason: str, lines: Sequence[str], *, at_terminal: bool) -> End:
    """Return the end of a guest.

    `ended_by` is what the machine saw: "end" (QEMU exited by itself), "ready", "limit", "flood", "panic", "halted" or
    "killed";
    `reason` is that of QEMU's SHUTDOWN event. At a terminal, ^A x ends QEMU without an event.
    """
    if ended_by in _ENDED_BY_US:
        return _ENDED_BY_US[ended_by]
    if ended_by == "panic":
        return End.OUT_OF_MEMORY if end_of_reset(lines) is End.OUT_OF_MEMORY else End.PANIC
    if ended_by == "killed" or returncode in (-signal.SIGKILL, -signal.SIGTERM):
        return End.KILLED
    if reason == "host-error":
        return End.QEMU_FAILED
    if returncode == 0 and (reason.startswith("host-") or (at_terminal and not reason)):
        return End.STOPPED
    if returncode != 0 or not reason:
        return End.QEMU_FAILED
    return End.POWERED_OFF if reason == "guest-shutdown" else end_of_reset(lines)


def full_disk_note(transcript: Path) -> tuple[str, ...]:
    """Return a note if the transcript's disk has no free block, so that the transcript may be cut."""
    try:
        full = transcript.is_file() and os.statvfs(transcript).f_bavail == 0
    except OSError:
        return ()
    return (NoSpace(transcript, "the transcript may be cut").what,) if full else ()


def kernel_entry_ns(trace: Path, wall_ns: int) -> int | None:
    """Return the host monotonic time of the loader's last fw_cfg access before it enters the kernel (QEMU's trace)."""
    try:
        accesses = _FW_CFG.findall(trace.read_bytes())
    except OSError:
        return None
    if not accesses:
        return None
    seconds, micros, _ = accesses[-1]
    return int(seconds) * 10**9 + int(micros) * 1000 - wall_ns
