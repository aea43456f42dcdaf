"""What a kernel's functions do, apart from where they lie: one digest for each, equal where the instructions are.

Two builds put code and data at other addresses. A digest is therefore of the instructions with each address of the
kernel replaced: by the name of its function where it is code, by nothing where it is data. What tables and texts hold
is not seen, nor what the kernel patches in its own code as it starts.
"""

from __future__ import annotations

import bisect
import hashlib
import io
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from acon_nb.errors import AconError
from acon_nb.kernel.unpack import unpacked
from acon_nb.profile.counts import Functions
from acon_nb.profile.layout import canonical
from acon_nb.profile.model import Profile, Region
from acon_nb.profile.timing import timing
from acon_nb.study.functions import functions_of

if TYPE_CHECKING:
    import iced_x86

_DIGITS = 16  # of a digest: 64 bits
_LEAST_BYTES = 4  # of a field that can hold an address
_MAP, _PHYSICAL_BYTES = 0xFFFF_FFFF_8000_0000, 8  # __START_KERNEL_map, and the field of a physical address
_ALLOCATED, _EXECUTABLE = 2, 4  # SHF_ALLOC, SHF_EXECINSTR of elf(5)


class _Reference(Enum):
    """What an instruction does with an address: it goes there, has it as it is, or adds registers to it."""

    BRANCH = 1
    POINTER = 2
    TABLE = 3


@dataclass(frozen=True)
class CodeSection:
    """A part of the kernel: where it is, what the image has of it, and whether it is code."""

    addresses: range
    content: bytes
    is_code: bool


@dataclass(frozen=True)
class KernelCode:
    """The code of a kernel; its functions by address as of `study.functions`."""

    sections: Sequence[CodeSection]
    names: Mapping[int, str]

    @cached_property
    def _starts(self) -> list[int]:
        return sorted(self.names)

    @cached_property
    def _whole(self) -> range:
        """From the first address of the kernel to its last."""
        return range(self.sections[0].addresses.start, max(one.addresses.stop for one in self.sections))

    def _section(self, address: int) -> CodeSection | None:
        return next((one for one in self.sections if address in one.addresses), None)

    def digests(self, addresses: Iterable[int]) -> dict[int, str]:
        """The digest of each function that is in the kernel's image, by its address."""
        digests = ((address, self._digest(address)) for address in addresses)
        return {address: digest for address, digest in digests if digest}

    def _digest(self, start: int) -> str:
        section = self._section(start)
        if section is None or not section.is_code:
            return ""
        after = bisect.bisect_right(self._starts, start)
        end = self._starts[after] if after < len(self._starts) else section.addresses.stop
        code = section.content[start - section.addresses.start : end - section.addresses.start]
        parts = list(self._parts(code, start))
        while parts and _is_padding(parts[-1]):
            parts.pop()  # up to where the next function begins
        return hashlib.sha256(b"".join(parts)).hexdigest()[:_DIGITS]

    def _parts(self, code: bytes, start: int) -> Iterator[bytes]:
        """Each instruction: its bytes, zeros where an address of the kernel was, and the name of the address."""
        import iced_x86

        decoder = iced_x86.Decoder(64, code, ip=start)
        own = range(start, start + len(code))
        at = 0
        for instruction in decoder:
            raw = code[at : at + instruction.len]
            at += instruction.len
            if instruction.len > _LEAST_BYTES:
                for offset, size, address in _addresses(decoder, instruction):
                    is_own = address in own and instruction.near_branch_target == address
                    is_relative = instruction.is_ip_rel_memory_operand and address == instruction.memory_displacement
                    if size == _PHYSICAL_BYTES and address + _MAP in self._whole:
                        address += _MAP  # __pa_symbol() of something
                    is_here = address in self._whole
                    if (is_here or is_relative) and not is_own:
                        # A variable of each CPU is numbered from 0, and reached relative to the instruction
                        name = self._name(address, _kind(instruction)) if is_here else f" {address:x}\n".encode()
                        raw = raw[:offset] + bytes(size) + raw[offset + size :] + name
            yield raw

    def _name(self, address: int, kind: _Reference) -> bytes:
        """The function and the place in it; nothing for data, nor for what is computed from a table or its end."""
        section = self._section(address)
        before = bisect.bisect_right(self._starts, address) - 1
        if section is None or not section.is_code or before < 0 or kind is _Reference.TABLE:
            return b""
        start = self._starts[before]
        if kind is _Reference.POINTER and (start != address or address == section.addresses.start):
            return b""
        return f" {canonical(self.names[start])}+{address - start:x}\n".encode()


