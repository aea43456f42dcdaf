"""Reads tar archives by their headers; contents refer to the archive.

Formats: V7, POSIX ustar and pax, GNU tar, star, and what Go, bsdtar and Solaris write. Python's tarfile is not used for
reading: it takes a damaged header for the end of the archive, reads extended headers of any size into memory, and seeks
backwards for negative sizes. Where tools disagree on what an archive means, it is refused.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from acon_nb.archive.formats import HEAD_BYTES, TAR, recognise
from acon_nb.archive.tar.header import BLOCK_BYTES, HINT, Header, is_header
from acon_nb.archive.tar.pax import Records, check_global, parse
from acon_nb.archive.tar.sparse import Reader, map_of
from acon_nb.archive.tree import NO_XATTRS, Content, Entry, ImageLimits, clean_name, shown
from acon_nb.errors import TreeError

Warn = Callable[[str, bytes], None]

_FILE, _HARD_LINK, _SYMLINK, _DIRECTORY = b"0", b"1", b"2", b"5"
_DEVICES = (b"3", b"4")
_KINDS = {
    _FILE: stat.S_IFREG,
    _HARD_LINK: 0,
    _SYMLINK: stat.S_IFLNK,
    b"3": stat.S_IFCHR,
    b"4": stat.S_IFBLK,
    _DIRECTORY: stat.S_IFDIR,
    b"6": stat.S_IFIFO,
}
_SPARSE = b"S"
# D: of tar --listed-incremental, with the names in the folder as its data
_ALIASES = {b"\0": _FILE, b"7": _FILE, _SPARSE: _FILE, b"D": _DIRECTORY}
_WITHOUT_DATA = (_SYMLINK, b"3", b"4", _DIRECTORY, b"6")  # whatever their size says, as in GNU tar, bsdtar and Go
_LABEL = b"V"
_OMITTED = {
    b"A": "access control lists of Solaris are not supported: dropped from",
    b"E": "extended attributes of Solaris are not supported: dropped from",
    b"I": "members that only describe an inode (star's type I) are omitted",
}
_REFUSED = {
    b"M": ("is continued from another volume of the tar", "join the volumes: unpack them with tar -xM and pack again"),
    b"N": ("lists names as GNU tar did before 1.12, which is not supported", "unpack it with tar and pack it again"),
}
_EXTENDED = (b"L", b"K", b"x", b"X", b"g")  # X: what Solaris writes for x
_UID_LIMIT = 0xFFFFFFFF  # chown(2) takes this number for "do not change"
_NOBODY = 65534  # what the kernel shows for an owner that it cannot represent (overflowuid)
_DEVICE_LIMIT = 1 << 32
_PART_BYTES = 100  # of memory for a part of a sparse file, or a warning
_NOTHING = Content.of(b"")


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a tar: its name (normalised), its kind (0 to 6 of POSIX), its entry, a hard link's target.

    `notes` are what was dropped or changed, in words for `FileTree.drop`.
    """

    name: bytes
    kind: bytes
    entry: Entry
    link: bytes = b""
    notes: tuple[str, ...] = ()


def members(content: Content, what: str, *, limits: ImageLimits, warn: Warn, need_end: bool = True) -> Iterator[Member]:
    """Yield the members of an uncompressed tar, which errors call `what`.

    Parameters: `warn` receives what is omitted, and the name of the member (as `FileTree.drop` does); with `need_end`,
    also that the tar does not end with a block of zeros, or that data follows its end.
    Errors: `TreeError` for an incomplete or invalid archive.
    """
    archive = _Archive(content, limits, warn)
    try:
        archive.check_format()
        yield from archive.members(need_end)
    except TreeError as error:
        raise TreeError(f"{what}: {error.what}", hint=error.hint) from error


