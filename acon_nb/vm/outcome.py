"""What became of a guest: its end by name, and the evidence."""

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
from acon_nb.vm.console import End, end_of_reset

TAIL_LINES = 20
_FW_CFG = re.compile(rb"@(\d+)\.(\d+):fw_cfg_select .*'(kernel_data|setup_data|cmdline_data|initrd_data)'")


@dataclass(frozen=True)
class Message:
    """One JSON line of the guest, and the host's monotonic time of its arrival, in ns."""

    host_ns: int
    data: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a guest went.

    `end` names its end; `started_ns` (before QEMU's exec), `continued_ns` (the vCPU is let go) and `ended_ns` are host
    monotonic times; `kernel_entry_ns` is when the loader read its last piece over fw_cfg, just before it jumps into
    the kernel (None where QEMU cannot trace). `tail` are the transcript's last lines, `panic` the oops.
    `qemu_memory` was read when the guest's last message came. `command` can be pasted into a shell. `notes` say
    what befell the transcript (a flood, a full disk).
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

    @property
    def qemu_pss_bytes(self) -> int | None:
        """QEMU's proportional set size, if it was read."""
        return None if self.qemu_memory is None else self.qemu_memory.total_bytes

    def check(self) -> Outcome:
        """Return self if the guest powered off; else raise `GuestFailed` with the evidence."""
        if self.end is not End.POWERED_OFF:
            shown = self.panic or self.stderr or self.tail
            raise GuestFailed(
                f"the guest ended: {self.end}",
                end=self.end,
                details=[
                    *shown[-TAIL_LINES:],
                    *self.notes,
                    f"console: {self.console}",
                    f"command: {self.command}",
                ],
                hint=self.hint,
            )
        return self


def name_end(ended_by: str, returncode: int | None, reason: str, lines: Sequence[str], *, at_terminal: bool) -> End:
    """The end of a guest.

    `ended_by` is what the machine saw: "end" (QEMU ended by itself), "limit", "flood", "panic" or "killed"; `reason`
    is that of QEMU's SHUTDOWN event; at a terminal, ^A x ends QEMU without an event.
    """
    if ended_by == "limit":
        return End.HANG
    if ended_by == "flood":
        return End.FLOOD
    if ended_by == "panic":
        return End.OUT_OF_MEMORY if end_of_reset(lines) is End.OUT_OF_MEMORY else End.PANIC
    if ended_by == "killed" or returncode in (-signal.SIGKILL, -signal.SIGTERM):
        return End.KILLED
    if returncode == 0 and (reason.startswith("host-") or (at_terminal and not reason)):
        return End.STOPPED
    if returncode != 0 or not reason:
        return End.QEMU_FAILED
    return End.POWERED_OFF if reason == "guest-shutdown" else end_of_reset(lines)


def full_disk_note(transcript: Path) -> tuple[str, ...]:
    """A note when the disk under the transcript has no block left, so that it may be cut."""
    try:
        full = transcript.is_file() and os.statvfs(transcript).f_bavail == 0
    except OSError:
        return ()
    return (NoSpace(transcript, "the transcript may be cut").what,) if full else ()


def kernel_entry_ns(trace: Path, wall_ns: int) -> int | None:
    """Host monotonic time of the loader's last fw_cfg access before it enters the kernel (QEMU's trace log)."""
    try:
        found = _FW_CFG.findall(trace.read_bytes())
    except OSError:
        return None
    if not found:
        return None
    seconds, micros, _ = found[-1]
    return int(seconds) * 10**9 + int(micros) * 1000 - wall_ns
