"""Attributes the sizes of two trees, and so what one grew by, to packages, layers or folders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from acon_nb.archive.tree import FileTree
from acon_nb.errors import InvalidInput
from acon_nb.initrd.diff import diff_trees
from acon_nb.initrd.package_databases import InstalledPackage, installed

NO_PACKAGE = "(no package)"
NO_LAYER = "(no layer)"


class Attribution(StrEnum):
    """What sizes are attributed to."""

    PACKAGE = "package"
    LAYER = "layer"
    FOLDER = "folder"


@dataclass(frozen=True, kw_only=True)
class SizeChange:
    """A package, layer or folder: the bytes and the number of its names on each side; `left` and `right` its versions.

    Bytes are those of files and of the targets of links; hard links count once, for their first name.
    """

    name: str
    left_bytes: int
    right_bytes: int
    left_names: int
    right_names: int
    left: str = ""
    right: str = ""

    @property
    def growth_bytes(self) -> int:
        """By how many bytes the right side is larger."""
        return self.right_bytes - self.left_bytes


@dataclass(frozen=True, kw_only=True)
class Growth:
    """The sizes of two trees by `by`, those that changed most first; they add up to the totals.

    `differs` is whether anything of the trees differs, also where no size does; `notes` are caveats.
    """

    by: Attribution
    rows: tuple[SizeChange, ...]
    differs: bool
    notes: tuple[str, ...] = ()

    @property
    def left_bytes(self) -> int:
        """The size of the left tree."""
        return sum(row.left_bytes for row in self.rows)

    @property
    def right_bytes(self) -> int:
        """The size of the right tree."""
        return sum(row.right_bytes for row in self.rows)


def growth(left: FileTree, right: FileTree, by: Attribution, *, depth: int = 2) -> Growth:
    """Attribute the sizes of two trees; `depth` is that of folders.

    Errors: `InvalidInput` (trees without layers, a depth below 1).
    """
    if depth < 1:
        raise InvalidInput("depth", depth, "is below 1", hint="such as 2: /usr/lib, /usr/share, ...")
    notes: list[str] = []
    sides = [_side(tree, by, depth, notes) for tree in (left, right)]
    names = sorted(sides[0].keys() | sides[1].keys())
    absent = _Sum()
    pairs = [(name, sides[0].get(name, absent), sides[1].get(name, absent)) for name in names]
    rows = [
        SizeChange(
            name=name,
            left_bytes=one.bytes,
            right_bytes=other.bytes,
            left_names=one.names,
            right_names=other.names,
            left=one.version,
            right=other.version,
        )
        for name, one, other in pairs
    ]
    rows.sort(key=lambda row: (-abs(row.growth_bytes), -row.right_bytes, row.name))
    differs = bool(diff_trees(left, right))
    return Growth(by=by, rows=tuple(rows), differs=differs, notes=tuple(dict.fromkeys(notes)))


class _Sum:
    def __init__(self, version: str = "") -> None:
        self.bytes = self.names = 0
        self.version = version


def _side(tree: FileTree, by: Attribution, depth: int, notes: list[str]) -> dict[str, _Sum]:
    """Return the sum of each group of a tree."""
    group_of, versions = _GROUPS[by](tree, depth, notes)
    sums = {name: _Sum(version) for name, version in versions.items()}
    seen: set[object] = set()
    for name, entry in tree.items():
        if entry.is_dir:
            continue
        group = group_of(name)
        total = sums.get(group)
        if total is None:
            total = sums[group] = _Sum()
        total.names += 1
        if entry.inode is None or entry.inode not in seen:
            total.bytes += entry.content.size
            seen.add(entry.inode)
    return sums


_Grouping = tuple[Callable[[bytes], str], dict[str, str]]


def _by_package(tree: FileTree, depth: int, notes: list[str]) -> _Grouping:  # noqa: ARG001
    packages = installed(tree)
    notes += packages.unread
    if not packages.packages:
        notes.append("no package database of dpkg, apk or rpm was read on one side: all of its files have no package")
    kinds = {package.kind for package in packages.packages}

    def label(package: InstalledPackage) -> str:
        return f"{package.kind}:{package.name}" if len(kinds) > 1 else package.name

    owners = {name: label(package) for name, package in packages.owners().items()}
    versions: dict[str, str] = {}
    for package in packages.packages:
        name = label(package)
        versions[name] = f"{versions[name]}, {package.version}" if name in versions else package.version
    return lambda name: owners.get(name, NO_PACKAGE), versions


def _by_layer(tree: FileTree, depth: int, notes: list[str]) -> _Grouping:  # noqa: ARG001
    if not tree.layers:
        raise InvalidInput(
            "by",
            "layer",
            "needs two images with layers",
            hint="give sources such as oci:PATH, docker-archive:FILE or docker:NAME instead of files",
        )
    return lambda name: tree.layers.get(name, NO_LAYER), {}


def _by_folder(tree: FileTree, depth: int, notes: list[str]) -> _Grouping:  # noqa: ARG001
    def group(name: bytes) -> str:
        return "/" + "/".join(name.decode(errors="backslashreplace").split("/")[:-1][:depth])

    return group, {}


_GROUPS = {Attribution.PACKAGE: _by_package, Attribution.LAYER: _by_layer, Attribution.FOLDER: _by_folder}