class _Archive:
    """The state of reading a tar: the position, the defaults of global headers, the extended headers of a member."""

    def __init__(self, content: Content, limits: ImageLimits, warn: Warn) -> None:
        assert content.source is not None
        self._source, self._start, self._end = content.source, content.offset, content.offset + content.size
        self._reader = Reader(content.source, self._end)
        self._limits, self._warn = limits, warn
        self._position = self._start
        self._held_bytes = 0
        self._defaults = Records()
        self._begin_member()

    def _begin_member(self) -> None:
        self._long_name = self._long_link = b""
        self._records: Records | None = None
        self._extended = ""  # the first extended header of the next member
        self._notes: list[str] = []

    def check_format(self) -> None:
        """Check that the file is not of another known format. Errors: `TreeError` that says how to read it."""
        head = self._source.read_at(self._start, min(HEAD_BYTES, self._end - self._start))
        form = None if is_header(head[:BLOCK_BYTES]) else recognise(head)
        if form is not None and form != TAR:
            raise TreeError(f"not a tar, but {form.what}", hint=form.hint)

    def members(self, need_end: bool) -> Iterator[Member]:
        """Yield the members."""
        last: bytes | None = None
        if need_end and self._position == self._end:
            raise TreeError("the tar is empty: it has no bytes", hint=HINT)
        while self._position < self._end:
            block = self._source.read_at(self._position, min(BLOCK_BYTES, self._end - self._position))
            if not block.strip(b"\0"):
                break
            head = Header(block, self._position - self._start)
            self._position += BLOCK_BYTES
            if head.kind in _EXTENDED:
                self._extend(head)
                continue
            member = self._member(head)
            self._begin_member()
            if member is not None:
                last = member.name
                yield member
        if self._extended:
            raise TreeError(f"the tar is truncated: no member follows its extended header {self._extended}", hint=HINT)
        if need_end:
            self._check_end(last)

    def _check_end(self, last: bytes | None) -> None:
        """Check what follows the last member, if there is one."""
        if self._position > self._end:
            reason = f"the last {self._position - self._end} bytes, which fill the last block, are missing"
            raise TreeError(f"the tar is truncated: {reason}", hint=HINT)
        if self._position == self._end:
            self._warn("the tar has no end mark, so it may be incomplete after its last member", last or b"")
        while self._position < self._end:
            data = self._source.read_at(self._position, min(1 << 20, self._end - self._position))
            if not data:
                break
            if data.strip(b"\0"):
                if last is None:
                    raise TreeError("not a tar: it starts with zeros, which end a tar, before other data", hint=HINT)
                self._warn("data after the end of the tar is ignored, as by tar without -i; its last member is", last)
                break
            self._position += len(data)

    def _extend(self, head: Header) -> None:
        """Read an extended header, which describes the next member (or, if global, all that follow)."""
        size, limit = head.size, self._limits.extra_bytes
        if size > limit:
            reason = f"is an extended header of {size} bytes, which exceeds the limit extra_bytes={limit}"
            raise TreeError(f"{head.where} {reason}", hint="create the archive without extended attributes")
        body = self._reader.exactly(self._position, size, head.where)
        self._position += _padded(size)
        if head.kind == b"g":
            records = parse(body, head.where)
            check_global(records, head.where)
            self._defaults = Records({**self._defaults, **records})
            return
        self._extended = self._extended or head.where
        if head.kind == b"L":
            self._long_name = body.split(b"\0")[0]
        elif head.kind == b"K":
            self._long_link = body.split(b"\0")[0]
        elif self._records is None:
            self._records = parse(body, head.where)
        else:
            reason = "is the second extended header of one member, and tools disagree on which of them applies"
            raise TreeError(f"{head.where} {reason}", hint="create the archive with another tool")

    def _member(self, head: Header) -> Member | None:
        """Read the member of a header, and set the position to the next header; return None if it is omitted."""
        records = self._merged_records()
        name = records.get(b"GNU.sparse.name") or self._one_of(head, b"path", records, self._long_name) or head.name
        head.where = shown(name)
        if head.kind in _REFUSED:
            reason, hint = _REFUSED[head.kind]
            raise TreeError(f"{head.where} {reason}", hint=hint)
        size = records.number(b"size", head.size, head.where)
        content = _NOTHING
        if head.kind == _HARD_LINK:
            self._skip(size if self._link_has_data(size) else 0, head.where)
        elif _ALIASES.get(head.kind, head.kind) == _FILE and not name.endswith(b"/"):
            content = self._data(head, records, size)
        elif head.kind not in _WITHOUT_DATA:
            content = Content(size=size, source=self._source, offset=self._position)
            self._skip(size, head.where)
        if head.kind == _LABEL:
            return None
        kind = self._kind(head, name, content)
        key = clean_name(name)
        if kind is None or not name:
            self._warn(_OMITTED.get(head.kind, "members without a name are omitted"), key)
            return None
        return self._described(head, records, key, kind, content if kind == _FILE else _NOTHING)

    def _kind(self, head: Header, name: bytes, content: Content) -> bytes | None:
        """Return the kind of a member, one of POSIX; None if members of its type are omitted."""
        kind = _ALIASES.get(head.kind, head.kind)
        if kind == _FILE and name.endswith(b"/"):  # how tars before POSIX say that it is a folder
            if content.size:
                self._notes.append("a name with a slash at its end is a folder's: the data is dropped of")
            return _DIRECTORY
        if kind in _OMITTED:
            return None
        if kind not in _KINDS:
            self._notes.append(f"the type {kind.decode('latin-1')!r} is not known: read as a regular file")
            return _FILE
        return kind

    def _described(self, head: Header, records: Records, name: bytes, kind: bytes, content: Content) -> Member | None:
        """Return the member with its owner, time, target and device numbers."""
        where = head.where
        link = self._link(head, records) if kind in (_HARD_LINK, _SYMLINK) else b""
        if kind == _SYMLINK and not link:
            self._warn("symbolic links without a target cannot exist on Linux and are omitted", name)
            return None
        device = (0, 0)
        if kind in _DEVICES:
            device = self._device(head, records, b"devmajor", 329), self._device(head, records, b"devminor", 337)
        if kind == _SYMLINK:
            content = Content.of(link)
        entry = Entry(
            mode=stat.S_IFLNK | 0o777 if kind == _SYMLINK else head.mode | _KINDS[kind],
            uid=self._owner(where, "uid", _number(head, records, b"uid", 108)),
            gid=self._owner(where, "gid", _number(head, records, b"gid", 116)),
            mtime=records.seconds(b"mtime", where) if records.get(b"mtime") else head.number("mtime", 136, 12),
            device=device,
            content=content,
        )
        attributes = records.xattrs()
        self._notes += [NO_XATTRS.format(attribute) for attribute in attributes]
        if flags := records.get(b"SCHILY.fflags"):
            text = flags[:80].decode(errors="backslashreplace")
            self._notes.append(f"newc does not support file flags: {text} is dropped from")
        parts = len(attributes) + len(content.extents or ())
        self._count(len(name) + len(link) + sum(map(len, attributes)) + parts * _PART_BYTES, where)
        return Member(name, kind, entry, link if kind == _HARD_LINK else b"", tuple(self._notes))

    def _merged_records(self) -> Records:
        """Return the records that apply to the next member: its own over those of global headers."""
        own = self._records or Records()
        if not self._defaults:
            return own
        merged = Records({**self._defaults, **own})
        merged.sparse = own.sparse
        return merged

    def _one_of(self, head: Header, keyword: bytes, records: Records, long: bytes) -> bytes:
        """Return the name (or target) that a pax record or a long-name header gives. Errors: `TreeError` for two."""
        pax = records.get(keyword) or b""
        if pax and long and pax.rstrip(b"/") != long.rstrip(b"/"):
            reason = f"{shown(pax)} in a pax header, {shown(long)} in a GNU header; tools disagree on which applies"
            raise TreeError(f"{head.where} has two values of {keyword.decode()}: {reason}", hint=HINT)
        return pax or long

    def _link(self, head: Header, records: Records) -> bytes:
        link = self._one_of(head, b"linkpath", records, self._long_link) or head.link
        if b"\0" in link:
            raise TreeError(f"{head.where} is a link to {shown(link)}, which contains a NUL byte", hint=HINT)
        if not link and head.kind == _HARD_LINK:
            raise TreeError(f"{head.where} is a hard link without a target", hint=HINT)
        return link

    def _data(self, head: Header, records: Records, size: int) -> Content:
        """Return the content of a regular file, and set the position to the next header."""
        sparse = map_of(self._reader, head, records, self._position, size)
        if sparse is None:
            content = Content(size=size, source=self._source, offset=self._position)
            self._skip(size, head.where)
            return content
        # The size is that of the map, if it is in the data, and of the parts. Some writers give the size of the file in
        # a pax record, or count the padding; star counts the blocks of the map that follow its header.
        map_bytes = sparse.data - self._position
        stored = sparse.stored_bytes + (0 if head.kind == _SPARSE else map_bytes)
        claimed = [size, head.size, *([size - map_bytes] if head.kind == _SPARSE else [])]
        if stored not in claimed and not (sparse.is_aligned and _padded(stored) in map(_padded, claimed)):
            reason = f"it describes {stored} bytes of the archive, but its header says {size}"
            raise TreeError(f"{head.where}: its sparse map is invalid: {reason}", hint=HINT)
        self._position = sparse.data
        self._skip(sparse.stored_bytes, head.where)
        return sparse.content(self._source, head.where)

    def _link_has_data(self, size: int) -> bool:
        """Whether the data of a hard link follows: POSIX allows it in pax archives, most tools write or expect none.

        A size without data is as common, so the headers that follow decide.
        """
        if not size or is_header(self._block(self._position)):
            return False
        after = self._block(self._position + _padded(size))
        if not self._block(self._position).strip(b"\0"):  # the end, or data that begins with zeros
            return is_header(after)
        return is_header(after) or not after.strip(b"\0")

    def _block(self, position: int) -> bytes:
        return self._source.read_at(position, min(BLOCK_BYTES, max(0, self._end - position)))

    def _skip(self, size: int, where: str) -> None:
        left = self._end - self._position
        if not 0 <= size <= left:
            reason = f"has {size} bytes according to its header, but only {left} follow in the tar"
            raise TreeError(f"{where} {reason}: it is truncated or damaged", hint=HINT)
        self._position += _padded(size)

    def _owner(self, where: str, field: str, value: int) -> int:
        if 0 <= value < _UID_LIMIT:
            return value
        if value > _UID_LIMIT or value < -(1 << 31):
            raise TreeError(f"{where} has the {field} {value}, which exceeds 32 bits", hint=HINT)
        self._notes.append(f"the {field} {value} cannot exist on Linux: {_NOBODY} (nobody) takes its place in")
        return _NOBODY

    def _device(self, head: Header, records: Records, field: bytes, start: int) -> int:
        keyword = next((vendor + field for vendor in (b"SCHILY.", b"SUN.") if records.get(vendor + field)), field)
        value = _number(head, records, keyword, start)
        if not 0 <= value < _DEVICE_LIMIT:
            raise TreeError(
                f"{head.where} has the device number {field.decode()}={value}, which exceeds 32 bits", hint=HINT
            )
        return value

    def _count(self, held_bytes: int, where: str) -> None:
        """Count what is held in memory. Errors: `TreeError` if it exceeds the limit."""
        self._held_bytes += held_bytes
        limit = self._limits.name_bytes
        if self._held_bytes > limit:
            raise TreeError(
                f"the names, targets and sparse maps of the tar exceed the limit name_bytes={limit} (at {where})"
            )


def _padded(size: int) -> int:
    return size + -size % BLOCK_BYTES


def _number(head: Header, records: Records, keyword: bytes, start: int) -> int:
    if records.get(keyword):
        return records.number(keyword, 0, head.where)
    return head.number(keyword.decode(), start, 8)
