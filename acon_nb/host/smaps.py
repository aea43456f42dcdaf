"""Breaks down the host memory of a QEMU process by purpose (proc_pid_smaps(5))."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_HEAD = re.compile(r"([0-9a-f]+)-([0-9a-f]+) ([rwxsp-]{4}) [0-9a-f]+ \S+ (\d+) *(.*)")
_PSS = re.compile(r"Pss: +(\d+) kB")


@dataclass(frozen=True)
class Mapping:
    """One mapping: size, permissions ("rw-p"), whether it is backed by a file, name, and proportional set size."""

    size_bytes: int
    permissions: str
    is_file: bool
    name: str
    pss_bytes: int


@dataclass(frozen=True, kw_only=True)
class QemuMemory:
    """The proportional set size of a QEMU process in bytes, by purpose.

    `ram` is the guest memory that has been touched; `code` is TCG's buffer of translated code (0 with KVM); `heap` is
    QEMU's main heap; `files` are the program, its libraries and mapped images; `other` are large and per-thread
    allocations (TCG's tables among them), stacks and the guest's ROM.
    """

    ram: int
    code: int
    heap: int
    files: int
    other: int

    @property
    def total_bytes(self) -> int:
        """The sum of all parts."""
        return self.ram + self.code + self.heap + self.files + self.other


def qemu_memory(pid: int, ram_bytes: int) -> QemuMemory | None:
    """Read the memory of a running QEMU whose guest has `ram_bytes`; None if it cannot be read (QEMU has ended)."""
    try:
        mappings = parse(Path(f"/proc/{pid}/smaps").read_text(errors="replace"))
    except OSError:
        return None
    return classify(mappings, ram_bytes) if mappings else None


def parse(text: str) -> list[Mapping]:
    """Parse the mappings of an smaps file; unknown lines are ignored."""
    mappings: list[Mapping] = []
    for line in text.splitlines():
        head = _HEAD.fullmatch(line)
        if head:
            size = int(head[2], 16) - int(head[1], 16)
            mappings.append(Mapping(size, head[3], head[4] != "0", head[5], 0))
        elif mappings and (pss := _PSS.fullmatch(line)):
            last = mappings[-1]
            mappings[-1] = Mapping(last.size_bytes, last.permissions, last.is_file, last.name, 1024 * int(pss[1]))
    return mappings


def classify(mappings: list[Mapping], ram_bytes: int) -> QemuMemory:
    """Sum the mappings by purpose.

    The guest's RAM is the mapping with the most resident memory among those large enough to hold it; TCG's buffer is
    both writable and executable.
    """
    candidates = (m for m in mappings if m.permissions.startswith("rw-") and m.size_bytes >= ram_bytes)
    ram = max(candidates, key=lambda m: (m.pss_bytes, m.size_bytes), default=None)
    sums = dict.fromkeys(("ram", "code", "heap", "files", "other"), 0)
    for mapping in mappings:
        sums["ram" if mapping is ram else _purpose(mapping)] += mapping.pss_bytes
    return QemuMemory(**sums)


def _purpose(mapping: Mapping) -> str:
    if mapping.is_file and not mapping.name.startswith(("/dev/zero", "/memfd:")):
        return "files"
    if "x" in mapping.permissions and "w" in mapping.permissions:
        return "code"
    if mapping.name == "[heap]":
        return "heap"
    return "other"
