"""Applies the layers of an image, and the tars of root file systems, to a tree.

A tar is unpacked into a tree of its own, in the order of its members, as tar(1) does. A layer's tree is then laid over
the layers below as overlayfs does: names are never resolved through links of the layers below.
Sources: OCI image specification, layer.md; the kernel's Documentation/filesystems/overlayfs.rst; containerd's
pkg/archive/tar.go for what both leave open.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from acon_nb.archive.tar import Member
from acon_nb.archive.tar.header import HINT
from acon_nb.archive.tree import LINKS_LIMIT, Entry, FileTree, ImageLimits, clean_name, follow, shown
from acon_nb.errors import TreeError

_WHITEOUT = b".wh."
_META = b".wh..wh."  # what aufs, the first storage driver, stores; only the opaque mark has a meaning in layers
_OPAQUE = b".wh..wh..opq"
_NO_NAMES = (b".wh.", b".wh..", b".wh...")
_NOT_A_LAYER = "whiteouts have a meaning in layers only (oci:, docker-archive:); in this tar they are files"
NO_DEVICES = "device nodes of an image are omitted unless requested (--devices)"


def add_layer(tree: FileTree, layer_members: Iterator[Member], *, limits: ImageLimits, whiteouts: bool = False) -> None:
    """Lay the members of a tar over a tree.

    Within the tar, names follow the links that come before them; a link that is listed after names below it takes
    these along. A later member replaces an earlier one of the same name, but not the earlier one's hard links. With
    `whiteouts`, `.wh.NAME` removes NAME from the layers below, wherever the layer lists it, and creates nothing.
    Device nodes are kept until `drop_devices`, since later hard links may refer to them.
    Errors: `TreeError` (names that lead out, hard links to nothing, limits that are exceeded).
    """
    members = _listed(tree, layer_members, limits)
    for _ in range(LINKS_LIMIT + 1):
        layer = _Layer(tree, limits, whiteouts=whiteouts)
        layer.unpack(members)
        if not layer.early:
            break
        members = list(_moved(members, layer.early))
    else:
        raise TreeError(f"names lead through more than {LINKS_LIMIT} links that are listed after them", hint=HINT)
    layer.lay()


def drop_devices(tree: FileTree) -> None:
    """Remove the device nodes of a tree, and record that."""
    for name, entry in tree.items():
        if entry.is_device:
            tree.drop(NO_DEVICES, name)
            tree.discard(name)


def _listed(tree: FileTree, members: Iterator[Member], limits: ImageLimits) -> list[Member]:
    """Return the members, within the limits together with the tree below."""
    listed = []
    total = tree.content_bytes
    for member in members:
        total += member.entry.content.size
        listed.append(member)
        limits.check(total, len(tree) + len(listed), member.name)
    return listed


def _moved(members: Sequence[Member], early: dict[int, list[int]]) -> Iterator[Member]:
    """Yield the members with each link before the first name below it."""
    moved = {number for numbers in early.values() for number in numbers}
    for number, member in enumerate(members):
        for link in early.get(number, ()):
            yield members[link]
        if number not in moved:
            yield member


@dataclass(eq=False)
class _Pending:
    """Stands for the inode of a hard link whose target is not there yet; `entry` is the target's once it is known."""

    name: bytes
    target: bytes
    entry: Entry | None = None


