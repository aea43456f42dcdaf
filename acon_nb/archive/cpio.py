"""Reads and writes the newc cpio format.

Format: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst and init/initramfs.c. Names are sorted
and inodes renumbered from 1 in that order, so the same tree gives the same bytes.
"""

from __future__ import annotations

import re
import stat
import struct
from typing import BinaryIO, NamedTuple

from acon_nb.archive.compress import Writable
from acon_nb.archive.formats import HEAD_BYTES, recognise
from acon_nb.archive.newc import FIELD_LIMIT, TRAILER, check_tree
from acon_nb.archive.rootfs import CpioMember, Rootfs
from acon_nb.archive.tree import Content, Entry, FileTree, ImageLimits, Source, shown
from acon_nb.errors import TreeError

_MAGIC = b"070701"
_WITH_SUM = b"070702"  # with a checksum of the data, which the kernel verifies
_HEX = re.compile(rb"[0-9A-Fa-f]*")
_HEADER_BYTES = 110
_HEADER = _MAGIC + b"%08X" * 13
_PAD = b"\0\0\0"
_LINK_BYTES = 4096
_NOTHING = Content.of(b"")


class _Header(NamedTuple):
    """The fields of a header after the magic number, in order; `name_bytes` includes the final NUL."""

    inode: int
    mode: int
    uid: int
    gid: int
    links: int
    mtime: int
    size: int
    major: int
    minor: int
    device_major: int
    device_minor: int
    name_bytes: int
    checksum: int


def write(tree: FileTree, stream: Writable, *, mtime: int | None = None, owner: tuple[int, int] | None = None) -> int:
    """Write `tree` as a newc archive; return its length in bytes.

    `mtime` (s since 1970) replaces the time of every file, `owner` every (uid, gid). The content of a hard-linked file
    follows its last name, as in GNU cpio. Errors: `TreeError` (what newc or the kernel cannot hold, before anything is
    written; a file that changed).
    """
    check_tree(tree, owner=owner)
    items = tree.items()
    numbers, last, links = _number(items)
    count = 0
    for name, entry in items:
        number = numbers[name]
        data = entry.content if last.get(number, name) == name else _NOTHING
        uid, gid = owner or (entry.uid, entry.gid)
        time = entry.mtime if mtime is None else mtime
        link_count = 2 if entry.is_dir else links.get(number, 1)
        time = min(max(0, time), FIELD_LIMIT)  # the range of newc: 1970 to 2106
        count += _put_header(stream, name, (number, entry.mode, uid, gid, link_count, time, data.size), entry.device)
        if data.size:
            for chunk in data.chunks():
                stream.write(chunk)
            pad = -data.size % 4
            stream.write(_PAD[:pad])
            count += data.size + pad
    count += _put_header(stream, TRAILER, (0, 0, 0, 0, 1, 0, 0), (0, 0))
    pad = -count % 512
    stream.write(bytes(pad))
    return count + pad


def read(stream: BinaryIO, *, limit_bytes: int = 1 << 31) -> FileTree:
    """Read a newc archive into a tree, with contents in memory (for small images).

    `limit_bytes` limits the unpacked size. Errors: `TreeError` for an incomplete or invalid archive.
    """
    data = stream.read(2 * limit_bytes + (64 << 20))
    root = Rootfs(ImageLimits(total_bytes=limit_bytes))
    used = unpack(Content(size=len(data), source=_Memory(data)), root)
    if used < len(data) or not data:
        raise Stopped("not a newc archive", kernel=NO_MAGIC, hint=_AGAIN)
    tree = root.tree()
    if any(what == NO_END for what, _ in tree.dropped):
        raise Stopped("the archive has no end mark: it is truncated", hint=_AGAIN)
    return tree


class Stopped(TreeError):
    """Unpacking stops: `kernel` is the reason that the kernel prints, "" if none, None if kernels can continue."""

    def __init__(self, what: str, *, kernel: str | None = "", hint: str = "") -> None:
        super().__init__(what, hint=hint)
        self.kernel = kernel


NO_END = "no end mark of the archive follows, as if it were truncated"
NO_MAGIC = "no cpio magic"
JUNK_WITHIN = "junk within compressed archive"
JUNK_AT_END = "junk at the end of compressed archive"
_AGAIN = "create or download it again"


def unpack(content: Content, root: Rootfs, *, whole: bool = False) -> int:
    """Unpack members from the start of a content with an open source, as the kernel does; return the bytes read.

    Reading stops behind the end mark and zeros that follow it, or at anything but a member. With `whole` (the content
    of a compressed stream) it continues with further archives up to the end. Contents of the root refer to the source.
    Errors: `Stopped` where the kernel stops; `TreeError` for a limit, or a name that leads out.
    """
    source, start = content.source, content.offset
    assert source is not None
    end = start + content.size
    position, ended = start, False
    while position < end:
        head = source.read_at(position, min(_HEADER_BYTES, end - position))
        if head[:1] == b"\0":
            position = skip_zeros(source, position, end)
            if position < end and (position - start) % 4:
                reason = "zeros behind an archive do not end at a multiple of 4"
                raise Stopped(reason, kernel="broken padding", hint="pad each archive with zeros to a multiple of 4")
        elif head[:1] == b"0" and (whole or not ended):
            position, ended = _unpack_member(source, position, end, head, root)
        elif whole:
            raise _junk(source, position, end, first=position == start)
        else:
            break
    if position > end and whole:
        raise Truncated("the padding of the last file is truncated", hint=_AGAIN)
    if not ended and root.members:
        root.dropped.append((NO_END, root.members[-1]))
    return min(position, end) - start


