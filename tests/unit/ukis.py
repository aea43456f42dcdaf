"""UKIs made by hand: a PE file with the sections of a stub and those that ukify adds."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Sequence

CC = uuid.UUID("96751a3d-72f4-41a6-a794-ed5d0e67ae6b").bytes_le
TCG2 = uuid.UUID("607f766c-7455-42be-930b-e4d76db2720f").bytes_le
NAMES_252 = (".linux", ".osrel", ".cmdline", ".initrd", ".splash", ".dtb", ".pcrsig", ".pcrpkey")
NAMES_257 = (
    *(".linux", ".osrel", ".cmdline", ".initrd", ".ucode", ".splash", ".dtb", ".uname", ".sbat", ".pcrsig"),
    *(".pcrpkey", ".profile", ".dtbauto", ".hwids"),
)
FILES_252 = ("tpm2-pcr-signature.json", "tpm2-pcr-public-key.pem")
FILES_257 = (*FILES_252, "profile", "os-release")
Rows = Sequence[tuple[str, bytes]]


def stub(version: str, *, cc: bool = True, texts: Sequence[str] = ()) -> Rows:
    """The sections of a stub of this version, with the names of what it measures."""
    old = int(version.split(".")[0]) < 257
    names, files = (NAMES_252, FILES_252) if old else (NAMES_257, FILES_257)
    data = TCG2 + (CC if cc else b"") + b"".join(name.encode() + b"\0" for name in names)
    data += b"".join(text.encode("utf-16-le") + b"\0\0" for text in (*files, *texts))
    magic = f"#### LoaderInfo: systemd-stub {version} ####".encode()
    return ((".text", b"\x90" * 512), (".rodata", data), (".sdmagic", magic))


def pe(rows: Rows, *, larger: int = 0) -> bytes:
    """A PE file of sections, each `larger` bytes longer in memory than in the file."""
    header = 0x80
    coff = struct.pack("<HHIIIHH", 0x8664, len(rows), 0, 0, 0, 240, 0x206)
    headers = (header + 24 + 240 + 40 * len(rows) + 511) & ~511
    place, address, table, body = headers, 0x1000, b"", b""
    for name, data in rows:
        size = len(data) + larger
        raw = data + bytes(-len(data) % 512)
        stored = len(data) if larger else len(raw)
        table += struct.pack("<8sIIIIIIHHI", name.encode(), size, address, stored, place, 0, 0, 0, 0, 0x40000040)
        place, body = place + len(raw), body + raw
        address = (address + size + 4095) & ~4095
    optional = struct.pack("<HBBIIIII", 0x20B, 2, 20, 0x1000, 0, 0, 0x1000, 0x1000)
    optional += struct.pack("<QIIHHHHHHIIIIHH", 0, 0x1000, 0x200, 0, 0, 0, 0, 0, 0, 0, address, headers, 0, 10, 0)
    optional += struct.pack("<QQQQII", 0, 0, 0, 0, 0, 16) + bytes(16 * 8)
    dos = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", header)
    return (dos.ljust(header, b"\0") + b"PE\0\0" + coff + optional + table).ljust(headers, b"\0") + body