class _Layer:
    """The tree of one tar, and what it removes from the tree below.

    `early` are links that must come earlier: the number of the first member below each, and the links' numbers.
    """

    def __init__(self, below: FileTree, limits: ImageLimits, *, whiteouts: bool) -> None:
        self.early: dict[int, list[int]] = {}
        self._tree = FileTree()
        self._below, self._limits, self._whiteouts = below, limits, whiteouts
        self._implied: dict[bytes, int] = {}  # folders without a member of their own: the first member below
        self._expected: dict[bytes, int] = {}  # folders that will be implied once links are early: as `_implied`
        self._notes: dict[bytes, tuple[str, ...]] = {}
        self._removed: set[bytes] = set()
        self._opaque: set[bytes] = set()

    def unpack(self, members: Sequence[Member]) -> None:
        """Unpack members in order. Errors: `TreeError`, unless there are `early` links, which may be its reason."""
        failure: TreeError | None = None
        for number, member in enumerate(members):
            try:
                if not (self._whiteouts and self._white_out(member.name)):
                    self._unpack(number, member)
            except TreeError as error:
                failure = failure or error
        self._below.link_steps += self._tree.link_steps
        if failure is not None and not self.early:
            raise failure

    def lay(self) -> None:
        """Lay the tree over the one below: first what is removed from that, then names exactly as they are."""
        self._resolve_pending()
        for key in self._removed:
            self._below.discard(key)
        for folder in self._opaque:
            for key in self._below.children(folder):
                self._below.discard(key)
        for key in self._tree.children(b"") if self._whiteouts else ():
            if key.startswith(_META):
                self._tree.discard(key)
        self._date_implied()
        for key, entry in self._tree.items():
            old = self._below.get(key)
            if not (key in self._implied and entry.is_dir and old is not None and old.is_dir):
                self._below.put(key, entry)
            for note in self._notes.get(key, ()):
                self._below.drop(note, key)

    def _white_out(self, name: bytes) -> bool:
        """Note what a member removes from the tree below; return whether it is a whiteout at all."""
        folder, _, last = name.rpartition(b"/")
        if name.startswith(_META) and name != _OPAQUE:
            return False  # aufs' folder of hard-linked files, to which members may refer; `lay` removes it
        if b"/" + _WHITEOUT in b"/" + folder:
            raise TreeError(f"{shown(name)} is inside a whiteout, which cannot have contents", hint=HINT)
        if last in _NO_NAMES:
            raise TreeError(f"{shown(name)} is a whiteout that does not name a file", hint=HINT)
        if last == _OPAQUE:
            self._opaque.add(folder)
        elif last.startswith(_WHITEOUT) and not last.startswith(_META):
            self._removed.add((folder + b"/" if folder else b"") + last[len(_WHITEOUT) :])
        return last.startswith(_WHITEOUT)

    def _unpack(self, number: int, member: Member) -> None:
        self._check_limits(member.name)
        key = self._tree.resolved(member.name)
        if member.kind == b"1":
            self._add_hard_link(number, key, member)
        else:
            self._put(number, key, member.entry)
            whiteout = (_NOT_A_LAYER,) if b"/" + _WHITEOUT in b"/" + key else ()
            self._notes[key] = member.notes + whiteout

    def _put(self, number: int, key: bytes, entry: Entry) -> None:
        """Set a name of this tar, and its folders if no member has named them."""
        if not key:
            if not entry.is_dir:
                raise TreeError("the root of the archive is not a folder", hint=HINT)
            return
        old = self._tree.get(key)
        if key in self._implied and not entry.is_dir and old is not None and old.is_dir:
            if not entry.is_link:
                raise _inside(self._tree.children(key)[0], key)
            self._move(number, key, entry, self._implied[key])
            return
        first = self._expected.pop(key, None)
        if first is not None and old is None and entry.is_link:
            self._move(number, key, entry, first)
            return
        self._imply(number, key.rpartition(b"/")[0], key)
        self._tree.put(key, entry)
        self._implied.pop(key, None)

    def _move(self, number: int, key: bytes, link: Entry, first: int) -> None:
        """Let a link come before the first name below it, and expect that name below the link's target."""
        self.early.setdefault(first, []).append(number)
        target = link.content.read()
        folder = b"" if target.startswith(b"/") else key.rpartition(b"/")[0]
        end, _, steps = follow(self._tree.get, folder + b"/" + target)
        self._tree.link_steps += steps
        while end and self._tree.get(end) is None:
            self._expected.setdefault(end, first)
            end = end.rpartition(b"/")[0]

    def _imply(self, number: int, folder: bytes, key: bytes) -> None:
        missing = []
        while folder and (above := self._tree.get(folder)) is None:
            missing.append(folder)
            folder = folder.rpartition(b"/")[0]
        if folder and above is not None and not above.is_dir:
            raise _inside(key, folder)
        for parent in reversed(missing):
            self._check_limits(key)
            self._tree.put(parent, Entry(mode=stat.S_IFDIR | 0o755))
            self._implied[parent] = number

    def _date_implied(self) -> None:
        """Give the folders that no member has named the time of the latest file in them, whatever the order."""
        for key in sorted(self._implied, reverse=True):
            entry = self._tree.get(key)
            if entry is not None and entry.is_dir:
                times = [child.mtime for name in self._tree.children(key) if (child := self._tree.get(name))]
                self._tree.put(key, replace(entry, mtime=max(times, default=0)))

    def _add_hard_link(self, number: int, key: bytes, member: Member) -> None:
        """Give a name the inode that its target has at this point: in this tar, else in the tree below."""
        name = clean_name(member.link)
        target, entry = self._at(name)
        if entry is None:
            pending = _Pending(key, name)
            self._put(number, key, Entry(mode=stat.S_IFREG, inode=pending))
        elif target != key:
            self._put(number, key, self._shared(target, entry, key))

    def _at(self, name: bytes) -> tuple[bytes, Entry | None]:
        """Return what a name leads to at this point, in this tar or in the tree below, and its entry."""
        entry = self._tree.get(name)
        if entry is not None:
            return name, entry
        key, _, steps = follow(self._seen, name)
        self._tree.link_steps += steps
        below = self._tree.get(key) is None
        return key, None if below and self._is_hidden(key) else self._seen(key)

    def _seen(self, key: bytes) -> Entry | None:
        entry = self._tree.get(key)
        if entry is not None:
            return entry
        entry = self._below.get(key)
        return None if entry is None or (not entry.is_dir and self._is_hidden(key)) else entry

    def _is_hidden(self, key: bytes) -> bool:
        """Whether this tar hides a name of the tree below."""
        if key in self._removed:
            return True
        while key:
            key = key.rpartition(b"/")[0]
            self._tree.link_steps += 1
            above = self._tree.get(key)
            if key in self._removed or key in self._opaque or (above is not None and not above.is_dir):
                return True
        return False

    def _shared(self, target: bytes, entry: Entry, name: bytes) -> Entry:
        """Return the entry for another name of a file, whose inode they now share."""
        if entry.is_dir:
            raise TreeError(f"{shown(name)} is a hard link to the folder {shown(target)}", hint=HINT)
        if entry.inode is None and not entry.is_link:  # a symbolic link is copied: newc has no other names for one
            entry = replace(entry, inode=object())
            (self._below if self._tree.get(target) is None else self._tree).put(target, entry)
        return entry

    def _resolve_pending(self) -> None:
        """Give the hard links whose targets came later the inodes of these. Errors: `TreeError` if there is none."""
        for key, entry in self._tree.items():
            if isinstance(entry.inode, _Pending):
                self._tree.put(key, self._end_of(entry.inode))

    def _end_of(self, pending: _Pending) -> Entry:
        """Return the entry at the end of a chain of hard links, and remember it for all of them."""
        chain: dict[_Pending, None] = {}
        while pending.entry is None:
            target, entry = self._at(pending.target)
            if entry is None or pending in chain:
                what = f"{shown(pending.name)} is a hard link to {shown(pending.target)}, which is not in the image"
                raise TreeError(what, hint=HINT)
            chain[pending] = None
            if isinstance(entry.inode, _Pending):
                pending = entry.inode
            else:
                pending.entry = self._shared(target, entry, pending.name)
        for link in chain:
            link.entry = pending.entry
        return pending.entry

    def _check_limits(self, name: bytes) -> None:
        tree, below = self._tree, self._below
        self._limits.check(0, len(below) + len(tree), name)
        self._limits.check_names(below.name_bytes + tree.name_bytes, below.link_steps + tree.link_steps, name)


def _inside(name: bytes, file: bytes) -> TreeError:
    return TreeError(f"{shown(name)} would be inside {shown(file)}, which is not a folder", hint=HINT)
