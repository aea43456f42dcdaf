from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
import zstandard

from acon_nb.archive import cpio
from acon_nb.errors import Cancelled, InvalidInput, NoSpace, TreeError
from acon_nb.initrd import DEFAULT_MTIME, FileTree, create
from acon_nb.progress import CancelToken, Progress

SUFFIXES = ["", ".cpio", ".gz", ".bz2", ".xz", ".zst", ".zstd", ".lz4"]
TOOLS = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd", ".lz4": "lz4"}


@pytest.fixture(scope="module")
def tree() -> FileTree:
    tree = FileTree()
    tree.add_file("init", b"#!/bin/sh\n", mode=0o755, mtime=12345)
    tree.add_file("text", b"".join(b"line %d\n" % number for number in range(20_000)))
    return tree


def plain(tree: FileTree) -> bytes:
    out = io.BytesIO()
    cpio.write(tree, out, mtime=DEFAULT_MTIME, owner=(0, 0))
    return out.getvalue()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_suffix_is_reproducible_and_described(tree: FileTree, tmp_path: Path, suffix: str) -> None:
    first, second = (create(tree, tmp_path / f"{number}{suffix}") for number in (1, 2))
    data = first.path.read_bytes()
    assert data == second.path.read_bytes()
    assert first.bytes == len(data)
    assert first.archive_bytes == len(plain(tree))
    assert first.sha256 == hashlib.sha256(data).hexdigest()
    assert sorted(os.listdir(tmp_path)) == [f"1{suffix}", f"2{suffix}"]


@pytest.mark.parametrize(
    ("suffix", "unpack"),
    [
        ("", bytes),
        (".gz", gzip.decompress),
        (".bz2", bz2.decompress),
        (".xz", lzma.decompress),
        (".zst", lambda data: zstandard.ZstdDecompressor().stream_reader(data).read()),
    ],
)
def test_unpacked_it_is_the_plain_archive(tree: FileTree, tmp_path: Path, suffix: str, unpack) -> None:
    assert unpack(create(tree, tmp_path / f"x{suffix}").path.read_bytes()) == plain(tree)


@pytest.mark.parametrize("suffix", TOOLS)
def test_the_usual_tools_unpack_it(tree: FileTree, tmp_path: Path, suffix: str) -> None:
    tool = TOOLS[suffix]
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not here")
    image = create(tree, tmp_path / f"x{suffix}")
    assert subprocess.run([tool, "-dc", image.path], capture_output=True, check=True).stdout == plain(tree)


def test_xz_has_the_check_that_the_kernel_supports(tree: FileTree, tmp_path: Path) -> None:
    decoder = lzma.LZMADecompressor()
    decoder.decompress(create(tree, tmp_path / "x.xz").path.read_bytes())
    assert decoder.check == lzma.CHECK_CRC32


@pytest.mark.skipif(shutil.which("lz4") is None, reason="lz4 is not here")
def test_lz4_of_several_blocks_is_complete(tmp_path: Path) -> None:
    tree = FileTree()
    tree.add_file("init", bytes(17 << 20), mode=0o755)
    image = create(tree, tmp_path / "x.lz4")
    assert subprocess.run(["lz4", "-dc", image.path], capture_output=True, check=True).stdout == plain(tree)


def test_lz4_is_the_frame_that_the_kernel_supports(tree: FileTree, tmp_path: Path) -> None:
    assert create(tree, tmp_path / "x.lz4").path.read_bytes()[:4] == bytes.fromhex("02214c18")


def test_files_belong_to_root_at_a_fixed_time_by_default(tree: FileTree, tmp_path: Path) -> None:
    with create(tree, tmp_path / "a").path.open("rb") as file:
        assert {(e.uid, e.gid, e.mtime) for _, e in cpio.read(file).items()} == {(0, 0, DEFAULT_MTIME)}
    with create(tree, tmp_path / "b", mtime=None).path.open("rb") as file:
        assert cpio.read(file)["init"].mtime == 12345


def test_a_tree_without_init_gives_no_image(tmp_path: Path) -> None:
    tree = FileTree()
    tree.add_file("init", b"not executable")
    with pytest.raises(TreeError, match=r"x\.cpio would have no executable init") as caught:
        create(tree, tmp_path / "x.cpio")
    assert "gen_init" in caught.value.hint or "initrd" in caught.value.hint
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["x.rar", "x.lzo", "x.Z", "x.GZ"])
def test_an_unknown_suffix_is_refused(tree: FileTree, tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match=Path(name).suffix) as caught:
        create(tree, tmp_path / name)
    assert "xz" in caught.value.hint
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_failed_write_keeps_the_old_image(tmp_path: Path, suffix: str) -> None:
    body = tmp_path / "body"
    body.write_bytes(os.urandom(100_000))
    tree = FileTree()
    tree.add_file("init", body, mode=0o755)
    body.write_bytes(b"shrunk")
    image = tmp_path / f"images/x{suffix}"
    image.parent.mkdir()
    image.write_bytes(b"old")
    with pytest.raises(TreeError, match="shorter"):
        create(tree, image)
    assert image.read_bytes() == b"old"
    assert os.listdir(image.parent) == [image.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_is_reported_and_leaves_no_image(small_disk: Path, suffix: str) -> None:
    tree = FileTree()
    tree.add_file("init", os.urandom(1 << 20), mode=0o755)
    with pytest.raises(NoSpace, match="small-disk/x"):
        create(tree, small_disk / f"x{suffix}")
    assert os.listdir(small_disk) == []


def test_an_image_does_not_replace_a_folder_or_device(tree: FileTree, tmp_path: Path) -> None:
    fifo, folder = tmp_path / "x.cpio", tmp_path / "y.cpio"
    os.mkfifo(fifo)
    folder.mkdir()
    for path in (fifo, folder):
        with pytest.raises(InvalidInput, match="not a regular file"):
            create(tree, path)
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    assert sorted(os.listdir(tmp_path)) == ["x.cpio", "y.cpio"]


def test_writing_a_large_file_can_be_cancelled(tmp_path: Path) -> None:
    cancel = CancelToken()
    tree = FileTree()
    tree.add_file("init", bytes(8 << 20), mode=0o755)
    seen: list[float | None] = []

    def stop(event: Progress) -> None:
        seen.append(event.done)
        cancel.cancel()

    with pytest.raises(Cancelled):
        create(tree, tmp_path / "x.cpio", on_progress=stop, cancel=cancel)
    assert seen[0] is not None
    assert seen[0] < 0.5
    assert os.listdir(tmp_path) == []
