"""OVMF images on this host, and whether they carry TDX metadata (a TDVF).

Source: Intel TDX Virtual Firmware Design Guide; edk2 OvmfPkg/ResetVector/X64/OvmfMetadata.asm. The table of GUIDed
entries ends 32 bytes before the end of the image and is walked backwards.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_FOOTER = uuid.UUID("96b582de-1fb2-45f7-baea-a366c55a082d").bytes_le
_TDX_METADATA = uuid.UUID("e47a6535-984a-4798-865e-4685a7bf8ec2").bytes_le
_PLACES = ("/usr/share/ovmf/OVMF.fd", "/usr/share/qemu/OVMF.fd", "/usr/share/OVMF/*.fd", "/usr/share/edk2/x64/*.fd")
_ENTRY_BYTES = 18
_TABLE_LIMIT_BYTES = 4096
_IMAGE_LIMIT_BYTES = 64 << 20


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


def find_firmware() -> tuple[Firmware, ...]:
    """The firmware images in the places where distributions put them."""
    found = {path.resolve(): path for place in _PLACES for path in sorted(Path("/").glob(place[1:]))}
    return tuple(read_firmware(path) for path in found.values())


def read_firmware(path: Path) -> Firmware:
    """What an image says of itself; a damaged table is reported in `why`, never followed."""
    size = path.stat().st_size
    if size > _IMAGE_LIMIT_BYTES:
        return Firmware(path=path, bytes=size, tdx_metadata=False, whole=False, why="too large for a firmware")
    image = path.read_bytes()
    data = _entry(image, _TDX_METADATA)
    if data is None or len(data) < 4:
        return Firmware(path=path, bytes=size, tdx_metadata=False, whole=False, why="no TDX metadata")
    start = size - struct.unpack_from("<I", data)[0]
    sections = _sections(image, start)
    if not sections:
        return Firmware(path=path, bytes=size, tdx_metadata=False, whole=False, why="its TDX descriptor is damaged")
    boot_volume = next((section for section in sections if section[4] == 0), None)
    whole = boot_volume is not None and boot_volume[0] + boot_volume[1] == size
    return Firmware(
        path=path,
        bytes=size,
        tdx_metadata=True,
        whole=whole,
        why="" if whole else "a split image: use the whole OVMF.fd",
    )


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


def _sections(image: bytes, start: int) -> Sequence[tuple[int, ...]]:
    """(data_offset, raw_size, address, memory_size, type, attributes) of each section of the descriptor at `start`."""
    if start < 0 or start + 16 > len(image) or image[start : start + 4] != b"TDVF":
        return []
    count = struct.unpack_from("<I", image, start + 12)[0]
    if not 1 <= count <= 64 or start + 16 + 32 * count > len(image):
        return []
    return [struct.unpack_from("<IIQQII", image, start + 16 + 32 * number) for number in range(count)]
