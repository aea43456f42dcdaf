"""Disk images for guests: raw and qcow2, sparse, optionally with a swap area; without root, qemu-img or mkswap.

The suffix gives the format, as in the guide. A file that acon_nb did not create is never overwritten.
Sources: QEMU docs/interop/qcow2.rst; kernel include/linux/swap.h (union swap_header), mkswap(8).
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from acon_nb.errors import InvalidInput
from acon_nb.units import format_bytes, parse_bytes

_CLUSTER_BITS = 16
_CLUSTER_BYTES = 1 << _CLUSTER_BITS
_L2_COVERS_BYTES = _CLUSTER_BYTES // 8 * _CLUSTER_BYTES
_COPIED = 1 << 63
_LIMIT_BYTES = 64 << 40
_PAGE_BYTES = 4096
_SWAP_PAGES_MIN = 10  # mkswap(8)
_OURS = "user.acon_nb"
_SIZE_IN_NAME = re.compile(r"(\d+[kmgt])(?:i?b)?", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class DiskImage:
    """An image that was created: `size_bytes` is what the guest sees, `used_bytes` what it takes on the host's disk."""

    path: Path
    format: str
    size_bytes: int
    used_bytes: int
    swap: bool


def size_of_name(path: Path) -> int:
    """Return the size that a file name states, as in the guide's 256m.raw. Errors: `InvalidInput`."""
    match = _SIZE_IN_NAME.fullmatch(path.stem)
    if match is None:
        raise InvalidInput(
            "size", path.name, "the name does not state a size", hint="give --size 256M, or a name like 256m.raw"
        )
    return parse_bytes(match[1])


def create(path: Path, size_bytes: int, *, swap: bool = False, replace: bool = False, label: str = "") -> DiskImage:
    """Create a sparse image of `size_bytes` (a multiple of 4096); with `swap` it is formatted as a swap area.

    With `replace`, an image that acon_nb created earlier is replaced; any other existing file is left alone.
    Errors: `InvalidInput` (suffix, size, an existing file), `OSError` of the host's disk.
    """
    _check(path, size_bytes, swap, label)
    if path.exists() or path.is_symlink():
        if not replace:
            hint = "choose another name, or --replace if acon_nb created it"
            raise InvalidInput("path", path, "already exists", hint=hint)
        if path.is_symlink() or not path.is_file() or not _is_ours(path):
            raise InvalidInput("path", path, "was not created by acon_nb; left as it is", hint="choose another name")
    page = swap_page(size_bytes, label=label) if swap else b""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("xb") as file:
            with contextlib.suppress(OSError):  # no extended attributes here: then the image is never replaced
                os.setxattr(file.fileno(), _OURS, b"disk")
            _write_raw(file, size_bytes, page) if path.suffix == ".raw" else _write_qcow2(file, size_bytes, page)
        if replace:
            temporary.replace(path)
        else:
            _link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    used = path.stat().st_blocks * 512
    return DiskImage(path=path, format=path.suffix[1:], size_bytes=size_bytes, used_bytes=used, swap=swap)


def swap_page(size_bytes: int, *, label: str = "", identity: uuid.UUID | None = None) -> bytes:
    """Return the first page of a swap area of version 1, as mkswap writes it."""
    last_page = size_bytes // _PAGE_BYTES - 1
    head = struct.pack("<III", 1, last_page, 0) + (identity or uuid.uuid4()).bytes + label.encode().ljust(16, b"\0")
    return (bytes(1024) + head).ljust(_PAGE_BYTES - 10, b"\0") + b"SWAPSPACE2"


def _check(path: Path, size_bytes: int, swap: bool, label: str) -> None:
    if path.suffix not in (".raw", ".qcow2"):
        raise InvalidInput("path", path, "is neither .raw nor .qcow2", hint="the suffix gives the format: rename it")
    if not path.parent.is_dir():
        raise InvalidInput("path", path, "its folder does not exist", hint=f"mkdir -p {path.parent}")
    least = _SWAP_PAGES_MIN * _PAGE_BYTES if swap else _PAGE_BYTES
    if not least <= size_bytes <= _LIMIT_BYTES or size_bytes % _PAGE_BYTES:
        hint = f"a multiple of 4096 bytes from {format_bytes(least)} to {format_bytes(_LIMIT_BYTES)}, such as 256M"
        raise InvalidInput("size_bytes", size_bytes, "is not a valid disk size", hint=hint)
    if len(label.encode()) > 15 or "\0" in label or (label and not swap):
        hint = "at most 15 bytes, and only together with swap"
        raise InvalidInput("label", label, "is not a valid label of a swap area", hint=hint)


def _is_ours(path: Path) -> bool:
    try:
        return os.getxattr(path, _OURS) == b"disk"
    except OSError:
        return False


def _link(temporary: Path, path: Path) -> None:
    """Give the finished file its name, unless another file has taken that name meanwhile."""
    try:
        os.link(temporary, path)
    except FileExistsError as error:
        raise InvalidInput("path", path, "already exists", hint="choose another name") from error
    except PermissionError:  # a file system without hard links
        temporary.rename(path)


def _write_raw(file: BinaryIO, size_bytes: int, page: bytes) -> None:
    file.write(page)
    file.truncate(size_bytes)


def _write_qcow2(file: BinaryIO, size_bytes: int, page: bytes) -> None:
    """Write header, refcount table, one refcount block, L1 table; for `page` also an L2 table and its cluster."""
    l1_entries = -(-size_bytes // _L2_COVERS_BYTES)
    l1_clusters = -(-l1_entries * 8 // _CLUSTER_BYTES)
    l2_cluster = 3 + l1_clusters
    clusters = l2_cluster + (2 if page else 0)
    table, block, l1 = (number * _CLUSTER_BYTES for number in (1, 2, 3))
    head = struct.pack(
        ">4sIQIIQIIQQIIQ", b"QFI\xfb", 3, 0, 0, _CLUSTER_BITS, size_bytes, 0, l1_entries, l1, table, 1, 0, 0
    )
    head += struct.pack(">QQQII", 0, 0, 0, 4, 104)
    pieces = {0: head, table: struct.pack(">Q", block), block: struct.pack(">H", 1) * clusters}
    if page:
        l2, data = l2_cluster * _CLUSTER_BYTES, (l2_cluster + 1) * _CLUSTER_BYTES
        pieces |= {l1: struct.pack(">Q", l2 | _COPIED), l2: struct.pack(">Q", data | _COPIED), data: page}
    for offset, piece in pieces.items():
        file.seek(offset)
        file.write(piece)
    file.truncate(clusters * _CLUSTER_BYTES)