def of_image(kernel: Path, names: Mapping[int, str]) -> KernelCode | None:
    """The code of a bzImage; None where its compression is not understood, or what it holds has no sections."""
    try:
        return of_elf(unpacked(kernel.read_bytes()), names)
    except (AconError, struct.error, OSError):
        return None


def of_elf(data: bytes, names: Mapping[int, str]) -> KernelCode | None:
    """The code of an ELF file as it is linked; None where it has no sections."""
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    try:
        sections = [
            CodeSection(
                range(one["sh_addr"], one["sh_addr"] + one["sh_size"]), one.data(), bool(one["sh_flags"] & _EXECUTABLE)
            )
            for one in ELFFile(io.BytesIO(data)).iter_sections()
            if one["sh_flags"] & _ALLOCATED and one["sh_addr"]
        ]
    except (ELFError, ValueError):
        return None
    return KernelCode(sorted(sections, key=lambda one: one.addresses.start), names) if sections else None


def of_profile(made: Profile, kernel: Path, functions: Functions) -> Profile:
    """The profile with the digests of the functions that ran in it, and of those whose counts depend on timing."""
    code = of_image(kernel, functions.names) if functions.names else None
    if code is None:
        return made
    names = functions.unique_names()
    wanted = {one.name for one in made.functions if one.region is Region.KERNEL}
    chosen = [address for address, name in names.items() if name in wanted or canonical(name) in timing()]
    return replace(made, code={names[address]: digest for address, digest in code.digests(chosen).items()})


def other_code(kernels: Sequence[Path], names: Set[str]) -> tuple[str, ...] | None:
    """Those functions, of `names` as of `canonical`, that do not have the same instructions in two kernels.

    None where the code of one is not known.
    """
    digests: list[dict[str, set[str]]] = []
    for kernel in kernels:
        known = functions_of(kernel)
        code = of_image(kernel, known) if known else None
        if code is None:
            return None
        sums: dict[str, set[str]] = {}
        chosen = [address for address, name in known.items() if canonical(name) in names]
        for address, digest in code.digests(chosen).items():
            sums.setdefault(canonical(known[address]), set()).add(digest)
        digests.append(sums)
    before, after = digests
    return tuple(sorted(name for name in names if not before.get(name) or before[name] != after.get(name)))


def _kind(instruction: iced_x86.Instruction) -> _Reference:
    import iced_x86

    if instruction.near_branch_target:
        return _Reference.BRANCH
    fixed = instruction.memory_base in (iced_x86.Register.NONE, iced_x86.Register.RIP)
    return _Reference.POINTER if fixed and instruction.memory_index == iced_x86.Register.NONE else _Reference.TABLE


def _addresses(decoder: iced_x86.Decoder, instruction: iced_x86.Instruction) -> Iterator[tuple[int, int, int]]:
    """Where an instruction has what may be an address: offset and size of the field, and the address."""
    fields = decoder.get_constant_offsets(instruction)
    if instruction.near_branch_target:
        yield fields.immediate_offset, fields.immediate_size, instruction.near_branch_target
        return
    if fields.has_displacement and fields.displacement_size >= _LEAST_BYTES:
        yield fields.displacement_offset, fields.displacement_size, instruction.memory_displacement
    if fields.has_immediate and fields.immediate_size >= _LEAST_BYTES:
        yield fields.immediate_offset, fields.immediate_size, instruction.immediate(instruction.op_count - 1)


def _is_padding(part: bytes) -> bool:
    """Whether an instruction does nothing: int3, or a nop of any length."""
    import iced_x86

    if part == b"\xcc":
        return True
    return next(iter(iced_x86.Decoder(64, part))).mnemonic == iced_x86.Mnemonic.NOP
