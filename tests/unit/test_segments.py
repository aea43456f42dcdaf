"""Initrds as others make them: segments of different compression, padding, padded names, and what kernels refuse.

Each input is one that a kernel was given (see tests/system/test_unpacking.py), or that users met.
"""

from __future__ import annotations

import io
import lzma
import struct
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from acon_nb.archive import segments
from acon_nb.errors import AconError, TreeError
from acon_nb.initrd import Content, FileTree, ImageLimits, load
from tests.unit.archives import INIT, MODERN_LZ4, OPTIONS, PACK, REFUSED, TRAILER, aligned, archive, member, xz


def unpacked(raw: bytes, limits: ImageLimits | None = None) -> segments.UnpackedInitrd:
    return segments.read(Content.of(raw), "image", limits)


def files(tree: FileTree) -> dict[bytes, bytes]:
    return {name: entry.content.read() for name, entry in tree.items() if not entry.is_dir}


@pytest.mark.parametrize("second", PACK)
@pytest.mark.parametrize("first", PACK)
def test_two_segments_of_any_compression_are_read(first: str, second: str) -> None:
    raw = aligned(PACK[first](archive())) + (bytes(4) if first == "lz4" else b"")
    done = unpacked(raw + PACK[second](archive(b"extra.conf", b"extra")))
    assert done.problem is None
    assert files(done.tree) == {b"init": INIT, b"extra.conf": b"extra"}
    if not first and not second:
        assert [part.offset for part in done.segments] == [0, len(raw)]
    assert [part.compression for part in done.segments] == [first, second]
    assert [part.options for part in done.segments] == [OPTIONS.get(first, ()), OPTIONS.get(second, ())]
    assert [part.file_bytes for part in done.segments] == [len(INIT), 5]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([*PACK]), st.integers(0, 3)), min_size=1, max_size=5))
def test_every_segment_ends_where_its_stream_ends(parts: list[tuple[str, int]]) -> None:
    raw, places = b"", []
    for number, (name, words) in enumerate(parts):
        raw = aligned(raw)
        places.append(len(raw))
        raw += PACK[name](archive(b"f%d" % number, b"data %d" % number)) + bytes(4 if name == "lz4" else 0)
        raw = aligned(raw) + bytes(4 * words)
    done = unpacked(raw)
    assert done.problem is None
    assert [part.offset for part in done.segments] == places
    assert files(done.tree) == {b"f%d" % number: b"data %d" % number for number in range(len(parts))}


def test_padding_between_compressed_segments_needs_no_alignment() -> None:
    for zeros in range(6):
        done = unpacked(PACK["zst"](archive()) + bytes(zeros) + PACK["gz"](archive(b"b")))
        assert done.problem is None
        assert set(files(done.tree)) == {b"init", b"b"}


def test_names_may_be_padded_with_nuls() -> None:
    raw = member(b"init", INIT, pad=1) + member(b"data.bin", b"x" * 5000, pad=3850) + TRAILER
    assert files(unpacked(raw).tree) == {b"init": INIT, b"data.bin": b"x" * 5000}


def test_a_missing_end_mark_is_accepted() -> None:
    for pack in PACK.values():
        tree = unpacked(pack(member(b"init", INIT))).tree
        assert files(tree) == {b"init": INIT}
        assert tree.warnings() == ["no end mark of the archive follows, as if it were truncated: 'init'"]


def test_inode_numbers_start_again_in_each_archive() -> None:
    pairs = b""
    for letter, data in ((b"a", b"first"), (b"b", b"second")):
        pairs += member(letter + b"1", inode=7, links=2) + member(letter + b"2", data, inode=7, links=2) + TRAILER
    tree = unpacked(pairs).tree
    assert files(tree) == {b"a1": b"first", b"a2": b"first", b"b1": b"second", b"b2": b"second"}
    assert tree["a1"].inode == tree["a2"].inode != tree["b1"].inode == tree["b2"].inode


def test_without_an_end_mark_the_inode_numbers_continue() -> None:
    pairs = member(b"a1", b"first", inode=7, links=2) + member(b"b1", inode=7, links=2)
    assert files(unpacked(pairs).tree) == {b"a1": b"first", b"b1": b"first"}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_kernel_reads_is_refused_with_the_kernel_s_word(name: str, tmp_path: Path) -> None:
    raw, reason, kernel = REFUSED[name]
    problem = unpacked(raw).problem
    assert problem is not None
    assert reason in problem.what + problem.hint
    assert kernel in (problem.kernel or "")
    path = tmp_path / "image"
    path.write_bytes(raw)
    with pytest.raises(TreeError) as caught:
        load(path)
    assert reason in str(caught.value)
    assert kernel in str(caught.value)
    assert caught.value.hint


