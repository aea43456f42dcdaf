"""Streams that cannot be read twice, and compressed files: kept as one unnamed file that dies with its owner."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import struct
import tempfile
import weakref
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from acon_nb.cache import default_root, said_no_space
from acon_nb.errors import InvalidInput, TreeError
from acon_nb.initrd.tree import Content, Limits, Source
from acon_nb.units import format_bytes

_CHUNK_BYTES = 1 << 20
_LZ4_LEGACY = 0x184C2102
_LZ4_BLOCK_BYTES = 8 << 20


class OpenFile:
    """A file that is kept open for as long as a tree's contents lie in it; read at any offset, from any thread."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.close = weakref.finalize(self, os.close, descriptor)

    @classmethod
    def open(cls, path: Path) -> OpenFile:
        """Open a regular file. Errors: `InvalidInput` (no such file, or no regular one)."""
        if not path.is_file():
            raise InvalidInput("image", path, "is no file", hint="give the file of an image")
        return cls(os.open(path, os.O_RDONLY | os.O_CLOEXEC))

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return os.fstat(self._descriptor).st_size

    def read_at(self, offset: int, count: int) -> bytes:
        """At most `count` bytes from `offset`; fewer at the end only."""
        data = os.pread(self._descriptor, count, offset)
        while data and len(data) < count:
            more = os.pread(self._descriptor, count - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data


class _Stream:
    """A part of an open file as a stream, for decompressors."""

    def __init__(self, source: Source, offset: int, size: int) -> None:
        self._source, self._offset, self._left = source, offset, size

    def read(self, count: int = -1) -> bytes:
        count = self._left if count < 0 else min(count, self._left)
        data = self._source.read_at(self._offset, count) if count else b""
        self._offset += len(data)
        self._left -= len(data)
        return data


def keep(chunks: Iterable[bytes], limit_bytes: int, what: str) -> Content:
    """Keep a stream in an unnamed file of the user cache's disk; nothing is left of it when the process ends.

    Errors: `TreeError` when it is longer than `limit_bytes`, `NoSpace`.
    """
    folder = _folder()
    size = 0
    with said_no_space(folder), tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for chunk in _joined(chunks):
            size += len(chunk)
            if size > limit_bytes:
                raise TreeError(
                    f"{what} holds more than {format_bytes(limit_bytes)}, which the limit total_bytes allows",
                    hint="raise the limit (--limit) if you trust the image",
                )
            view = memoryview(chunk)
            while view:
                view = view[file.write(view) :]
        return Content(size=size, source=OpenFile(os.dup(file.fileno())))


def _folder() -> Path:
    """Where there is room for an image: the user cache, or where temporary files go if that cannot be written."""
    folder = default_root() / "spool"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return Path(tempfile.gettempdir())
    return folder


def _joined(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Pieces of about 1 MiB, of those that a socket gave."""
    held: list[bytes] = []
    held_bytes = 0
    for chunk in chunks:
        held.append(chunk)
        held_bytes += len(chunk)
        if held_bytes >= _CHUNK_BYTES:
            yield b"".join(held)
            held, held_bytes = [], 0
    yield b"".join(held)


def stream_limit(limits: Limits) -> int:
    """How long a tar or cpio may be: what its files may hold, and as much again for headers of small files."""
    return 2 * limits.total_bytes + (64 << 20)


def compression_of(head: bytes) -> str:
    """The compression that the first bytes of a file tell: gz, bz2, xz, zst, lz4, or "" for none that is known."""
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    return ""


def plain(content: Content, what: str, limits: Limits) -> Content:
    """Content with an open source, decompressed if it was compressed (gz, bz2, xz, zst, lz4: told by its first bytes).

    Errors: `TreeError` for damaged data and for more than the limit.
    """
    if content.data is not None:
        content = keep([content.data], content.size, what)
    if content.path is not None:
        content = Content(size=content.size, source=OpenFile.open(content.path), offset=content.offset)
    assert content.source is not None
    name = compression_of(content.source.read_at(content.offset, min(8, content.size)))
    if not name:
        return content
    stream = cast(BinaryIO, _Stream(content.source, content.offset, content.size))
    return keep(_decompressed(stream, name, what), stream_limit(limits), what)


def _decompressed(stream: BinaryIO, name: str, what: str) -> Iterator[bytes]:
    import zstandard

    try:
        yield from _OPEN[name](stream)
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, zstandard.ZstdError, MemoryError) as error:
        raise TreeError(f"{what} is no whole .{name}: {error}", hint="make or download it again") from error


def _read_all(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk


def _gunzip(stream: BinaryIO) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=stream, mode="rb") as file:
        yield from _read_all(cast(BinaryIO, file))


def _bunzip2(stream: BinaryIO) -> Iterator[bytes]:
    yield from _members(stream, bz2.BZ2Decompressor)


def _unxz(stream: BinaryIO) -> Iterator[bytes]:
    yield from _members(stream, lambda: lzma.LZMADecompressor(memlimit=1 << 30))


def _members(stream: BinaryIO, new: Callable[[], lzma.LZMADecompressor | bz2.BZ2Decompressor]) -> Iterator[bytes]:
    """Compressed streams, one after the other, each piece of output bounded."""
    decoder, data = new(), stream.read(_CHUNK_BYTES)
    while data or not decoder.eof:
        if decoder.eof:
            decoder = new()
            data = data.lstrip(b"\0") or stream.read(_CHUNK_BYTES)
            if not data:
                return
        if not data and decoder.needs_input:
            raise EOFError("it ends in the middle")
        yield decoder.decompress(data, _CHUNK_BYTES)
        data = decoder.unused_data if decoder.eof else b""
        if not data and (decoder.eof or decoder.needs_input):
            data = stream.read(_CHUNK_BYTES)


def _unzstd(stream: BinaryIO) -> Iterator[bytes]:
    import zstandard

    decoder = zstandard.ZstdDecompressor(max_window_size=1 << 27)
    with decoder.stream_reader(stream, read_across_frames=True, closefd=False) as file:
        yield from _read_all(cast(BinaryIO, file))


def _unlz4(stream: BinaryIO) -> Iterator[bytes]:
    """The legacy frame, which is what a kernel reads; several may follow each other."""
    import lz4.block

    while head := stream.read(4):
        (size,) = struct.unpack("<I", head) if len(head) == 4 else (0,)
        if size == _LZ4_LEGACY:
            continue
        if not 0 < size <= _LZ4_BLOCK_BYTES + (_LZ4_BLOCK_BYTES >> 7):
            raise ValueError("a block's size is wrong")
        block = stream.read(size)
        if len(block) < size:
            raise EOFError("it ends in the middle")
        try:
            yield lz4.block.decompress(block, uncompressed_size=_LZ4_BLOCK_BYTES)
        except lz4.block.LZ4BlockError as error:
            raise ValueError(str(error)) from error


_MAGIC = (
    (b"\x1f\x8b", "gz"),
    (b"BZh", "bz2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zst"),
    (struct.pack("<I", _LZ4_LEGACY), "lz4"),
)
_OPEN: dict[str, Callable[[BinaryIO], Iterator[bytes]]] = {
    "gz": _gunzip,
    "bz2": _bunzip2,
    "xz": _unxz,
    "zst": _unzstd,
    "lz4": _unlz4,
}
