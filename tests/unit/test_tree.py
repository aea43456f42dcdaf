from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acon_nb.errors import InvalidInput, TreeError
from acon_nb.initrd import Content, FileTree, from_folder, overlay
from tests.unit import stacks


def names(tree: FileTree) -> list[bytes]:
    return [name for name, _ in tree.items()]


@pytest.mark.parametrize("name", ["..", "../x", "a/../../x", "a/..", "/../etc/passwd", "a/../b", "nul\0l", b"../\xff"])
def test_a_name_that_leads_out_is_refused(name: str | bytes) -> None:
    tree = FileTree()
    reason = "contains a NUL byte" if b"\0" in os.fsencode(name) else "leads out of the tree"
    with pytest.raises(TreeError, match=reason):
        tree.add_file(name, b"x")
    assert len(tree) == 0


@pytest.mark.parametrize("name", ["/etc/x", "etc/x", "./etc/x", "//etc//./x", b"etc/x"])
def test_names_are_normalised(name: str | bytes) -> None:
    tree = FileTree()
    tree.add_file(name, b"x")
    assert names(tree) == [b"etc", b"etc/x"]
    assert name in tree


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=40).filter(lambda raw: b".." not in raw.split(b"/")))
def test_any_accepted_name_stays_inside(raw: bytes) -> None:
    tree = FileTree()
    try:
        tree.add_file(raw, b"x")
    except TreeError:
        assert b"\0" in raw
        return
    for name in names(tree):
        assert not name.startswith(b"/")
        assert not set(name.split(b"/")) & {b"", b".", b".."}


def test_a_name_longer_than_the_kernels_limit_is_refused() -> None:
    tree = FileTree()
    tree.add_file(b"x" * 4095, b"")
    with pytest.raises(TreeError, match="longer than 4095"):
        tree.add_file(b"y" * 4096, b"")


def test_missing_parents_are_created_as_folders() -> None:
    tree = FileTree()
    tree.add_file("a/b/c", b"x")
    assert names(tree) == [b"a", b"a/b", b"a/b/c"]
    assert tree["a/b"].mode == stat.S_IFDIR | 0o755


def test_nothing_can_be_added_below_a_file_or_a_device() -> None:
    tree = FileTree()
    tree.add_file("file", b"x")
    tree.add_device("device", stat.S_IFCHR, 1, 3)
    for name in ("file/x", "device/x", "file/deep/x"):
        with pytest.raises(TreeError, match="not a folder"):
            tree.add_file(name, b"y")


def merged() -> FileTree:
    """An image with merged /usr, and links of all sorts."""
    tree = FileTree()
    tree.add_file("usr/bin/sh", b"sh")
    tree.add_dir("empty", mode=0o711)
    for name, target in (
        ("bin", "usr/bin"),
        ("sbin", "/bin"),
        ("nowhere", "mnt/data"),
        ("loop", "loop"),
        ("to-file", "usr/bin/sh"),
        ("root-itself", "/"),
    ):
        tree.add_symlink(name, target)
    return tree


MERGED = stacks.lines_of(merged())
LAID = {
    # your entry: what is added, and what is gone
    "bin/my = 1": (["usr/bin/my = 1"], []),
    "sbin/my = 1": (["usr/bin/my = 1"], []),
    "bin/": ([], []),
    "sbin/": ([], []),
    "root-itself/": ([], []),
    "root-itself/usr/bin/my -> sh": (["usr/bin/my -> sh"], []),
    "nowhere/": (["mnt/", "mnt/data/"], []),
    "nowhere/deep/my = 1": (["mnt/", "mnt/data/", "mnt/data/deep/", "mnt/data/deep/my = 1"], []),
    "to-file = 1": (["to-file = 1"], ["to-file -> usr/bin/sh"]),
    "nowhere = 1": (["nowhere = 1"], ["nowhere -> mnt/data"]),
    "loop = 1": (["loop = 1"], ["loop -> loop"]),
    "loop -> bin": (["loop -> bin"], ["loop -> loop"]),
    "bin -> usr/sbin": (["bin -> usr/sbin"], ["bin -> usr/bin"]),
    "bin/sh -> busybox": (["usr/bin/sh -> busybox"], ["usr/bin/sh = sh"]),
    "empty -> usr": (["empty -> usr"], ["empty/711"]),
    "empty/": ([], []),
}