def _junk(source: Source, position: int, end: int, *, first: bool) -> Stopped:
    """Describe what is in a compressed stream instead of an archive, or behind one."""
    form = recognise(source.read_at(position, min(HEAD_BYTES, end - position))) if first else None
    if form is None:
        return Stopped("an archive is followed by something else", kernel=JUNK_WITHIN, hint=_AGAIN)
    return Stopped(f"{form.what}, which kernels do not read as an initrd", kernel=JUNK_WITHIN, hint=form.hint)


def _unpack_member(source: Source, position: int, end: int, head: bytes, root: Rootfs) -> tuple[int, bool]:
    """Unpack the member at a position; return the position of the next one, and whether it was the end mark."""
    header = _parsed(head)
    raw = _read_exactly(source, position + _HEADER_BYTES, header.name_bytes, end)
    if raw[-1:] != b"\0":
        raise Stopped("a name in the archive is not terminated", kernel="malformed archive", hint=_AGAIN)
    name = raw[: raw.index(b"\0")]  # NULs may follow, as `gen_init_cpio -a` and `dracut-cpio --data-align` write them
    head_bytes = _HEADER_BYTES + header.name_bytes
    position += head_bytes + -head_bytes % 4
    following = position + header.size + -header.size % 4
    if name == TRAILER:
        root.end_archive()
        return following, True
    root.count(name, header.size)
    if position + header.size > end:
        raise Truncated(f"the archive is truncated: {shown(name)} should have {header.size} bytes", hint=_AGAIN)
    body = Content(size=header.size, source=source, offset=position) if header.size else _NOTHING
    root.add(_member(header, name, body))
    if head.startswith(_WITH_SUM) and stat.S_ISREG(header.mode) and _sum(body) != header.checksum:
        raise Stopped(f"the checksum of {shown(name)} is wrong", kernel="bad data checksum", hint=_AGAIN)
    return following, False


class Truncated(Stopped):
    """The archive ends within a member. Kernels report this for a compressed archive only."""


def _parsed(head: bytes) -> _Header:
    if head.startswith(b"070707"):
        raise Stopped(
            "an archive in the odc format, which the kernel does not read",
            kernel="incorrect cpio method used: use -H newc option",
            hint="write it with cpio -H newc",
        )
    if head[:6] not in (_MAGIC, _WITH_SUM) and len(head) >= len(_MAGIC):
        raise Stopped("not a newc archive, or a damaged one: its magic number is wrong", kernel=NO_MAGIC, hint=_AGAIN)
    if len(head) < _HEADER_BYTES:
        raise Truncated("the archive is truncated within a header", hint=_AGAIN)
    if not _HEX.fullmatch(head, 6):
        raise Stopped("a header of the archive is not hexadecimal", kernel="damaged header", hint=_AGAIN)
    header = _Header._make(int(digits, 16) for digits in struct.unpack_from("8s" * len(_Header._fields), head, 6))
    if not 1 <= header.name_bytes <= 4096:
        raise Stopped(f"the archive contains a name of {header.name_bytes} bytes", kernel="malformed archive")
    return header


def _member(header: _Header, name: bytes, body: Content) -> CpioMember:
    mode = header.mode
    if header.size and not stat.S_ISREG(mode) and (not stat.S_ISLNK(mode) or header.size > _LINK_BYTES):
        reason = f"{shown(name)} is not a regular file but has {header.size} bytes"
        raise Stopped(reason, kernel="malformed archive", hint=_AGAIN)
    return CpioMember(
        name=name,
        mode=mode,
        uid=header.uid,
        gid=header.gid,
        links=header.links,
        mtime=header.mtime,
        identity=(header.inode, header.major, header.minor),
        device=(header.device_major, header.device_minor),
        content=Content.of(body.read().partition(b"\0")[0]) if stat.S_ISLNK(mode) else body,
    )


def _sum(content: Content) -> int:
    return sum(sum(chunk) for chunk in content.chunks()) & FIELD_LIMIT


def skip_zeros(source: Source, position: int, end: int) -> int:
    """Return the position of the first byte that is not zero, or the end."""
    while position < end:
        data = source.read_at(position, min(1 << 16, end - position))
        rest = data.lstrip(b"\0")
        position += len(data) - len(rest)
        if rest or not data:
            break
    return position


def _number(items: list[tuple[bytes, Entry]]) -> tuple[dict[bytes, int], dict[int, bytes], dict[int, int]]:
    """Assign inode numbers; return them by name, the last name of each hard-linked inode, and its number of links."""
    numbers: dict[bytes, int] = {}
    known: dict[object, int] = {}
    last: dict[int, bytes] = {}
    links: dict[int, int] = {}
    for name, entry in items:
        number = len(numbers) + 1
        if entry.inode is not None and not entry.is_link:  # the kernel links all but folders and symbolic links
            number = known.setdefault(entry.inode, number)
            last[number] = name
            links[number] = links.get(number, 0) + 1
        numbers[name] = number
    return numbers, last, links


def _put_header(stream: Writable, name: bytes, head: tuple[int, ...], device: tuple[int, int]) -> int:
    """Write a header, whose first fields (inode to size) are `head`, and the name; return their length in bytes."""
    header = _Header._make((*head, 0, 0, *device, len(name) + 1, 0))
    length = _HEADER_BYTES + header.name_bytes
    pad = -length % 4
    stream.write(_HEADER % header + name + b"\0" + _PAD[:pad])
    return length + pad


def _read_exactly(source: Source, position: int, count: int, end: int) -> bytes:
    data = source.read_at(position, count) if position + count <= end else b""
    if len(data) != count:
        raise Truncated("the archive is truncated within a name", hint=_AGAIN)
    return data


class _Memory:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def read_at(self, offset: int, count: int) -> bytes:
        """Return at most `count` bytes from `offset` (see `Source`)."""
        return self._data[offset : offset + count]