def test_what_is_before_a_problem_is_unpacked() -> None:
    done = unpacked(archive() + PACK["gz"](archive(b"b")) + MODERN_LZ4)
    assert done.problem is not None
    assert done.problem.offset == done.segments[1].offset + done.segments[1].bytes
    assert set(files(done.tree)) == {b"init", b"b"}


@pytest.mark.parametrize("name", ["gz", "bz2", "xz", "lzma", "zst", "lz4", ""])
def test_a_truncated_segment_is_refused(name: str) -> None:
    raw = PACK[name](member(b"init", INIT * 8))
    for count in range(1, len(raw)):
        problem = unpacked(raw[:count]).problem
        assert problem is not None, count
        assert problem.offset == 0


def test_a_wrong_checksum_of_gzip_is_refused_although_the_kernel_ignores_it() -> None:
    problem = unpacked(PACK["gz"](archive())[:-8] + bytes(8)).problem
    assert problem is not None
    assert (problem.what, problem.kernel) == ("the checksum of a gzip segment is wrong", "")


def test_lzo_is_named() -> None:
    problem = unpacked(b"\x89LZO\0\r\n\x1a\n" + bytes(99)).problem
    assert problem is not None
    assert (problem.compression, problem.kernel) == ("lzo", None)
    assert "lzop -dc" in problem.hint


def test_filters_of_xz_need_an_option_of_the_kernel() -> None:
    (part,) = unpacked(xz(archive(), filters=[{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2}])).segments
    assert part.options == ("RD_XZ", "XZ_DEC_X86")
    assert part.window_bytes == 8 << 20


def test_the_dictionary_of_every_xz_block_counts() -> None:
    from acon_nb.archive.compress import compressor

    out = io.BytesIO()
    with compressor("xz", out, level=1, workers=1) as stream:
        stream.write(member(b"big", bytes(17 << 20)) + TRAILER)
    (part,) = unpacked(out.getvalue()).segments
    assert part.window_bytes == 1 << 20
    assert part.bytes == len(out.getvalue())


def test_bootconfig_at_the_end_is_a_segment() -> None:
    text = b"kernel.loglevel = 7\n\0\0"
    tail = text + struct.pack("<2I", len(text), sum(text)) + b"#BOOTCONFIG\n"
    for zeros in range(4):
        done = unpacked(archive() + tail + bytes(zeros))
        assert done.problem is None
        assert [(part.compression, part.options) for part in done.segments] == [
            ("", ()),
            ("bootconfig", ("BOOT_CONFIG",)),
        ]
    problem = unpacked(archive() + tail[:5] + b"X" + tail[6:]).problem
    assert problem is not None  # a wrong checksum: the kernel takes it for a segment


def test_an_early_archive_is_marked() -> None:
    microcode = member(b"kernel/x86/microcode/GenuineIntel.bin", b"x" * 9) + TRAILER
    folders = b"".join(member(name, mode=0o40755) for name in (b"kernel", b"kernel/x86", b"kernel/x86/microcode"))
    done = unpacked(folders + microcode + bytes(300) + PACK["zst"](archive()))
    assert [part.early for part in done.segments] == [True, False]
    assert [part.early for part in unpacked(archive() + folders + microcode).segments] == [False, False]


def test_limits_hold_for_all_segments_together() -> None:
    raw = archive(b"a", bytes(600)) + PACK["zst"](archive(b"b", bytes(600)))
    assert unpacked(raw, ImageLimits(total_bytes=1200)).problem is None
    with pytest.raises(TreeError, match="total_bytes=1000"):
        unpacked(raw, ImageLimits(total_bytes=1000))
    with pytest.raises(TreeError, match="names=1"):
        unpacked(raw, ImageLimits(names=1))
    bombs = PACK["zst"](archive() + bytes(60 << 20)) + PACK["zst"](bytes(60 << 20))
    with pytest.raises(TreeError, match="total_bytes"):
        unpacked(bombs, ImageLimits(total_bytes=1 << 20))


def test_a_bomb_of_zstd_is_stopped_early() -> None:
    bomb = zstandard.ZstdCompressor(level=1).compress(bytes(300 << 20))
    assert len(bomb) < 40_000
    with pytest.raises(TreeError, match="total_bytes"):
        unpacked(bomb, ImageLimits(total_bytes=1 << 20))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([*PACK]), st.lists(st.tuples(st.integers(0, 500), st.integers(0, 255)), max_size=3))
def test_a_damaged_segment_is_read_or_refused(name: str, changes: list[tuple[int, int]]) -> None:
    raw = bytearray(PACK[name](archive()) + bytes(4) + PACK["zst"](archive(b"b")))
    for place, value in changes:
        raw[place % len(raw)] = value
    try:
        unpacked(bytes(raw))
    except AconError:
        return
