"""Work out from a guest's console transcript how it ended. Results never come from here."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from acon_nb import kernel_line, known_errors
from acon_nb.known_errors import KnownError, explanation, read_errors

_READ_BYTES = 256 * 1024
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1bc|[\x00-\x08\x0b-\x1a\x1c-\x1f]")
# The last words of a kernel that goes no further (kernel/panic.c, kernel/reboot.c): QEMU runs on
_LAST_WORDS = re.compile(
    rb"(?P<panic>---\[ end Kernel panic)"
    rb"|^(?:\[[ 0-9.]+\] )?reboot: (?P<halted>System halted|Power off not available: System halted)",
    re.MULTILINE,
)
LAST_WORDS_BYTES = 256  # of a console's end, in which they are looked for
# QEMU's words when KVM fails in a guest (accel/kvm, target/i386/kvm): it then pauses the guest, or aborts
_KVM_FAILED = (
    "KVM internal error", "kvm run failed", "KVM: entry failed", "kvm_init_vcpu failed", "failed to set MSR",
    "failed to get MSR",
)  # fmt: skip


class End(StrEnum):
    """How a guest ended: a code for files, with `text` for people."""

    POWERED_OFF = "powered_off"
    READY = "ready"
    RESET = "reset"
    PANIC = "panic"
    OUT_OF_MEMORY = "out_of_memory"
    HANG = "hang"
    HALTED = "halted"
    FLOOD = "console_flood"
    STOPPED = "stopped"
    DISK_FAILED = "disk_failed"
    WATCHDOG = "watchdog"
    SUSPENDED = "suspended"
    QEMU_FAILED = "qemu_failed"
    KILLED = "killed"

    @property
    def text(self) -> str:
        """The end in words: "powered off", "stopped by the host"."""
        return end_text(self)


_GUEST_ENDS = (
    End.PANIC,
    End.OUT_OF_MEMORY,
    End.HANG,
    End.HALTED,
    End.RESET,
    End.WATCHDOG,
)  # those for which the guest's kernel has a reason
GOOD_ENDS = (End.POWERED_OFF, End.READY)  # those of a whole run
_END_TEXTS = {
    End.HALTED: "halted, without powering off",
    End.READY: "ready, and ended by the host",
    End.STOPPED: "stopped by the host",
    End.QEMU_FAILED: "QEMU failed",
    End.DISK_FAILED: "paused by QEMU: a disk failed",
    End.WATCHDOG: "its watchdog expired",
    End.SUSPENDED: "suspended to memory",
}


_END_HINTS = {
    End.OUT_OF_MEMORY: "give the guest more memory, or a smaller initrd",
    End.HANG: "raise timeout_s, or read the console transcript",
    End.HALTED: "the guest ran `halt`: poweroff ends it",
    End.FLOOD: "the guest filled its console: add quiet to append, or raise transcript_limit_bytes",
    End.DISK_FAILED: "make room, or repair the host's disk; at a terminal such a guest waits, and cont resumes it",
    End.WATCHDOG: "read the console transcript: what ran in the guest when it stopped to feed its watchdog",
    End.SUSPENDED: "a guest that nobody watches cannot be woken: keep it from suspending itself",
}


def end_text(code: str) -> str:
    """Return the words for an end as rows and JSON hold it, `End` or not: "powered off" for "powered_off"."""
    return _END_TEXTS.get(code, code.replace("_", " "))  # type: ignore[call-overload, no-any-return]


def read_tail(path: Path) -> list[str]:
    """Return the last lines of a transcript, without control sequences."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _READ_BYTES))
            return plain_lines(file.read())
    except OSError:
        return []


def plain_lines(raw: bytes) -> list[str]:
    """Split a console's raw output into lines, without control sequences and empty lines."""
    return [line.rstrip() for line in shown_lines(raw) if line.rstrip()]


def shown_lines(raw: bytes) -> list[str]:
    """Split a console's raw output into lines as a person sees them, blanks at their ends included."""
    text = raw.decode(errors="replace")
    return [_ESCAPES.sub("", line) for line in text.replace("\r", "\n").split("\n")]


def console_device(append: str) -> str:
    """Return the device behind /dev/console: the last `console=` of the command line (admin-guide/serial-console)."""
    return (kernel_line.parse(append).value("console") or "ttyS0").partition(",")[0]


def panic_lines(lines: Sequence[str]) -> list[str]:
    """Return the report of an oops and panic: from its first line, at most 60 lines."""
    starts = ("Oops", "BUG:", "general protection fault", "Kernel panic")
    first = next((i for i, line in enumerate(lines) if any(word in line for word in starts)), None)
    return [] if first is None else list(lines[first : first + 60])


def end_of_reset(lines: Sequence[str]) -> End:
    """Return why a guest reset itself: a panic, lack of memory, or neither of them."""
    panicked = any("Kernel panic" in line for line in lines)
    if not panicked:
        return End.RESET
    starved = any(row.match.search(line) for row in guest_hints() if row.starved for line in lines)
    return End.OUT_OF_MEMORY if starved else End.PANIC


def last_words(raw: bytes) -> str:
    """Return why the kernel that wrote this goes no further: "panic", "halted", or "" if it may."""
    match = _LAST_WORDS.search(raw)
    return "" if match is None else str(match.lastgroup)


def kvm_failed(lines: Sequence[str]) -> bool:
    """Return whether QEMU's messages say that KVM failed inside the guest (accel/kvm: kvm_handle_internal_error)."""
    return any(text in line for line in lines for text in _KVM_FAILED)


@dataclass(frozen=True)
class Hint:
    """A row of hints.toml: a line of the console, and what to do about an end that it explains."""

    match: re.Pattern[str]
    hint: str
    ends: tuple[str, ...] = ()
    starved: bool = False
    boot: str = ""
    source: str = ""


def hint_for(end: End, lines: Sequence[str]) -> str:
    """Return what to do about an end, judging by the console's lines; "" if there is no advice."""
    if end is End.READY:
        return ""
    if end in _GUEST_ENDS and (hint := _guest_hint(end, lines)):
        return hint
    if end in _END_HINTS:
        return _END_HINTS[end]
    return explanation(qemu_errors(), lines)


def _guest_hint(end: End, lines: Sequence[str]) -> str:
    """Return the hint of the first row that matches a line; for lack of memory, only rows about memory count."""
    for row in guest_hints():
        if (row.ends and end not in row.ends) or (end is End.OUT_OF_MEMORY and not row.starved):
            continue
        for line in lines:
            if hint := filled(row, line):
                return hint
    return ""


def filled(row: Hint, text: str) -> str:
    """Return a row's hint with the groups of its match in a text; "" if it does not match."""
    match = row.match.search(text)
    return "" if match is None else known_errors.filled(row.hint, match)


@functools.cache
def qemu_errors() -> tuple[KnownError, ...]:
    """Return the rows of qemu_errors.toml, in their order."""
    return read_errors(Path(__file__).with_name("qemu_errors.toml"), re.IGNORECASE)


@functools.cache
def guest_hints() -> tuple[Hint, ...]:
    """Return the rows of hints.toml about guests, in their order."""
    rows = tomllib.loads(Path(__file__).with_name("hints.toml").read_text())["hint"]
    return tuple(Hint(**{**row, "match": re.compile(row["match"]), "ends": tuple(row.get("ends", ()))}) for row in rows)
