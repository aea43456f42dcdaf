"""Decompresses one compressed segment of an initrd, up to the end where the kernel's decompressor stops.

The kernel recognises a segment by two bytes (lib/decompress.c), unpacks one stream, and looks for the next segment
behind it. What its decompressors do not support is refused here, with the message that the kernel prints.
Sources: lib/decompress_*.c, lib/xz and lib/zstd of 6.12.
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, cast

from acon_nb.archive.content import SourceStream
from acon_nb.archive.cpio import Stopped
from acon_nb.archive.decompress import LZ4_BLOCK_LIMIT_BYTES, LZ4_LEGACY, lz4_block, zstd_block

_CHUNK_BYTES = 1 << 20
_MEMORY_BYTES = 1 << 30  # for a dictionary
_ZSTD_WINDOW_BYTES = 1 << 27  # ZSTD_WINDOWLOG_LIMIT_DEFAULT
_XZ_UNSUPPORTED = "Input was encoded with settings that are not supported by this XZ decoder"
_XZ_CHECKS = {4: "CRC64", 10: "SHA-256"}
# Filters of xz that run before LZMA2, each an option of the kernel
_XZ_FILTERS = {
    4: "XZ_DEC_X86",
    5: "XZ_DEC_POWERPC",
    7: "XZ_DEC_ARM",
    8: "XZ_DEC_ARMTHUMB",
    9: "XZ_DEC_SPARC",
    10: "XZ_DEC_ARM64",
    11: "XZ_DEC_RISCV",
}


@dataclass
class Stream(SourceStream):
    """A compressed stream in an open file, which is read from `position` on.

    After decompression `position` is behind the stream, `options` are what the kernel needs in addition to the
    decompressor, and `window_bytes` is the memory for the dictionary.
    """

    options: list[str] = field(default_factory=list)
    window_bytes: int = 0

    def exactly(self, count: int) -> bytes:
        """Read `count` bytes. Errors: `EOFError` if there are fewer."""
        data = self.read(count)
        if len(data) < count:
            raise EOFError("it is truncated")
        return data


@dataclass(frozen=True)
class Format:
    """A compression that kernels unpack: its suffix, its first two bytes, the option that it needs."""

    name: str
    magic: bytes
    option: str
    open: Callable[[Stream], Iterator[bytes]]

    def chunks(self, stream: Stream, what: str) -> Iterator[bytes]:
        """Decompress a stream into chunks of bounded size. Errors: `Stopped`."""
        import zstandard

        damaged = (EOFError, ValueError, OSError, zlib.error, lzma.LZMAError, zstandard.ZstdError, MemoryError)
        try:
            yield from self.open(stream)
        except damaged as error:
            raise Stopped(
                f"{what} is not a complete .{self.name}: {error}",
                kernel=_DAMAGED[self.name],
                hint="create or download it again",
            ) from error


def format_of(head: bytes) -> Format | None:
    """Recognise a compression as the kernel does, by two bytes."""
    return next((form for form in FORMATS if head.startswith(form.magic)), None)


def _gunzip(stream: Stream) -> Iterator[bytes]:
    head = stream.exactly(10)
    if head[:3] != b"\x1f\x8b\x08":
        raise Stopped("a segment is not gzip, although it begins like one", kernel="Not a gzip file")
    if head[3] & ~0x09:  # the kernel skips a name only
        raise Stopped(
            f"the gzip header has fields that kernels do not skip (flags {head[3]:#04x}, as bgzip writes them)",
            kernel="uncompression error",
            hint="recompress it: gzip -dc FILE | gzip -n",
        )
    if head[3] & 0x08:
        while stream.exactly(1) != b"\0":
            pass
    size = total = 0
    for chunk in _inflated(stream):
        total, size = zlib.crc32(chunk, total), size + len(chunk)
        yield chunk
    if struct.unpack("<2I", stream.exactly(8)) != (total, size & 0xFFFFFFFF):
        raise Stopped("the checksum of a gzip segment is wrong", hint="create or download it again")


def _inflated(stream: Stream) -> Iterator[bytes]:
    decoder = zlib.decompressobj(-15)
    data = b""
    while not decoder.eof:
        data = decoder.unconsumed_tail or stream.exactly(1) + stream.read(_CHUNK_BYTES)
        yield decoder.decompress(data, _CHUNK_BYTES)
    stream.position -= len(decoder.unused_data)


def _decoded(stream: Stream, decoder: lzma.LZMADecompressor | bz2.BZ2Decompressor) -> Iterator[bytes]:
    while not decoder.eof:
        data = stream.exactly(1) + stream.read(_CHUNK_BYTES) if decoder.needs_input else b""
        yield decoder.decompress(data, _CHUNK_BYTES)
    stream.position -= len(decoder.unused_data)


def _bunzip2(stream: Stream) -> Iterator[bytes]:
    yield from _decoded(stream, bz2.BZ2Decompressor())


def _unlzma(stream: Stream) -> Iterator[bytes]:
    (stream.window_bytes,) = struct.unpack("<xI8x", stream.exactly(13))
    stream.position -= 13
    yield from _decoded(stream, lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_MEMORY_BYTES))


def _unxz(stream: Stream) -> Iterator[bytes]:
    start = stream.position
    head = stream.exactly(12)
    if head[:6] != b"\xfd7zXZ\0":
        raise Stopped("a segment is not xz, although it begins like one", kernel=_DAMAGED["xz"])
    check = head[7] & 0x0F
    if check > 1:
        raise Stopped(
            f"the xz check is {_XZ_CHECKS.get(check, check)}; kernels support only CRC32, or none",
            kernel=_XZ_UNSUPPORTED,
            hint="recompress it: xz -dc FILE | xz --check=crc32",
        )
    if (first := stream.source.read_at(stream.position, 1024))[:1] not in (b"", b"\0"):
        _inspect_xz_block(stream, first)
    stream.position = start
    yield from _decoded(stream, lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY_BYTES))
    _inspect_xz(stream, start, stream.position)


def _inspect_xz(stream: Stream, start: int, end: int) -> None:
    """Find the filters and the dictionary of all blocks of an intact xz stream, from its index."""
    (backward,) = struct.unpack("<I", stream.source.read_at(end - 8, 4))
    index_bytes = 4 * (backward + 1)
    index = stream.source.read_at(end - 12 - index_bytes, index_bytes)
    count, position = _variable(index, 1)
    block = start + 12
    for _ in range(count):
        unpadded, position = _variable(index, position)
        _, position = _variable(index, position)
        _inspect_xz_block(stream, stream.source.read_at(block, 1024))
        block += unpadded + -unpadded % 4


def _inspect_xz_block(stream: Stream, header: bytes) -> None:
    length = 4 * header[0]
    if len(header) < length + 4 or zlib.crc32(header[:length]) != struct.unpack_from("<I", header, length)[0]:
        raise ValueError("a block header is damaged")
    position = 2
    for flag in (0x40, 0x80):  # the optional sizes
        if header[1] & flag:
            _, position = _variable(header, position)
    filters = []
    for _ in range((header[1] & 3) + 1):
        number, position = _variable(header, position)
        length, position = _variable(header, position)
        filters.append((number, header[position : position + length]))
        position += length
    *before, (_, properties) = filters
    if len(before) > 1 or any(number not in _XZ_FILTERS or start for number, start in before):
        raise Stopped(
            "xz filters that kernels do not support (delta, several filters, or one with an offset)",
            kernel=_XZ_UNSUPPORTED,
            hint="recompress it: xz -dc FILE | xz --check=crc32",
        )
    if properties[0] > 39:
        raise Stopped("the xz dictionary is larger than 3 GiB", kernel=_XZ_UNSUPPORTED, hint="use a preset of xz")
    stream.window_bytes = max(stream.window_bytes, (2 | properties[0] & 1) << (properties[0] // 2 + 11))
    stream.options += [_XZ_FILTERS[number] for number, _ in before if _XZ_FILTERS[number] not in stream.options]


def _variable(data: bytes, position: int) -> tuple[int, int]:
    """Decode a number of variable length; return it and the position behind it."""
    number = shift = 0
    while True:
        number |= (data[position] & 0x7F) << shift  # the checksum was right, so the number ends
        shift, position = shift + 7, position + 1
        if not data[position - 1] & 0x80:
            return number, position


def _unzstd(stream: Stream) -> Iterator[bytes]:
    import zstandard

    start = stream.position
    if stream.read(4) != zstandard.FRAME_HEADER:
        raise Stopped(
            "a segment is not zstd, although it begins like one",
            kernel="Input is not in the ZSTD format (wrong magic bytes)",
        )
    frame = zstandard.get_frame_parameters(stream.source.read_at(start, 18))
    stream.window_bytes = frame.window_size
    if frame.window_size > _ZSTD_WINDOW_BYTES:
        raise Stopped(
            f"the zstd window is {frame.window_size >> 20} MiB; kernels support 128 MiB",
            kernel=_DAMAGED["zst"],
            hint="recompress it without --long, or with --long=27",
        )
    if frame.dict_id:
        raise Stopped("zstd with a dictionary", kernel=_DAMAGED["zst"], hint="recompress it without a dictionary")
    stream.position = start + zstandard.frame_header_size(stream.source.read_at(start, 18))
    last = False
    while not last:
        last, size = zstd_block(stream.exactly(3))
        stream.position += size
    stream.position += 4 if frame.has_checksum else 0
    if stream.position > stream.end:
        raise EOFError("it is truncated")
    decoder = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
    whole = cast(BinaryIO, Stream(stream.source, start, stream.position))
    with decoder.stream_reader(whole, read_across_frames=False, closefd=False) as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _unlz4(stream: Stream) -> Iterator[bytes]:
    """Decompress legacy frames: there is no end mark, so a stream ends with four zeros or with the file."""
    if stream.read(4) != LZ4_LEGACY:
        raise Stopped("a segment is not legacy lz4, although it begins like one", kernel="invalid header")
    while stream.end - stream.position >= 4:
        head = stream.exactly(4)
        if head == LZ4_LEGACY:
            continue
        (size,) = struct.unpack("<I", head)
        if not size:
            stream.position -= 4
            return
        if size > LZ4_BLOCK_LIMIT_BYTES or size > stream.end - stream.position:
            raise Stopped(
                "an lz4 stream is truncated, or followed by something else than at least 4 zeros or another lz4 stream",
                kernel="Decoding failed",
                hint="kernels find the end of lz4 by zeros: join images with padding, lz4 last or padded to 4 zeros",
            )
        yield lz4_block(stream.exactly(size))


def _unlzo(stream: Stream) -> Iterator[bytes]:  # noqa: ARG001
    raise Stopped(
        "lzo, which acon_nb does not decompress", kernel=None, hint="decompress it: lzop -dc FILE > FILE.cpio"
    )


_DAMAGED = {
    "gz": "uncompression error",
    "bz2": "decompressor failed",
    "lzma": "LZMA data is corrupt",
    "xz": "XZ-compressed data is corrupt",
    "lzo": "Compressed data violation",
    "lz4": "Decoding failed",
    "zst": "ZSTD-compressed data is probably corrupt",
}
FORMATS = (
    Format("gz", b"\x1f\x8b", "RD_GZIP", _gunzip),
    Format("gz", b"\x1f\x9e", "RD_GZIP", _gunzip),
    Format("bz2", b"BZ", "RD_BZIP2", _bunzip2),
    Format("lzma", b"\x5d\0", "RD_LZMA", _unlzma),
    Format("xz", b"\xfd7", "RD_XZ", _unxz),
    Format("lzo", b"\x89L", "RD_LZO", _unlzo),
    Format("lz4", b"\x02!", "RD_LZ4", _unlz4),
    Format("zst", b"\x28\xb5", "RD_ZSTD", _unzstd),
)
