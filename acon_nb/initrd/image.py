"""From a tree to an initrd image: cpio, compressed as the suffix says, streamed to a file that appears whole."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from acon_nb.cache import atomic_file, sha256_file
from acon_nb.errors import InvalidInput, TreeError
from acon_nb.initrd import cpio
from acon_nb.initrd.tree import FileTree

if TYPE_CHECKING:
    from collections.abc import Iterator

# What the guide's `T=.` means: midnight of 1 January 2000, UTC.
DEFAULT_MTIME = 946684800
_LZ4_LEGACY_MAGIC = 0x184C2102
_LZ4_BLOCK_BYTES = 8 << 20


@dataclass(frozen=True, kw_only=True)
class InitrdImage:
    """An initrd on disk: where it is, its size and that of the archive in it, its SHA-256."""

    path: Path
    bytes: int
    archive_bytes: int
    sha256: str


def create(tree: FileTree, path: Path, *, mtime: int | None = DEFAULT_MTIME) -> InitrdImage:
    """Write `tree` to `path`, owner 0:0, compressed by the suffix: none, .gz, .bz2, .xz, .zst or .lz4.

    `mtime` None keeps each file's own time. Errors: `TreeError` (no init), `InvalidInput` (suffix), `NoSpace`; the
    file appears only when it is whole.
    """
    compressor = _compressor_of(path)
    if not tree.has_init():
        raise TreeError(
            f"{path.name} would have no init that is executable",
            hint="add /init (acon-nb initrd init TREE), or make sbin/init, etc/init or bin/init executable",
        )
    with atomic_file(path) as temporary, temporary.open("wb") as file, compressor(file) as stream:
        archive_bytes = cpio.write(tree, stream, mtime=mtime, owner=(0, 0))
    return InitrdImage(path=path, bytes=path.stat().st_size, archive_bytes=archive_bytes, sha256=sha256_file(path))


def _compressor_of(path: Path) -> Callable[[BinaryIO], AbstractContextManager[cpio.Writable]]:
    known = {
        "gz": _gzip,
        "bz2": _bzip2,
        "xz": _xz,
        "zst": _zstd,
        "zstd": _zstd,
        "lz4": _lz4,
        "cpio": _plain,
        "": _plain,
    }
    suffix = path.suffix[1:]
    if suffix not in known:
        raise InvalidInput("image", path, f".{suffix} is no known compression", hint="one of gz, bz2, xz, zst, lz4")
    return known[suffix]


@contextmanager
def _plain(file: BinaryIO) -> Iterator[cpio.Writable]:
    yield file


@contextmanager
def _gzip(file: BinaryIO) -> Iterator[cpio.Writable]:
    with gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=9, mtime=0) as stream:
        yield stream


@contextmanager
def _bzip2(file: BinaryIO) -> Iterator[cpio.Writable]:
    with bz2.BZ2File(file, "wb", compresslevel=9) as stream:
        yield stream


@contextmanager
def _xz(file: BinaryIO) -> Iterator[cpio.Writable]:
    # CRC32: the kernel's decoder knows no CRC64 (Documentation/staging/xz.rst)
    with lzma.LZMAFile(file, "wb", check=lzma.CHECK_CRC32, preset=6) as stream:
        yield stream


@contextmanager
def _zstd(file: BinaryIO) -> Iterator[cpio.Writable]:
    import zstandard

    with zstandard.ZstdCompressor(level=19).stream_writer(file, closefd=False) as stream:
        yield stream


@contextmanager
def _lz4(file: BinaryIO) -> Iterator[cpio.Writable]:
    """The legacy frame, the only one that the kernel reads (lib/decompress_unlz4.c)."""
    stream = _Lz4Legacy(file)
    yield stream
    stream.finish()


class _Lz4Legacy:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._pending = bytearray()
        file.write(struct.pack("<I", _LZ4_LEGACY_MAGIC))

    def write(self, data: bytes) -> int:
        self._pending += data
        while len(self._pending) >= _LZ4_BLOCK_BYTES:
            self._block(bytes(self._pending[:_LZ4_BLOCK_BYTES]))
            del self._pending[:_LZ4_BLOCK_BYTES]
        return len(data)

    def finish(self) -> None:
        if self._pending:
            self._block(bytes(self._pending))

    def _block(self, data: bytes) -> None:
        import lz4.block

        packed = lz4.block.compress(data, mode="high_compression", compression=9, store_size=False)
        self._file.write(struct.pack("<I", len(packed)) + packed)
