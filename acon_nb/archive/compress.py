"""Compresses initrd images: streamed, on several CPUs, reproducibly.

The kernel can unpack every format, and each image is a single stream. Input is divided into blocks of a fixed size, so
the output depends on neither the number of CPUs nor the sizes of the writes; a bounded number of blocks is in memory.
"""

from __future__ import annotations

import bz2
import lzma
import os
import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol

from acon_nb.errors import InvalidInput

# suffix -> (default level, levels)
LEVELS = {
    "gz": (9, range(1, 10)),
    "bz2": (9, range(1, 10)),
    "xz": (6, range(10)),
    "zst": (19, range(1, 20)),
    "lz4": (9, range(1, 13)),
}
SUFFIXES = tuple(LEVELS)
_LZ4_LEGACY_MAGIC = 0x184C2102
_MEMORY_BYTES = 200 << 20  # the limit for all blocks of one image together
# Memory of liblzma's encoder per thread, by preset (xz(1), "CompMem"), in MiB
_XZ_MIB = (3, 9, 17, 32, 48, 94, 94, 186, 370, 674)
_WINDOW = 1 << 15  # of deflate
_ZSTD_JOB_BYTES = 8 << 20  # at least the window of the highest level


class Writable(Protocol):
    """A stream that bytes are written to."""

    def write(self, data: bytes, /) -> object:
        """Write bytes."""


def level_of(suffix: str, level: int | None) -> int:
    """Return the level to use. Errors: `InvalidInput` if the compressor or the kernel does not support it."""
    default, levels = LEVELS[suffix]
    if level is not None and level not in levels:
        raise InvalidInput("level", level, f"is not a level of {suffix}", hint=f"{levels[0]} to {levels[-1]}")
    return default if level is None else level


