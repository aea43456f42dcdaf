"""What differs between two initrd images, whatever their compression."""

from __future__ import annotations

import hashlib
import stat
from dataclasses import dataclass
from pathlib import Path

from acon_nb.cache import sha256_file
from acon_nb.initrd import image
from acon_nb.initrd.links import hard_links
from acon_nb.initrd.tree import Content, Entry, FileTree, Limits, shown


@dataclass(frozen=True)
class Difference:
    """One thing that differs: the name ("" is the image itself), what of it, and how it is on each side."""

    name: str
    what: str
    left: str
    right: str

    def __str__(self) -> str:
        return f"{self.name or 'image'}: {self.what}: {self.left} -> {self.right}"


def diff(left: Path, right: Path, *, limits: Limits | None = None) -> list[Difference]:
    """What differs between two images: names, kinds, modes, owners, times, devices, links, bytes.

    Where all of these agree and the files do not, the difference is of the image: its compression, or how the archive
    is written. Errors: `InvalidInput`, `TreeError` (no initrd, a damaged one).
    """
    trees = [image.load(path, limits=limits) for path in (left, right)]
    found = diff_trees(*trees)
    if not found and sha256_file(left) != sha256_file(right):
        found.append(Difference("", "bytes (compression, or how the archive is written)", _form(left), _form(right)))
    return found


def diff_trees(left: FileTree, right: FileTree) -> list[Difference]:
    """What differs between two trees, in order of names."""
    sides = dict(left.items()), dict(right.items())
    groups = _groups(left), _groups(right)
    found = []
    for name in sorted(sides[0].keys() | sides[1].keys()):
        one, other = sides[0].get(name), sides[1].get(name)
        text = shown(name)
        if one is None or other is None:
            found.append(Difference(text, "presence", _kind(one), _kind(other)))
            continue
        for what, first, second in _compared(one, other):
            if first != second:
                found.append(Difference(text, what, first, second))
        if groups[0].get(name) != groups[1].get(name):
            found.append(Difference(text, "hard links", _names(groups[0].get(name)), _names(groups[1].get(name))))
    return found


def _compared(one: Entry, other: Entry) -> list[tuple[str, str, str]]:
    rows = [
        ("kind", _kind(one), _kind(other)),
        ("mode", f"{stat.S_IMODE(one.mode):04o}", f"{stat.S_IMODE(other.mode):04o}"),
        ("owner", f"{one.uid}:{one.gid}", f"{other.uid}:{other.gid}"),
        ("time", str(one.mtime), str(other.mtime)),
    ]
    if one.is_device or other.is_device:
        rows.append(("device", "{}:{}".format(*one.device), "{}:{}".format(*other.device)))
    if one.is_link and other.is_link:
        rows.append(("target", shown(one.content.read()), shown(other.content.read())))
    elif one.content.size != other.content.size:
        rows.append(("size", str(one.content.size), str(other.content.size)))
    elif one.is_file and not _same(one.content, other.content):
        rows.append(("bytes", f"sha256 {_digest(one.content)}", f"sha256 {_digest(other.content)}"))
    return rows


def _same(one: Content, other: Content) -> bool:
    return one == other or all(first == second for first, second in zip(one.chunks(), other.chunks(), strict=False))


def _digest(content: Content) -> str:
    found = hashlib.sha256()
    for chunk in content.chunks():
        found.update(chunk)
    return found.hexdigest()[:16]


def _groups(tree: FileTree) -> dict[bytes, tuple[bytes, ...]]:
    return {name: tuple(names) for names in hard_links(tree).values() for name in names}


def _names(names: tuple[bytes, ...] | None) -> str:
    return "none" if names is None else ", ".join(shown(name) for name in names)


def _kind(entry: Entry | None) -> str:
    return "absent" if entry is None else _KINDS.get(stat.S_IFMT(entry.mode), "unknown")


_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFLNK: "symbolic link",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
}


def _form(path: Path) -> str:
    from acon_nb.initrd.spool import compression_of

    with path.open("rb") as file:
        name = compression_of(file.read(8)) or "uncompressed"
    return f"{name}, {path.stat().st_size} bytes"
