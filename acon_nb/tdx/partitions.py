"""The partition table of a disk as firmware measures it before it starts an application from there.

Source: TCG PC Client Platform Firmware Profile, "EV_EFI_GPT_EVENT" (UEFI_GPT_DATA); edk2 SecurityPkg
DxeTpm2MeasureBootLib (Tcg2MeasureGptTable): the header, the number of partitions in use, and their entries.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from acon_nb.errors import InvalidInput

_SECTOR_BYTES = 512
_HEADER_BYTES = 92
_SIGNATURE = b"EFI PART"
_MOST_ENTRIES_BYTES = 1 << 20
_FOUND_BYTES = 64 << 10
_HINT = "give a raw image (qemu-img convert -O raw) with the UKI as \\\\EFI\\\\BOOT\\\\BOOTX64.EFI of its ESP"


def measured(disk: Path, application: bytes) -> bytes | None:
    """Return what is hashed of the GPT of a raw disk image; None if it has none (an MBR is not measured).

    Errors: `InvalidInput` for a damaged table, and for a disk that does not contain `application`.
    """
    if not disk.is_file() or disk.stat().st_size < 34 * _SECTOR_BYTES:
        raise InvalidInput("disk", disk, "is not a raw disk image", hint=_HINT)
    with disk.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as image:
        if image.find(application[:_FOUND_BYTES]) < 0:
            raise InvalidInput("disk", disk, "does not contain this UKI", hint=_HINT)
        header = image[_SECTOR_BYTES : _SECTOR_BYTES + _HEADER_BYTES]
        if not header.startswith(_SIGNATURE):
            return None
        first, count, size = struct.unpack_from("<QII", header, 72)
        start, total = first * _SECTOR_BYTES, count * size
        if size < 128 or total > _MOST_ENTRIES_BYTES or start + total > len(image):
            raise InvalidInput("disk", disk, "has a damaged partition table", hint=_HINT)
        entries = [image[start + number * size : start + (number + 1) * size] for number in range(count)]
    used = [entry for entry in entries if any(entry[:16])]
    return header + struct.pack("<Q", len(used)) + b"".join(used)
