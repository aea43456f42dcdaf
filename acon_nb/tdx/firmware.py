"""Find OVMF images on this host and read their TDX metadata (which makes one a TDVF).

Source: Intel TDX Virtual Firmware Design Guide; edk2 OvmfPkg/ResetVector/X64/OvmfMetadata.asm. The table of GUIDed
entries ends 32 bytes before the end of the image and is read backwards.
"""

from __future__ import annotations

import os
import struct
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from acon_nb.errors import InvalidInput

_FOOTER = uuid.UUID("96b582de-1fb2-45f7-baea-a366c55a082d").bytes_le
_TDX_METADATA = uuid.UUID("e47a6535-984a-4798-865e-4685a7bf8ec2").bytes_le
# Debian and Ubuntu (whose newer packages have images for TDs alone), Arch, Fedora; the usual image comes first
_PATTERNS = (
    "/usr/share/ovmf/OVMF.fd",
    "/usr/share/qemu/OVMF.fd",
    "/usr/share/ovmf/OVMF.inteltdx*.fd",
    "/usr/share/qemu/OVMF.inteltdx*.fd",
    "/usr/share/OVMF/*.fd",
    "/usr/share/edk2/x64/*.fd",
    "/usr/share/edk2/ovmf/*.fd",
)
_ENTRY_BYTES = 18
_TABLE_LIMIT_BYTES = 4096
_IMAGE_LIMIT_BYTES = 64 << 20
_MEMORY_LIMIT_BYTES = 256 << 20  # the limit for all sections together; real ones have a few MiB

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
    """A firmware image: `tdx_metadata` is whether it has a TDVF descriptor, `whole` whether it is not a split image.

    A split image (OVMF_CODE.fd) has the descriptor too, but some of the volumes that it describes are in another file:
    a TD cannot start from it.
    """

    path: Path
    bytes: int
    tdx_metadata: bool
    whole: bool
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section of a TDVF descriptor: bytes of the image, where they go, and how they are measured.

    `data_offset` and `raw_bytes` locate it in the image, `address` and `memory_bytes` in the TD's memory; `kind` is a
    `SectionType` or an unknown number; `attributes` are `MR_EXTEND` and `PAGE_AUG`.
    """

    data_offset: int
    raw_bytes: int
    address: int
    memory_bytes: int
    kind: int
    attributes: int

    @property
    def name(self) -> str:
        """The name of the section's type."""
        return SectionType(self.kind).name if self.kind in list(SectionType) else f"type {self.kind}"


@dataclass(frozen=True, kw_only=True)
class Tdvf:
    """A whole firmware image from which a TD can start, with the sections of its descriptor in order."""

    path: Path
    image: bytes
    sections: tuple[Section, ...]

    def raw(self, section: Section) -> bytes:
        """Return a section's bytes in the image."""
        return self.image[section.data_offset : section.data_offset + section.raw_bytes]

    def of(self, *kinds: SectionType) -> tuple[Section, ...]:
        """Return the sections of the given types."""
        return tuple(section for section in self.sections if section.kind in kinds)


def find_firmware() -> tuple[Firmware, ...]:
    """Find the firmware images where distributions install them."""
    paths: dict[Path, Path] = {}
    for pattern in _PATTERNS:
        for path in sorted(Path("/").glob(pattern[1:])):
            if path.is_file() and os.access(path, os.R_OK):
                paths.setdefault(path.resolve(), path)
    return tuple(read_firmware(path) for path in paths.values())


def read_firmware(path: Path) -> Firmware:
    """Examine an image; a damaged table is reported in `why` and never followed."""
    return _examine(path)[0]


def read_tdvf(path: Path) -> Tdvf:
    """Read a firmware for TDs and check its sections against the image.

    Errors: `InvalidInput` if it is not a file or not a TDVF, or a split image, whose measurement would be wrong.
    """
    if not path.is_file():
        hint = "apt-get install ovmf, then use /usr/share/ovmf/OVMF.fd"
        raise InvalidInput("firmware", path, "is not a file", hint=hint)
    firmware, image, sections = _examine(path)
    if not (firmware.tdx_metadata and firmware.whole):
        hint = "use a whole image with TDX metadata, such as Debian's /usr/share/ovmf/OVMF.fd"
        raise InvalidInput("firmware", path, firmware.why, hint=hint)
    hint = "its TDX descriptor is damaged; reinstall the image"
    for section in sections:
        if (reason := _implausible(section, len(image))) is not None:
            raise InvalidInput("firmware", path, f"section {section.name}: {reason}", hint=hint)
    if sum(section.memory_bytes for section in sections) > _MEMORY_LIMIT_BYTES:
        raise InvalidInput("firmware", path, "its sections request more memory than any firmware needs", hint=hint)
    return Tdvf(path=path, image=image, sections=tuple(sections))


def _examine(path: Path) -> tuple[Firmware, bytes, Sequence[Section]]:
    size = path.stat().st_size

    def bad(why: str) -> tuple[Firmware, bytes, Sequence[Section]]:
        return Firmware(path=path, bytes=size, tdx_metadata=False, whole=False, why=why), b"", ()

    if size > _IMAGE_LIMIT_BYTES:
        return bad("too large for a firmware image")
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


def _implausible(section: Section, image_bytes: int) -> str | None:
    """Why a section cannot be real, or None."""
    if section.data_offset + section.raw_bytes > image_bytes:
        return "lies beyond the image's end"
    if section.address % PAGE_BYTES or section.memory_bytes % PAGE_BYTES:
        return "does not consist of whole pages"
    if section.raw_bytes > section.memory_bytes or section.memory_bytes > _MEMORY_LIMIT_BYTES:
        return "has an impossible size"
    if section.address + section.memory_bytes > 1 << 52:
        return "lies beyond any memory"
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
