"""SMBIOS structures as firmware installs them, and the bytes of them that it measures.

Firmware zeroes what identifies one machine (serial numbers, UUID, counts of cores) before it hashes the table. Source:
edk2 MdeModulePkg/Universal/SmbiosMeasurementDxe; DMTF DSP0134. That the current speed of processors (type 4, offset
0x16) is zeroed too was found out from a log of OVMF 2026.08. The input may be hostile.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_HEADER_BYTES = 4
_LIMIT_STRUCTURES = 65_536
_END, _OEM, _SYSTEM, _PROCESSOR, _MEMORY_DEVICE = 127, 128, 1, 4, 17
_PROCESSOR_ID = 8
CPUID_BYTES = 8  # EAX and EDX of CPUID leaf 1, of the guest's CPU
CHECKED_RELEASES = ("202608",)  # of edk2: their hash of a table was compared with a log
_ANCHOR_3, _ANCHOR_2 = b"_SM3_", b"_SM_"
# Per type: offset and size of the fields that are zeroed; strings are blanked too. No fields: all but the header.
_FIELDS: dict[int, tuple[tuple[int, int, bool], ...]] = {
    1: ((0x07, 1, True), (0x08, 16, False), (0x18, 1, False)),
    2: ((0x07, 1, True), (0x0A, 1, True)),
    3: ((0x07, 1, True), (0x08, 1, True)),
    4: (
        (0x20, 1, True),
        (0x21, 1, True),
        (0x22, 1, True),
        (0x23, 1, False),
        (0x24, 1, False),
        (0x25, 1, False),
        (0x2A, 2, False),
        (0x2C, 2, False),
        (0x2E, 2, False),
        (0x11, 1, False),
        (0x16, 2, False),
    ),
    11: (),
    15: (),
    17: ((0x18, 1, True), (0x19, 1, True), (0x1A, 1, True)),
    18: (),
    22: ((0x07, 1, True), (0x10, 2, False), (0x12, 2, False)),
    23: ((0x07, 2, False),),
    27: ((0x0C, 2, False),),
    31: (),
    33: (),
    39: ((0x08, 1, True), (0x09, 1, True), (0x0A, 1, True)),
}


@dataclass(frozen=True)
class Structure:
    """A structure with its strings: `raw` is all of it, `length` that of its formatted part."""

    kind: int
    length: int
    raw: bytes

    def text(self, offset: int) -> str:
        """Return the string whose number is at `offset`, or ""."""
        number = self.raw[offset] if offset < self.length else 0
        parts = self.raw[self.length :].split(b"\0")
        return parts[number - 1].decode("ascii", "replace") if 0 < number <= len(parts) else ""


def structures(table: bytes) -> list[Structure]:
    """Split a table into its structures, the last of which is the end marker. Errors: `ValueError`."""
    pieces: list[Structure] = []
    place = 0
    while place < len(table) and len(pieces) < _LIMIT_STRUCTURES:
        if place + _HEADER_BYTES > len(table) or table[place + 1] < _HEADER_BYTES:
            raise ValueError(f"smbios: the structure at {place:#x} has no valid length")
        length = table[place + 1]
        end = table.find(b"\0\0", place + length)
        if end < 0:
            raise ValueError(f"smbios: the structure at {place:#x} does not end")
        pieces.append(Structure(table[place], length, table[place : end + 2]))
        place = end + 2
        if pieces[-1].kind == _END:
            break
    if not pieces or pieces[-1].kind != _END or place != len(table):
        raise ValueError("smbios: the last structure is not the end marker")
    return pieces


def measured(table: bytes) -> bytes:
    """Return what firmware hashes of a table. Errors: `ValueError`."""
    return b"".join(_filtered(each) for each in structures(table))


def with_processor_id(table: bytes, cpuid: bytes) -> bytes:
    """Return the table of the same machine with another CPU: CPUID leaf 1, EAX and EDX, in each processor."""
    parts = []
    for each in structures(table):
        raw = bytearray(each.raw)
        if each.kind == _PROCESSOR and each.length >= _PROCESSOR_ID + CPUID_BYTES:
            raw[_PROCESSOR_ID : _PROCESSOR_ID + CPUID_BYTES] = cpuid
        parts.append(bytes(raw))
    return b"".join(parts)


def machine(pieces: Sequence[Structure]) -> str:
    """Return the type of QEMU's machine ("pc-q35-7.2") as the table names it, or ""."""
    texts = (each.text(6) for each in pieces if each.kind == _SYSTEM)
    return next((text for text in texts if text.startswith("pc-")), "")


def memory_bytes(pieces: Sequence[Structure]) -> int | None:
    """Return the memory in the table's memory devices, or None if it has none."""
    devices = [each.raw for each in pieces if each.kind == _MEMORY_DEVICE and each.length >= 0x0E]
    if not devices:
        return None
    total = 0
    for raw in devices:
        (size,) = struct.unpack_from("<H", raw, 0x0C)
        if size == 0x7FFF and len(raw) >= 0x20:
            (size,) = struct.unpack_from("<I", raw, 0x1C)
            total += (size & 0x7FFFFFFF) << 20
        else:
            total += (size & 0x7FFF) << (10 if size & 0x8000 else 20)
    return total


def entry_points(window: bytes) -> Iterator[tuple[int, int]]:
    """Yield address and size limit of the tables that entry points in some memory name, version 3 first.

    Only an entry point on a 16-byte boundary with a valid checksum counts (DSP0134, section 5.2).
    """
    for anchor, length in ((_ANCHOR_3, 0x18), (_ANCHOR_2, 0x1F)):
        place = window.find(anchor)
        while place >= 0:
            entry = window[place : place + length]
            if place % 16 == 0 and len(entry) == length and sum(entry) % 256 == 0:
                size, address = (
                    struct.unpack_from("<IQ", entry, 0x0C)
                    if anchor == _ANCHOR_3
                    else struct.unpack_from("<HI", entry, 0x16)
                )
                if address and size:
                    yield address, size
            place = window.find(anchor, place + 1)


def installed(raw: bytes) -> bytes:
    """Cut a table out of the memory that may follow it: it ends with its end marker. Errors: `ValueError`."""
    place = 0
    for _ in range(_LIMIT_STRUCTURES):
        if place + _HEADER_BYTES > len(raw) or raw[place + 1] < _HEADER_BYTES:
            break
        end = raw.find(b"\0\0", place + raw[place + 1])
        if end < 0:
            break
        kind, place = raw[place], end + 2
        if kind == _END:
            return raw[:place]
    raise ValueError("smbios: no table where the entry point says")


def _filtered(each: Structure) -> bytes:
    fields = _FIELDS.get(each.kind, () if each.kind >= _OEM else None)
    if fields is None:
        return each.raw
    if not fields:
        return each.raw[:_HEADER_BYTES] + bytes(len(each.raw) - _HEADER_BYTES)
    raw = bytearray(each.raw)
    for offset, size, is_string in fields:
        if offset + size > each.length:
            continue
        if is_string and raw[offset]:
            _blank(raw, each.length, raw[offset])
        raw[offset : offset + size] = bytes(size)
    return bytes(raw)


def _blank(raw: bytearray, start: int, number: int) -> None:
    """Overwrite a string with spaces, as edk2 does: with too few strings, the last one."""
    place = start
    for index in range(1, number + 1):
        end = raw.find(0, place)
        if end < 0 or end == place:
            return
        last = end + 1 >= len(raw) or raw[end + 1] == 0
        if index == number or last:
            raw[place:end] = b" " * (end - place)
            return
        place = end + 1
