from __future__ import annotations

import io
import os
import random
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from acon_nb.archive import cpio
from acon_nb.errors import TreeError
from acon_nb.initrd import Content, Entry, FileTree

needs_cpio = pytest.mark.skipif(shutil.which("cpio") is None, reason="GNU cpio is not here")
WORD = st.integers(0, 0xFFFFFFFF)
OWNER = st.integers(0, 0xFFFFFFFE)
DEVICE = st.tuples(st.integers(0, 0xFFF), st.integers(0, 0xFFFFF))
PART = st.binary(min_size=1, max_size=9).filter(lambda raw: not set(raw) & {0, 47} and raw not in (b".", b"..", b"dev"))
NAME = st.lists(PART, min_size=1, max_size=3).map(b"/".join)
TARGET = st.binary(min_size=1, max_size=70).filter(lambda raw: 0 not in raw).map(Content.of)
KIND = st.sampled_from([stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO])


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    kind = draw(KIND)
    body = draw(st.binary(max_size=70)) if kind == stat.S_IFREG else b""
    if kind == stat.S_IFLNK:
        return Entry(mode=kind | 0o777, uid=draw(OWNER), gid=draw(OWNER), mtime=draw(WORD), content=draw(TARGET))
    device = draw(DEVICE) if kind in (stat.S_IFCHR, stat.S_IFBLK) else (0, 0)
    mode = kind | draw(st.integers(0, 0o7777))
    uid, gid, mtime = draw(OWNER), draw(OWNER), draw(WORD)
    return Entry(mode=mode, uid=uid, gid=gid, mtime=mtime, device=device, content=Content.of(body))


@st.composite
def trees(draw: st.DrawFn) -> FileTree:
    tree = FileTree()
    for name, entry in draw(st.lists(st.tuples(NAME, entries()), max_size=8)):
        try:
            if name not in tree:
                tree.add(name, entry)
        except TreeError:
            continue
    body = draw(st.binary(max_size=20))
    for link in draw(st.lists(PART, min_size=2, max_size=3, unique=True)):
        if link not in tree:
            tree.add(link, Entry(mode=stat.S_IFREG | 0o600, content=Content.of(body), inode=99))
    return tree


def packed(tree: FileTree) -> bytes:
    out = io.BytesIO()
    assert cpio.write(tree, out) == len(out.getvalue())
    return out.getvalue()


def facts(tree: FileTree) -> list[tuple[object, ...]]:
    return [
        (name, entry.mode, entry.uid, entry.gid, entry.mtime, entry.device, entry.content.read())
        for name, entry in tree.items()
    ]


def links(tree: FileTree) -> set[frozenset[bytes]]:
    groups: dict[int, set[bytes]] = {}
    for name, entry in tree.items():
        if entry.inode is not None:
            groups.setdefault(entry.inode, set()).add(name)
    return {frozenset(group) for group in groups.values() if len(group) > 1}


def small_tree() -> FileTree:
    tree = FileTree()
    tree.add_file("bin/tool", b"#!/bin/sh\n", mode=0o4755, mtime=946684800)
    tree.add_file("empty", b"")
    for size in range(5):
        tree.add_file(f"sizes/{size}" + "x" * size, b"z" * size, mode=0o640)
    tree.add_symlink("link", "bin/tool")
    tree.add_dir("private", mode=0o700)
    tree.add_file(b"odd/\xff\xfe", b"not UTF-8")
    tree.add_file(b"odd/new\nline", b"a line break")
    shared = Entry(mode=stat.S_IFREG | 0o644, content=Content.of(b"shared"), inode=5)
    tree.add("hard/one", shared)
    tree.add("two", shared)
    return tree


@settings(max_examples=100, deadline=None)
@given(trees())
def test_a_tree_is_written_and_read_back(tree: FileTree) -> None:
    again = cpio.read(io.BytesIO(packed(tree)))
    assert facts(again) == facts(tree)
    assert links(again) == links(tree)


