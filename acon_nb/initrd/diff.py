"""Compares two initrd images, whatever their compression."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path

from acon_nb.archive import segments, spool
from acon_nb.archive.tree import Content, Entry, FileTree, ImageLimits, shown
from acon_nb.cache import sha256_file
from acon_nb.initrd import image
from acon_nb.initrd.links import hard_links
from acon_nb.initrd.sources import PREFIXES, tree_of


@dataclass(frozen=True)
class ImageDifference:
    """One difference: the name of the file ("" for the image itself), the property, and its value on each side."""

    name: str
    what: str
    left: str
    right: str

    def __str__(self) -> str:
        return f"{self.name or 'image'}: {self.what}: {self.left} -> {self.right}"


def tree_of_image(name: str | Path, *, limits: ImageLimits | None = None) -> FileTree:
    """Read the file of an initrd, or an image source by its name with a prefix (`tree_of`), with its device nodes.

    Errors: those of `image.load` and `tree_of`.
    """
    path = Path(name).expanduser()
    if path.exists() or not str(name).startswith(PREFIXES):
        return image.load(path, limits=limits)
    return tree_of(str(name), devices=True, limits=limits)


def diff(left: str | Path, right: str | Path, *, limits: ImageLimits | None = None) -> list[ImageDifference]:
    """Compare two images (see `tree_of_image`): names, kinds, modes, owners, times, devices, links, bytes.

    If all of these agree but the files differ, the difference is attributed to the image: its compression, or the
    layout of the archive. Errors: `InvalidInput`, `TreeError` (not an initrd, or a damaged one).
    """
    differences = diff_trees(*(tree_of_image(name, limits=limits) for name in (left, right)))
    paths = Path(left), Path(right)
    if not differences and all(map(Path.is_file, paths)) and sha256_file(paths[0]) != sha256_file(paths[1]):
        what = "bytes (compression, or layout of the archive)"
        differences.append(ImageDifference("", what, _form(paths[0]), _form(paths[1])))
    return differences


def diff_trees(left: FileTree, right: FileTree) -> list[ImageDifference]:
    """Compare two trees; the differences are sorted by name."""
    sides = dict(left.items()), dict(right.items())
    groups = _groups(left), _groups(right)
    differences = []
    for name in sorted(sides[0].keys() | sides[1].keys()):
        one, other = sides[0].get(name), sides[1].get(name)
        text = shown(name)
        if one is None or other is None:
            differences.append(ImageDifference(text, "presence", _kind(one), _kind(other)))
            continue
        for what, first, second in _compared(one, other):
            if first != second:
                differences.append(ImageDifference(text, what, first, second))
        linked = groups[0].get(name), groups[1].get(name)
        if linked[0] != linked[1]:
            differences.append(ImageDifference(text, "hard links", _names(linked[0]), _names(linked[1])))
    return differences


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
    return content.digest()[:16]


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
    content = spool.open_file(path)
    parts = segments.read(content, path.name).segments
    return f"{' + '.join(part.compression or 'uncompressed' for part in parts)}, {content.size} bytes"
