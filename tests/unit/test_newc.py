from __future__ import annotations

import io
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from acon_nb.archive import cpio
from acon_nb.archive.tree import Source
from acon_nb.errors import TreeError
from acon_nb.initrd import Content, Entry, FileTree, ImageLimits, create, guide, tree_of

FILE, LINK = stat.S_IFREG | 0o644, stat.S_IFLNK | 0o777


class Zeros:
    """A source of zeros of any length."""

    def read_at(self, offset: int, count: int) -> bytes:
        return bytes(count)


def huge(size: int) -> Content:
    source: Source = Zeros()
    return Content(size=size, source=source)


@pytest.mark.parametrize(
    ("name", "entry", "words"),
    [
        (
            "disk.img",
            Entry(mode=FILE, content=huge(1 << 32)),
            "has 4294967296 bytes; files in newc are smaller than 4 GiB",
        ),
        ("a/" + "n" * 256, Entry(mode=FILE), "has a name of 256 bytes; Linux allows 255 for each part of a path"),
        ("l", Entry(mode=LINK), "is a symbolic link without a target"),
        (
            "l",
            Entry(mode=LINK, content=Content.of(b"t" * 4096)),
            "is a symbolic link with a target of 4096 bytes; Linux allows 4095",
        ),
        ("l", Entry(mode=LINK, content=Content.of(b"a\0b")), "is a symbolic link with a NUL byte in its target"),
        ("f", Entry(mode=FILE, uid=0xFFFFFFFF), "has the owner 4294967295; Linux has 0 to 4294967294"),
        ("f", Entry(mode=FILE, gid=-1), "has the group -1"),
        ("d", Entry(mode=stat.S_IFCHR, device=(4096, 0)), "has the major device number 4096; Linux has 0 to 4095"),
        ("d", Entry(mode=stat.S_IFBLK, device=(8, 1 << 20)), "has the minor device number 1048576"),
        ("x", Entry(mode=0o644), "is of no file type"),
        ("TRAILER!!!", Entry(mode=FILE), "has the name that ends an archive"),
    ],
)
def test_what_the_guest_would_lose_is_refused_before_anything_is_written(name: str, entry: Entry, words: str) -> None:
    tree = FileTree()
    tree.add_file("a-first-file", bytes(100))
    tree.add(name, entry)
    out = io.BytesIO()
    with pytest.raises(TreeError) as caught:
        cpio.write(tree, out)
    assert f"{name!r} {words}" in str(caught.value)
    assert caught.value.hint
    assert out.getvalue() == b""


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("/".join(["n" * 255] * 15), Entry(mode=FILE)),
        ("l", Entry(mode=LINK, content=Content.of(b"t" * 4095))),
        ("f", Entry(mode=FILE, uid=0xFFFFFFFE, gid=0xFFFFFFFE)),
        ("d", Entry(mode=stat.S_IFCHR, device=(0xFFF, 0xFFFFF))),
        ("a/TRAILER!!!", Entry(mode=FILE)),
    ],
    ids=["name", "target", "owner", "device", "end mark"],
)
def test_the_largest_values_are_written_and_read_back(name: str, entry: Entry) -> None:
    tree = FileTree()
    tree.add(name, entry)
    out = io.BytesIO()
    cpio.write(tree, out)
    out.seek(0)
    back = cpio.read(out)[name]
    assert (back.mode, back.uid, back.device) == (entry.mode, entry.uid, entry.device)
    assert back.content.read() == entry.content.read()


def test_an_owner_that_is_replaced_does_not_matter() -> None:
    tree = FileTree()
    tree.add("f", Entry(mode=FILE, uid=0xFFFFFFFF))
    assert cpio.write(tree, io.BytesIO(), owner=(0, 0))


def test_several_problems_are_told_at_once() -> None:
    tree = FileTree()
    for number in range(20):
        tree.add(f"{number:02}", Entry(mode=LINK))
    with pytest.raises(TreeError) as caught:
        cpio.write(tree, io.BytesIO())
    text = str(caught.value)
    assert "'00' is a symbolic link without a target" in text
    assert "'07' is a symbolic link without a target" in text
    assert "and more" in text
    assert "'08'" not in text


def of_tar(folder: Path, made: Path) -> str:
    subprocess.run(["tar", "-S", "-cf", made / "x.tar", "-C", folder, "."], check=True)
    return f"tar:{made}/x.tar"


def of_folder(folder: Path, made: Path) -> str:
    return f"dir:{folder}"


@pytest.mark.parametrize("source", [of_tar, of_folder])
def test_a_file_of_5_gib_is_refused_at_every_door_without_being_copied(
    tmp_path: Path, source: Callable[[Path, Path], str]
) -> None:
    root = tmp_path / "root"
    (root / "data").mkdir(parents=True)
    (root / "init").write_text("#!/bin/sh\n")
    (root / "init").chmod(0o755)
    with (root / "data/huge.img").open("wb") as file:
        file.truncate(5 << 30)
    image = source(root, tmp_path)
    limits = ImageLimits(total_bytes=8 << 30)
    words = r"'data/huge.img' has 5368709120 bytes; files in newc are smaller than 4 GiB"
    with pytest.raises(TreeError, match=words) as caught:
        create(tree_of(image, limits=limits), tmp_path / "x.cpio.gz")
    assert "acon-nb disk create" in caught.value.hint
    with pytest.raises(TreeError, match=words):
        guide.gen_initrd(tmp_path / "bbox", image, limits=limits)
    assert sorted(os.listdir(tmp_path)) == sorted(["root", *(["x.tar"] if source is of_tar else [])])
