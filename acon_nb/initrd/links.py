"""Converts links of a tree: absolute to relative, hard to symbolic (the guide: `abs2rellinks`, `hard2symlinks`)."""

from __future__ import annotations

import stat
from dataclasses import replace

from acon_nb.archive.tree import Content, Entry, FileTree, clean_name, shown
from acon_nb.errors import InvalidInput, TreeError

# Multi-call programs: if a group of hard links contains one of these, the others become links to it
_PROGRAMS = (b"busybox", b"toybox", b"coreutils")


def abs2rellinks(tree: FileTree) -> int:
    """Make absolute symbolic links relative, with the tree's root as "/"; return their number."""
    count = 0
    for name, entry in tree.items():
        if entry.is_link and (target := entry.content.read()).startswith(b"/"):
            tree.put(name, replace(entry, content=Content.of(relative(name, target))))
            count += 1
    return count


abs2relinks = abs2rellinks  # the scripts use both spellings


def relative(name: bytes, target: bytes) -> bytes:
    """Return the relative target for the link `name` that is equivalent to the absolute `target`."""
    folder = name.split(b"/")[:-1]
    parts = [part for part in target.split(b"/") if part not in (b"", b".")]
    while folder and parts and folder[0] == parts[0] and b".." not in parts:
        folder, parts = folder[1:], parts[1:]
    return b"/".join([b".."] * len(folder) + parts) or b"."


def inside(tree: FileTree, name: bytes, target: bytes) -> bytes:
    """Return a link's target for use on the host: relative, and never above the tree's root, as in the guest."""
    folder = b"" if target.startswith(b"/") else name.rpartition(b"/")[0]
    if b".." in target.split(b"/"):
        try:
            if _climbs(tree, folder, target):
                return relative(name, b"/" + tree.resolved(folder + b"/" + target, last=True))
        except TreeError:  # a loop of links, on the host too
            pass
    return relative(name, target) if target.startswith(b"/") else target


def _climbs(tree: FileTree, folder: bytes, target: bytes) -> bool:
    """Whether a target, seen from a folder, leads above the tree's root, whose parent is the root itself."""
    for part in target.split(b"/"):
        if part == b"..":
            if not folder:
                return True
            folder = folder.rpartition(b"/")[0]
        elif part not in (b"", b"."):
            folder = tree.resolved(folder + b"/" + part if folder else part, last=True)
    return False


def hard2symlinks(tree: FileTree, file: str | bytes | None = None, folder: str | bytes | None = None) -> int:
    """Replace the other hard links of `file` in `folder` (default: its own) and below by relative symbolic links to it.

    Without `file`, every group of hard links is converted: its names become links to the multi-call program among them
    (busybox), or to the first name. Returns the number of converted names. Errors: `InvalidInput` (no such file).
    """
    groups = hard_links(tree)
    if file is None:
        return sum(_link_to(tree, _first(names), names) for names in groups.values())
    key = clean_name(file)
    if key not in tree or not tree[key].is_file:
        raise InvalidInput("file", shown(key), "is not a file of the tree", hint="give its path inside the tree")
    inode = tree[key].inode
    below = key.rpartition(b"/")[0] if folder is None else clean_name(folder)
    start = below + b"/" if below else b""
    return _link_to(tree, key, [name for name in groups.get(inode, []) if name.startswith(start)])


def hard_links(tree: FileTree) -> dict[object, list[bytes]]:
    """Return the names of each file that has several, by inode."""
    groups: dict[object, list[bytes]] = {}
    for name, entry in tree.items():
        if entry.inode is not None:
            groups.setdefault(entry.inode, []).append(name)
    return {inode: names for inode, names in groups.items() if len(names) > 1}


def _first(names: list[bytes]) -> bytes:
    programs = [name for name in names if name.rpartition(b"/")[2] in _PROGRAMS]
    return (programs or names)[0]


def _link_to(tree: FileTree, first: bytes, names: list[bytes]) -> int:
    others = [name for name in names if name != first]
    for name in others:
        mtime = tree[name].mtime
        target = Content.of(relative(name, b"/" + first))
        tree.put(name, Entry(mode=stat.S_IFLNK | 0o777, mtime=mtime, content=target))
    return len(others)
