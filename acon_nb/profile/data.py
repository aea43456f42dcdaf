"""Whether two kernels have the same data, apart from where things lie: initial values, tables and texts, by symbol.

What the linker and kallsyms collect (tables of addresses, of the places to patch, of names and line numbers) is left
out: it changes with each build that moves code.
"""

from __future__ import annotations

import bisect
import functools
import hashlib
import io
import re
from collections.abc import Iterator
from pathlib import Path

from acon_nb.errors import AconError
from acon_nb.kernel.unpack import unpacked
from acon_nb.study.functions import system_map_of

_SECTIONS = frozenset((".data", ".data..percpu", ".rodata", ".init.data", ".data..ro_after_init"))
_KINDS = frozenset("dDrR")  # of System.map: data, and data that are only read
_COLLECTED = re.compile(r"__(?:start|stop)_|__initcall_|kallsyms_|linux_banner|__ksymtab|.*_(?:end|start)$")
_HIGH = b"\xff\xff\xff\xff"  # the upper half of an address of the kernel
_POINTER_BYTES = 8
_LOW_BYTES = 4  # of a pointer, before those that all of the kernel have in common
_ADDRESS = b"ADDRESS."


def are_equal(before: Path, after: Path) -> bool:
    """Whether two bzImages have the same data, apart from addresses; False where that is not known."""
    values = [values_of(path, path.stat().st_mtime_ns) for path in (before, after)]
    return bool(values[0]) and values[0] == values[1]


@functools.lru_cache(maxsize=8)
def values_of(kernel: Path, changed_ns: int) -> frozenset[tuple[str, str]]:
    """A digest of each value of a kernel's data with its symbol; empty where it has no System.map or no sections."""
    del changed_ns
    path = system_map_of(kernel)
    if path is None:
        return frozenset()
    rows = sorted((int(address, 16), kind, name) for address, kind, name in map(str.split, _lines(path)))
    addresses = sorted({address for address, _, _ in rows})
    try:
        sections = _sections(unpacked(kernel.read_bytes()))
    except (AconError, OSError):
        return frozenset()
    values = set()
    for address, kind, name in rows:
        if kind not in _KINDS or _COLLECTED.match(name):
            continue
        for start, content in sections:
            if start <= address < start + len(content):
                behind = bisect.bisect_right(addresses, address)
                end = addresses[behind] if behind < len(addresses) else start + len(content)
                value = without_addresses(content[address - start : end - start])
                values.add((name, hashlib.sha256(value).hexdigest()))
    return frozenset(values)


def without_addresses(value: bytes) -> bytes:
    """A value with a mark in place of each address of the kernel, and without zeros at its end: they may be padding."""
    made = bytearray(value)
    at = made.find(_HIGH, _LOW_BYTES)
    while at >= 0:
        begin = at - _LOW_BYTES
        if 0x80 <= made[at - 1] < 0xC0:  # of the kernel's image
            made[begin : at + len(_HIGH)] = _ADDRESS
            at = made.find(_HIGH, at + _POINTER_BYTES)
        else:
            at = made.find(_HIGH, at + 1)
    return bytes(made).rstrip(b"\0")


def _lines(path: Path) -> Iterator[str]:
    return (line for line in path.read_text().splitlines() if line.count(" ") == 2)


def _sections(elf: bytes) -> list[tuple[int, bytes]]:
    """The kernel's sections of data: where they are, and what they hold."""
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    try:
        every = [one for one in ELFFile(io.BytesIO(elf)).iter_sections() if one.name in _SECTIONS]
        return [(one["sh_addr"], one.data()) for one in every if one["sh_type"] == "SHT_PROGBITS"]
    except (ELFError, ValueError):
        return []
