"""What a QEMU process takes of its host's memory, by what it is for (proc_pid_smaps(5))."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_HEAD = re.compile(r"([0-9a-f]+)-([0-9a-f]+) ([rwxsp-]{4}) [0-9a-f]+ \S+ (\d+) *(.*)")
_PSS = re.compile(r"Pss: +(\d+) kB")


@dataclass(frozen=True)
class Mapping:
    """One mapping: size, permissions ("rw-p"), whether a file is behind it, name, and its proportional share."""

    size_bytes: int
    permissions: str
    is_file: bool
    name: str
    pss_bytes: int


@dataclass(frozen=True, kw_only=True)
class QemuMemory:
    """The proportional set size of a QEMU process in bytes, by kind.

    `ram` is the guest's memory as far as it was touched; `code` TCG's buffer of translated code (KVM: 0); `heap`
    is QEMU's main heap; `files` the program, its libraries and mapped images; `other` large and the threads' own
    allocations (TCG's tables among them), stacks, the guest's ROM.
    """

    ram: int
    code: int
    heap: int
    files: int
    other: int

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.ram + self.code + self.heap + self.files + self.other


def qemu_memory(pid: int, ram_bytes: int) -> QemuMemory | None:
    """The memory of a running QEMU whose guest has `ram_bytes`, or None when it cannot be read (it has ended)."""
    try:
        mappings = parse(Path(f"/proc/{pid}/smaps").read_text(errors="replace"))
    except OSError:
        return None
    return sort_out(mappings, ram_bytes) if mappings else None


def parse(text: str) -> list[Mapping]:
    """The mappings of an smaps file; lines that are not understood are passed over."""
    found: list[Mapping] = []
    for line in text.splitlines():
        head = _HEAD.fullmatch(line)
        if head:
            size = int(head[2], 16) - int(head[1], 16)
            found.append(Mapping(size, head[3], head[4] != "0", head[5], 0))
        elif found and (pss := _PSS.fullmatch(line)):
            last = found[-1]
            found[-1] = Mapping(last.size_bytes, last.permissions, last.is_file, last.name, 1024 * int(pss[1]))
    return found


def sort_out(mappings: list[Mapping], ram_bytes: int) -> QemuMemory:
    """Which mapping is for what: the guest's RAM is the largest that holds it, TCG's buffer can be written and run."""
    may_be_ram = (m for m in mappings if m.permissions.startswith("rw-") and m.size_bytes >= ram_bytes)
    ram = max(may_be_ram, key=lambda m: (m.pss_bytes, m.size_bytes), default=None)
    sums = dict.fromkeys(("ram", "code", "heap", "files", "other"), 0)
    for mapping in mappings:
        sums["ram" if mapping is ram else _kind(mapping)] += mapping.pss_bytes
    return QemuMemory(**sums)


def _kind(mapping: Mapping) -> str:
    if mapping.is_file and not mapping.name.startswith(("/dev/zero", "/memfd:")):
        return "files"
    if "x" in mapping.permissions and "w" in mapping.permissions:
        return "code"
    if mapping.name == "[heap]":
        return "heap"
    return "other"
