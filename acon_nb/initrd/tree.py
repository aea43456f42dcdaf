"""A file tree in memory: what an initrd holds, with content by reference. Nothing is ever written to the host's disk.

Names are bytes without a leading slash. Names that lead out of the tree are refused. Symbolic links stay what they
are, text; a name may lie below one, as merged-usr images have it, and it is for whoever unpacks the image to follow it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from acon_nb.errors import TreeError

_CHUNK_BYTES = 1 << 20
_NAME_LIMIT_BYTES = 4095  # PATH_MAX of the kernel's unpacker, less the NUL
INIT_NAMES = (b"init", b"sbin/init", b"etc/init", b"bin/init")


@dataclass(frozen=True)
class Content:
    """A file's bytes: kept here (`data`), or `size` bytes at `offset` of a file of the host."""

    size: int
    data: bytes | None = None
    path: Path | None = None
    offset: int = 0

    @classmethod
    def of(cls, data: bytes) -> Content:
        """Content that is kept in memory."""
        return cls(size=len(data), data=data)

    @classmethod
    def of_file(cls, path: Path) -> Content:
        """The content of a file of the host, read when it is needed."""
        return cls(size=path.stat().st_size, path=path)

    def chunks(self) -> Iterator[bytes]:
        """The bytes, piece by piece. Errors: `TreeError` when a file has become shorter than it was."""
        if self.path is None:
            yield self.data or b""
            return
        with self.path.open("rb") as file:
            file.seek(self.offset)
            left = self.size
            while left:
                chunk = file.read(min(left, _CHUNK_BYTES))
                if not chunk:
                    raise TreeError(f"{self.path} has become shorter than its {self.size} bytes while it was read")
                left -= len(chunk)
                yield chunk

    def read(self) -> bytes:
        """All bytes."""
        return b"".join(self.chunks())


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
    content: Content = field(default_factory=lambda: Content.of(b""))
    inode: object | None = None

    @property
    def is_dir(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.mode)


class FileTree:
    """Names and their entries. Parents are made as directories (0755) when a name is added."""

    def __init__(self) -> None:
        self._entries: dict[bytes, Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: str | bytes) -> bool:
        return clean_name(name) in self._entries

    def __getitem__(self, name: str | bytes) -> Entry:
        return self._entries[clean_name(name)]

    def items(self) -> list[tuple[bytes, Entry]]:
        """All names and entries, sorted by name: a folder before what it holds."""
        return sorted(self._entries.items())

    def add(self, name: str | bytes, entry: Entry) -> None:
        """Add or replace an entry. Errors: `TreeError` for a name that leads out, or under something not a folder."""
        key = clean_name(name)
        if not key:
            return
        parent = key.rpartition(b"/")[0]
        if parent:
            above = self._entries.get(parent)
            if above is None:
                self.add(parent, Entry(mode=stat.S_IFDIR | 0o755, mtime=entry.mtime))
            elif not above.is_dir and not stat.S_ISLNK(above.mode):
                raise TreeError(f"{_shown(key)} would be inside {_shown(parent)}, which is no folder")
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
        key = clean_name(name)
        for other in [other for other in self._entries if other == key or other.startswith(key + b"/")]:
            del self._entries[other]

    def has_init(self) -> bool:
        """Whether the kernel would find an init: /init, or one of /sbin, /etc, /bin, executable or a link."""
        found = (self._entries.get(name) for name in INIT_NAMES)
        return any(
            entry is not None and (stat.S_ISLNK(entry.mode) or (entry.is_file and entry.mode & 0o111))
            for entry in found
        )


def clean_name(name: str | bytes) -> bytes:
    """A name as the tree keeps it: no leading slash, no "." parts. Errors: `TreeError` for ".." and NUL."""
    raw = os.fsencode(name)
    parts = [part for part in raw.split(b"/") if part not in (b"", b".")]
    if b".." in parts or b"\0" in raw:
        raise TreeError(f"{_shown(raw)} leads out of the tree", hint="remove it from the image")
    key = b"/".join(parts)
    if len(key) > _NAME_LIMIT_BYTES:
        raise TreeError(f"{_shown(key[:60])}… is longer than {_NAME_LIMIT_BYTES} bytes")
    return key


def from_folder(folder: Path) -> FileTree:
    """A tree of a folder of the host, owner, modes, links and devices as they are; symbolic links are not followed."""
    tree = FileTree()
    if not folder.is_dir():
        raise TreeError(f"{folder} is no folder", hint="give the folder that is to become the initrd")
    pending = [(os.fsencode(folder), b"")]
    while pending:
        path, name = pending.pop()
        for item in sorted(os.listdir(path)):
            below, key = path + b"/" + item, (name + b"/" + item).lstrip(b"/")
            info = os.lstat(below)
            entry = _entry_of(Path(os.fsdecode(below)), info)
            if entry is not None:
                tree.add(key, entry)
            if stat.S_ISDIR(info.st_mode):
                pending.append((below, key))
    return tree


def _entry_of(path: Path, info: os.stat_result) -> Entry | None:
    if stat.S_ISSOCK(info.st_mode):
        return None
    entry = Entry(
        mode=info.st_mode,
        uid=info.st_uid,
        gid=info.st_gid,
        mtime=int(info.st_mtime),
        device=(os.major(info.st_rdev), os.minor(info.st_rdev)),
    )
    if stat.S_ISREG(info.st_mode):
        linked = (info.st_dev, info.st_ino) if info.st_nlink > 1 else None
        return replace(entry, content=Content(size=info.st_size, path=path), inode=linked)
    if stat.S_ISLNK(info.st_mode):
        return replace(entry, content=Content.of(os.fsencode(path.readlink())))
    return entry


def _shown(name: bytes) -> str:
    return repr(name.decode(errors="backslashreplace"))
