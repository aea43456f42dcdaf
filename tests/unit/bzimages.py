"""The head of a bzImage, for tests that start no kernel."""

from __future__ import annotations

import struct
from pathlib import Path

from acon_nb import bzimage


def head(init_bytes: int = 16 << 20, length: int = 0x1000) -> bytes:
    """Return a boot sector and header of boot protocol 2.15 whose kernel needs `init_bytes` while it starts."""
    raw = bytearray(length)
    raw[0x1F1], raw[0x211] = 1, 1  # one sector of set-up code; LOADED_HIGH
    raw[bzimage.BOOT_FLAG : bzimage.JUMP] = b"\x55\xaa"
    raw[bzimage.MAGIC : bzimage.PROTOCOL] = b"HdrS"
    struct.pack_into("<H", raw, 0x206, 0x20F)
    struct.pack_into("<I", raw, 0x22C, 0x7FFFFFFF)  # initrd_addr_max
    struct.pack_into("<I", raw, 0x238, 2047)  # cmdline_size
    struct.pack_into("<I", raw, 0x260, init_bytes)
    return bytes(raw)


def write(path: Path, init_bytes: int = 16 << 20) -> Path:
    """Write a head to a path, which is returned."""
    path.write_bytes(head(init_bytes))
    return path
