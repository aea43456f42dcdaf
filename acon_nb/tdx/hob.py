"""The TD HOB list that QEMU hands to a TD's firmware, which measures it into RTMR[0].

Source: QEMU hw/i386/tdvf-hob.c and target/i386/kvm/tdx.c (tdx_init_ram_entries, tdx_accept_ram_range); UEFI PI
specification, volume 3, "HOB". The list depends only on the memory size and on the firmware's sections.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from acon_nb.errors import InvalidInput
from acon_nb.tdx.firmware import SectionType, Tdvf
from acon_nb.units import format_bytes

_FOUR_GIB = 1 << 32
_LOW_LIMIT_BYTES = 0xB0000000  # q35: with at least this much memory, 2 GiB lie below the hole (hw/i386/pc_q35.c)
_LOW_BYTES = 0x80000000
_HANDOFF, _RESOURCE, _END = 1, 3, 0xFFFF
_HANDOFF_BYTES, _RESOURCE_BYTES, _END_BYTES = 56, 48, 8
_VERSION = 9
_SYSTEM_MEMORY, _UNACCEPTED = 0, 7
_ATTRIBUTES = 7  # present, initialised, tested


def below_4g_bytes(memory_bytes: int) -> int:
    """Return how much of a q35 machine's memory lies below 4 GiB."""
    return memory_bytes if memory_bytes < _LOW_LIMIT_BYTES else _LOW_BYTES


def memory_text(memory_bytes: int) -> str:
    """Return a memory size as people give it: 4 GiB, 512 MiB."""
    for bits, unit in ((30, "GiB"), (20, "MiB")):
        if memory_bytes % (1 << bits) == 0:
            return f"{memory_bytes >> bits} {unit}"
    return format_bytes(memory_bytes)


def td_hob(firmware: Tdvf, memory_bytes: int) -> bytes:
    """Return the list as it is measured: without its END entry.

    Errors: `InvalidInput` if the firmware has no section for it, or its sections do not lie in the memory.
    """
    section = next(iter(firmware.of(SectionType.TD_HOB)), None)
    if section is None:
        raise InvalidInput("firmware", firmware.path, "has no TD_HOB section", hint="use a TDVF, such as Debian's")
    accepted = firmware.of(SectionType.TD_HOB, SectionType.TEMP_MEM)
    places = [(part.address, part.memory_bytes) for part in accepted]
    raw = hob_list((section.address, section.memory_bytes), places, memory_bytes)
    if not raw:
        raise InvalidInput("firmware", firmware.path, "has too small a TD_HOB section", hint="use another image")
    return raw


def hob_list(place: tuple[int, int], accepted: Iterable[tuple[int, int]], memory_bytes: int) -> bytes:
    """Return the list that lies at `place` (address, bytes) without its END; b"" if it does not fit there.

    `accepted` are the ranges that are accepted already. Errors: `InvalidInput`.
    """
    ranges = ram_ranges(memory_bytes, accepted)
    total = _HANDOFF_BYTES + _RESOURCE_BYTES * len(ranges) + _END_BYTES
    if total > place[1]:
        return b""
    parts = [struct.pack("<HHIII5Q", _HANDOFF, _HANDOFF_BYTES, 0, _VERSION, 0, 0, 0, 0, 0, place[0] + total)]
    for start, size, kind in ranges:
        head = struct.pack("<HHI16xII", _RESOURCE, _RESOURCE_BYTES, 0, kind, _ATTRIBUTES)
        parts.append(head + struct.pack("<QQ", start, size))
    return b"".join(parts)


def ram_ranges(memory_bytes: int, accepted: Iterable[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Return (start, bytes, resource type) of a TD's memory by address; `accepted` are the ranges accepted already.

    Errors: `InvalidInput` for a range that does not lie in the memory.
    """
    low = below_4g_bytes(memory_bytes)
    ranges = [(0, low, _UNACCEPTED)]
    if memory_bytes > low:
        ranges.append((_FOUR_GIB, memory_bytes - low, _UNACCEPTED))
    for start, size in accepted:
        for number, (begin, length, kind) in enumerate(ranges):
            if kind == _UNACCEPTED and begin <= start and start + size <= begin + length:
                before = (begin, start - begin, _UNACCEPTED)
                after = (start + size, begin + length - start - size, _UNACCEPTED)
                parts = (before, (start, size, _SYSTEM_MEMORY), after)
                ranges[number : number + 1] = [part for part in parts if part[1]]
                break
        else:
            hint = "give the TD more memory, or use another firmware"
            raise InvalidInput("memory_bytes", memory_bytes, f"has no free range at {start:#x}", hint=hint)
    return sorted(ranges)
