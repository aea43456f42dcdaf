"""What a guest's console transcript says about its end. Results never come from here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

_READ_BYTES = 256 * 1024
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1bc|[\x00-\x08\x0b-\x1a\x1c-\x1f]")
_MEMORY_WORDS = (
    "Out of memory",
    "System is deadlocked on memory",
    "Out of memory and no killable processes",
    "oom-kill:",
    "invoked oom-killer",
    "Initramfs unpacking failed: write error",
    "Cannot allocate memory",
)
_INIT_WORDS = ("No working init found", "Requested init", "Unable to mount root fs")


class End(StrEnum):
    """How a guest ended."""

    POWERED_OFF = "powered off"
    RESET = "reset"
    PANIC = "panic"
    OUT_OF_MEMORY = "out of memory"
    HANG = "hang"
    QEMU_FAILED = "QEMU failed"
    KILLED = "killed"


def read_tail(path: Path) -> list[str]:
    """The last lines of a transcript, without control sequences."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _READ_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    lines = (_ESCAPES.sub("", line).rstrip() for line in text.replace("\r", "\n").split("\n"))
    return [line for line in lines if line]


def panic_lines(lines: Sequence[str]) -> list[str]:
    """The oops and the panic: from the first line of the report to the end of the panic's."""
    starts = ("Oops", "BUG:", "general protection fault", "Kernel panic")
    first = next((i for i, line in enumerate(lines) if any(word in line for word in starts)), None)
    return [] if first is None else list(lines[first : first + 60])


def end_of_reset(lines: Sequence[str]) -> End:
    """What a guest that reset itself had met: a panic, the end of its memory, or neither."""
    panicked = any("Kernel panic" in line for line in lines)
    starved = any(word in line for line in lines for word in _MEMORY_WORDS)
    if panicked:
        return End.OUT_OF_MEMORY if starved else End.PANIC
    return End.RESET


def hint_for(end: End, lines: Sequence[str]) -> str:
    """What to do about an end, from what the console said."""
    text = "\n".join(lines)
    if end is End.OUT_OF_MEMORY:
        return "give the guest more memory, or a smaller initrd"
    if any(word in text for word in _INIT_WORDS):
        return "the initrd has no init that runs: check that /init is there, executable, and its interpreter too"
    if end is End.HANG:
        return "raise timeout_s, or read the console transcript"
    if "Address already in use" in text or "Could not set up host forwarding rule" in text:
        return "a forwarded port is in use on this host: choose another host port"
    if 'Failed to get "write" lock' in text:
        return "the disk image is in use by another machine"
    return ""
