"""Tar archives read by their headers alone: contents stay where they lie, in the archive.

Formats: POSIX ustar and pax, GNU tar (long names, sparse files, base-256 numbers). Python's own tarfile is not used
here: it takes a damaged header for the end, reads a header of any claimed length into memory, and goes back for a size
below zero. Sources: POSIX.1-2017 pax "ustar Interchange Format", GNU tar manual "Basic Tar Format", "Sparse Formats".
"""

from __future__ import annotations

import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import BinaryIO

from acon_nb.errors import TreeError
from acon_nb.initrd.tree import Content, Entry, FileTree, Limits, Source, clean_name, shown

_BLOCK = 512
_REGULAR = (b"0", b"\0", b"7", b"S")
_KINDS = {
    **dict.fromkeys(_REGULAR, stat.S_IFREG),
    b"2": stat.S_IFLNK,
    b"3": stat.S_IFCHR,
    b"4": stat.S_IFBLK,
    b"5": stat.S_IFDIR,
    b"D": stat.S_IFDIR,
    b"6": stat.S_IFIFO,
}
_XATTR = (b"SCHILY.xattr.", b"LIBARCHIVE.xattr.")
_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_HINT = "the archive is damaged or hostile: make or download it again"
NO_XATTRS = "newc holds no extended attributes: {} is dropped from"
NO_DEVICES = "device nodes of an image are left out unless asked for (--devices)"


@dataclass(frozen=True, slots=True)
class Member:
    """A tar's member: its name as it stands, its kind (the typeflag), its entry, a link's target, its attributes."""

    name: bytes
    kind: bytes
    entry: Entry
    link: bytes = b""
    xattrs: tuple[str, ...] = ()


@dataclass
class _Extra:
    """What headers before a member say about it."""

    name: bytes | None = None
    link: bytes | None = None
    pax: dict[bytes, bytes] = field(default_factory=dict)
    sparse: list[tuple[int, int]] | None = None


def members(content: Content, *, limits: Limits, need_end: bool = True) -> Iterator[Member]:
    """The members of an uncompressed tar, one by one.

    Parameters: `need_end`: an archive without a block of zeros at its end is refused as cut short.
    Errors: `TreeError` for anything that is not a whole, sane archive.
    """
    source, place, end = content.source, content.offset, content.offset + content.size
    assert source is not None
    defaults: dict[bytes, bytes] = {}
    extra = _Extra()
    while place < end:
        head = source.read_at(place, _BLOCK)
        if not head.strip(b"\0") and len(head) == _BLOCK:
            return
        place += _BLOCK
        size = _check(head, place - _BLOCK)
        kind = head[156:157]
        if kind in (b"L", b"K", b"x", b"X", b"g"):
            if size > limits.extra_bytes:
                raise TreeError(f"a header of {size} bytes is over the limit extra_bytes={limits.extra_bytes}")
            body = _exactly(source, place, size, end)
            if kind == b"L":
                extra.name = body.split(b"\0")[0]
            elif kind == b"K":
                extra.link = body.split(b"\0")[0]
            elif kind == b"g":
                defaults.update(_pax(body, extra))
            else:
                extra.pax.update(_pax(body, extra))
            place += size + -size % _BLOCK
            continue
        member, place = _member(source, head, kind, size, place, end, extra, defaults)
        yield member
        extra = _Extra()
    if need_end or extra != _Extra():
        raise TreeError("the tar is cut short: it does not end with zeros", hint=_HINT)


