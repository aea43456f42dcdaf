"""Decompresses tars and layers: what gzip, bzip2, xz, lzma, zstd and lz4 write, in chunks of bounded size.

Several streams may follow each other, as after `cat` or from pzstd and pigz, with zeros behind them, as on tapes. Any
other data behind a stream is refused, and so is a stream that is truncated.
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, Protocol

from acon_nb.errors import TreeError

_CHUNK_BYTES = 1 << 20
_MEMORY_BYTES = 1 << 30  # for a dictionary of xz
_WINDOW_BYTES = 1 << 27  # of zstd; the program refuses more too, unless told otherwise (--long=31)
LZ4_LEGACY = struct.pack("<I", 0x184C2102)  # the sign of the legacy frame, the format of kernels
_LZ4_BLOCK_BYTES = 8 << 20
LZ4_BLOCK_LIMIT_BYTES = _LZ4_BLOCK_BYTES + (_LZ4_BLOCK_BYTES >> 7)  # of a block that does not compress
_SKIPPABLE = b"\x2a\x4d\x18"  # of zstd and lz4, after a byte from 0x50 to 0x5f
_HEAD_BYTES = 64


class _Input:
    """A stream with lookahead."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._data, self._at = stream, b"", 0

    def peek(self, count: int = _HEAD_BYTES) -> bytes:
        """Return the next bytes without consuming them; fewer only at the end."""
        while len(self._data) - self._at < count and (more := self._stream.read(_CHUNK_BYTES)):
            self._data, self._at = self._data[self._at :] + more, 0
        return self._data[self._at : self._at + count]

    def read(self) -> bytes:
        """Return and consume what is at hand; nothing only at the end."""
        data, self._data, self._at = self._data[self._at :], b"", 0
        return data or self._stream.read(_CHUNK_BYTES)

    def exactly(self, count: int) -> bytes:
        """Return and consume `count` bytes. Errors: `EOFError`."""
        data = self.peek(count)
        if len(data) < count:
            raise EOFError("it is truncated")
        self._at += count
        return data

    def skip(self, count: int) -> None:
        """Consume `count` bytes. Errors: `EOFError`."""
        while count:
            count -= len(self.exactly(min(count, _CHUNK_BYTES)))

    def give_back(self, data: bytes) -> None:
        """Put back the end of what `read` returned."""
        self._data, self._at = data, 0

    def skip_zeros(self) -> None:
        """Consume zeros."""
        while data := self.read():
            if rest := data.lstrip(b"\0"):
                self.give_back(rest)
                return


class _Decoder(Protocol):
    """The decoders of bz2, lzma and lz4.frame."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Inflater:
    """zlib's decoder of gzip, with the attributes of the others."""

    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(31)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        chunk = self._decoder.decompress(data or self._decoder.unconsumed_tail, max_length)
        self.needs_input = not self._decoder.unconsumed_tail and len(chunk) < max_length
        return chunk


def compression_of(head: bytes) -> str:
    """Return the compression of a file by its first bytes: gz, bz2, xz, lzma, zst, lz4, or "" for none of them."""
    for magic, name in MAGIC:
        if head.startswith(magic):
            return name
    return "zst" if is_skippable(head) else ""  # or lz4, which has such frames too: the next frame tells


def program_of(suffix: str) -> str:
    """Return the name of the program that writes files with a suffix: gzip for gz, xz for xz."""
    return {"gz": "gzip", "bz2": "bzip2", "zst": "zstd"}.get(suffix, suffix)


def decompressed(stream: BinaryIO, name: str, what: str) -> Iterator[bytes]:
    """Decompress a stream (`name` as in `compression_of`) into chunks. Errors: `TreeError` for damaged data."""
    import zstandard

    data = _Input(stream)
    damaged = (
        OSError,
        EOFError,
        ValueError,
        RuntimeError,
        zlib.error,
        lzma.LZMAError,
        zstandard.ZstdError,
        MemoryError,
    )
    try:
        yield from _all_streams(data, name, what)
    except damaged as error:
        raise TreeError(f"{what} is not a complete .{name}: {error}", hint="create or download it again") from error


def _all_streams(data: _Input, name: str, what: str) -> Iterator[bytes]:
    first = True
    while head := data.peek():
        if is_skippable(head) and name in _WITH_SKIPPABLE:
            (size,) = struct.unpack("<4xI", data.exactly(8))
            data.skip(size)
            continue
        form = compression_of(head)
        if first and form in _WITH_SKIPPABLE and name in _WITH_SKIPPABLE:
            name = form
        if form != name:
            raise TreeError(
                f"{what} has data behind its end that is not .{name}: {head[:8]!r}",
                hint="create or download it again; a file holds streams of one compression",
            )
        first = False
        yield from _OPEN[name](data)
        data.skip_zeros()