@contextmanager
def compressor(
    suffix: str, sink: Writable, *, level: int | None = None, workers: int | None = None
) -> Iterator[Writable]:
    """Yield a stream that compresses what is written to it into `sink` (gz, bz2, xz, zst, lz4; "": no compression).

    `workers` is the maximum number of threads (default: the number of CPUs); the memory limit may reduce it.
    """
    if not suffix:
        yield sink
        return
    number = level_of(suffix, level)
    threads = max(1, workers or os.cpu_count() or 1)
    if suffix == "zst":
        with _zstd(sink, number, threads) as stream:
            yield stream
        return
    form = _FORMATS[suffix](sink, number)
    threads = max(1, min(threads, _MEMORY_BYTES // form.memory_bytes))
    blocks = _Blocks(form, threads)
    try:
        yield blocks
        blocks.finish()
    finally:
        blocks.close()


class _Format(Protocol):
    """A compressed format: blocks are packed in any thread and written in order.

    `see` is called with each block in order before it is packed, `put` with each packed block in order.
    """

    block_bytes: int
    memory_bytes: int

    def pack(self, block: bytes, before: bytes) -> Any: ...
    def put(self, packed: Any) -> None: ...
    def see(self, block: bytes) -> None: ...
    def end(self) -> None: ...


class _Blocks:
    """Divides a stream into blocks, packs them in threads, and writes them in order."""

    def __init__(self, form: _Format, threads: int) -> None:
        self._form = form
        self._pool = ThreadPoolExecutor(threads, "compress")
        self._most = threads
        self._pending: deque[Future[Any]] = deque()
        self._block = bytearray()
        self._before = b""

    def write(self, data: bytes) -> int:
        """Write bytes."""
        view = memoryview(data)
        while view:
            room = self._form.block_bytes - len(self._block)
            self._block += view[:room]
            view = view[room:]
            if len(self._block) == self._form.block_bytes:
                self._submit()
        return len(data)

    def finish(self) -> None:
        """Write the remaining blocks and the end of the stream."""
        if self._block:
            self._submit()
        while self._pending:
            self._put()
        self._form.end()

    def close(self) -> None:
        """Wait for the threads; pending work is discarded."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self) -> None:
        while len(self._pending) >= self._most:
            self._put()
        block = bytes(self._block)
        self._block.clear()
        self._form.see(block)
        self._pending.append(self._pool.submit(self._form.pack, block, self._before))
        self._before = block[-_WINDOW:]

    def _put(self) -> None:
        self._form.put(self._pending.popleft().result())


class _Gzip:
    """One member, one deflate stream; each block uses the 32 KiB before it and ends at a byte boundary, as in pigz."""

    block_bytes = 1 << 20
    memory_bytes = 4 << 20

    def __init__(self, sink: Writable, level: int) -> None:
        self._sink, self._level, self._sum, self._size = sink, level, 0, 0
        fast_or_slow = 2 if level == 9 else 4 if level == 1 else 0
        sink.write(struct.pack("<4BI2B", 0x1F, 0x8B, 8, 0, 0, fast_or_slow, 255))

    def pack(self, block: bytes, before: bytes) -> bytes:
        packer = zlib.compressobj(self._level, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, before)
        return packer.compress(block) + packer.flush(zlib.Z_SYNC_FLUSH)

    def see(self, block: bytes) -> None:
        self._sum = zlib.crc32(block, self._sum)
        self._size += len(block)

    def put(self, packed: bytes) -> None:
        self._sink.write(packed)

    def end(self) -> None:
        self._sink.write(b"\x03\0" + struct.pack("<2I", self._sum, self._size & 0xFFFFFFFF))  # an empty last block


class _Xz:
    """One stream of several blocks, as `xz --threads` writes it, with CRC32, the only check that the kernel supports.

    Sources: "The .xz File Format" 1.2.1; the kernel's Documentation/staging/xz.rst and lib/xz/xz_dec_stream.c.
    """

    block_bytes = 8 << 20

    def __init__(self, sink: Writable, level: int) -> None:
        self.memory_bytes = _XZ_MIB[level] << 20
        self._sink, self._level = sink, level
        self._index: list[bytes] = []
        sink.write(self.pack(b"", b"")[:12])

    def pack(self, block: bytes, before: bytes) -> bytes:  # noqa: ARG002
        """Return a complete stream of one block."""
        return lzma.compress(block, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC32, preset=self._level)

    def see(self, block: bytes) -> None:
        pass

    def put(self, packed: bytes) -> None:
        index_bytes = 4 * (struct.unpack_from("<I", packed, len(packed) - 8)[0] + 1)
        start = len(packed) - 12 - index_bytes
        self._index.append(_xz_record(packed[start : start + index_bytes]))
        self._sink.write(packed[12:start])

    def end(self) -> None:
        index = b"\0" + _variable(len(self._index)) + b"".join(self._index)
        index += bytes(-len(index) % 4)
        index += struct.pack("<I", zlib.crc32(index))
        tail = struct.pack("<I2B", len(index) // 4 - 1, 0, lzma.CHECK_CRC32)
        self._sink.write(index + struct.pack("<I", zlib.crc32(tail)) + tail + b"YZ")


def _xz_record(index: bytes) -> bytes:
    """Return the single record (two numbers of variable length) of an index, which follows a zero and the count 1."""
    end = 2
    for _ in range(2):
        while index[end] & 0x80:
            end += 1
        end += 1
    return index[2:end]


def _variable(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


class _Bzip2:
    """One stream: the blocks of several compressors, joined bit by bit, as in lbzip2."""

    memory_bytes = 12 << 20

    def __init__(self, sink: Writable, level: int) -> None:
        self.block_bytes = level * 100_000 - 20
        self._sink, self._level = sink, level
        self._held, self._held_bits, self._sum = 0, 0, 0
        sink.write(b"BZh%d" % level)

    def pack(self, block: bytes, before: bytes) -> list[tuple[int, int, int]]:
        """Return for each block its bits, their number, and the block's checksum."""
        raw = bz2.compress(block, self._level)
        bits = int.from_bytes(raw[4:], "big")
        pad = next(pad for pad in range(8) if bits >> (pad + 32) & (1 << 48) - 1 == _BZIP2_END)
        count = 8 * (len(raw) - 4) - pad - 80
        total = bits >> pad & 0xFFFFFFFF
        body = bits >> (pad + 80)
        if (
            body >> (count - 80) & 0xFFFFFFFF != total
        ):  # bzip2 split the input into two blocks; each half makes only one
            half = len(block) // 2
            return [*self.pack(block[:half], before), *self.pack(block[half:], before)]
        return [(body, count, total)]

    def see(self, block: bytes) -> None:
        pass

    def put(self, packed: list[tuple[int, int, int]]) -> None:
        for body, count, total in packed:
            self._sum = ((self._sum << 1 | self._sum >> 31) & 0xFFFFFFFF) ^ total
            self._bits(body, count)

    def end(self) -> None:
        self._bits(_BZIP2_END << 32 | self._sum, 80)
        self._bits(0, -self._held_bits % 8)

    def _bits(self, value: int, count: int) -> None:
        value |= self._held << count
        count += self._held_bits
        self._held_bits = count % 8
        self._sink.write((value >> self._held_bits).to_bytes(count // 8, "big"))
        self._held = value & (1 << self._held_bits) - 1


_BZIP2_END = 0x177245385090


class _Lz4:
    """The legacy frame, the only one that the kernel supports (lib/decompress_unlz4.c)."""

    block_bytes = 8 << 20
    memory_bytes = 20 << 20

    def __init__(self, sink: Writable, level: int) -> None:
        self._sink, self._level = sink, level
        sink.write(struct.pack("<I", _LZ4_LEGACY_MAGIC))

    def pack(self, block: bytes, before: bytes) -> bytes:  # noqa: ARG002
        import lz4.block

        packed: bytes = lz4.block.compress(block, mode="high_compression", compression=self._level, store_size=False)
        return packed

    def see(self, block: bytes) -> None:
        pass

    def put(self, packed: bytes) -> None:
        self._sink.write(struct.pack("<I", len(packed)))
        self._sink.write(packed)

    def end(self) -> None:
        pass


@contextmanager
def _zstd(sink: Writable, level: int, threads: int) -> Iterator[Writable]:
    """Write one frame. libzstd's threads divide the input by size alone, so their number does not affect the output."""
    import zstandard

    one = zstandard.ZstdCompressionParameters.from_level(level)
    share = one.estimated_compression_context_size() + 2 * _ZSTD_JOB_BYTES
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level, threads=max(1, min(threads, _MEMORY_BYTES // share)), job_size=_ZSTD_JOB_BYTES, write_checksum=True
    )
    packer = zstandard.ZstdCompressor(compression_params=parameters)
    with packer.stream_writer(sink, closefd=False) as stream:  # type: ignore[arg-type]
        yield stream


_FORMATS: dict[str, Callable[[Writable, int], _Format]] = {"gz": _Gzip, "bz2": _Bzip2, "xz": _Xz, "lz4": _Lz4}
