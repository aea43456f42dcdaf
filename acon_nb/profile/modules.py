"""The functions of a guest's modules: where each module of the initrd was loaded, and which symbol an address is of.

Where a module lies the kernel alone knows, and the guest is not changed to say it. But the plugin counts modules by
address and instruction (`vm/programs.c`), and the initrd has their files: a module is where most instructions that ran
are its own. Bytes that a relocation fills in say nothing, and the kernel changes some instructions as it loads a module
(alternatives, returns, calls of the tracer), so not all have to fit. Its code is laid out as the kernel does it: from
the start of a page, executable sections in the order of the file, those that are dropped after loading apart.
Source: `layout_sections` of kernel/module/main.c.
"""

from __future__ import annotations

import bisect
import io
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acon_nb.archive import decompress
from acon_nb.errors import AconError
from acon_nb.profile.programs import GuestProgram, files_of_initrds, functions_by_offset

_PAGE = 4096
_ALLOCATED, _EXECUTABLE = 2, 4  # SHF_ALLOC, SHF_EXECINSTR of elf(5)
_RELOCATED_BYTES = {1: 8}  # R_X86_64_64; all others of code have 4
_ALIASES = ("init_module", "cleanup_module")  # of the functions that module_init() and module_exit() name
_MOST_BYTES = 1 << 28
# A place of a module is looked for by instructions of so many bytes, of which no relocation fills in one
_HEAD_BYTES, _PLACES = 5, 3
_COMMON = (b"\xf3\x0f\x1e\xfa", b"\x0f\x1f", b"\x66")  # endbr64 and nops, which all modules have
_BRANCHES = (b"\xe9", b"\xeb", b"\x0f\x1f", b"\x66\x90")  # static keys: a jump or a nop
# There so many of them must have run, and this share of all that ran there: others may have been loaded there before
# and after. Fewer will do where most of what ran there fits.
_LEAST, _FEW, _SHARE = 4, 0.02, 0.3

Instruction = tuple[int, bytes]  # its address and its bytes


@dataclass(frozen=True, eq=False)
class ModuleCode:
    """The code of a module that is loaded in one piece: by offset in it, bytes, which are fixed, and functions."""

    program: GuestProgram
    content: NDArray[np.uint8]
    fixed: NDArray[np.bool_]

    def fits(self, offset: int, code: bytes) -> bool:
        """Whether an instruction at an offset is the file's, but for what is relocated."""
        there = slice(offset, offset + len(code))
        own = self.content[there]
        if len(own) < len(code) or not self.fixed[offset]:
            return False
        return bool(((own == np.frombuffer(code, np.uint8)) | ~self.fixed[there]).all())

    def is_fixed(self, offset: int) -> bool:
        """Whether no relocation fills in the first bytes of an instruction at an offset."""
        return bool(self.fixed[offset : offset + _HEAD_BYTES].all())


@dataclass(frozen=True)
class GuestModules:
    """The modules of a guest's initrd, given as the archives that it is made of; read when something ran in modules."""

    archives: tuple[Path, ...] = ()

    @cached_property
    def codes(self) -> tuple[ModuleCode, ...]:
        """The code of each module, in the order of their paths."""
        files = files_of_initrds(*self.archives, suffixes=(".ko", ".ko.xz", ".ko.zst", ".ko.gz"))
        return tuple(code for path, data in files for code in codes_of(path, data))

    def names(self, instructions: Collection[Instruction]) -> dict[Instruction, tuple[str, str]]:
        """The function and the module's path of each instruction that is of a module of the initrd."""
        return names_of(self.codes, instructions) if instructions and self.archives else {}


