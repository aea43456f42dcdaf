"""The functions of a guest's programs: which file of the initrd a counted instruction is of, and which symbol.

The plugin counts user space by a hash of the page that an instruction lies in (`vm/programs.c`): a page of a program in
memory is the page of its file. Functions are those of the file's symbol table, or, where it was stripped, of what it
exports; else the file is one entry.
"""

from __future__ import annotations

import bisect
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from acon_nb.archive import segments
from acon_nb.errors import AconError

_PAGE = 4096
_MULTIPLIER = 0x9E37_79B9_7F4A_7C15  # of programs.c
_MAGIC = b"\x7fELF"
_CODE = 1  # PF_X of elf(5)
_MOST_BYTES = 1 << 28
_KINDS = ("STT_FUNC", "STT_GNU_IFUNC")
_WEIGHTS = np.array([pow(_MULTIPLIER, _PAGE // 8 - 1 - at, 1 << 64) for at in range(_PAGE // 8)], dtype=np.uint64)


@dataclass(frozen=True)
class GuestProgram:
    """A file of the guest: its path, and its functions by offset in the file, each with its end and name."""

    path: str
    functions: tuple[tuple[int, int, str], ...] = ()

    def name_at(self, offset: int) -> str:
        """The function at an offset in the file; the file's path where no symbol covers it."""
        at = bisect.bisect_right(self.functions, offset, key=lambda one: one[0]) - 1
        if at >= 0 and offset < self.functions[at][1]:
            return self.functions[at][2]
        return self.path


@dataclass(frozen=True)
class GuestPrograms:
    """The programs of a guest by the hashes of their pages of code: each page's program and its offset in the file."""

    pages: Mapping[int, tuple[GuestProgram, int]] = field(default_factory=dict)

    def counts(self, user: Mapping[tuple[int, int], int]) -> Counter[tuple[str, str]]:
        """Instructions by function and path, of those that were counted by page and offset in it and are of a file."""
        counts: Counter[tuple[str, str]] = Counter()
        for (page, offset), count in user.items():
            if page in self.pages:
                program, start = self.pages[page]
                counts[program.name_at(start + offset), program.path] += count
        return counts


def of_initrds(*paths: Path) -> GuestPrograms:
    """The programs of a guest's initrd, given as the archives that it is made of; of a broken archive, none."""
    pages: dict[int, tuple[GuestProgram, int]] = {}
    for path, data in files_of_initrds(*paths):
        for page, place in _pages(path, data):
            pages.setdefault(page, place)
    return GuestPrograms(pages)


def files_of_initrds(*paths: Path, suffixes: tuple[str, ...] = ("",)) -> Iterator[tuple[str, bytes]]:
    """The path and content of each file of a guest's initrd, given as its archives, whose name ends so."""
    for path in paths:
        try:
            for name, entry in sorted(segments.read_whole(path).tree.items()):
                text = "/" + name.decode(errors="replace")
                if entry.is_file and 0 < entry.content.size <= _MOST_BYTES and text.endswith(suffixes):
                    yield text, entry.content.read()
        except (AconError, OSError):
            continue


def _pages(path: str, data: bytes) -> Iterator[tuple[int, tuple[GuestProgram, int]]]:
    """The pages of a program's code by their hashes; none of any other file."""
    from elftools.common.exceptions import ELFError
    from elftools.construct import ConstructError
    from elftools.elf.elffile import ELFFile

    if not data.startswith(_MAGIC):
        return
    try:
        elf = ELFFile(io.BytesIO(data))
        code = [one.header for one in elf.iter_segments("PT_LOAD") if one.header.p_flags & _CODE]
        program = GuestProgram(path, _functions(elf, code))
    except (ELFError, ConstructError, ValueError, KeyError, AttributeError, OSError):
        return
    for header in code:
        start = header.p_offset & -_PAGE
        block = data[start : header.p_offset + header.p_filesz + _PAGE - 1 & -_PAGE]
        for number, page in enumerate(_hashes(block)):
            yield page, (program, start + number * _PAGE)


def _hashes(block: bytes) -> list[int]:
    """The hash of each page, the last one filled up with zeros, as the kernel does."""
    whole = block + bytes(-len(block) % _PAGE)
    words = np.frombuffer(whole, dtype="<u8").reshape(-1, _PAGE // 8)
    hashes: list[int] = (words * _WEIGHTS).sum(axis=1, dtype=np.uint64).tolist()
    return hashes


def _functions(elf: Any, code: Sequence[Any]) -> tuple[tuple[int, int, str], ...]:
    """The functions of a program by offset in the file; of several names of one place, the first global one."""
    table = elf.get_section_by_name(".symtab") or elf.get_section_by_name(".dynsym")
    symbols = [] if table is None else [one for one in table.iter_symbols() if one.name and _is_function(one)]
    symbols.sort(key=lambda one: (one.entry.st_info.bind != "STB_GLOBAL", one.name))
    rows = (
        (symbol.entry.st_value - header.p_vaddr + header.p_offset, symbol.entry.st_size, symbol.name)
        for symbol in symbols
        for header in code
        if header.p_vaddr <= symbol.entry.st_value < header.p_vaddr + header.p_filesz
    )
    return functions_by_offset(rows, max((one.p_offset + one.p_filesz for one in code), default=0))


def functions_by_offset(rows: Iterable[tuple[int, int, str]], end: int) -> tuple[tuple[int, int, str], ...]:
    """Functions with start, end and name, of start, size and name; of several at one place, the first.

    One without a size ends where the next begins, the last at `end`.
    """
    named: dict[int, tuple[int, str]] = {}
    for start, size, name in rows:
        named.setdefault(start, (size, name))
    starts = sorted(named)
    after = [*starts[1:], end]
    return tuple(
        (start, start + named[start][0] if named[start][0] else behind, named[start][1])
        for start, behind in zip(starts, after, strict=False)
    )


def _is_function(symbol: Any) -> bool:
    return symbol.entry.st_info.type in _KINDS and symbol.entry.st_shndx != "SHN_UNDEF"