def _member(
    source: Source,
    head: bytes,
    kind: bytes,
    size: int,
    place: int,
    end: int,
    extra: _Extra,
    defaults: dict[bytes, bytes],
) -> tuple[Member, int]:
    """One member and the place of the next header."""
    pax = {**defaults, **extra.pax} if defaults or extra.pax else {}
    name = pax.get(b"GNU.sparse.name") or pax.get(b"path") or extra.name or _ustar_name(head)
    size = _decimal(pax, b"size", size)
    if kind not in _REGULAR:
        held = size if kind not in (b"1", b"2", b"3", b"4", b"5", b"6") else 0
        content = Content.of(b"")
    else:
        if kind == b"S":
            extra.sparse, size_all, place = _old_sparse(source, head, place, end)
        else:
            size_all = _decimal(pax, b"GNU.sparse.realsize", _decimal(pax, b"GNU.sparse.size", size))
        held = size
        content = Content(size=size, source=source, offset=place)
        if extra.sparse is not None or b"GNU.sparse.major" in pax or b"GNU.sparse.map" in pax:
            content = _sparse(source, name, pax, extra, (place, held, size_all), end)
        if name.endswith(b"/") and not size:
            kind = b"5"
    if place + held > end:
        raise TreeError(f"{shown(name)} claims {held} bytes, more than the tar holds", hint=_HINT)
    link = pax.get(b"linkpath") or extra.link or head[157:257].split(b"\0")[0]
    entry = Entry(
        mode=_number(head, 100, 8) & 0o7777 | _KINDS.get(kind, 0),
        uid=_decimal(pax, b"uid", _number(head, 108, 8)),
        gid=_decimal(pax, b"gid", _number(head, 116, 8)),
        mtime=_seconds(pax, head),
        device=(_number(head, 329, 8), _number(head, 337, 8)) if kind in (b"3", b"4") else (0, 0),
        content=content,
    )
    for number in (entry.uid, entry.gid, *entry.device):
        if not 0 <= number < 1 << 32:
            raise TreeError(f"{shown(name)} has {number} for an owner or device: the kernel has 32 bits", hint=_HINT)
    xattrs = tuple(
        key[len(start) :].decode(errors="backslashreplace") for key in pax for start in _XATTR if key.startswith(start)
    )
    return Member(name, kind, entry, link, xattrs), place + held + -held % _BLOCK


def _check(head: bytes, place: int) -> int:
    """The size that a header claims, once its sum is right."""
    if len(head) < _BLOCK:
        raise TreeError(f"the tar is cut short at byte {place}", hint=_HINT)
    claimed = _number(head, 148, 8)
    if sum(head) - sum(head[148:156]) + 8 * 32 != claimed:
        raise TreeError(f"the tar is no tar, or damaged at byte {place}: a header's sum is wrong", hint=_HINT)
    size = _number(head, 124, 12)
    if size < 0:
        raise TreeError(f"{shown(_ustar_name(head))} claims {size} bytes", hint=_HINT)
    return size


def _number(head: bytes, start: int, length: int) -> int:
    raw = head[start : start + length]
    if raw[0] & 0x80:  # GNU: base 256
        value = int.from_bytes(raw[1:], "big")
        return value if raw[0] == 0x80 else value - (1 << 8 * (length - 1))
    text = raw.split(b"\0")[0].strip()
    if text.translate(None, b"01234567"):
        raise TreeError(f"a header of the tar has {text!r} for a number", hint=_HINT)
    return int(text or b"0", 8)


