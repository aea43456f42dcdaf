"""A bzImage as it is measured: what QEMU writes to its header, and its Authenticode hash.

Sources: QEMU hw/i386/x86-common.c (x86_load_linux); Linux Documentation/arch/x86/boot.rst; Microsoft, "Windows
Authenticode Portable Executable Signature Format".
"""

from __future__ import annotations

import re
import struct
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from acon_nb import bzimage, user_file
from acon_nb.errors import InvalidInput, MissingRequirement
from acon_nb.tdx.hob import below_4g_bytes

LIMIT_BYTES = 512 << 20

_CAN_BE_ABOVE_4G = 2
_CAN_USE_HEAP = 0x80
_QEMU = 0xB0  # loader type 0xB (QEMU), version 0
_HEAP_BYTES = 0xFE00  # cmdline_addr - real_addr - 0x200
_COMMAND_LINE_ADDRESS = 0x20000
_ACPI_DATA_BYTES = 0x28000  # 0x20000 + 0x8000: what QEMU keeps free at the top of the memory below 4 GiB
CC_PROTOCOL = uuid.UUID("96751a3d-72f4-41a6-a794-ed5d0e67ae6b").bytes_le  # EFI_CC_MEASUREMENT_PROTOCOL_GUID
TCG2_PROTOCOL = uuid.UUID("607f766c-7455-42be-930b-e4d76db2720f").bytes_le
_VGA = re.compile(r"vga=(\S*)")
_VGA_WORDS = {"normal": 0xFFFF, "ext": 0xFFFE, "ask": 0xFFFD}


@dataclass(frozen=True, kw_only=True)
class KernelFile:
    """A bzImage in memory: `release` is the version in its header.

    `measures_cc` and `measures_tpm` are whether its EFI stub measures command line and initrd, through the CC protocol
    (Linux 6.9 and later) or, also in older kernels, through a TPM's. The protocols' GUIDs in the image show it.
    """

    path: Path
    image: bytes
    release: str
    measures_cc: bool
    measures_tpm: bool


def read_image(path: Path) -> bytes:
    """Read the file that QEMU's -kernel gets. Errors: `InvalidInput`."""
    if not path.is_file():  # it is read more than once: no pipe
        raise InvalidInput("kernel", path, "is not a file", hint="build one: acon-nb kernel build --profile guide")
    hint = "give arch/x86/boot/bzImage"
    return user_file.read_bytes("kernel", path, hint=hint, most_bytes=LIMIT_BYTES)


def read_kernel(path: Path) -> KernelFile:
    """Read a bzImage with an EFI stub. Errors: `InvalidInput`."""
    return kernel_of(read_image(path), path)


def kernel_of(image: bytes, path: Path) -> KernelFile:
    """Return a bzImage that was read, from a file or from a UKI. Errors: `InvalidInput`."""
    if not bzimage.is_bzimage(image):
        raise InvalidInput("kernel", path, "is not a bzImage", hint="QEMU's -kernel takes arch/x86/boot/bzImage")
    if image[:2] != b"MZ" or struct.unpack_from("<H", image, bzimage.PROTOCOL)[0] < 0x20C:
        hint = "set EFI_STUB=y: a TD's firmware starts a kernel as an EFI application"
        raise InvalidInput("kernel", path, "has no EFI stub", hint=hint)
    return KernelFile(
        path=path,
        image=image,
        release=bzimage.release(image),
        measures_cc=has_guid(image, CC_PROTOCOL),
        measures_tpm=has_guid(image, TCG2_PROTOCOL),
    )


def has_guid(image: bytes, guid: bytes) -> bool:
    """Return whether code names a GUID: as a constant, or as two immediate operands of 8 bytes."""
    return guid in image or (guid[:8] in image and guid[8:] in image)


