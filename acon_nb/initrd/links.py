"""Links of a tree: absolute ones made relative, hard ones symbolic (the guide: `abs2rellinks`, `hard2symlinks`)."""

from __future__ import annotations

import stat
from dataclasses import replace

from acon_nb.errors import InvalidInput
from acon_nb.initrd.tree import Content, Entry, FileTree, clean_name, shown

# Programs of many names: where a group of hard links has one of these, the others point at it
_PROGRAMS = (b"busybox", b"toybox", b"coreutils")


def abs2rellinks(tree: FileTree) -> int:
    """Make symbolic links of absolute paths relative, "/" being the tree's root; returns how many there were."""
    count = 0
    for name, entry in tree.items():
        if entry.is_link and (target := entry.content.read()).startswith(b"/"):
            tree.add(name, replace(entry, content=Content.of(relative(name, target))))
            count += 1
    return count


abs2relinks = abs2rellinks  # the scripts spell it this way too


def relative(name: bytes, target: bytes) -> bytes:
    """The relative target of the link `name` that leads where the absolute `target` does."""
    folder = name.split(b"/")[:-1]
    parts = [part for part in target.split(b"/") if part not in (b"", b".")]
    while folder and parts and folder[0] == parts[0] and b".." not in parts:
        folder, parts = folder[1:], parts[1:]
    return b"/".join([b".."] * len(folder) + parts) or b"."


def inside(name: bytes, target: bytes) -> bytes:
    """A link's target as it may stand on the host: relative, and never above the tree's root, as in the guest."""
    folder = [] if target.startswith(b"/") else name.split(b"/")[:-1]
    depth, parts = len(folder), []
    for part in target.split(b"/"):
        if part in (b"", b"."):
            continue
        if part == b"..":
            if depth == 0:
                continue  # the root's parent is the root
            depth -= 1
        else:
            depth += 1
        parts.append(part)
    if target.startswith(b"/"):
        return relative(name, b"/".join(parts))
    return (
        target
        if parts == [part for part in target.split(b"/") if part not in (b"", b".")]
        else b"/".join(parts) or b"."
    )


def hard2symlinks(tree: FileTree, file: str | bytes | None = None, folder: str | bytes | None = None) -> int:
    """Make the other hard links of `file`, in `folder` (default: its own) and below, relative symbolic links to it.

    Without `file`: every group of hard links of the tree, each to its first name, or to the program of many names in it
    (busybox). Returns how many names became links. Errors: `InvalidInput` for a file that is not there.
    """
    groups = hard_links(tree)
    if file is None:
        return sum(_link_to(tree, _first(names), names) for names in groups.values())
    key = clean_name(file)
    if key not in tree or not tree[key].is_file:
        raise InvalidInput("file", shown(key), "is no file of the tree", hint="name it as it stands in the tree")
    inode = tree[key].inode
    below = key.rpartition(b"/")[0] if folder is None else clean_name(folder)
    start = below + b"/" if below else b""
    return _link_to(tree, key, [name for name in groups.get(inode, []) if name.startswith(start)])


def hard_links(tree: FileTree) -> dict[object, list[bytes]]:
    """The names of each file that has several, by inode."""
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
        tree.add(name, Entry(mode=stat.S_IFLNK | 0o777, mtime=mtime, content=target))
    return len(others)
