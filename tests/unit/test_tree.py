from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acon_nb.errors import TreeError
from acon_nb.initrd import Content, FileTree, from_folder


def names(tree: FileTree) -> list[bytes]:
    return [name for name, _ in tree.items()]


@pytest.mark.parametrize("name", ["..", "../x", "a/../../x", "a/..", "/../etc/passwd", "a/../b", "nul\0l", b"../\xff"])
def test_a_name_that_leads_out_is_refused(name: str | bytes) -> None:
    tree = FileTree()
    with pytest.raises(TreeError, match="leads out of the tree"):
        tree.add_file(name, b"x")
    assert len(tree) == 0


@pytest.mark.parametrize("name", ["/etc/x", "etc/x", "./etc/x", "//etc//./x", b"etc/x"])
def test_a_name_is_kept_without_slash_and_dots(name: str | bytes) -> None:
    tree = FileTree()
    tree.add_file(name, b"x")
    assert names(tree) == [b"etc", b"etc/x"]
    assert name in tree


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=40).filter(lambda raw: b".." not in raw.split(b"/")))
def test_any_kept_name_stays_inside(raw: bytes) -> None:
    tree = FileTree()
    try:
        tree.add_file(raw, b"x")
    except TreeError:
        assert b"\0" in raw
        return
    for name in names(tree):
        assert not name.startswith(b"/")
        assert not set(name.split(b"/")) & {b"", b".", b".."}


def test_a_name_longer_than_the_kernel_takes_is_refused() -> None:
    tree = FileTree()
    tree.add_file(b"x" * 4095, b"")
    with pytest.raises(TreeError, match="longer than 4095"):
        tree.add_file(b"y" * 4096, b"")


def test_parents_are_made_as_folders() -> None:
    tree = FileTree()
    tree.add_file("a/b/c", b"x")
    assert names(tree) == [b"a", b"a/b", b"a/b/c"]
    assert tree["a/b"].mode == stat.S_IFDIR | 0o755


def test_nothing_can_lie_inside_a_file_or_a_device() -> None:
    tree = FileTree()
    tree.add_file("file", b"x")
    tree.add_device("device", stat.S_IFCHR, 1, 3)
    for name in ("file/x", "device/x", "file/deep/x"):
        with pytest.raises(TreeError, match="no folder"):
            tree.add_file(name, b"y")


def test_a_file_in_a_folders_place_leaves_nothing_inside_the_file() -> None:
    tree = FileTree()
    tree.add_file("a/b/c", b"x")
    try:
        tree.add_file("a", b"now a file")
    except TreeError:
        return
    assert names(tree) == [b"a"]


def test_names_may_lie_under_a_link_as_in_merged_usr_images() -> None:
    tree = FileTree()
    tree.add_symlink("bin", "usr/bin")
    tree.add_file("bin/sh", b"x")
    assert tree["bin"].content.read() == b"usr/bin"


def test_removing_takes_what_is_below_and_nothing_else() -> None:
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


def test_a_folder_of_the_host_is_taken_as_it_is(tmp_path: Path) -> None:
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


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", Path("/dev/null")):
        with pytest.raises(TreeError, match="is no folder"):
            from_folder(path)


def test_a_file_that_shrank_is_said(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"12345")
    content = Content.of_file(file)
    file.write_bytes(b"123")
    with pytest.raises(TreeError, match="shorter"):
        content.read()
