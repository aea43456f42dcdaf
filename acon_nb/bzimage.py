"""The header of a bzImage: offsets of its fields, and the check that a file is one.

Source: Linux Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header".
"""

from __future__ import annotations

import struct
from pathlib import Path

PE_HEADER = 0x3C  # offset of the offset of the PE header, if the kernel has an EFI stub
SETUP_SECTORS = 0x1F1
VIDEO_MODE = 0x1FA
BOOT_FLAG = 0x1FE
JUMP = 0x200  # a short jump over the rest of the header: the first instruction of the setup code
MAGIC = 0x202
PROTOCOL = 0x206
VERSION_TEXT = 0x20E  # relative to JUMP
LOADER = 0x210
LOADFLAGS = 0x211
RAMDISK_ADDRESS = 0x218  # followed by its size
HEAP_END = 0x224
COMMAND_LINE = 0x228
INITRD_MAX = 0x22C
XLOADFLAGS = 0x236
PAYLOAD = 0x248  # offset and length of the compressed kernel, from the 32-bit entry
INIT_SIZE = 0x260
HEADER_BYTES = 0x268  # up to and including handover_offset
SECTOR_BYTES = 512


def is_bzimage(head: bytes) -> bool:
    """Whether a file whose first bytes are `head` (at least `HEADER_BYTES`) is a bzImage."""
    return len(head) >= HEADER_BYTES and head[BOOT_FLAG:JUMP] == b"\x55\xaa" and head[MAGIC:PROTOCOL] == b"HdrS"


def release(image: bytes) -> str:
    """The kernel's release ("6.12.5-cloud") of a bzImage, of which the setup code (64 KiB at most) is enough."""
    start = JUMP + struct.unpack_from("<H", image, VERSION_TEXT)[0]
    return image[start : start + 256].split(b"\0")[0].split(b" ")[0].decode("ascii", "replace")


def is_efi_application(path: Path) -> bool:
    """Return whether a file is a PE file and no bzImage: an EFI application, such as a UKI."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
    return head[:2] == b"MZ" and not is_bzimage(head)
