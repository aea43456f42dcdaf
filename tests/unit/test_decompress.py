from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import shutil
import struct
import subprocess
import tarfile
from pathlib import Path

import lz4.frame
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from acon_nb.archive import spool
from acon_nb.archive.tree import Content
from acon_nb.errors import TreeError
from acon_nb.initrd import ImageLimits, tree_of

DATA = random.Random(1).randbytes(3000) * 40 + bytes(300_000)
ONE = {
    "gz": gzip.compress(DATA, 1),
    "bz2": bz2.compress(DATA),
    "xz": lzma.compress(DATA, preset=0),
    "lzma": lzma.compress(DATA, lzma.FORMAT_ALONE, preset=0),
    "zst": zstandard.ZstdCompressor(write_checksum=True).compress(DATA),
    "zst (unknown size)": zstandard.ZstdCompressor(write_content_size=False).compress(DATA),
    "lz4": lz4.frame.compress(DATA, content_checksum=True),
}
SKIPPABLE = struct.pack("<II", 0x184D2A50, 4) + b"abcd"


def unpacked(raw: bytes, limit: int = 1 << 30) -> bytes:
    return spool.plain(Content.of(raw), "x", ImageLimits(total_bytes=limit)).read()


@pytest.mark.parametrize("name", ONE)
def test_several_streams_with_zeros_behind_them_are_read(name: str) -> None:
    one = ONE[name]
    assert unpacked(one) == DATA
    assert unpacked(one + one + bytes(1000)) == DATA + DATA
    assert unpacked(one + bytes(8) + one) == DATA + DATA


@pytest.mark.parametrize("name", ONE)
def test_a_stream_that_is_cut_anywhere_is_refused(name: str) -> None:
    one = ONE[name]
    for cut in [*range(8, 60), *range(len(one) // 2, len(one) // 2 + 20), *range(len(one) - 30, len(one))]:
        with pytest.raises(TreeError, match=r"x is not a complete \.") as caught:
            unpacked(one + one[:cut])
        assert "download it again" in caught.value.hint


@pytest.mark.parametrize("name", ONE)
@pytest.mark.parametrize("behind", [b"PK\x03\x04 and more", b"x", b"\x1f", "another"])
def test_other_data_behind_a_stream_is_refused(name: str, behind: bytes | str) -> None:
    if isinstance(behind, str):
        behind = ONE["bz2" if name == "gz" else "gz"]
    with pytest.raises(TreeError, match="x has data behind its end that is not"):
        unpacked(ONE[name] + behind)


@pytest.mark.parametrize("name", ["zst", "lz4"])
def test_frames_to_skip_are_skipped_wherever_they_are(name: str) -> None:
    one = ONE[name]
    assert unpacked(SKIPPABLE + one) == DATA
    assert unpacked(SKIPPABLE + SKIPPABLE + one + SKIPPABLE + one + SKIPPABLE) == DATA + DATA
    with pytest.raises(TreeError, match="truncated"):
        unpacked(one + SKIPPABLE[:-1])


@pytest.mark.parametrize(
    ("tool", "suffix"),
    [
        (["pzstd", "-qc"], "zst"),
        (["zstd", "-qc", "--long=27"], "zst"),
        (["lz4", "-qc"], "lz4"),
        (["lz4", "-qcl"], "lz4"),
        (["xz", "-c0", "-T2", "--block-size=65536", "--check=sha256"], "xz"),
        (["lzma", "-c0"], "lzma"),
        (["gzip", "-c"], "gz"),
        (["bzip2", "-c"], "bz2"),
    ],
    ids=" ".join,
)
def test_a_tar_that_a_tool_has_compressed_is_read(tmp_path: Path, tool: list[str], suffix: str) -> None:
    if shutil.which(tool[0]) is None:
        pytest.skip(f"{tool[0]} is not here")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("etc/data")
        info.size = len(DATA)
        archive.addfile(info, io.BytesIO(DATA))
    path = tmp_path / f"x.tar.{suffix}"
    path.write_bytes(subprocess.run(tool, input=out.getvalue(), capture_output=True, check=True).stdout)
    assert tree_of(f"tar:{path}")["etc/data"].content.read() == DATA


def test_a_zstd_window_beyond_that_of_the_program_is_refused_by_its_size() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=28, write_content_size=False)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    raw = packer.compress(DATA) + packer.flush()
    with pytest.raises(TreeError, match="its window of 256 MiB exceeds 128 MiB"):
        unpacked(raw)


@pytest.mark.parametrize("name", ONE)
def test_a_bomb_ends_at_the_limit(name: str) -> None:
    zeros = bytes(1 << 20)
    form = name.split()[0]
    bomb = (
        67
        * {
            "gz": lambda: gzip.compress(zeros, 1),
            "bz2": lambda: bz2.compress(zeros, 1),
            "xz": lambda: lzma.compress(zeros, preset=0),
            "lzma": lambda: lzma.compress(zeros, lzma.FORMAT_ALONE, preset=0),
            "zst": lambda: zstandard.ZstdCompressor().compress(zeros),
            "lz4": lambda: lz4.frame.compress(zeros),
        }[form]()
    )
    with pytest.raises(TreeError, match="total_bytes"):
        unpacked(bomb, limit=1000)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(ONE)), st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=3))
def test_damaged_data_is_refused_or_read(name: str, changes: list[tuple[int, int]]) -> None:
    raw = bytearray(ONE[name])
    for place, value in changes:
        raw[place % len(raw)] = value
    try:
        unpacked(bytes(raw), limit=1 << 20)
    except TreeError:
        return


@pytest.mark.parametrize("name", ["BZh9", "]", "\x1f\x8b", "(\xb5/\xfd"])
def test_a_tar_whose_first_name_begins_like_a_compressed_file_is_no_such_file(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as archive:
        archive.addfile(tarfile.TarInfo(name))
    assert name.encode("latin-1") in tree_of(f"tar:{tmp_path}/x.tar")
