"""What a firmware image is built of: its compressed volumes are unpacked, and modules and texts found in them.

OVMF keeps its PEI and DXE volumes in one LZMA section of the boot volume (edk2 OvmfPkg: FVMAIN_COMPACT). Modules carry
their names (UI sections, UTF-16), and some texts tell versions apart. Hostile input: what is unpacked is bounded.
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
class Content:
    """A firmware's bytes as they lie in its image and as they are unpacked ("" if nothing was)."""

    image: bytes
    unpacked: bytes

    def has_text(self, text: str) -> bool:
        """Whether a text of C (ASCII) is in it."""
        raw = text.encode()
        return raw in self.unpacked or raw in self.image

    def has_module(self, name: str) -> bool:
        """Whether a module of that name is in it (a UI section: the whole name in UTF-16)."""
        raw = b"\x15" + name.encode("utf-16-le") + b"\0\0"  # the byte before is the section's type
        return raw in self.unpacked or raw in self.image

    @property
    def version(self) -> str:
        """The version that its maker gave it ("2025.02-8+deb13u1"), or "" where there is none."""
        found = _RELEASE.search(self.unpacked)
        return found.group().decode("utf-16-le").rstrip("\0") if found else ""

    @property
    def release(self) -> str:
        """The edk2 release of `version` ("202502"), or ""."""
        return self.version[:7].replace(".", "")

    def volumes(self) -> tuple[bytes, ...]:
        """The unpacked firmware volumes, in order: OVMF's are PEIFV and DXEFV."""
        return tuple(_volumes(self.unpacked))


@lru_cache(maxsize=2)
def unpack(image: bytes) -> Content:
    """Unpack an image's compressed section (0.2 s for OVMF); what is damaged counts as not there."""
    place = image.find(_LZMA_SECTION)
    while place >= 4:
        unpacked = _section(image, place - 4)
        if unpacked:
            return Content(image, unpacked)
        place = image.find(_LZMA_SECTION, place + 1)
    return Content(image, b"")


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
    place = 0
    while place + 4 <= len(unpacked):
        size, header = int.from_bytes(unpacked[place : place + 3], "little"), 4
        if size == 0xFFFFFF and place + 8 <= len(unpacked):
            size, header = struct.unpack_from("<I", unpacked, place + 4)[0], 8
        if size < header or place + size > len(unpacked):
            return
        if unpacked[place + 3] == _FIRMWARE_VOLUME:
            yield unpacked[place + header : place + size]
        place = (place + size + 3) & ~3
