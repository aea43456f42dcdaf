"""A disk image with a GPT and one EFI system partition (FAT16) that holds one application, made without any tool."""

from __future__ import annotations

import struct
import uuid
import zlib

SECTOR, CLUSTER, SECTORS, FIRST = 512, 4096, 96 << 11, 2048  # a disk of 96 MiB, its partition at 1 MiB
ESP_TYPE = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b").bytes_le
OWN = uuid.UUID("d5c3b1a0-0001-4000-8000-0123456789ab").bytes_le


def disk(application: bytes, name: bytes = b"ESP") -> bytes:
    """The image; the application is \\EFI\\BOOT\\BOOTX64.EFI."""
    last = SECTORS - 34
    entry = ESP_TYPE + OWN + struct.pack("<QQQ", FIRST, last, 0) + name.decode().encode("utf-16-le").ljust(72, b"\0")
    entries = entry.ljust(128 * 128, b"\0")

    def header(own: int, other: int, table: int) -> bytes:
        fields = (b"EFI PART", 0x10000, 92, 0, 0, own, other, 34, last, OWN, table, 128, 128, zlib.crc32(entries))
        raw = bytearray(struct.pack("<8sIIIIQQQQ16sQIII", *fields))
        struct.pack_into("<I", raw, 16, zlib.crc32(raw))
        return bytes(raw).ljust(SECTOR, b"\0")

    mbr = bytes(446) + struct.pack("<8BII", 0, 0, 2, 0, 0xEE, 255, 255, 255, 1, SECTORS - 1) + bytes(48) + b"\x55\xaa"
    image = bytearray(SECTORS * SECTOR)
    image[:SECTOR], image[SECTOR : 2 * SECTOR] = mbr, header(1, SECTORS - 1, 2)
    image[2 * SECTOR : 34 * SECTOR] = entries
    image[-33 * SECTOR : -SECTOR], image[-SECTOR:] = entries, header(SECTORS - 1, 1, SECTORS - 33)
    system = fat16(last - FIRST + 1, application)
    image[FIRST * SECTOR : FIRST * SECTOR + len(system)] = system
    return bytes(image)


def fat16(sectors: int, application: bytes) -> bytes:
    """A file system of this size, up to its last cluster in use."""
    table = -(-(sectors // (CLUSTER // SECTOR) + 2) * 2 // SECTOR)  # sectors of one FAT
    boot = bytearray(SECTOR)
    boot[:3] = b"\xeb\x3c\x90"
    struct.pack_into(
        "<8sHBHBHHBHHHII", boot, 3, b"TEST    ", SECTOR, 8, 1, 2, 512, 0, 0xF8, table, 63, 255, FIRST, sectors
    )
    struct.pack_into("<BBBI11s8s", boot, 36, 0x80, 0, 0x29, 1, b"ESP        ", b"FAT16   ")
    boot[510:] = b"\x55\xaa"
    count = -(-len(application) // CLUSTER)
    chain = [0xFFF8, 0xFFFF, 0xFFFF, 0xFFFF, *range(5, 4 + count), 0xFFFF]
    fat = struct.pack(f"<{len(chain)}H", *chain).ljust(table * SECTOR, b"\0")

    def row(name: bytes, cluster: int, size: int = 0) -> bytes:
        return struct.pack("<11sB14xHI", name, 0x20 if size else 0x10, cluster, size)

    root = row(b"EFI        ", 2).ljust(512 * 32, b"\0")
    folders = (row(b".          ", 2) + row(b"..         ", 0) + row(b"BOOT       ", 3)).ljust(CLUSTER, b"\0")
    folders += (row(b".          ", 3) + row(b"..         ", 2) + row(b"BOOTX64 EFI", 4, len(application))).ljust(
        CLUSTER, b"\0"
    )
    return bytes(boot) + fat * 2 + root + folders + application
