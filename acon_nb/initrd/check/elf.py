"""What the kernel and the loader read of an ELF program or library, by pyelftools.

Only program headers and what they lead to count, as for the kernel; versions of symbols are read from the sections.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from acon_nb.archive.spool import OpenFile
from acon_nb.archive.tree import Content, Entry, Source

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile

MAGIC = b"\x7fELF"
X86_64, I386, I486 = 62, 3, 6
_SPARSE_BYTES = 64 << 20
_MOST_TAGS = 1 << 16
_NO_DEFAULT_LIBRARIES = 0x800  # DF_1_NODEFLIB
_WEAK = 2  # VER_FLG_WEAK
# What pyelftools raises for damaged files, besides its own errors
_ERRORS = (
    ValueError, LookupError, OverflowError, AttributeError, TypeError, AssertionError, struct.error, OSError,
    MemoryError, RecursionError,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Elf:
    """One ELF file.

    `machine` is its e_machine, `interpreter` the loader that it names ("": none), `needed` the libraries; `rpath` and
    `runpath` are None if there is none. `version_needs` lists, by library, the versions that it must have;
    `version_defs` those that this file has (None: it has no versions). `missing_bytes` is what the file lacks of its
    segments.
    """

    bits: int
    machine: int
    kind: str
    interpreter: bytes = b""
    needed: tuple[bytes, ...] = ()
    soname: bytes = b""
    rpath: bytes | None = None
    runpath: bytes | None = None
    default_folders: bool = True
    version_needs: dict[bytes, tuple[str, ...]] = field(default_factory=dict)
    version_defs: frozenset[str] | None = None
    missing_bytes: int = 0


@dataclass(frozen=True)
class Damaged:
    """Why something that begins like an ELF file cannot be read as one."""

    why: str


def read(entry: Entry) -> Elf | Damaged:
    """Read a file that begins with `MAGIC`."""
    from elftools.common.exceptions import ELFError
    from elftools.construct import ConstructError
    from elftools.elf.elffile import ELFFile

    try:
        return _read(ELFFile(_stream(entry.content)), entry.content.size)
    except (ELFError, ConstructError, *_ERRORS) as error:
        return Damaged(f"it is not a valid ELF file ({str(error) or type(error).__name__})")


def _read(elf: ELFFile, size: int) -> Elf:
    if elf.header.e_phentsize != {64: 56, 32: 32}[elf.elfclass] or not elf.header.e_phnum:
        raise ValueError("its program headers are missing or of another size")  # load_elf_phdrs
    facts: dict[str, Any] = {}
    end = 0
    for segment in elf.iter_segments():
        header = segment.header
        if header.p_type == "PT_LOAD":
            end = max(end, header.p_offset + header.p_filesz)
        elif header.p_type == "PT_INTERP":
            elf.stream.seek(header.p_offset)
            facts["interpreter"] = elf.stream.read(min(header.p_filesz, 4096)).partition(b"\0")[0]
        elif header.p_type == "PT_DYNAMIC":
            facts |= _dynamic(segment)
    if "needed" in facts:
        facts |= _versions(elf)
    return Elf(
        bits=elf.elfclass,
        machine=_number(elf, "<H" if elf.little_endian else ">H", 18),
        kind=str(elf.header.e_type),
        missing_bytes=max(0, end - size),
        **facts,
    )


def _number(elf: ELFFile, form: str, offset: int) -> int:
    elf.stream.seek(offset)
    return int(struct.unpack(form, elf.stream.read(struct.calcsize(form)))[0])


def _dynamic(segment: Any) -> dict[str, Any]:
    """The tags that the loader uses; the first of several, but for DT_NEEDED."""
    facts: dict[str, Any] = {}
    needed = []
    for number, tag in enumerate(segment.iter_tags()):
        if number > _MOST_TAGS:
            raise ValueError("its dynamic section does not end")
        name = tag.entry.d_tag
        if name == "DT_NEEDED":
            needed.append(_bytes(tag.needed))
        elif name in ("DT_RPATH", "DT_RUNPATH", "DT_SONAME"):
            field_name = name[3:].lower()
            facts[field_name] = _bytes(getattr(tag, field_name))
        elif name == "DT_FLAGS_1":
            facts["default_folders"] = not tag.entry.d_val & _NO_DEFAULT_LIBRARIES
    return {**facts, "needed": tuple(needed)}


def _versions(elf: ELFFile) -> dict[str, Any]:
    needs: dict[bytes, tuple[str, ...]] = {}
    defs: frozenset[str] | None = None
    sections: Iterable[Any] = elf.iter_sections(type="SHT_GNU_verneed")
    for section in sections:
        for library, versions in section.iter_versions():
            names = tuple(one.name for one in versions if not one.entry.vna_flags & _WEAK)
            needs[_bytes(library.name)] = (*needs.get(_bytes(library.name), ()), *names)
    for section in elf.iter_sections(type="SHT_GNU_verdef"):
        defs = frozenset(_names(section))
    return {"version_needs": needs, "version_defs": defs}


def _names(section: Any) -> Iterator[str]:
    for _, names in section.iter_versions():
        first = next(iter(names), None)
        if first is not None:
            yield first.name


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _stream(content: Content) -> io.BufferedReader | io.BytesIO:
    source = content.source if content.path is None else OpenFile.open(content.path)
    if source is not None and content.extents is None:
        return io.BufferedReader(_Window(source, content.offset, content.size))
    if content.size > _SPARSE_BYTES:
        raise ValueError("it is too large to be looked into")
    return io.BytesIO(content.read())


class _Window(io.RawIOBase):
    """A part of an open file as a file."""

    def __init__(self, source: Source, offset: int, size: int) -> None:
        self._source, self._offset, self._size, self._at = source, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), max(0, self._size - self._at))
        data = self._source.read_at(self._offset + self._at, count) if count else b""
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