@pytest.mark.parametrize("line", LAID)
def test_what_is_laid_over_an_image_follows_its_links(tmp_path: Path, line: str) -> None:
    added, removed = LAID[line]
    tree = merged()
    overlay(tree, stacks.folder(tmp_path / "edits", [line]))
    assert stacks.lines_of(tree) == sorted({*MERGED, *added} - {*removed})


@pytest.mark.parametrize(
    "line",
    [
        *("bin = 1", "sbin = 1", "root-itself = 1", "usr = 1", "empty = 1", "usr -> x"),
        *("to-file/", "usr/bin/sh/", "loop/", "to-file/x = 1", "loop/x = 1", "bin/sh/x = 1"),
    ],
)
def test_what_would_replace_a_folder_or_a_file_of_the_image_is_refused(tmp_path: Path, line: str) -> None:
    tree = merged()
    with pytest.raises(InvalidInput, match="does not fit the image") as caught:
        overlay(tree, stacks.folder(tmp_path / "edits", [line]))
    assert caught.value.field == "edits"
    assert caught.value.hint
    assert stacks.lines_of(tree) == MERGED


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (["bin"], ["bin -> usr/bin", "usr/", "usr/bin/", "usr/bin/sh = sh"]),
        (["sbin"], ["bin -> usr/bin", "sbin -> /bin", "usr/", "usr/bin/", "usr/bin/sh = sh"]),
        (["bin/sh"], ["bin -> usr/bin", "usr/", "usr/bin/", "usr/bin/sh = sh"]),
        (["nowhere", "loop"], ["loop -> loop", "nowhere -> mnt/data"]),
        (["empty", "empty"], ["empty/711"]),
        (["root-itself"], MERGED),
    ],
    ids=str,
)
def test_a_link_is_selected_with_what_it_leads_to(chosen: list[str], expected: list[str]) -> None:
    assert stacks.lines_of(merged().only(chosen)) == expected


def test_removing_a_folder_removes_only_its_contents() -> None:
    tree = FileTree()
    for name in ("a/b", "a/c/d", "ab", "b"):
        tree.add_file(name, b"")
    tree.remove("/a")
    tree.remove("nothing")
    assert names(tree) == [b"ab", b"b"]


@pytest.mark.parametrize("name", ["init", "sbin/init", "etc/init", "bin/init"])
def test_an_init_is_an_executable_or_a_link(name: str) -> None:
    tree = FileTree()
    assert not tree.has_init()
    tree.add_file(name, b"", mode=0o644)
    assert not tree.has_init()
    tree.add_file(name, b"", mode=0o755)
    assert tree.has_init()
    tree.add_symlink(name, "/bin/busybox")
    assert tree.has_init()
    tree.remove(name)
    tree.add_dir(name)
    assert not tree.has_init()


def test_a_folder_of_the_host_is_read_unchanged(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "dir").mkdir(parents=True)
    (root / "dir/file").write_bytes(b"hello")
    (root / "dir/file").chmod(0o4711)
    os.utime(root / "dir/file", (1000, 1000))
    os.link(root / "dir/file", root / "hard")
    (root / "out").symlink_to("/etc")
    (root / "loop").symlink_to(".")
    os.mkfifo(root / "fifo")
    (root / os.fsdecode(b"\xff\n")).write_bytes(b"odd")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(root / "socket"))
        tree = from_folder(root)
    assert names(tree) == [b"dir", b"dir/file", b"fifo", b"hard", b"loop", b"out", b"\xff\n"]
    file = tree["dir/file"]
    assert (file.mode, file.mtime, file.uid, file.content.read()) == (0o104711, 1000, os.getuid(), b"hello")
    assert file.inode == tree["hard"].inode is not None
    assert tree["out"].content.read() == b"/etc"
    assert stat.S_ISFIFO(tree["fifo"].mode)


def test_a_path_that_is_not_a_folder_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", Path("/dev/null")):
        with pytest.raises(TreeError, match="is not a folder"):
            from_folder(path)


def test_a_file_that_shrank_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"12345")
    content = Content.of_file(file)
    file.write_bytes(b"123")
    with pytest.raises(TreeError, match="shorter"):
        content.read()
