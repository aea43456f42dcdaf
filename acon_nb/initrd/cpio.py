"""The newc cpio format, written and read.

Format: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst and init/initramfs.c. Names are sorted,
inodes renumbered from 1 in that order, so the same tree gives the same bytes.
"""

from __future__ import annotations

import re
import stat
from dataclasses import replace
from typing import BinaryIO, Protocol

from acon_nb.errors import TreeError
from acon_nb.initrd.tree import Content, Entry, FileTree, Limits, Source, clean_name, shown

_MAGIC = b"070701"
_MAGICS = (_MAGIC, b"070702")  # the second has a sum of the bytes, which the kernel reads as well
_HEX = re.compile(rb"[0-9A-Fa-f]*")
_TRAILER = b"TRAILER!!!"
_HEADER_BYTES = 110
_HEADER = _MAGIC + b"%08X" * 13
_LIMIT = 0xFFFFFFFF
_PAD = b"\0\0\0"
_LINK_BYTES = 4096
_NOTHING = Content.of(b"")
_KINDS = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK)


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
    items = tree.items()
    numbers, last, links = _number(items)
    count = 0
    for name, entry in items:
        number = numbers[name]
        data = entry.content if last.get(number, name) == name else _NOTHING
        if entry.content.size > _LIMIT:
            raise TreeError(f"{shown(name)} has {entry.content.size} bytes: newc holds less than 4 GiB a file")
        uid, gid = owner or (entry.uid, entry.gid)
        time = entry.mtime if mtime is None else mtime
        links_here = 2 if entry.is_dir else links.get(number, 1)
        time = min(max(0, time), _LIMIT)  # what newc holds: 1970 to 2106
        head = (number, entry.mode, uid, gid, links_here, time, data.size)
        count += _put_header(stream, head, entry.device, name)
        if data.size:
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

    Errors: `TreeError` for anything that is not a whole, sane archive; `limit_bytes` bounds what its files unpack to.
    """
    data = stream.read(2 * limit_bytes + (64 << 20))
    return read_content(Content(size=len(data), source=_Memory(data)), limits=Limits(total_bytes=limit_bytes))[0]


def read_content(content: Content, *, limits: Limits) -> tuple[FileTree, int]:
    """Read the newc archive that starts a content (with an open source); contents stay where they lie.

    Returns the tree and the bytes read, up to what follows the archive (zeros skipped). Errors as in `read`.
    """
    source, place, end = content.source, content.offset, content.offset + content.size
    assert source is not None
    tree = FileTree()
    shared: dict[object, list[bytes]] = {}
    total = names = 0
    while True:
        fields = _fields(_exactly(source, place, _HEADER_BYTES, end))
        size, length = fields[6], fields[11]
        raw = _exactly(source, place + _HEADER_BYTES, length, end)
        if raw[-1:] != b"\0" or b"\0" in raw[:-1]:
            raise TreeError("a name in the archive does not end where it should")
        place += _HEADER_BYTES + length + -(_HEADER_BYTES + length) % 4
        if raw[:-1] == _TRAILER:
            _share(tree, shared)
            return tree, _skip_zeros(source, min(place, end), end) - content.offset
        name = clean_name(raw[:-1])
        total, names = total + size, names + 1
        limits.check(total, names, shown(name))
        if place + size > end:
            raise TreeError(f"the archive is cut short: {shown(name)} claims {size} bytes")
        entry = _entry(fields, name, Content(size=size, source=source, offset=place) if size else _NOTHING)
        tree.add(name, entry)
        if entry.inode is not None:
            shared.setdefault(entry.inode, []).append(name)
        place += size + -size % 4


def _fields(head: bytes) -> list[int]:
    """Inode, mode, uid, gid, links, mtime, size, device (2), device node (2), length of the name, sum."""
    if head[:6] not in _MAGICS:
        raise TreeError("not a newc archive, or a damaged one: its magic number is wrong")
    if not _HEX.fullmatch(head, 6):
        raise TreeError("a header of the archive is not hexadecimal")
    fields = [int(head[start : start + 8], 16) for start in range(6, _HEADER_BYTES, 8)]
    if not 1 <= fields[11] <= 4096:
        raise TreeError(f"a name of {fields[11]} bytes in the archive")
    return fields


def _entry(fields: list[int], name: bytes, content: Content) -> Entry:
    ino, mode, uid, gid, nlink, mtime, size, *device, _, _ = fields
    if not name and not stat.S_ISDIR(mode):
        raise TreeError("a file without a name in the archive")
    if stat.S_IFMT(mode) not in _KINDS:
        raise TreeError(f"{shown(name)} is of no kind that a tree holds (mode {mode:o})")
    if size and not stat.S_ISREG(mode) and (not stat.S_ISLNK(mode) or size > _LINK_BYTES):
        raise TreeError(f"{shown(name)} is no file and claims {size} bytes")
    inode = (ino, *device[:2]) if stat.S_ISREG(mode) and nlink > 1 else None
    body = Content.of(content.read()) if stat.S_ISLNK(mode) else content
    numbers = (device[2], device[3])
    return Entry(mode=mode, uid=uid, gid=gid, mtime=mtime, device=numbers, content=body, inode=inode)


def _share(tree: FileTree, shared: dict[object, list[bytes]]) -> None:
    """The bytes of hard links stand with one of the names: give them to all that are still of that inode."""
    for inode, names in shared.items():
        here = [name for name in names if name in tree and tree[name].inode == inode]
        if here:
            full = max((tree[name] for name in here), key=lambda entry: entry.content.size)
            for name in here:
                tree.add(name, replace(full, content=full.content))


def _skip_zeros(source: Source, place: int, end: int) -> int:
    while place < end:
        data = source.read_at(place, min(1 << 16, end - place))
        rest = data.lstrip(b"\0")
        place += len(data) - len(rest)
        if rest or not data:
            break
    return place


def _number(items: list[tuple[bytes, Entry]]) -> tuple[dict[bytes, int], dict[int, bytes], dict[int, int]]:
    """New inode numbers: by name, the last name of each hard-linked inode, and its count of links."""
    numbers: dict[bytes, int] = {}
    known: dict[object, int] = {}
    last: dict[int, bytes] = {}
    links: dict[int, int] = {}
    for name, entry in items:
        number = len(numbers) + 1
        if entry.inode is not None:
            number = known.setdefault(entry.inode, number)
            last[number] = name
            links[number] = links.get(number, 0) + 1
        numbers[name] = number
    return numbers, last, links


def _put_header(stream: Writable, head: tuple[int, ...], device: tuple[int, int], name: bytes) -> int:
    fields = (*head, 0, 0, *device, len(name) + 1, 0)
    if min(fields) < 0 or max(fields) > _LIMIT:
        raise TreeError(
            f"{shown(name)} has a number that newc cannot hold (mode, owner or device: {head[1:4]}, {device})"
        )
    length = _HEADER_BYTES + len(name) + 1
    pad = -length % 4
    stream.write(_HEADER % fields + name + b"\0" + _PAD[:pad])
    return length + pad


def _exactly(source: Source, place: int, count: int, end: int) -> bytes:
    data = source.read_at(place, count) if place + count <= end else b""
    if len(data) != count:
        raise TreeError("the archive is cut short")
    return data


class _Memory:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def read_at(self, offset: int, count: int) -> bytes:
        """As `Source` says."""
        return self._data[offset : offset + count]
