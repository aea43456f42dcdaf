"""OVMF images on this host, and whether they carry TDX metadata (a TDVF).

Source: Intel TDX Virtual Firmware Design Guide; edk2 OvmfPkg/ResetVector/X64/OvmfMetadata.asm. The table of GUIDed
entries ends 32 bytes before the end of the image and is walked backwards.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from acon_nb.errors import InvalidInput

_FOOTER = uuid.UUID("96b582de-1fb2-45f7-baea-a366c55a082d").bytes_le
_TDX_METADATA = uuid.UUID("e47a6535-984a-4798-865e-4685a7bf8ec2").bytes_le
_PLACES = ("/usr/share/ovmf/OVMF.fd", "/usr/share/qemu/OVMF.fd", "/usr/share/OVMF/*.fd", "/usr/share/edk2/x64/*.fd")
_ENTRY_BYTES = 18
_TABLE_LIMIT_BYTES = 4096
_IMAGE_LIMIT_BYTES = 64 << 20
_MEMORY_LIMIT_BYTES = 256 << 20  # that all sections may ask for; real ones have a few MiB

MR_EXTEND = 1
PAGE_AUG = 2
PAGE_BYTES = 4096


class SectionType(IntEnum):
    """What a TDVF section holds (TDVF Design Guide, table 11-3)."""

    BFV = 0  # boot firmware volume
    CFV = 1  # configuration firmware volume
    TD_HOB = 2
    TEMP_MEM = 3
    PERM_MEM = 4


@dataclass(frozen=True, kw_only=True)
class Firmware:
    """A firmware image: `tdx_metadata` whether it has a TDVF descriptor, `whole` whether the image is not a split one.

    A split image (OVMF_CODE.fd) carries the descriptor too, but the volumes that it describes lie partly in another
    file: a TD does not start from it.
    """

    path: Path
    bytes: int
    tdx_metadata: bool
    whole: bool
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section of a TDVF descriptor: bytes of the image, where they go, and how they are measured.

    `data_offset` and `raw_bytes` are its place in the image, `address` and `memory_bytes` in the TD's memory;
    `kind` is a `SectionType` or a number that is not known; `attributes` are `MR_EXTEND` and `PAGE_AUG`.
    """

    data_offset: int
    raw_bytes: int
    address: int
    memory_bytes: int
    kind: int
    attributes: int

    @property
    def name(self) -> str:
        """The section's type in words."""
        return SectionType(self.kind).name if self.kind in list(SectionType) else f"type {self.kind}"


@dataclass(frozen=True, kw_only=True)
class Tdvf:
    """A whole firmware image from which a TD starts, with the sections of its descriptor in their order."""

    path: Path
    image: bytes
    sections: tuple[Section, ...]

    def raw(self, section: Section) -> bytes:
        """A section's bytes in the image."""
        return self.image[section.data_offset : section.data_offset + section.raw_bytes]

    def of(self, *kinds: SectionType) -> tuple[Section, ...]:
        """The sections of some types."""
        return tuple(section for section in self.sections if section.kind in kinds)


def find_firmware() -> tuple[Firmware, ...]:
    """The firmware images in the places where distributions put them."""
    found = {path.resolve(): path for place in _PLACES for path in sorted(Path("/").glob(place[1:]))}
    return tuple(read_firmware(path) for path in found.values())


def read_firmware(path: Path) -> Firmware:
    """What an image says of itself; a damaged table is reported in `why`, never followed."""
    return _examine(path)[0]