@settings(max_examples=50, deadline=None)
@given(trees(), st.randoms())
def test_the_same_tree_gives_the_same_bytes_in_any_order_of_adding(tree: FileTree, dice: random.Random) -> None:
    items = tree.items()
    dice.shuffle(items)
    other = FileTree()
    for name, _ in items:  # parents first, then their real entries
        for depth in range(1, name.count(b"/") + 1):
            parent = b"/".join(name.split(b"/")[:depth])
            other.add(parent, tree[parent])
        other.add(name, tree[name])
    assert packed(other) == packed(tree)


def test_time_and_owner_can_be_fixed() -> None:
    out = io.BytesIO()
    cpio.write(small_tree(), out, mtime=7, owner=(1, 2))
    assert {row[2:5] for row in facts(cpio.read(io.BytesIO(out.getvalue())))} == {(1, 2, 7)}


@needs_cpio
def test_gnu_cpio_extracts_what_we_wrote(tmp_path: Path) -> None:
    tree = small_tree()
    argv = ["cpio", "-idm", "--quiet", "--no-preserve-owner"]
    subprocess.run(argv, input=packed(tree), cwd=tmp_path, check=True)
    found = sorted(os.path.relpath(path, os.fsencode(tmp_path)) for path in walk(os.fsencode(tmp_path)))
    assert found == [name for name, _ in tree.items()]
    for name, entry in tree.items():
        path = os.path.join(os.fsencode(tmp_path), name)  # noqa: PTH118
        info = os.lstat(path)
        if stat.S_ISLNK(entry.mode):
            assert os.readlink(path) == entry.content.read()  # noqa: PTH115
            continue
        assert info.st_mode == entry.mode
        if entry.is_file:
            assert Path(os.fsdecode(path)).read_bytes() == entry.content.read()
    assert (tmp_path / "hard/one").stat().st_ino == (tmp_path / "two").stat().st_ino
    assert (tmp_path / "bin/tool").stat().st_mtime == 946684800


def walk(folder: bytes) -> list[bytes]:
    return [os.path.join(top, name) for top, dirs, files in os.walk(folder) for name in dirs + files]  # noqa: PTH118


@needs_cpio
def test_gnu_cpio_extracts_hard_links_that_are_not_files(tmp_path: Path) -> None:
    """The kernel and GNU cpio link FIFOs and devices, but not symbolic links: each needs its target."""
    tree = FileTree()
    link = Entry(mode=stat.S_IFLNK | 0o777, content=Content.of(b"target"), inode=1)
    fifo = Entry(mode=stat.S_IFIFO | 0o600, inode=2)
    for name, entry in (("a", link), ("b", link), ("c", link), ("f", fifo), ("g", fifo)):
        tree.add(name, entry)
    subprocess.run(["cpio", "-idm", "--quiet"], input=packed(tree), cwd=tmp_path, check=True)
    assert {(tmp_path / name).readlink() for name in "abc"} == {Path("target")}
    assert (tmp_path / "f").stat().st_ino == (tmp_path / "g").stat().st_ino
    again = cpio.read(io.BytesIO(packed(tree)))
    assert {again[name].content.read() for name in "abc"} == {b"target"}
    assert again["f"].inode == again["g"].inode is not None


@needs_cpio
def test_gnu_cpio_lists_devices() -> None:
    tree = FileTree()
    tree.add_device("dev/console", stat.S_IFCHR, 5, 1)
    tree.add_device("dev/sda", stat.S_IFBLK, 8, 0, mode=0o660)
    listing = subprocess.run(["cpio", "-itv", "--quiet"], input=packed(tree), capture_output=True, check=True).stdout
    lines = {line.split()[-1]: line for line in listing.decode().splitlines()}
    assert lines["dev/console"].startswith("crw-------")
    assert "5,   1" in lines["dev/console"]
    assert lines["dev/sda"].startswith("brw-rw----")
    assert "8,   0" in lines["dev/sda"]


