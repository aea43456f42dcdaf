"""A file tree in memory: what an initrd holds, with content by reference. Nothing is ever written to the host's disk.

Names are bytes without a leading slash. Names that lead out of the tree are refused. A name below a symbolic link, as
merged-usr images have it, is kept below what the link leads to *in the tree* (its root is "/", as in the guest): the
kernel unpacks names in order, and would drop a file whose folder comes later.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from acon_nb.errors import TreeError

_CHUNK_BYTES = 1 << 20
_NAME_LIMIT_BYTES = 4095  # PATH_MAX of the kernel's unpacker, less the NUL
_LINKS_LIMIT = 40  # as the kernel's MAXSYMLINKS
INIT_NAMES = (b"init", b"sbin/init", b"etc/init", b"bin/init")


class Source(Protocol):
    """An open file that contents lie in."""

    def read_at(self, offset: int, count: int) -> bytes:
        """At most `count` bytes from `offset`; fewer at the end only."""


@dataclass(frozen=True)
class Content:
    """A file's bytes: kept here (`data`), or `size` bytes at `offset` of a host's file (`path`, or open: `source`).

    `extents` of a sparse file: (place in the file, offset in the source, length); what lies between is zeros.
    """

    size: int
    data: bytes | None = None
    path: Path | None = None
    offset: int = 0
    source: Source | None = None
    extents: tuple[tuple[int, int, int], ...] | None = None

    @classmethod
    def of(cls, data: bytes) -> Content:
        """Content that is kept in memory."""
        return cls(size=len(data), data=data)

    @classmethod
    def of_file(cls, path: Path) -> Content:
        """The content of a file of the host, read when it is needed."""
        return cls(size=path.stat().st_size, path=path)

    def chunks(self) -> Iterator[bytes]:
        """The bytes, in pieces of 1 MiB at most. Errors: `TreeError` when a file has become shorter than it was."""
        if self.path is not None:
            yield from self._chunks_of_path(self.path)
        elif self.source is None:
            data = self.data or b""
            yield from (data[start : start + _CHUNK_BYTES] for start in range(0, len(data), _CHUNK_BYTES))
        elif self.extents is None:
            yield from _run(self.source, self.offset, self.size)
        else:
            place = 0
            for start, offset, length in self.extents:
                yield from _zeros(start - place)
                yield from _run(self.source, offset, length)
                place = start + length
            yield from _zeros(self.size - place)

    def read(self) -> bytes:
        """All bytes."""
        return b"".join(self.chunks())

    def _chunks_of_path(self, path: Path) -> Iterator[bytes]:
        with path.open("rb", buffering=0) as file:
            file.seek(self.offset)
            left = self.size
            while left:
                chunk = file.read(min(left, _CHUNK_BYTES))
                if not chunk:
                    raise TreeError(f"{path} has become shorter than its {self.size} bytes while it was read")
                left -= len(chunk)
                yield chunk


def _run(source: Source, offset: int, size: int) -> Iterator[bytes]:
    while size:
        chunk = source.read_at(offset, min(size, _CHUNK_BYTES))
        if not chunk:
            raise TreeError(f"an archive has become shorter while it was read ({size} bytes are missing)")
        offset += len(chunk)
        size -= len(chunk)
        yield chunk


def _zeros(count: int) -> Iterator[bytes]:
    while count > 0:
        yield bytes(min(count, _CHUNK_BYTES))
        count -= _CHUNK_BYTES


_EMPTY = Content.of(b"")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A name's inode: type and permissions in `mode` (as in stat(2)), owner, time in s, device numbers, content.

    Names with the same `inode` (not None) are hard links of one file. A symbolic link's content is its target.
    """

    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    device: tuple[int, int] = (0, 0)
    content: Content = _EMPTY
    inode: object | None = None

    @property
    def is_dir(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.mode)

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic link."""
        return stat.S_ISLNK(self.mode)

    @property
    def is_device(self) -> bool:
        """Whether it is a character or block device."""
        return stat.S_ISCHR(self.mode) or stat.S_ISBLK(self.mode)


@dataclass(frozen=True)
class Limits:
    """What an image may ask for before it is refused; an error names the limit that it met.

    `total_bytes` what its files unpack to (an initrd lies in memory), `names` how many there are, `extra_bytes` what a
    tar's header may carry (long names, extended attributes).
    """

    total_bytes: int = 4 << 30
    names: int = 1 << 20
    extra_bytes: int = 1 << 20

    def check(self, total_bytes: int, names: int, where: str) -> None:
        """Errors: `TreeError` that names the limit, its value and the entry (`where`) that went over it."""
        if total_bytes > self.total_bytes:
            raise TreeError(
                f"the image unpacks to more than the limit total_bytes={self.total_bytes} (at {where})",
                hint="an initrd lies in the guest's memory; raise the limit (--limit) if you trust the image",
            )
        if names > self.names:
            raise TreeError(f"the image has more names than the limit names={self.names} (at {where})")


class FileTree:
    """Names and their entries. Parents are made as directories (0755) when a name is added.

    `dropped` says what of an image was left out: (what and why, name) each; `warnings` puts it in sentences.
    """

    def __init__(self) -> None:
        self._entries: dict[bytes, Entry] = {}
        self.dropped: list[tuple[str, bytes]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: str | bytes) -> bool:
        try:
            return self._place(clean_name(name)) in self._entries
        except TreeError:
            return False

    def __getitem__(self, name: str | bytes) -> Entry:
        return self._entries[self._place(clean_name(name))]

    def items(self) -> list[tuple[bytes, Entry]]:
        """All names and entries, sorted by name: a folder before what it holds."""
        return sorted(self._entries.items(), key=lambda item: item[0])

    def add(self, name: str | bytes, entry: Entry) -> None:
        """Add or replace an entry. Errors: `TreeError` for a name that leads out, or under something not a folder."""
        key = self._place(clean_name(name))
        if not key:
            return
        self._make_parents(key, entry.mtime)
        kept = self._entries.get(key)
        if kept is not None and kept.is_dir and not entry.is_dir:
            self.remove(key)  # what takes a folder's place takes it whole
        self._entries[key] = entry

    def add_file(self, name: str | bytes, content: bytes | Path, *, mode: int = 0o644, mtime: int = 0) -> None:
        """Add a regular file from bytes, or from a file of the host (read later)."""
        body = Content.of(content) if isinstance(content, bytes) else Content.of_file(content)
        self.add(name, Entry(mode=stat.S_IFREG | mode, content=body, mtime=mtime))

    def add_dir(self, name: str | bytes, *, mode: int = 0o755) -> None:
        """Add a directory."""
        self.add(name, Entry(mode=stat.S_IFDIR | mode))

    def add_symlink(self, name: str | bytes, target: str | bytes) -> None:
        """Add a symbolic link."""
        self.add(name, Entry(mode=stat.S_IFLNK | 0o777, content=Content.of(os.fsencode(target))))

    def add_device(self, name: str | bytes, kind: int, major: int, minor: int, *, mode: int = 0o600) -> None:
        """Add a device node; `kind` is `stat.S_IFCHR` or `stat.S_IFBLK`. No root is needed: it is only a record."""
        self.add(name, Entry(mode=kind | mode, device=(major, minor)))

    def remove(self, name: str | bytes) -> None:
        """Remove a name and all below it, if it is there."""
        key = self._place(clean_name(name))
        entry = self._entries.pop(key, None)
        if entry is None or not entry.is_dir:
            return
        for other in self.below(key):
            del self._entries[other]

    def below(self, name: bytes) -> list[bytes]:
        """All names below a folder, at any depth."""
        start = name + b"/"
        return [other for other in self._entries if other.startswith(start)]

    def only(self, names: Iterable[str | bytes]) -> FileTree:
        """The tree with these names, what is below them, and the folders above them.

        Errors: `TreeError` for a name that is not there.
        """
        keys = [self._place(clean_name(name)) for name in names]
        if b"" in keys:
            return self
        for key in keys:
            if key not in self._entries:
                raise TreeError(f"{shown(key)} is not in the image", hint="name folders and files that it has")
        chosen = FileTree()
        chosen.dropped = list(self.dropped)
        above = {parent for key in keys for parent in _parents(key)}
        under = tuple(key + b"/" for key in keys)
        for name, entry in self.items():
            if name in above or name in keys or name.startswith(under):
                chosen._entries[name] = entry
        return chosen

    def find(self, name: str | bytes) -> bytes | None:
        """The name that `name` leads to in the tree, symbolic links followed; None if there is nothing.

        Errors: `TreeError` for links that go round.
        """
        key = self._place(clean_name(name), last=True)
        return key if not key or key in self._entries else None

    def has_init(self) -> bool:
        """Whether the kernel would find an init: /init, or one of /sbin, /etc, /bin, executable or a link."""
        found = (self._entries.get(self._place(name)) for name in INIT_NAMES)
        return any(
            entry is not None and (entry.is_link or (entry.is_file and bool(entry.mode & 0o111))) for entry in found
        )

    def drop(self, what: str, name: bytes) -> None:
        """Note that something of an image is left out: `what` and why, of which name."""
        self.dropped.append((what, name))

    def warnings(self) -> list[str]:
        """What was left out, a sentence each kind, with the names."""
        groups: dict[str, list[bytes]] = {}
        for what, name in self.dropped:
            groups.setdefault(what, []).append(name)
        return [f"{what}: {_some(names)}" for what, names in groups.items()]

    def _make_parents(self, key: bytes, mtime: int) -> None:
        missing = []
        for parent in reversed(_parents(key)):
            above = self._entries.get(parent)
            if above is None:
                missing.append(parent)
            elif not above.is_dir:
                raise TreeError(f"{shown(key)} would be inside {shown(parent)}, which is no folder")
            else:
                break
        for parent in reversed(missing):
            self._entries[parent] = Entry(mode=stat.S_IFDIR | 0o755, mtime=mtime)

    def _place(self, key: bytes, *, last: bool = False) -> bytes:
        """Where a name stands when the links above it (and itself, if `last`) are followed inside the tree."""
        above = self._entries.get(key.rpartition(b"/")[0])
        if not last and (b"/" not in key or (above is not None and above.is_dir)):
            return key
        done: list[bytes] = []
        todo = key.split(b"/")[::-1] if key else []
        links = 0
        while todo:
            part = todo.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                if done:
                    done.pop()
                continue
            done.append(part)
            entry = self._entries.get(b"/".join(done))
            if entry is None or not entry.is_link or (not todo and not last):
                continue
            links += 1
            if links > _LINKS_LIMIT:
                raise TreeError(f"{shown(key)} goes through symbolic links that go round")
            target = entry.content.read()
            done = [] if target.startswith(b"/") else done[:-1]
            todo.extend(target.split(b"/")[::-1])
        return clean_name(b"/".join(done))


def clean_name(name: str | bytes) -> bytes:
    """A name as the tree keeps it: no leading slash, no "." parts. Errors: `TreeError` for ".." and NUL."""
    try:
        raw = os.fsencode(name)
    except UnicodeEncodeError as error:
        raise TreeError(f"{name!r} is no name of a file", hint="remove it from the image") from error
    if b"/." not in raw and b"//" not in raw and raw[:1] not in (b"/", b".", b"") and raw[-1:] != b"/":
        key = raw  # what most names are
    else:
        parts = [part for part in raw.split(b"/") if part not in (b"", b".")]
        if b".." in parts:
            raise TreeError(f"{shown(raw)} leads out of the tree", hint="remove it from the image")
        key = b"/".join(parts)
    if b"\0" in key:
        raise TreeError(f"{shown(raw)} leads out of the tree", hint="remove it from the image")
    if len(key) > _NAME_LIMIT_BYTES:
        raise TreeError(f"{shown(key[:60])}… is longer than {_NAME_LIMIT_BYTES} bytes")
    return key


def shown(name: bytes) -> str:
    """A name for people, on one line whatever its bytes."""
    return repr(name.decode(errors="backslashreplace"))


def _parents(key: bytes) -> list[bytes]:
    """The folders above a name, the highest first."""
    parts = key.split(b"/")
    return [b"/".join(parts[:depth]) for depth in range(1, len(parts))]


def _some(names: list[bytes], most: int = 8) -> str:
    text = ", ".join(shown(name) for name in names[:most])
    return text if len(names) <= most else f"{text} and {len(names) - most} more"