def read_tdvf(path: Path) -> Tdvf:
    """A firmware for TDs, with its sections checked against the image.

    Errors: `InvalidInput` for what is no file, no TDVF, or a split image, whose measurement would be a wrong one.
    """
    if not path.is_file():
        raise InvalidInput("firmware", path, "is no file", hint="apt-get install ovmf, then /usr/share/ovmf/OVMF.fd")
    found, image, sections = _examine(path)
    if not (found.tdx_metadata and found.whole):
        hint = "take a whole image with TDX metadata, such as Debian's /usr/share/ovmf/OVMF.fd"
        raise InvalidInput("firmware", path, found.why, hint=hint)
    hint = "its TDX descriptor is damaged; take the image anew"
    for section in sections:
        if (reason := _refused(section, len(image))) is not None:
            raise InvalidInput("firmware", path, f"section {section.name}: {reason}", hint=hint)
    if sum(section.memory_bytes for section in sections) > _MEMORY_LIMIT_BYTES:
        raise InvalidInput("firmware", path, "its sections ask for more memory than any firmware", hint=hint)
    return Tdvf(path=path, image=image, sections=tuple(sections))


def _examine(path: Path) -> tuple[Firmware, bytes, Sequence[Section]]:
    size = path.stat().st_size

    def bad(why: str) -> tuple[Firmware, bytes, Sequence[Section]]:
        return Firmware(path=path, bytes=size, tdx_metadata=False, whole=False, why=why), b"", ()

    if size > _IMAGE_LIMIT_BYTES:
        return bad("too large for a firmware")
    image = path.read_bytes()
    data = _entry(image, _TDX_METADATA)
    if data is None or len(data) < 4:
        return bad("no TDX metadata")
    sections = _sections(image, size - struct.unpack_from("<I", data)[0])
    if not sections:
        return bad("its TDX descriptor is damaged")
    boot = next((section for section in sections if section.kind == SectionType.BFV), None)
    whole = boot is not None and boot.data_offset + boot.raw_bytes == size
    why = "" if whole else "a split image: use the whole OVMF.fd"
    return Firmware(path=path, bytes=size, tdx_metadata=True, whole=whole, why=why), image, sections


def _refused(section: Section, image_bytes: int) -> str | None:
    """Why a section cannot be true, or None."""
    if section.data_offset + section.raw_bytes > image_bytes:
        return "lies beyond the image's end"
    if section.address % PAGE_BYTES or section.memory_bytes % PAGE_BYTES:
        return "is not made of whole pages"
    if section.raw_bytes > section.memory_bytes or section.memory_bytes > _MEMORY_LIMIT_BYTES:
        return "has a size that cannot be"
    if section.address + section.memory_bytes > 1 << 52:
        return "lies beyond all memory"
    return None


def _entry(image: bytes, guid: bytes) -> bytes | None:
    """The data of a GUIDed entry, or None."""
    end = len(image) - 32
    if end < _ENTRY_BYTES or image[end - 16 : end] != _FOOTER:
        return None
    total = struct.unpack_from("<H", image, end - _ENTRY_BYTES)[0]
    if not _ENTRY_BYTES <= total <= min(_TABLE_LIMIT_BYTES, end):
        return None
    table = image[end - total : end - _ENTRY_BYTES]
    while len(table) >= _ENTRY_BYTES:
        length = struct.unpack_from("<H", table, len(table) - _ENTRY_BYTES)[0]
        if not _ENTRY_BYTES <= length <= len(table):
            return None
        if table[-16:] == guid:
            return table[len(table) - length : len(table) - _ENTRY_BYTES]
        table = table[: len(table) - length]
    return None


def _sections(image: bytes, start: int) -> Sequence[Section]:
    """The sections of the descriptor at `start`; none if it is damaged."""
    if start < 0 or start + 16 > len(image) or image[start : start + 4] != b"TDVF":
        return []
    count = struct.unpack_from("<I", image, start + 12)[0]
    if not 1 <= count <= 64 or start + 16 + 32 * count > len(image):
        return []
    names = ("data_offset", "raw_bytes", "address", "memory_bytes", "kind", "attributes")
    rows = (struct.unpack_from("<IIQQII", image, start + 16 + 32 * number) for number in range(count))
    return [Section(**dict(zip(names, row, strict=True))) for row in rows]
