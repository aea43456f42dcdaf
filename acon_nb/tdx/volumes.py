"""Unpack a firmware image's compressed volumes, and find modules and strings in them.

OVMF keeps its PEI and DXE volumes in one LZMA section of the boot volume (edk2 OvmfPkg: FVMAIN_COMPACT). Modules
contain their names (UI sections, UTF-16), and some strings distinguish versions. The input may be hostile: the unpacked
size is limited.
"""

from __future__ import annotations

import lzma
import re
import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

_LZMA_SECTION = uuid.UUID("ee4e5898-3914-4259-9d6e-dc7bd79403cf").bytes_le  # gLzmaCustomDecompressGuid
_UNPACKED_LIMIT_BYTES = 64 << 20
_SECTION_HEADER_BYTES = 24  # of a GUID-defined section: size, type, GUID, data offset, attributes
_FIRMWARE_VOLUME = 0x17  # EFI_SECTION_FIRMWARE_VOLUME_IMAGE
_RELEASE = re.compile(rb"2\x000\x00\d\x00\d\x00\.\x00\d\x00\d\x00(?:[!-~]\x00){0,40}\x00\x00")


@dataclass(frozen=True)
class FirmwareContent:
    """A firmware's bytes as in its image and as unpacked (empty if nothing could be unpacked)."""

    image: bytes
    unpacked: bytes

    def has_text(self, text: str) -> bool:
        """Return whether it contains a C string (ASCII)."""
        raw = text.encode()
        return raw in self.unpacked or raw in self.image

    def has_module(self, name: str) -> bool:
        """Return whether it contains a module of that name (a UI section with the whole name in UTF-16)."""
        raw = b"\x15" + name.encode("utf-16-le") + b"\0\0"  # the byte before is the section's type
        return raw in self.unpacked or raw in self.image

    @property
    def version(self) -> str:
        """The version that its distributor gave it ("2025.02-8+deb13u1"), or ""."""
        match = _RELEASE.search(self.unpacked)
        return match.group().decode("utf-16-le").rstrip("\0") if match else ""

    @property
    def release(self) -> str:
        """The edk2 release of `version` ("202502"), or ""."""
        return self.version[:7].replace(".", "")

    def volumes(self) -> tuple[bytes, ...]:
        """Return the unpacked firmware volumes, in order: those of OVMF are PEIFV and DXEFV."""
        return tuple(_volumes(self.unpacked))


@lru_cache(maxsize=2)
def unpack(image: bytes) -> FirmwareContent:
    """Unpack an image's compressed section (0.2 s for OVMF); a damaged one counts as missing."""
    offset = image.find(_LZMA_SECTION)
    while offset >= 4:
        unpacked = _section(image, offset - 4)
        if unpacked:
            return FirmwareContent(image, unpacked)
        offset = image.find(_LZMA_SECTION, offset + 1)
    return FirmwareContent(image, b"")


def _section(image: bytes, start: int) -> bytes:
    """The unpacked data of the GUID-defined section at `start`, or nothing."""
    if start + _SECTION_HEADER_BYTES > len(image) or image[start + 3] != 0x02:
        return b""
    size = int.from_bytes(image[start : start + 3], "little")
    offset = struct.unpack_from("<H", image, start + 20)[0]
    if not _SECTION_HEADER_BYTES <= offset < size or start + size > len(image):
        return b""
    try:
        return lzma.LZMADecompressor(format=lzma.FORMAT_ALONE, memlimit=256 << 20).decompress(
            image[start + offset : start + size], _UNPACKED_LIMIT_BYTES
        )
    except lzma.LZMAError:
        return b""


def _volumes(unpacked: bytes) -> Iterator[bytes]:
    offset = 0
    while offset + 4 <= len(unpacked):
        size, header = int.from_bytes(unpacked[offset : offset + 3], "little"), 4
        if size == 0xFFFFFF and offset + 8 <= len(unpacked):
            size, header = struct.unpack_from("<I", unpacked, offset + 4)[0], 8
        if size < header or offset + size > len(unpacked):
            return
        if unpacked[offset + 3] == _FIRMWARE_VOLUME:
            yield unpacked[offset + header : offset + size]
        offset = (offset + size + 3) & ~3