def _ustar_name(head: bytes) -> bytes:
    name = head[:100].split(b"\0")[0]
    prefix = head[345:500].split(b"\0")[0] if head[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _decimal(pax: dict[bytes, bytes], key: bytes, default: int) -> int:
    text = pax.get(key)
    if text is None:
        return default
    if not text.isdigit() or len(text) > 20:
        raise TreeError(f"a header of the tar has {text[:40]!r} for {key.decode(errors='replace')}", hint=_HINT)
    return int(text)


def _seconds(pax: dict[bytes, bytes], head: bytes) -> int:
    text = pax.get(b"mtime")
    if text is None:
        return _number(head, 136, 12)
    whole = text.split(b".")[0]
    if not whole.lstrip(b"-").isdigit() or len(whole) > 20:
        raise TreeError(f"a header of the tar has {text[:40]!r} for mtime", hint=_HINT)
    return int(whole)


def _exactly(source: Source, place: int, size: int, end: int) -> bytes:
    data = source.read_at(place, size) if place + size <= end else b""
    if len(data) != size:
        raise TreeError(f"the tar is cut short at byte {place}", hint=_HINT)
    return data


def _pax(body: bytes, extra: _Extra) -> dict[bytes, bytes]:
    """The records `LENGTH KEY=VALUE\\n` of a pax header; pairs of the sparse format 0.0 go to `extra`."""
    found: dict[bytes, bytes] = {}
    starts: list[int] = []
    place = 0
    while place < len(body):
        digits = body[place : place + 9].split(b" ")[0]
        length = int(digits) if digits.isdigit() else 0
        record = body[place : place + length]
        key, equals, value = record[len(digits) + 1 : -1].partition(b"=")
        if len(record) != length or record[-1:] != b"\n" or not equals:
            raise TreeError("a pax header of the tar is damaged", hint=_HINT)
        if key == b"GNU.sparse.offset":
            starts.append(_decimal({key: value}, key, 0))
        elif key == b"GNU.sparse.numbytes":
            if not starts:
                raise TreeError("a sparse map of the tar is damaged", hint=_HINT)
            extra.sparse = [*(extra.sparse or []), (starts.pop(), _decimal({key: value}, key, 0))]
        elif value:
            found[key] = value
        place += length
    return found


def _old_sparse(source: Source, head: bytes, place: int, end: int) -> tuple[list[tuple[int, int]], int, int]:
    """The map of GNU's old sparse format, the file's whole size, and the place where its data starts."""
    pairs = [(_number(head, at, 12), _number(head, at + 12, 12)) for at in range(386, 482, 24) if head[at]]
    more = head[482]
    while more:
        block = _exactly(source, place, _BLOCK, end)
        place += _BLOCK
        pairs += [(_number(block, at, 12), _number(block, at + 12, 12)) for at in range(0, 504, 24) if block[at]]
        more = block[504]
    return pairs, _number(head, 483, 12), place


def _sparse(
    source: Source, name: bytes, pax: dict[bytes, bytes], extra: _Extra, sizes: tuple[int, int, int], end: int
) -> Content:
    place, held, size = sizes
    pairs = extra.sparse
    if pairs is None and b"GNU.sparse.map" in pax:
        numbers = [_decimal({b"map": text}, b"map", 0) for text in pax[b"GNU.sparse.map"].split(b",")]
        pairs = list(zip(numbers[::2], numbers[1::2], strict=False))
    elif pairs is None:
        pairs, used = _map_of_data(source, name, place, held, end)
        place, held = place + used, held - used
    extents, last = [], 0
    for start, length in pairs:
        if start < last or length < 0 or length > held:
            raise TreeError(f"the sparse map of {shown(name)} is unsound", hint=_HINT)
        if length:
            extents.append((start, place, length))
        place, held, last = place + length, held - length, start + length
    if last > size or held:
        raise TreeError(f"the sparse map of {shown(name)} is unsound", hint=_HINT)
    return Content(size=size, source=source, extents=tuple(extents))


def _map_of_data(source: Source, name: bytes, place: int, held: int, end: int) -> tuple[list[tuple[int, int]], int]:
    """The map of the sparse format 1.0, decimal lines before the data, and the bytes that it fills."""
    text, used, wanted = b"", 0, 1
    while text.count(b"\n") < wanted:
        if used + _BLOCK > held or used > 1 << 24:
            raise TreeError(f"the sparse map of {shown(name)} is unsound", hint=_HINT)
        text += _exactly(source, place + used, _BLOCK, end)
        used += _BLOCK
        if wanted == 1 and b"\n" in text:
            wanted = 1 + 2 * _decimal({b"map": text.split(b"\n")[0]}, b"map", 0)
    numbers = [_decimal({b"map": line}, b"map", 0) for line in text.split(b"\n")[1:wanted]]
    return list(zip(numbers[::2], numbers[1::2], strict=True)), used


def add_layer(
    tree: FileTree, found: Iterator[Member], *, limits: Limits, devices: bool = False, whiteouts: bool = False
) -> None:
    """Lay a tar's members over a tree; the order in which they stand in the tar makes no difference.

    Parameters: `devices` keeps device nodes; `whiteouts` takes `.wh.NAME` for the removal of NAME in the layers below
    (OCI image specification, "Representing Changes"). Errors: `TreeError`; names that lead out are refused.
    """
    layer: dict[bytes, Member] = {}
    total = sum(entry.content.size for _, entry in tree.items())
    for member in found:
        total += member.entry.content.size
        limits.check(total, len(tree) + len(layer) + 1, shown(member.name))
        name = clean_name(member.name)
        if member.kind != b"1" or clean_name(member.link) != name:  # a hard link to itself says nothing
            layer[name] = member
    if whiteouts:
        for name in sorted(name for name in layer if name.rpartition(b"/")[2].startswith(_WHITEOUT)):
            del layer[name]
            _white_out(tree, name)
    links = []
    # Folders and symbolic links first: they decide where the rest stands.
    for name in sorted(layer, key=lambda name: (layer[name].kind not in (b"2", b"5", b"D"), name)):
        member = layer[name]
        for attribute in member.xattrs:
            tree.drop(NO_XATTRS.format(attribute), name)
        if member.kind == b"1":
            links.append((name, clean_name(member.link)))
        else:
            _add(tree, name, member, devices)
    _add_links(tree, links)


def _white_out(tree: FileTree, name: bytes) -> None:
    folder, _, last = name.rpartition(b"/")
    if last == _OPAQUE:
        for below in tree.below(folder) if folder else [name for name, _ in tree.items()]:
            tree.remove(below)
    elif not last.startswith(_WHITEOUT * 2):  # .wh..wh.* are marks of the storage driver
        tree.remove((folder + b"/" if folder else b"") + last[len(_WHITEOUT) :])


def _add(tree: FileTree, name: bytes, member: Member, devices: bool) -> None:
    entry, kind = member.entry, member.kind
    if kind == b"2":
        tree.add(name, replace(entry, mode=stat.S_IFLNK | 0o777, content=Content.of(member.link)))
    elif kind in (b"3", b"4") and not devices:
        tree.drop(NO_DEVICES, name)
    elif kind in _KINDS:
        tree.add(name, entry)
    elif kind == b"M":
        raise TreeError(f"{shown(name)} goes on from another volume of the tar", hint="give the whole archive")
    elif kind != b"V":
        tree.drop(f"members of the unknown kind {kind!r} are left out", name)


def _add_links(tree: FileTree, links: list[tuple[bytes, bytes]]) -> None:
    """Hard links, whose target may be a link that stands later."""
    while links:
        left = []
        for name, target in links:
            if target not in tree:
                left.append((name, target))
                continue
            entry = tree[target]
            if entry.is_dir:
                raise TreeError(f"{shown(name)} is a hard link to the folder {shown(target)}")
            if entry.inode is None:
                entry = replace(entry, inode=object())
                tree.add(target, entry)
            tree.add(name, entry)
        if len(left) == len(links):
            name, target = left[0]
            raise TreeError(f"{shown(name)} is a hard link to {shown(target)}, which is not in the image", hint=_HINT)
        links = left


def write(tree: FileTree, stream: BinaryIO) -> None:
    """Write a tree as a tar (GNU format, sorted by name) to a stream that need not be seekable."""
    first: dict[object, bytes] = {}
    with tarfile.open(
        fileobj=stream, mode="w|", format=tarfile.GNU_FORMAT, encoding="utf-8", bufsize=1 << 20
    ) as archive:
        archive.copybufsize = 1 << 20  # type: ignore[attr-defined]
        for name, entry in tree.items():
            info = tarfile.TarInfo(name.decode("utf-8", "surrogateescape"))
            info.mode, info.uid, info.gid = stat.S_IMODE(entry.mode), entry.uid, entry.gid
            info.mtime = entry.mtime
            info.devmajor, info.devminor = entry.device
            info.type = _TYPES[stat.S_IFMT(entry.mode)]
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
    """A content as the file that tarfile copies from."""

    def __init__(self, content: Content) -> None:
        self._chunks = content.chunks()
        self._rest = b""

    def read(self, count: int = 1 << 20, /) -> bytes:
        """Exactly `count` bytes, fewer at the end."""
        while len(self._rest) < count:
            chunk = next(self._chunks, b"")
            if not chunk:
                break
            self._rest += chunk
        data, self._rest = self._rest[:count], self._rest[count:]
        return data