def codes_of(path: str, data: bytes) -> Iterator[ModuleCode]:
    """The code of a module's file, which may be compressed: what stays, and what runs as it is loaded. None if broken.

    Whether code that runs as a module is removed stays is a choice of the kernel's, MODULE_UNLOAD: both are yielded.
    """
    from elftools.common.exceptions import ELFError
    from elftools.construct import ConstructError
    from elftools.elf.elffile import ELFFile

    try:
        elf = ELFFile(io.BytesIO(_plain(path, data)))
        wanted = _ALLOCATED | _EXECUTABLE
        sections = [
            (number, one) for number, one in enumerate(elf.iter_sections()) if one["sh_flags"] & wanted == wanted
        ]
        first = [pair for pair in sections if pair[1].name.startswith(".init")]
        last = [pair for pair in sections if pair[1].name.startswith(".exit")]
        rest = [pair for pair in sections if pair not in first and pair not in last]
        stays = [pair for pair in sections if pair not in first]
        pieces = [stays, first, *([rest, sorted(first + last)] if last else [])]
        yield from [_laid_out(path, elf, piece) for piece in pieces if piece]
    except (AconError, ELFError, ConstructError, ValueError, KeyError, IndexError, AttributeError, OSError):
        return


def _plain(path: str, data: bytes) -> bytes:
    if path.endswith(".ko"):
        return data
    plain = b""
    for chunk in decompress.decompressed(io.BytesIO(data), path.rpartition(".")[2], path):
        plain += chunk
        if len(plain) > _MOST_BYTES:
            raise ValueError(path)
    return plain


def _laid_out(path: str, elf: Any, sections: Sequence[tuple[int, Any]]) -> ModuleCode:
    """Sections one after the other, each at its alignment."""
    starts: dict[int, int] = {}
    end = 0
    for number, section in sections:
        align = max(1, section["sh_addralign"])
        starts[number] = (end + align - 1) // align * align
        end = starts[number] + section["sh_size"]
    if not 0 < end <= _MOST_BYTES:
        raise ValueError(path)
    content = np.full(end, 0xCC, np.uint8)
    fixed = np.ones(end, np.bool_)
    for number, section in sections:
        data = section.data()
        content[starts[number] : starts[number] + len(data)] = np.frombuffer(data, np.uint8)
    for table in elf.iter_sections("SHT_RELA"):
        if (start := starts.get(table["sh_info"])) is not None:
            for one in table.iter_relocations():
                size = _RELOCATED_BYTES.get(one["r_info_type"], 4)
                fixed[start + one["r_offset"] : start + one["r_offset"] + size] = False
    symbols = elf.get_section_by_name(".symtab")
    rows = [] if symbols is None else [
        (starts[one.entry.st_shndx] + one.entry.st_value, one.entry.st_size, one.name)
        for one in symbols.iter_symbols()
        if one.name and one.entry.st_info.type == "STT_FUNC" and one.entry.st_shndx in starts
    ]  # fmt: skip
    rows.sort(key=lambda row: (row[2] in _ALIASES, row[2]))
    return ModuleCode(GuestProgram(path, functions_by_offset(rows, end)), content, fixed)


@dataclass(frozen=True, eq=False)
class _Place:
    """A module's code at an address, and the instructions that ran there: all, its own, and those that tell it."""

    code: ModuleCode
    base: int
    inside: tuple[Instruction, ...]
    own: frozenset[Instruction]
    telling: frozenset[Instruction]

    def name(self, instruction: Instruction) -> tuple[str, str]:
        program = self.code.program
        return program.name_at(instruction[0] - self.base), program.path


def names_of(codes: Sequence[ModuleCode], instructions: Iterable[Instruction]) -> dict[Instruction, tuple[str, str]]:
    """The function and the module's path of each instruction that ran, where it is known.

    Where several modules fit alike, none is named: short functions that only register a driver differ in what
    relocations fill in. An instruction that fits nowhere, since the kernel changed it, is of the module around it.
    """
    ran = _Ran(sorted(instructions))
    places = sorted((place for code in codes for place in ran.places(code)), key=lambda one: -len(one.own))
    taken: dict[Instruction, _Place | None] = {}
    chosen: list[_Place] = []
    for place in places:
        left = [one for one in place.inside if one not in taken]
        own = [one for one in left if one in place.own]
        telling = sum(one in place.telling for one in own)
        is_most = telling and len(own) >= max(_LEAST, _SHARE * len(left))
        if not is_most and telling < max(_LEAST, _FEW * len(place.inside)):
            continue
        rivals = {one.code.program.path for one in places if one.base == place.base and one.own == place.own}
        if len(rivals) > 1:
            taken.update(dict.fromkeys(own))
            continue
        chosen.append(place)
        taken.update(dict.fromkeys(own, place))
    for place in chosen:
        _take_changed(place, taken)
    return {one: place.name(one) for one, place in taken.items() if place is not None}