def _decoded(data: _Input, decoder: _Decoder) -> Iterator[bytes]:
    while not decoder.eof:
        more = data.read() if decoder.needs_input else b""
        if decoder.needs_input and not more:
            raise EOFError("it is truncated")
        yield decoder.decompress(more, _CHUNK_BYTES)
    data.give_back(decoder.unused_data or b"")


def _gunzip(data: _Input) -> Iterator[bytes]:
    return _decoded(data, _Inflater())


def _bunzip2(data: _Input) -> Iterator[bytes]:
    return _decoded(data, bz2.BZ2Decompressor())


def _unxz(data: _Input) -> Iterator[bytes]:
    return _decoded(data, lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY_BYTES))


def _unlzma(data: _Input) -> Iterator[bytes]:
    return _decoded(data, lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_MEMORY_BYTES))


def is_skippable(head: bytes) -> bool:
    """Whether a frame of zstd or lz4 that holds no data starts here, such as those of pzstd."""
    return head[1:4] == _SKIPPABLE and head[0] & 0xF0 == 0x50


def _unzstd(data: _Input) -> Iterator[bytes]:
    import zstandard

    head = data.peek()
    frame = zstandard.get_frame_parameters(head)
    if frame.window_size > _WINDOW_BYTES:
        raise ValueError(f"its window of {frame.window_size >> 20} MiB exceeds 128 MiB; compress it without --long")
    decoder = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES).decompressobj()
    for part in _parts_of_zstd(data, zstandard.frame_header_size(head), frame.has_checksum):
        yield decoder.decompress(part)
    if not decoder.eof:
        raise EOFError("it is truncated")


def _parts_of_zstd(data: _Input, header_bytes: int, checksum: bool) -> Iterator[bytes]:
    """Yield a frame block by block (RFC 8878, 3.1.1): each unpacks to at most 128 KiB, however small it is."""
    yield data.exactly(header_bytes)
    last = False
    while not last:
        head = data.exactly(3)
        last, size = zstd_block(head)
        yield head + data.exactly(size)
    if checksum:
        yield data.exactly(4)


def zstd_block(head: bytes) -> tuple[bool, int]:
    """Decode the three bytes before a block of zstd (RFC 8878, 3.1.1.2): whether it is the last, its stored size."""
    number = int.from_bytes(head, "little")
    repeated = number >> 1 & 3 == 1  # one byte, the size being that of the unpacked block
    return bool(number & 1), 1 if repeated else number >> 3


def _unlz4(data: _Input) -> Iterator[bytes]:
    import lz4.frame

    if data.peek(4) != LZ4_LEGACY:
        return _decoded(data, lz4.frame.LZ4FrameDecompressor())
    return _unlz4_legacy(data)


def _unlz4_legacy(data: _Input) -> Iterator[bytes]:
    """Decompress the legacy frame, the format of kernels, which has no end mark."""
    data.skip(4)
    while (head := data.peek(4)) and head not in (LZ4_LEGACY, bytes(4)):
        (size,) = struct.unpack("<I", data.exactly(4))
        if size > LZ4_BLOCK_LIMIT_BYTES:
            raise ValueError("invalid block size")
        yield lz4_block(data.exactly(size))


def lz4_block(data: bytes) -> bytes:
    """Decompress a block of the legacy lz4 frame. Errors: `ValueError`."""
    import lz4.block

    try:
        unpacked: bytes = lz4.block.decompress(data, uncompressed_size=_LZ4_BLOCK_BYTES)
    except lz4.block.LZ4BlockError as error:
        raise ValueError(str(error)) from error
    return unpacked


MAGIC = (  # the first bytes of each compression
    (b"\x1f\x8b", "gz"),
    (b"BZh", "bz2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x5d\0\0", "lzma"),
    (b"\x28\xb5\x2f\xfd", "zst"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (LZ4_LEGACY, "lz4"),
)
_WITH_SKIPPABLE = ("zst", "lz4")
_OPEN: dict[str, Callable[[_Input], Iterator[bytes]]] = {
    "gz": _gunzip,
    "bz2": _bunzip2,
    "xz": _unxz,
    "lzma": _unlzma,
    "zst": _unzstd,
    "lz4": _unlz4,
}
