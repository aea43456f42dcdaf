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
_QEMU_HINTS = (  # what QEMU says when it cannot start, and what to do; the first that matches
    ("unable to set guest cid", "the vsock CID is in use by another guest: choose another"),
    ("vhost-vsock", "load the host's module: modprobe vhost_vsock"),
    ("Address already in use", "a forwarded port is in use on this host: choose another host port"),
    ("Could not set up host forwarding rule", "a forwarded port is in use on this host: choose another host port"),
    ('Failed to get "write" lock', "the disk image is in use by another machine"),
    ("vm-type tdx not supported", "the host's KVM has no TDX: boot it with kvm_intel.tdx=1 on a TDX machine"),
    ("KVM_TDX_INIT_MEM_REGION", "the firmware has no TDX metadata, or the TDX module has no memory: use a TDVF"),
    ("invalid accelerator kvm", "this QEMU was built without KVM"),
    ("Could not access KVM", "KVM is not usable here: see acon-nb doctor"),
)
_INIT_WORDS = ("No working init found", "Requested init", "Unable to mount root fs")


class End(StrEnum):
    """How a guest ended."""

    POWERED_OFF = "powered off"
    RESET = "reset"
    PANIC = "panic"
    OUT_OF_MEMORY = "out of memory"
    HANG = "hang"
    FLOOD = "console flood"
    STOPPED = "stopped by the host"
    QEMU_FAILED = "QEMU failed"
    KILLED = "killed"


def read_tail(path: Path) -> list[str]:
    """The last lines of a transcript, without control sequences."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _READ_BYTES))
            return plain_lines(file.read())
    except OSError:
        return []


def plain_lines(raw: bytes) -> list[str]:
    """The lines of a console's raw output, without control sequences and without empty ones."""
    text = raw.decode(errors="replace")
    lines = (_ESCAPES.sub("", line).rstrip() for line in text.replace("\r", "\n").split("\n"))
    return [line for line in lines if line]


def console_device(append: str) -> str:
    """The device behind /dev/console: the last `console=` of a kernel command line (admin-guide/serial-console)."""
    words = [word.partition("=")[2] for word in append.split() if word.startswith("console=")]
    return words[-1].partition(",")[0] if words else "ttyS0"


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
    if end is End.FLOOD:
        return "the guest filled its console: add quiet to append, or raise transcript_limit_bytes"
    return next((hint for word, hint in _QEMU_HINTS if word in text), "")
