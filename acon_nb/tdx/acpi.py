"""Check QEMU's ACPI files as its firmware would process them: pointers patched, checksums computed, tables found.

The input may be hostile. Source: QEMU hw/acpi/bios-linker-loader.c; ACPI specification 6.5, section 5.2.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping

_COMMAND_BYTES = 128
_PADDING, _ALLOCATE, _POINTER, _CHECKSUM, _WRITE_POINTER = 0, 1, 2, 3, 4
_RSDP_BYTES = (20, 36)  # ACPI 1.0; 2.0 and later
_HEADER_BYTES, _CHECKSUM_AT = 36, 9
_FACS = b"FACS"  # the only table without a checksum
_REQUIRED = (b"DSDT", b"FACP", b"APIC", b"MCFG")  # every q35 has them
_LOCAL_APIC, _LOCAL_X2APIC = 0, 9
_RSDP, _TABLES = "etc/acpi/rsdp", "etc/acpi/tables"


def linked_tables(loader: bytes, rsdp: bytes, tables: bytes) -> Mapping[bytes, bytes]:
    """Return the tables by signature (of several with one, the last). Errors: `ValueError` that names file and reason.

    The loader's commands must cover each table: a checksum over its whole length, and pointers within the files.
    """
    if len(loader) % _COMMAND_BYTES or not loader:
        raise ValueError(f"table-loader: {len(loader)} bytes are not commands of {_COMMAND_BYTES} bytes")
    if not rsdp.startswith(b"RSD PTR ") or len(rsdp) not in _RSDP_BYTES:
        raise ValueError("rsdp: it does not start with the signature RSD PTR, or has the wrong length")
    sums = _run(loader, {_RSDP: len(rsdp), _TABLES: len(tables)})
    if (_RSDP, 8, 0, 20) not in sums:
        raise ValueError("table-loader: it computes no checksum of the rsdp")
    split = _split(tables)
    for start, table in split:
        if table[:4] != _FACS and (_TABLES, start + _CHECKSUM_AT, start, len(table)) not in sums:
            raise ValueError(f"tables: {_name(table)} at {start:#x}: the loader computes no checksum of this length")
        if table[:4] != _FACS and table[_CHECKSUM_AT]:
            raise ValueError(f"tables: {_name(table)} at {start:#x} has a checksum, which QEMU leaves to the firmware")
    named = {table[:4]: table for _, table in split}
    missing = [name.decode() for name in _REQUIRED if name not in named]
    if missing:
        raise ValueError(f"tables: no table {missing[0]}")
    return named


def processors(tables: Mapping[bytes, bytes]) -> int:
    """Return how many vCPUs the APIC table lists. Errors: `ValueError`."""
    table, place, count = tables[b"APIC"], _HEADER_BYTES + 8, 0
    while place < len(table):
        if place + 2 > len(table) or table[place + 1] < 2 or place + table[place + 1] > len(table):
            raise ValueError("tables: an entry of the APIC table is damaged")
        count += table[place] in (_LOCAL_APIC, _LOCAL_X2APIC)
        place += table[place + 1]
    return count


def _split(tables: bytes) -> list[tuple[int, bytes]]:
    """Each table with its offset; what follows the last one is padding of zeros."""
    pieces, place = [], 0
    while place + 8 <= len(tables) and tables[place : place + 4].strip(b"\0"):
        length = struct.unpack_from("<I", tables, place + 4)[0]
        name = tables[place : place + 4]
        if not re.fullmatch(rb"[A-Z0-9_]{4}", name):
            raise ValueError(f"tables: {name!r} at {place:#x} is not a signature")
        if not _HEADER_BYTES <= length <= len(tables) - place:
            raise ValueError(f"tables: {name.decode()} at {place:#x} has the impossible length {length}")
        pieces.append((place, tables[place : place + length]))
        place += length
    if tables[place:].strip(b"\0"):
        raise ValueError(f"tables: bytes follow the last table, at {place:#x}")
    return pieces


def _run(loader: bytes, sizes: Mapping[str, int]) -> set[tuple[str, int, int, int]]:
    """Check each command against the files; return the checksums: file, offset, start, length."""
    sums: set[tuple[str, int, int, int]] = set()
    for place in range(0, len(loader), _COMMAND_BYTES):
        row = loader[place : place + _COMMAND_BYTES]
        (command,) = struct.unpack_from("<I", row)
        if command == _PADDING:
            if loader[place:].strip(b"\0"):
                raise ValueError(f"table-loader: bytes follow the last command, at {place:#x}")
            break
        if command not in (_PADDING, _ALLOCATE, _POINTER, _CHECKSUM, _WRITE_POINTER):
            raise ValueError(f"table-loader: command {command:#x} at {place:#x} does not exist")
        file = _file(row, 4)
        if command == _CHECKSUM:
            offset, start, length = struct.unpack_from("<III", row, 60)
            size = sizes.get(file)
            if size is not None and (start + length > size or offset >= size):
                raise ValueError(f"table-loader: a checksum at {place:#x} lies beyond {file}")
            sums.add((file, offset, start, length))
        elif command == _POINTER:
            offset, width = struct.unpack_from("<IB", row, 116)
            if width not in (1, 2, 4, 8) or (file in sizes and offset + width > sizes[file]):
                raise ValueError(f"table-loader: a pointer at {place:#x} lies beyond {file}")
    return sums


def _file(row: bytes, offset: int) -> str:
    return row[offset : offset + 56].split(b"\0")[0].decode("ascii", "replace")


def _name(table: bytes) -> str:
    return table[:4].decode("ascii", "replace")
