"""Unpacks the members of an initrd as the kernel does: what ends up in the guest's root, and what is lost on the way.

Source: the kernel's init/initramfs.c, `do_name`, `do_symlink`, `maybe_link` and `clean_path` (6.12).
"""

from __future__ import annotations

import stat
from collections import Counter
from typing import NamedTuple

from acon_nb.archive.newc import NAME_BYTES
from acon_nb.archive.tree import LINKS_LIMIT, Content, Entry, FileTree, ImageLimits, clean_name, shown
from acon_nb.errors import TreeError

_EMPTY = Content.of(b"")
_PERMISSIONS = 0o7777
_SAME_OWNER = 0xFFFFFFFF  # chown(2): -1 changes nothing
# What every kernel has, unless it is built with an initramfs of its own (usr/default_cpio_list)
BUILT_IN = {
    b"dev": Entry(mode=stat.S_IFDIR | 0o755),
    b"dev/console": Entry(mode=stat.S_IFCHR | 0o600, device=(5, 1)),
    b"root": Entry(mode=stat.S_IFDIR | 0o700),
}

NO_FOLDER = "lost: the kernel unpacks in order, and the folder does not exist yet"
TOO_LONG = f"lost: a part of the name is longer than {NAME_BYTES} bytes, the kernel's limit"
IN_THE_WAY = "lost: a folder that is not empty has the name"
UNKNOWN = "lost: a file type that the kernel does not know"
NO_NAME = "lost: a file without a name"
NO_FIRST = "lost: a hard link to a name that does not exist"
ROOT_CHANGED = "the owner and mode of the root folder, which are not kept"


class CpioMember(NamedTuple):
    """A member of an archive: a name, the inode that it describes, and the numbers that identify hard links."""

    name: bytes
    mode: int
    uid: int
    gid: int
    links: int
    mtime: int
    identity: tuple[int, int, int]
    device: tuple[int, int]
    content: Content


class _Inode:
    __slots__ = ("built_in", "content", "device", "gid", "mode", "mtime", "uid")

    def __init__(self, mode: int, device: tuple[int, int] = (0, 0), *, built_in: bool = False) -> None:
        self.mode, self.device, self.built_in = mode, device, built_in
        self.uid = self.gid = self.mtime = 0
        self.content = _EMPTY

    def set(self, member: CpioMember, *, mode: bool = True) -> None:
        self.uid = self.uid if member.uid == _SAME_OWNER else member.uid
        self.gid = self.gid if member.gid == _SAME_OWNER else member.gid
        self.mtime, self.built_in = member.mtime, False
        if mode:
            self.mode = stat.S_IFMT(self.mode) | member.mode & _PERMISSIONS


