from __future__ import annotations

import bz2
import gzip
import itertools
import lzma
import os
import random
import shutil
import struct
import subprocess
from collections.abc import Callable

import lz4.block
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from acon_nb.archive import compress, spool
from acon_nb.errors import InvalidInput, TreeError
from acon_nb.initrd import Content, ImageLimits

TOOLS = {"gz": "gzip", "bz2": "bzip2", "xz": "xz", "zst": "zstd", "lz4": "lz4"}
QUICK = {"gz": 1, "bz2": 1, "xz": 0, "zst": 1, "lz4": 1}


class Sink(bytearray):
    def write(self, data: bytes) -> int:
        self += data
        return len(data)


def packed(
    suffix: str, data: bytes, *, cuts: tuple[int, ...] = (), workers: int = 2, level: int | None = None
) -> bytes:
    sink = Sink()
    with compress.compressor(suffix, sink, workers=workers, level=level) as stream:
        edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
        for start, end in itertools.pairwise(edges):
            stream.write(data[start:end])
    return bytes(sink)


def unlz4(data: bytes) -> bytes:
    out, place = b"", 4
    while place < len(data):
        (size,) = struct.unpack_from("<I", data, place)
        out += lz4.block.decompress(data[place + 4 : place + 4 + size], uncompressed_size=8 << 20)
        place += 4 + size
    return out


UNPACK: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.decompress,
    "bz2": bz2.decompress,
    "xz": lzma.decompress,
    "zst": lambda data: zstandard.ZstdDecompressor().stream_reader(data).read(),
    "lz4": unlz4,
}


def text_of(size: int, seed: int = 1) -> bytes:
    """Data that compresses, with long runs here and there."""
    dice = random.Random(seed)
    out = bytearray()
    while len(out) < size:
        out += dice.choice([dice.randbytes(50), b"the quick brown fox " * 9, bytes(dice.randrange(3000)), b"ab" * 700])
    return bytes(out[:size])


@pytest.mark.parametrize("suffix", compress.SUFFIXES)
@settings(max_examples=25, deadline=None)
@given(st.binary(max_size=3000), st.lists(st.integers(0, 3000), max_size=4), st.integers(1, 3))
def test_neither_the_writes_nor_the_threads_make_a_difference(
    suffix: str, data: bytes, cuts: list[int], workers: int
) -> None:
    one = packed(suffix, data, level=QUICK[suffix])
    assert packed(suffix, data, cuts=tuple(cuts), workers=workers, level=QUICK[suffix]) == one
    assert UNPACK[suffix](one) == data


@pytest.mark.parametrize("suffix", compress.SUFFIXES)
def test_many_blocks_are_one_stream_that_the_usual_tool_unpacks(suffix: str) -> None:
    if shutil.which(TOOLS[suffix]) is None:
        pytest.skip(f"{TOOLS[suffix]} is not here")
    blocks = {"gz": 3 << 20, "bz2": 900_000, "xz": 26 << 20, "zst": 9 << 20, "lz4": 18 << 20}
    data = text_of(blocks[suffix] + 12345)
    made = [packed(suffix, data, workers=number, cuts=(77, 555_555), level=QUICK[suffix]) for number in (1, 3)]
    assert made[0] == made[1]
    done = subprocess.run([TOOLS[suffix], "-dc"], input=made[0], capture_output=True, check=True)
    assert done.stdout == data
    content = spool.plain(Content.of(made[0]), "x", ImageLimits())
    assert content.read() == data


def test_xz_of_many_blocks_is_a_single_stream_with_crc32() -> None:
    if shutil.which("xz") is None:
        pytest.skip("xz is not here")
    made = packed("xz", bytes(30 << 20), level=0)
    listed = subprocess.run(["xz", "--robot", "-lv", "-"], input=made, capture_output=True, check=False)
    if listed.returncode == 0:
        (total,) = [line.split("\t") for line in listed.stdout.decode().splitlines() if line.startswith("totals")]
        assert total[1:3] == ["1", "3"]
    decoder = lzma.LZMADecompressor(format=lzma.FORMAT_XZ)
    assert len(decoder.decompress(made)) == 30 << 20
    assert decoder.eof
    assert decoder.unused_data == b""
    assert decoder.check == lzma.CHECK_CRC32


def test_gzip_is_a_single_member() -> None:
    made = packed("gz", text_of(5 << 20))
    import zlib

    decoder = zlib.decompressobj(31)
    assert decoder.decompress(made) + decoder.flush() == text_of(5 << 20)
    assert decoder.eof
    assert decoder.unused_data == b""
    assert abs(len(made) - len(gzip.compress(text_of(5 << 20), 9))) < 0.01 * len(made)


@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 60_000)), max_size=5))
@example([(0, 99_980), (1, 1)])
@example([(0, 300_000)])
@example([(2, 99_981)])
def test_runs_that_make_bzip2_start_a_second_block(runs: list[tuple[int, int]]) -> None:
    data = b"".join(bytes([value]) * 4 * (count // 4) + b"xyz" for value, count in runs) + b"aaaab" * 8_000
    made = packed("bz2", data, level=1)
    decoder = bz2.BZ2Decompressor()
    assert decoder.decompress(made) == data
    assert decoder.eof
    assert decoder.unused_data == b""


@pytest.mark.parametrize(("suffix", "level"), [("gz", 0), ("zst", 22), ("xz", 10), ("lz4", 0)])
def test_an_invalid_level_is_refused(suffix: str, level: int) -> None:
    with pytest.raises(InvalidInput, match="level"):
        packed(suffix, b"", level=level)


@pytest.mark.parametrize("suffix", compress.SUFFIXES)
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_damaged_data_is_refused_or_read_and_never_crashes(suffix: str, data: st.DataObject) -> None:
    raw = bytearray(packed(suffix, text_of(20_000), level=QUICK[suffix]))
    for _ in range(data.draw(st.integers(0, 3))):
        raw[data.draw(st.integers(8, len(raw) - 1))] = data.draw(st.integers(0, 255))
    del raw[data.draw(st.integers(8, len(raw))) :]
    try:
        spool.plain(Content.of(bytes(raw)), "x", ImageLimits(total_bytes=1 << 20)).read()
    except TreeError:
        return


def test_an_error_of_the_writer_ends_the_threads() -> None:
    class Full:
        def write(self, _: bytes, /) -> int:
            raise OSError(28, "No space left on device")

    import threading

    before = threading.active_count()
    with pytest.raises(OSError, match="No space"), compress.compressor("gz", Full()) as stream:
        stream.write(os.urandom(40 << 20))
    assert threading.active_count() == before