def _take_changed(place: _Place, taken: dict[Instruction, _Place | None]) -> None:
    """Take the instructions that nothing fits and that follow one of the place's own.

    Where one of its own ran at that address, another is of another module, unless it is a branch that was turned on.
    """
    addresses = {address for address, _ in place.own}
    before: _Place | None = None
    for one in place.inside:
        if one in taken:
            before = taken[one]
        elif before is place and (one[0] not in addresses or one[1].startswith(_BRANCHES)):
            taken[one] = place


def _tells(code: bytes) -> bool:
    return len(code) >= _HEAD_BYTES and not code.startswith(_COMMON)


class _Ran:
    """The instructions that ran, sorted, as arrays."""

    def __init__(self, instructions: Sequence[Instruction]) -> None:
        self._instructions = instructions
        self._addresses = [address for address, _ in instructions]
        telling = [one for one in instructions if _tells(one[1])]
        addresses = np.array([address for address, _ in telling], np.uint64)
        self._offsets = (addresses % _PAGE).astype(np.int64)
        self._pages, self._first = np.unique(addresses // _PAGE, return_index=True)
        heads = b"".join(code[:_HEAD_BYTES] for _, code in telling)
        self._heads = np.frombuffer(heads, np.uint8).reshape(-1, _HEAD_BYTES)

    def places(self, code: ModuleCode) -> Iterator[_Place]:
        """Where a module's code may have been: there most of the instructions that tell it are its own."""
        if not len(self._heads):
            return
        scores = self._scores(code)
        starts = self._pages.astype(np.int64)[None, :] - np.arange(len(scores))[:, None]
        numbers, inverse = np.unique(starts, return_inverse=True)
        sums = np.bincount(inverse.ravel(), weights=scores.ravel())
        for at in np.argsort(-sums, kind="stable")[:_PLACES]:
            base = int(numbers[at]) * _PAGE
            inside = self._inside(base, len(code.content))
            if sums[at] >= min(_LEAST, max(1, _FEW * len(inside))):
                own = frozenset(one for one in inside if code.fits(one[0] - base, one[1]))
                telling = frozenset(one for one in own if _tells(one[1]) and code.is_fixed(one[0] - base))
                yield _Place(code, base, inside, own, telling)

    def _scores(self, code: ModuleCode) -> NDArray[np.int64]:
        """How many telling instructions of each page that ran begin like those of each page of a module's code."""
        pages = (len(code.content) + _PAGE - 1) // _PAGE
        room = pages * _PAGE + _HEAD_BYTES - len(code.content)
        content = np.concatenate([code.content, np.full(room, 0xCC, np.uint8)])
        fixed = np.concatenate([code.fixed, np.ones(room, np.bool_)])
        where = np.arange(pages)[:, None] * _PAGE + self._offsets[None, :]
        alike = np.ones(where.shape, np.bool_)
        for at in range(_HEAD_BYTES):
            there = where + at
            alike &= (content[there] == self._heads[None, :, at]) & fixed[there]
        return np.add.reduceat(alike, self._first, axis=1, dtype=np.int64)

    def _inside(self, base: int, size: int) -> tuple[Instruction, ...]:
        begin, end = (bisect.bisect_left(self._addresses, address) for address in (base, base + size))
        return tuple(self._instructions[begin:end])
