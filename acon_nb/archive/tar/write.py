"""Writes trees as tar archives."""

from __future__ import annotations

import stat
import tarfile
from typing import BinaryIO

from acon_nb.archive.tree import Content, FileTree


def write(tree: FileTree, stream: BinaryIO) -> None:
    """Write a tree as a tar (GNU format, sorted by name) to a stream, which need not be seekable.

    What a tar cannot hold (sockets) is omitted and added to the tree's `dropped`.
    """
    first: dict[object, bytes] = {}
    with tarfile.open(
        fileobj=stream, mode="w|", format=tarfile.GNU_FORMAT, encoding="utf-8", bufsize=1 << 20
    ) as archive:
        archive.copybufsize = 1 << 20  # type: ignore[attr-defined]
        for name, entry in tree.items():
            kind = _TYPES.get(stat.S_IFMT(entry.mode))
            if kind is None:
                tree.drop("sockets are omitted: a tar cannot hold them", name)
                continue
            info = tarfile.TarInfo(name.decode("utf-8", "surrogateescape"))
            info.mode, info.uid, info.gid = stat.S_IMODE(entry.mode), entry.uid, entry.gid
            info.mtime = entry.mtime
            info.devmajor, info.devminor = entry.device
            info.type = kind
            if entry.is_link:
                info.linkname = entry.content.read().decode("utf-8", "surrogateescape")
            elif entry.inode is not None and first.setdefault(entry.inode, name) != name:
                info.type, info.linkname = tarfile.LNKTYPE, first[entry.inode].decode("utf-8", "surrogateescape")
            elif entry.is_file:
                info.size = entry.content.size
            archive.addfile(info, _Reader(entry.content) if info.size else None)


_TYPES = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}


class _Reader:
    """Presents a content as a file for tarfile."""

    def __init__(self, content: Content) -> None:
        self._chunks = content.chunks()
        self._rest = b""

    def read(self, count: int = 1 << 20, /) -> bytes:
        """Read `count` bytes; fewer only at the end."""
        while len(self._rest) < count:
            chunk = next(self._chunks, b"")
            if not chunk:
                break
            self._rest += chunk
        data, self._rest = self._rest[:count], self._rest[count:]
        return data