@pytest.mark.skipif(shutil.which("bsdtar") is None, reason="bsdtar is not here")
def test_bsdtar_lists_the_same_names() -> None:
    tree = small_tree()
    tree.remove("odd")
    listing = subprocess.run(["bsdtar", "-tf", "-"], input=packed(tree), capture_output=True, check=True).stdout
    assert sorted(listing.splitlines()) == [name for name, _ in tree.items()]


@needs_cpio
def test_an_archive_of_gnu_cpio_is_read(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "dir").mkdir(parents=True)
    (root / "dir/file").write_bytes(b"hello")
    (root / "dir/file").chmod(0o750)
    os.link(root / "dir/file", root / "hard")
    (root / "link").symlink_to("dir/file")
    (root / "big").write_bytes(os.urandom(100_001))
    found = b"\0".join(os.fsencode(path.relative_to(tmp_path / "root")) for path in root.rglob("*"))
    argv = ["cpio", "-o", "-H", "newc", "--quiet", "-0"]
    done = subprocess.run(argv, input=b".\0" + found, cwd=root, capture_output=True, check=True)
    tree = cpio.read(io.BytesIO(done.stdout))
    assert [name for name, _ in tree.items()] == [b"big", b"dir", b"dir/file", b"hard", b"link"]
    assert tree["dir/file"].mode == stat.S_IFREG | 0o750
    assert tree["dir/file"].content.read() == tree["hard"].content.read() == b"hello"
    assert tree["big"].content.read() == (root / "big").read_bytes()
    assert links(tree) == {frozenset({b"dir/file", b"hard"})}


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_truncated_archive_is_refused(data: st.DataObject) -> None:
    whole = packed(small_tree())
    end = whole.index(b"TRAILER!!!") + len(b"TRAILER!!!") + 1
    with pytest.raises(TreeError):
        cpio.read(io.BytesIO(whole[: data.draw(st.integers(0, end - 1))]))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=400), st.booleans())
def test_garbage_is_refused(raw: bytes, magic: bool) -> None:
    assume(magic or not raw or raw.strip(b"\0"))  # zeros are padding, of which a kernel takes any number
    with pytest.raises(TreeError):
        cpio.read(io.BytesIO((b"070701" if magic else b"") + raw))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_archive_is_either_read_or_refused(changes: list[tuple[int, int]]) -> None:
    raw = bytearray(packed(small_tree()))
    for place, value in changes:
        raw[place % len(raw)] = value
    try:
        cpio.read(io.BytesIO(bytes(raw)))
    except TreeError:
        return


def header(name: bytes, size: int = 0, *, mode: bytes = b"000081A4", links: int = 1) -> bytes:
    fields = [b"00000001", mode, b"%08X" % 0, b"%08X" % 0, b"%08X" % links, b"%08X" % 0, b"%08X" % size]
    fields += [b"%08X" % 0] * 4 + [b"%08X" % (len(name) + 1), b"%08X" % 0]
    head = b"070701" + b"".join(fields) + name + b"\0"
    return head + bytes(-len(head) % 4)


@pytest.mark.parametrize("name", [b"../x", b"a/../../x", b"/.."])
def test_a_hostile_archive_is_refused(name: bytes) -> None:
    with pytest.raises(TreeError, match="leads out"):
        cpio.read(io.BytesIO(header(name) + header(b"TRAILER!!!")))


def test_an_archive_of_only_a_root_folder_does_not_crash() -> None:
    assert len(cpio.read(io.BytesIO(header(b".", mode=b"000041ED") + header(b"TRAILER!!!")))) == 0
    assert "without a name" in cpio.read(io.BytesIO(header(b".", links=2) + header(b"TRAILER!!!"))).warnings()[0]


def test_a_number_with_a_sign_is_refused() -> None:
    with pytest.raises(TreeError, match="hexadecimal"):
        cpio.read(io.BytesIO(header(b"x", mode=b"-0000001") + header(b"TRAILER!!!")))


def test_a_huge_size_is_refused_before_reading() -> None:
    with pytest.raises(TreeError, match="total_bytes=100"):
        cpio.read(io.BytesIO(header(b"x", 0xFFFFFFF0)), limit_bytes=100)
