"""Kernel modules for tests: ELF files with what depmod reads, by hand."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path


def module(
    folder: Path, name: str, *, depends: str = "", info: Sequence[str] = (), symbols: Sequence[str] = ()
) -> Path:
    """A file with a section .modinfo ("key=value" of `info`) and one of exported symbols."""
    entries = (f"depends={depends}", *info, "license=GPL")
    sections = [
        (".modinfo", "".join(f"{one}\0" for one in entries).encode()),
        ("__ksymtab_strings", "".join(f"{one}\0" for one in symbols).encode()),
        (".shstrtab", b""),
    ]
    names = b"\0" + b"".join(title.encode() + b"\0" for title, _ in sections)
    sections[-1] = (".shstrtab", names)
    body, headers = b"", struct.pack("<IIQQQQIIQQ", *(0,) * 10)
    for title, data in sections:
        kind = 3 if title == ".shstrtab" else 1
        offset = 64 + len(body)
        headers += struct.pack("<IIQQQQIIQQ", names.index(title.encode()), kind, 0, 0, offset, len(data), 0, 0, 1, 0)
        body += data
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", 1, 62, 1, 0, 0, 64 + len(body), 0, 64, 0, 0, 64, 4, 3)
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(ident + header + body + headers)
    return path
