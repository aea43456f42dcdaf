"""The newc cpio format, written and read.

Format: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst and init/initramfs.c. Names are sorted,
inodes renumbered from 1 in that order, so the same tree gives the same bytes.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from typing import BinaryIO, Protocol

from acon_nb.errors import TreeError
from acon_nb.initrd.tree import Content, Entry, FileTree, clean_name

_MAGIC = b"070701"
_HEX = re.compile(rb"[0-9A-Fa-f]*")
_TRAILER = b"TRAILER!!!"
_HEADER_BYTES = 110
_LIMIT = 0xFFFFFFFF
_PAD = b"\0\0\0"


class Writable(Protocol):
    """What a cpio is written to."""

    def write(self, data: bytes, /) -> object:
        """Take bytes."""


def write(tree: FileTree, stream: Writable, *, mtime: int | None = None, owner: tuple[int, int] | None = None) -> int:
    """Write `tree` as a newc archive; returns its length in bytes.

    `mtime` (s since 1970) replaces every file's time, `owner` every (uid, gid). A hard-linked file's bytes stand with
    its last name, as GNU cpio writes them. Errors: `TreeError` (a file of 4 GiB or more, a file that changed).
    """
    if _TRAILER in tree:
        raise TreeError(f"a file named {_TRAILER.decode()} would end the archive for its readers", hint="rename it")
    numbers, last, links = _number(tree)
    count = 0
    for name, entry in tree.items():
        number = numbers[name]
        data = entry.content if last.get(number, name) == name else Content.of(b"")
        if entry.content.size > _LIMIT:
            raise TreeError(f"{name!r} has {entry.content.size} bytes: newc holds less than 4 GiB a file")
        uid, gid = owner or (entry.uid, entry.gid)
        time = entry.mtime if mtime is None else mtime
        links_here = 2 if entry.is_dir else links.get(number, 1)
        head = (number, entry.mode, uid, gid, links_here, max(0, time) & _LIMIT, data.size)
        count += _put_header(stream, head, entry.device, name)
        for chunk in data.chunks():
            stream.write(chunk)
        pad = -data.size % 4
        stream.write(_PAD[:pad])
        count += data.size + pad
    count += _put_header(stream, (0, 0, 0, 0, 1, 0, 0), (0, 0), _TRAILER)
    pad = -count % 512
    stream.write(bytes(pad))
    return count + pad


def read(stream: BinaryIO, *, limit_bytes: int = 1 << 31) -> FileTree:
    """Read a newc archive into a tree, contents in memory (a check of our own writing, and of small images).

    Errors: `TreeError` for anything that is not a whole, sane archive; `limit_bytes` bounds what is kept.
    """
    tree = FileTree()
    shared: dict[int, list[bytes]] = {}
    kept = 0
    for name, numbers, device in _headers(stream):
        ino, mode, uid, gid, nlink, mtime, size = numbers
        kept += size
        if kept > limit_bytes:
            raise TreeError(f"the archive holds more than {limit_bytes} bytes", hint="raise the limit if you trust it")
        data = _exactly(stream, size)
        _exactly(stream, -size % 4)
        if not clean_name(name) and not stat.S_ISDIR(mode):
            raise TreeError("a file without a name in the archive")
        linked = stat.S_ISREG(mode) and nlink > 1
        entry = Entry(
            mode=mode,
            uid=uid,
            gid=gid,
            mtime=mtime,
            device=device,
            content=Content.of(data),
            inode=ino if linked else None,
        )
        tree.add(name, entry)
        if linked:
            shared.setdefault(ino, []).append(clean_name(name))
    for names in shared.values():  # the bytes stand with one of the names: give them to all
        full = max((tree[name] for name in names), key=lambda entry: entry.content.size)
        for name in names:
            tree.add(name, full)
    return tree


def _headers(stream: BinaryIO) -> Iterator[tuple[bytes, tuple[int, ...], tuple[int, int]]]:
    while True:
        head = _exactly(stream, _HEADER_BYTES)
        if head[:6] != _MAGIC:
            raise TreeError("not a newc archive, or a damaged one: its magic number is wrong")
        if not _HEX.fullmatch(head[6:]):
            raise TreeError("a header of the archive is not hexadecimal")
        fields = [int(head[start : start + 8], 16) for start in range(6, _HEADER_BYTES, 8)]
        ino, mode, uid, gid, nlink, mtime, size, _, _, major, minor, length, _ = fields
        if not 1 <= length <= 4096:
            raise TreeError(f"a name of {length} bytes in the archive")
        name = _exactly(stream, length)
        _exactly(stream, -(_HEADER_BYTES + length) % 4)
        if name[-1:] != b"\0":
            raise TreeError("a name in the archive does not end")
        if name[:-1] == _TRAILER:
            return
        yield name[:-1], (ino, mode, uid, gid, nlink, mtime, size), (major, minor)


def _number(tree: FileTree) -> tuple[dict[bytes, int], dict[int, bytes], dict[int, int]]:
    """New inode numbers: by name, the last name of each hard-linked inode, and its count of links."""
    numbers: dict[bytes, int] = {}
    known: dict[object, int] = {}
    last: dict[int, bytes] = {}
    links: dict[int, int] = {}
    for name, entry in tree.items():
        number = len(numbers) + 1
        if entry.inode is not None:
            number = known.setdefault(entry.inode, number)
            last[number] = name
            links[number] = links.get(number, 0) + 1
        numbers[name] = number
    return numbers, last, links


def _put_header(stream: Writable, head: tuple[int, ...], device: tuple[int, int], name: bytes) -> int:
    fields = (*head, 0, 0, *device, len(name) + 1, 0)
    if not all(0 <= value <= _LIMIT for value in fields):
        raise TreeError(f"{name!r} has a number that newc cannot hold (mode, owner or device: {head[1:4]}, {device})")
    stream.write(_MAGIC + b"".join(b"%08X" % value for value in fields))
    stream.write(name + b"\0")
    length = _HEADER_BYTES + len(name) + 1
    pad = -length % 4
    stream.write(_PAD[:pad])
    return length + pad


def _exactly(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count) if count else b""
    if len(data) != count:
        raise TreeError("the archive is cut short")
    return data