class Rootfs:
    """The root of a guest while the kernel unpacks an initrd into it.

    `members` are the names of all members, `dropped` those that the kernel loses, with the reason. The root starts with
    what every kernel has built in (`BUILT_IN`); `tree` omits that unless the initrd changes it or puts
    something below it.
    """

    def __init__(self, limits: ImageLimits) -> None:
        self.dropped: list[tuple[str, bytes]] = []
        self.members: list[bytes] = []
        self.file_bytes = 0
        self._limits = limits
        self._inodes: dict[bytes, _Inode] = {}
        self._children: Counter[bytes] = Counter()
        self._first: dict[tuple[int, ...], bytes] = {}
        self._folder_times: list[tuple[bytes, int]] = []
        for name, entry in BUILT_IN.items():
            self._put(name, _Inode(entry.mode, entry.device, built_in=True))

    def end_archive(self) -> None:
        """Forget the inode numbers, as at the end mark of an archive: the next one numbers its files anew."""
        self._first.clear()

    def emptied(self) -> Rootfs:
        """Return a root without files that counts on, towards the same limits."""
        root = Rootfs(self._limits)
        root.members, root.file_bytes = self.members, self.file_bytes
        return root

    def count(self, name: bytes, size: int) -> None:
        """Count a member that is about to be unpacked. Errors: `TreeError` that names the limit."""
        self.members.append(name)
        self.file_bytes += size
        self._limits.check(self.file_bytes, len(self.members), name)

    def add(self, member: CpioMember) -> None:
        """Unpack a member. Errors: `TreeError` (a name that leads out)."""
        name = clean_name(member.name)
        kind = stat.S_IFMT(member.mode)
        if kind == stat.S_IFDIR:
            self._folder_times.append((name, member.mtime))
        if not name:
            self._add_root(member, kind)
            return
        key = self._locate(name)
        if key is None:
            self._number(member)
            self.dropped.append((NO_FOLDER, name))
        elif max(map(len, name.split(b"/"))) > NAME_BYTES:
            self._number(member)
            self.dropped.append((TOO_LONG, name))
        elif kind == stat.S_IFLNK:
            self._add_symlink(key, member)
        elif kind == stat.S_IFREG:
            self._add_file(key, member)
        elif kind == stat.S_IFDIR or kind in _NODES:
            self._add_node(key, member, kind)
        else:
            self._clear(key)
            self.dropped.append((UNKNOWN, name))

    def tree(self) -> FileTree:
        """Return what the kernel has unpacked."""
        for name, mtime in reversed(self._folder_times):  # `dir_utime`, after everything else, the last one first
            key = self._locate(name)
            if key in self._inodes:
                self._inodes[key].mtime = mtime
        tree = FileTree()
        tree.dropped = list(self.dropped)
        names = Counter(map(id, self._inodes.values()))
        needed = {name.rpartition(b"/")[0] for name, inode in self._inodes.items() if not inode.built_in}
        for name in sorted(self._inodes):
            inode = self._inodes[name]
            if inode.built_in and name not in needed:
                continue
            entry = Entry(
                mode=inode.mode,
                uid=inode.uid,
                gid=inode.gid,
                mtime=inode.mtime,
                device=inode.device,
                content=inode.content,
                inode=id(inode) if names[id(inode)] > 1 else None,
            )
            tree.add(name, entry)
        return tree

    def _add_root(self, member: CpioMember, kind: int) -> None:
        if not member.name or kind != stat.S_IFDIR:
            self.dropped.append((NO_NAME, member.name))
        elif (member.mode & _PERMISSIONS, member.uid, member.gid) != (0o755, 0, 0):
            self.dropped.append((ROOT_CHANGED, b"/"))

    def _add_symlink(self, key: bytes, member: CpioMember) -> None:
        if not self._clear(key):  # the kernel changes the owner of the folder that is in the way
            self._inodes[key].set(member, mode=False)
            self.dropped.append((IN_THE_WAY, key))
        else:
            inode = self._new(key, stat.S_IFLNK | 0o777)
            inode.content = member.content
            inode.set(member, mode=False)

    def _add_file(self, key: bytes, member: CpioMember) -> None:
        free = self._clear(key, keep=stat.S_IFREG)
        linked = self._linked(key, member)
        if linked is None or not free:
            self.dropped.append((NO_FIRST if linked is None else IN_THE_WAY, key))
            return
        inode = self._inodes.get(key)
        if inode is None:
            inode = self._new(key, stat.S_IFREG)
        inode.set(member)  # an inode with other names changes under all of them
        if member.content.size or not linked:
            inode.content = member.content

    def _add_node(self, key: bytes, member: CpioMember, kind: int) -> None:
        free = self._clear(key, keep=kind)
        if kind != stat.S_IFDIR and (linked := self._linked(key, member)) is not False:
            if linked is None:
                self.dropped.append((NO_FIRST, key))
            return
        if not free:  # the kernel changes owner and mode of the folder that is in the way
            self.dropped.append((IN_THE_WAY, key))
        if key not in self._inodes:
            self._new(key, kind, member.device if kind in _DEVICES else (0, 0))
        self._inodes[key].set(member)

    def _linked(self, key: bytes, member: CpioMember) -> bool | None:
        """Make a hard link if an inode of this number came before; None if that fails, False if there is none."""
        first_name = self._number(member)
        if first_name is None:
            return False
        cleared = self._clear(key)
        first = self._locate(first_name)
        inode = None if first is None else self._inodes.get(first)
        if inode is None or not cleared or stat.S_ISDIR(inode.mode):
            return None
        if stat.S_ISREG(member.mode) and not stat.S_ISREG(inode.mode):  # the kernel would write into what that is
            raise TreeError(
                f"{shown(key)} is a hard link to {shown(first_name)}, which has become another kind of file",
                hint="make the archive again: a hard link must follow the file that it names",
            )
        self._put(key, inode)
        return True

    def _number(self, member: CpioMember) -> bytes | None:
        """Return the first name of a member's inode; None, and remember this one, if it is the first."""
        if member.links < 2 or stat.S_IFMT(member.mode) not in (stat.S_IFREG, *_NODES):
            return None
        identity = (*member.identity, stat.S_IFMT(member.mode))
        first = self._first.get(identity)
        if first is None:
            self._first[identity] = clean_name(member.name)
        return first

    def _clear(self, key: bytes, *, keep: int = 0) -> bool:
        """Remove what has a name, unless it is of the kind to keep; return whether the name is free (or kept)."""
        inode = self._inodes.get(key)
        if inode is None or stat.S_IFMT(inode.mode) == keep:
            return True
        if self._children[key]:
            return False
        del self._inodes[key]
        self._children[key.rpartition(b"/")[0]] -= 1
        return True

    def _new(self, key: bytes, mode: int, device: tuple[int, int] = (0, 0)) -> _Inode:
        """Make an inode; in a folder with the set-group-ID bit it gets the folder's group."""
        inode = _Inode(mode, device)
        folder = self._inodes.get(key.rpartition(b"/")[0])
        if folder is not None and folder.mode & stat.S_ISGID:
            inode.gid = folder.gid
        self._put(key, inode)
        return inode

    def _put(self, key: bytes, inode: _Inode) -> None:
        self._inodes[key] = inode
        self._children[key.rpartition(b"/")[0]] += 1

    def _locate(self, name: bytes) -> bytes | None:
        """Resolve the folders of a name as the kernel does; None if one does not exist."""
        parent, slash, base = name.rpartition(b"/")
        if not slash or self._is_folder(parent):
            return name
        todo = parent.split(b"/")[::-1]
        done: list[bytes] = []
        links = 0
        while todo:
            part = todo.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                done = done[:-1]
                continue
            done.append(part)
            inode = self._inodes.get(b"/".join(done))
            if inode is None or links > LINKS_LIMIT:
                return None
            if stat.S_ISLNK(inode.mode):
                links += 1
                target = inode.content.read()
                done = [] if target.startswith(b"/") else done[:-1]
                todo.extend(target.split(b"/")[::-1])
            elif not stat.S_ISDIR(inode.mode):
                return None
        return b"/".join([*done, base])

    def _is_folder(self, key: bytes) -> bool:
        inode = self._inodes.get(key)
        return inode is not None and stat.S_ISDIR(inode.mode)


_DEVICES = (stat.S_IFCHR, stat.S_IFBLK)
_NODES = (*_DEVICES, stat.S_IFIFO, stat.S_IFSOCK)