def patched(kernel: KernelFile, append: str, initrd_bytes: int | None, memory_bytes: int) -> bytes:
    """Return the kernel as QEMU passes it in fw_cfg's kernel data, with the header fields that a boot loader sets.

    `initrd_bytes` is None without an initrd. QEMU before 10.2 does so for every guest; OVMF that reads etc/boot/kernel
    (202502 and later, with QEMU 10.0 and later) gets the unchanged file.
    """
    raw = bytearray(kernel.image)
    mode = _VGA.search(append)
    if mode is not None:
        struct.pack_into("<H", raw, bzimage.VIDEO_MODE, _vga_mode(mode[1]))
    raw[bzimage.LOADER] = _QEMU
    raw[bzimage.LOADFLAGS] |= _CAN_USE_HEAP
    struct.pack_into("<H", raw, bzimage.HEAP_END, _HEAP_BYTES)
    struct.pack_into("<I", raw, bzimage.COMMAND_LINE, _COMMAND_LINE_ADDRESS)
    if initrd_bytes is not None:
        address = initrd_address(kernel.image, initrd_bytes, memory_bytes)
        struct.pack_into("<II", raw, bzimage.RAMDISK_ADDRESS, address, initrd_bytes)
    return bytes(raw)


def initrd_address(image: bytes, initrd_bytes: int, memory_bytes: int) -> int:
    """Return the address that QEMU gives for the initrd. Errors: `InvalidInput` if it does not fit."""
    limit: int = struct.unpack_from("<I", image, bzimage.INITRD_MAX)[0]
    if struct.unpack_from("<H", image, bzimage.XLOADFLAGS)[0] & _CAN_BE_ABOVE_4G:
        limit = 0xFFFFFFFF
    limit = min(limit, below_4g_bytes(memory_bytes) - _ACPI_DATA_BYTES - 1)
    if initrd_bytes > limit:
        hint = "give the guest more memory"
        raise InvalidInput("initrd", initrd_bytes, "is larger than the memory below 4 GiB", hint=hint)
    return (limit - initrd_bytes) & ~4095


def authenticode(image: bytes, path: Path) -> bytes:
    """Return the SHA-384 hash that firmware measures (and signers sign) of a PE image. Errors: `InvalidInput`."""
    lief = authenticode_library()
    binary = lief.PE.parse(image)
    if not isinstance(binary, lief.PE.Binary):
        raise InvalidInput("kernel", path, "is not an EFI application (PE)", hint="set EFI_STUB=y and rebuild it")
    return bytes(binary.authentihash(lief.PE.ALGORITHMS.SHA_384))


def authenticode_library() -> ModuleType:
    """Import LIEF and silence it. That takes half a second, so do it while something else waits."""
    try:
        import lief
    except ImportError as error:
        hint = "pip install 'lief>=1.0'"
        raise MissingRequirement("lief", "measuring a kernel", hint=hint) from error
    lief.logging.disable()
    return lief


def load_options(append: str, *, token: str) -> bytes:
    """Return what the EFI stub measures as the command line: each byte widened to 16 bits, then a 16-bit NUL.

    `token` is "suffix" or "prefix", depending on where OVMF puts its "initrd=initrd", or "" without an initrd.
    """
    raw = append.encode(errors="surrogateescape")
    text = {"": raw, "suffix": raw + b" initrd=initrd", "prefix": b"initrd=initrd " + raw}[token]
    return b"".join(bytes((byte, 0)) for byte in text) + b"\0\0"


def _vga_mode(word: str) -> int:
    """The value of `vga=` as QEMU parses it: a word, or the number that strtol(3) finds at its start, as 16 bits."""
    for name, mode in _VGA_WORDS.items():
        if word.startswith(name):
            return mode
    number = re.match(r"([+-]?)(0[xX][0-9a-fA-F]+|[0-9]+)", word)
    if number is None:
        return 0
    digits = number[2]
    if digits[:2] in ("0x", "0X"):
        value = int(digits, 16)
    elif digits.startswith("0"):
        value = int("0" + re.match(r"[0-7]*", digits)[0], 8)  # type: ignore[index]
    else:
        value = int(digits)
    return (-value if number[1] == "-" else value) & 0xFFFF
