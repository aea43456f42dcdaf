"""What a kernel's image says of itself: its configuration, its memory, and, without a configuration, its functions.

The configuration is in the image (CONFIG_IKCONFIG), next to it, or in the cache of builds. Without any, symbols and
messages of the image show what matters for an initrd.
"""

from __future__ import annotations

import gzip
import json
import re
import struct
import zlib
from pathlib import Path
from typing import Any

from acon_nb import bzimage
from acon_nb.cache import Cache, sha256_file
from acon_nb.errors import AconError, InvalidInput
from acon_nb.guest import kallsyms
from acon_nb.initrd.check import Kernel
from acon_nb.kernel import dotconfig
from acon_nb.kernel.unpack import unpacked

_READER = 1  # of the cached facts
_LIMIT_BYTES = 512 << 20
_CONFIG_LIMIT_BYTES = 4 << 20
_IKCONFIG = re.compile(rb"IKCFG_ST(\x1f\x8b)")
_64BIT = 1  # XLF_KERNEL_64
# A message of each decompressor of lib/decompress_*.c
_MESSAGES = {
    "RD_GZIP": b"Out of memory while allocating z_stream",
    "RD_BZIP2": b"Data integrity error when decompressing.",
    "RD_LZMA": b"LZMA data is corrupt",
    "RD_XZ": b"XZ-compressed data is corrupt",
    "RD_LZO": b"dest len longer than block size",
    "RD_LZ4": b"chunk length is longer than allocated",
    "RD_ZSTD": b"ZSTD-compressed data is truncated",
}
# A function that the kernel has with an option only
_FUNCTIONS = {
    "BLK_DEV_INITRD": "populate_rootfs",
    "BINFMT_SCRIPT": "load_script",
    "BINFMT_ELF": "load_elf_binary",
    "BLK_DEV_RAM": "brd_init",
    "DEVTMPFS": "devtmpfs_init",
    "PROC_FS": "proc_root_init",
    "SYSFS": "sysfs_init",
    "VIRTIO_CONSOLE": "virtcons_probe",
    "SERIAL_8250_CONSOLE": "serial8250_console_setup",
}


def read(kernel: Path, *, cache: Cache | None = None) -> Kernel:
    """Read what a bzImage has. Errors: `InvalidInput` (not a bzImage)."""
    store = cache or Cache()
    head = _head(kernel)
    digest = sha256_file(kernel)
    built = store.file_beside("kernel", "bzImage", digest, "config")
    beside = _config_beside(kernel)

    def make(folder: Path) -> None:
        (folder / "facts.json").write_text(json.dumps(_facts(kernel.read_bytes())))

    artifact = store.get("kernel-facts", {"kernel": digest, "reader": _READER}, make)
    facts = json.loads((artifact.path / "facts.json").read_text())
    options, complete = facts["options"], facts["complete"]
    if not complete:
        for path in (built, beside):
            if path is not None and path.stat().st_size <= _CONFIG_LIMIT_BYTES:
                options, complete = dotconfig.read(path), True
                break
    bits = struct.unpack_from("<H", head, bzimage.XLOADFLAGS)[0] & _64BIT
    return Kernel(
        options={**options, "X86_64": "y" if bits else "n"},
        complete=complete,
        release=facts["release"],
        image_bytes=facts["image_bytes"],
    )


def _head(kernel: Path) -> bytes:
    if not kernel.is_file():
        raise InvalidInput("kernel", kernel, "is not a file", hint="build one: acon-nb kernel build --profile guide")
    if kernel.stat().st_size > _LIMIT_BYTES:
        raise InvalidInput("kernel", kernel, "is too large for a kernel", hint="give arch/x86/boot/bzImage")
    with kernel.open("rb") as file:
        head = file.read(bzimage.HEADER_BYTES)
    if not bzimage.is_bzimage(head):
        raise InvalidInput(
            "kernel", kernel, "is not a bzImage", hint="give arch/x86/boot/bzImage, as to QEMU's -kernel"
        )
    return head


def _config_beside(kernel: Path) -> Path | None:
    """The configuration that installations and build folders have next to an image."""
    candidates = []
    if kernel.name.startswith("vmlinuz-"):
        candidates.append(kernel.with_name(kernel.name.replace("vmlinuz-", "config-", 1)))
    if kernel.resolve().match("arch/x86/boot/bzImage"):
        candidates.append(kernel.resolve().parents[3] / ".config")
    if kernel.name == "bzImage":
        candidates.append(kernel.with_name("config"))
    return next((path for path in candidates if path.is_file()), None)


def _facts(image: bytes) -> dict[str, Any]:
    try:
        inner = unpacked(image)
    except (AconError, struct.error, IndexError):
        inner = b""
    options = _embedded(inner)
    return {
        "options": _shown_by_symbols(inner) if options is None else options,
        "complete": options is not None,
        "image_bytes": _memory_bytes(inner),
        "release": bzimage.release(image),
    }


def _embedded(inner: bytes) -> dict[str, str] | None:
    """The configuration that CONFIG_IKCONFIG puts into the image; None if there is none."""
    match = _IKCONFIG.search(inner)
    if match is None:
        return None
    end = inner.find(b"IKCFG_ED", match.end())
    try:
        text = gzip.decompress(inner[match.start(1) : end])
    except (OSError, EOFError, zlib.error):
        return None
    return dotconfig.parse(text.decode(errors="replace")) or None


def _shown_by_symbols(inner: bytes) -> dict[str, str]:
    """The options that symbols and messages of an image show."""
    if not inner:
        return {}
    options = {option: "y" if text in inner else "n" for option, text in _MESSAGES.items()}
    try:
        names = set(kallsyms.functions(inner).values())
    except (struct.error, ValueError, IndexError, UnicodeDecodeError):
        names = set()
    if names:
        options |= {option: "y" if name in names else "n" for option, name in _FUNCTIONS.items()}
    return options


def _memory_bytes(inner: bytes) -> int | None:
    """The memory that the kernel itself occupies: from its first to its last byte, zeroed memory included."""
    if inner[:5] != b"\x7fELF\x02":
        return None
    (table,) = struct.unpack_from("<Q", inner, 32)
    size, count = struct.unpack_from("<HH", inner, 54)
    spans = []
    for number in range(count):
        kind, _, _, _, address, _, memory, _ = struct.unpack_from("<IIQQQQQQ", inner, table + number * size)
        if kind == 1:  # PT_LOAD
            spans.append((address, address + memory))
    return max(end for _, end in spans) - min(start for start, _ in spans) if spans else None
