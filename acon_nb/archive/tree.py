"""The file tree of an initrd in memory, with contents by reference. Nothing is written to the host's disk.

Names are bytes without a leading slash. Names that lead out of the tree are refused. What is added follows the tree's
links: a name below a symbolic link, as in merged-usr images, is stored below the link's target *in the tree* (whose
root is "/", as in the guest): the kernel unpacks names in order, and drops a file whose folder does not exist yet.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from acon_nb.archive.content import Content as Content
from acon_nb.archive.content import Source as Source
from acon_nb.errors import TreeError

_NAME_LIMIT_BYTES = 4095  # PATH_MAX of the kernel's unpacker, without the NUL
LINKS_LIMIT = 40  # as the kernel's MAXSYMLINKS
NO_XATTRS = "newc does not support extended attributes: {} is dropped from"
INIT_NAMES = (b"init", b"sbin/init", b"etc/init", b"bin/init")


_EMPTY = Content.of(b"")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The inode of a name: type and permissions in `mode` (as in stat(2)), owner, time in s, device numbers, content.

    Names with the same `inode` (not None) are hard links to one file. The content of a symbolic link is its target.
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


_ROOT = Entry(mode=stat.S_IFDIR | 0o755)


@dataclass(frozen=True)
class ImageLimits:
    """The limits beyond which an image is refused; the error names the limit.

    `total_bytes` limits the unpacked size of its files (an initrd is held in memory), `names` their number,
    `name_bytes` the length of all names, `extra_bytes` the size of an extended tar header (long names, extended
    attributes), `link_steps` the parts of names that are looked up, one by one, to follow symbolic links.
    """

    total_bytes: int = 4 << 30
    names: int = 1 << 20
    name_bytes: int = 1 << 28
    extra_bytes: int = 1 << 20
    link_steps: int = 1 << 24

    def check(self, total_bytes: int, names: int, where: bytes) -> None:
        """Check the limits. Errors: `TreeError` that names the limit, its value, and the entry (`where`)."""
        if total_bytes > self.total_bytes:
            raise TreeError(
                f"the image unpacks to more than the limit total_bytes={self.total_bytes} (at {shown(where)})",
                hint="an initrd occupies the guest's memory; raise the limit (--limit) if you trust the image",
            )
        if names > self.names:
            raise TreeError(f"the image has more names than the limit names={self.names} (at {shown(where)})")

    def check_names(self, name_bytes: int, link_steps: int, where: bytes) -> None:
        """Check the limits of names. Errors: `TreeError`, as `check`."""
        if name_bytes > self.name_bytes:
            raise TreeError(f"the names of the image exceed the limit name_bytes={self.name_bytes} (at {shown(where)})")
        if link_steps > self.link_steps:
            what = f"following links of the image exceeds the limit link_steps={self.link_steps}"
            raise TreeError(f"{what} (at {shown(where)})")


class FileTree:
    """The names of a tree and their entries.

    `add` and its variants lay files of a user over the tree, along its links; `put` sets exactly the given name.
    `content_bytes` and `name_bytes` are sums over all entries, `link_steps` counts lookups that follow links.
    `dropped` lists what was omitted from an image, as (what and why, name); `warnings` returns it as sentences.
    `early` are archives that an image starts with, uncompressed: microcode and ACPI tables, which the kernel reads
    before it unpacks anything. `is_initrd` is whether the tree comes from an initrd, and so has all that it needs.
    `layers` maps names to the layer that they come from, while one is being laid (`layer`). `config` is what a
    container image's configuration says of running it (Entrypoint, Cmd, Env, ...), as it was read.
    """

    def __init__(self) -> None:
        self._entries: dict[bytes, Entry] = {}
        self._children: dict[bytes, dict[bytes, None]] = {}  # of each folder; b"" is the root
        self.content_bytes = self.name_bytes = self.link_steps = 0
        self.dropped: list[tuple[str, bytes]] = []
        self.early: Content | None = None
        self.is_initrd = False
        self.layer = ""
        self.layers: dict[bytes, str] = {}
        self.config: Mapping[str, object] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: str | bytes) -> bool:
        try:
            return self.resolved(clean_name(name)) in self._entries
        except TreeError:
            return False

    def __getitem__(self, name: str | bytes) -> Entry:
        return self._entries[self.resolved(clean_name(name))]

    def get(self, key: bytes) -> Entry | None:
        """Return the entry of exactly this name, without following links; None if there is none."""
        return self._entries.get(key)

    def items(self) -> list[tuple[bytes, Entry]]:
        """Return all names and entries, sorted by name, so a folder precedes its contents."""
        return sorted(self._entries.items(), key=lambda item: item[0])

    def add(self, name: str | bytes, entry: Entry) -> None:
        """Lay an entry over the tree, along its links; missing parents, also behind links, become directories (0755).

        A directory is merged with the one that exists, also behind a link, which stays. Anything else replaces what has
        the name, even a link, but never a folder or a link to one; a link may replace a link or an empty folder.
        Errors: `TreeError` for a name that leads out, a loop of links, and what must not be replaced.
        """
        key = self.resolved(clean_name(name))
        if key:
            key = self._landing(key, entry)
        if key:
            self._make_parents(key, entry.mtime)
            self.put(key, entry)

    def put(self, key: bytes, entry: Entry) -> None:
        """Set the entry of exactly this name, whose folder exists; a folder that is replaced loses its contents."""
        old = self._entries.get(key)
        if old is not None and old.is_dir and not entry.is_dir:
            self.discard(key)
            old = None
        if old is None:
            self._children.setdefault(key.rpartition(b"/")[0], {})[key] = None
            self.name_bytes += len(key)
        else:
            self.content_bytes -= old.content.size
        self._entries[key] = entry
        self.content_bytes += entry.content.size
        if self.layer:
            self.layers[key] = self.layer
        elif self.layers:
            self.layers.pop(key, None)

    def add_file(self, name: str | bytes, content: bytes | Path, *, mode: int = 0o644, mtime: int = 0) -> None:
        """Add a regular file with the given bytes, or the content of a file of the host (read later)."""
        body = Content.of(content) if isinstance(content, bytes) else Content.of_file(content)
        self.add(name, Entry(mode=stat.S_IFREG | mode, content=body, mtime=mtime))

    def add_dir(self, name: str | bytes, *, mode: int = 0o755) -> None:
        """Add a directory."""
        self.add(name, Entry(mode=stat.S_IFDIR | mode))

    def add_symlink(self, name: str | bytes, target: str | bytes) -> None:
        """Add a symbolic link."""
        self.add(name, Entry(mode=stat.S_IFLNK | 0o777, content=Content.of(os.fsencode(target))))

    def add_device(self, name: str | bytes, kind: int, major: int, minor: int, *, mode: int = 0o600) -> None:
        """Add a device node; `kind` is `stat.S_IFCHR` or `stat.S_IFBLK`. Needs no root: it is only a record."""
        self.add(name, Entry(mode=kind | mode, device=(major, minor)))

    def remove(self, name: str | bytes) -> None:
        """Remove a name and everything below it, if it exists; links among its parents are followed."""
        self.discard(self.resolved(clean_name(name)))

    def discard(self, key: bytes) -> None:
        """Remove exactly this name and everything below it, if it exists."""
        if key not in self._entries:
            return
        del self._children[key.rpartition(b"/")[0]][key]
        pending = [key]
        while pending:
            name = pending.pop()
            self.content_bytes -= self._entries.pop(name).content.size
            self.layers.pop(name, None)
            self.name_bytes -= len(name)
            pending.extend(self._children.pop(name, ()))

    def children(self, folder: bytes) -> list[bytes]:
        """Return the names directly in a folder (b"": the root)."""
        return list(self._children.get(folder, ()))

    def only(self, names: Iterable[str | bytes]) -> FileTree:
        """Return a tree with these names, everything below them, and their parent folders.

        A name that is a link or leads through links (`bin` of a merged-usr image) selects these links and what they
        lead to. Errors: `TreeError` for a name that does not exist.
        """
        chosen = FileTree()
        chosen.dropped = list(self.dropped)
        chosen.early, chosen.is_initrd, chosen.config = self.early, self.is_initrd, self.config
        chosen.layers = self.layers  # the names are the same
        pending: list[bytes] = []
        for name in names:
            pending += self._selected(clean_name(name))
        if b"" in pending:
            return self
        above = {parent for key in pending for parent in _parents(key)}
        wanted: set[bytes] = set()
        while pending:
            key = pending.pop()
            if key not in wanted:
                wanted.add(key)
                pending.extend(self._children.get(key, ()))
        for key in sorted(wanted | above):
            chosen.put(key, self._entries[key])
        return chosen

    def _selected(self, name: bytes) -> list[bytes]:
        """Return what a name selects: where it is, the links that lead there, and what it leads to if it is a link."""
        key, links, _ = follow(self._entries.get, name)
        if key and key not in self._entries:
            raise TreeError(f"{shown(name)} is not in the image", hint="name folders and files that exist in it")
        selected = [key, *links]
        if key and self._entries[key].is_link:
            with contextlib.suppress(TreeError):  # a link that leads nowhere is selected alone
                end, more, _ = follow(self._entries.get, name, last=True)
                selected += [*more, *([end] if not end or end in self._entries else [])]
        return selected

    def has_folder(self, name: str | bytes) -> bool:
        """Whether a name is a folder, or a link that leads to one."""
        try:
            key = self.find(name)
        except TreeError:
            return False
        return key == b"" or (key is not None and self._entries[key].is_dir)

    def find(self, name: str | bytes) -> bytes | None:
        """Resolve `name` in the tree, following symbolic links; return None if it does not exist.

        Errors: `TreeError` for a loop of links.
        """
        key = self.resolved(clean_name(name), last=True)
        return key if not key or key in self._entries else None

    def has_init(self) -> bool:
        """Whether the kernel would find an init: /init, or one of /sbin, /etc, /bin, executable or a link."""
        entries = (self._entries.get(self.resolved(name)) for name in INIT_NAMES)
        return any(
            entry is not None and (entry.is_link or (entry.is_file and bool(entry.mode & 0o111))) for entry in entries
        )

    def drop(self, what: str, name: bytes) -> None:
        """Record that something was omitted from an image: `what` and why, for which name."""
        self.dropped.append((what, name))

    def warnings(self) -> list[str]:
        """Return what was omitted: one sentence per reason, with the names."""
        return [f"{what}: {_some(names)}" for what, names in self.dropped_by_reason().items()]

    def dropped_by_reason(self) -> dict[str, list[bytes]]:
        """Return the names that were omitted from an image, by what and why."""
        groups: dict[str, list[bytes]] = {}
        for what, name in self.dropped:
            groups.setdefault(what, []).append(name)
        return groups

    def resolved(self, key: bytes, *, last: bool = False) -> bytes:
        """Resolve the links among a name's parents (with `last`, the name itself too) inside the tree."""
        parent, slash, _ = key.rpartition(b"/")
        above = self._entries.get(parent)
        if not last and (not slash or (above is not None and above.is_dir)):
            return key
        key, _, steps = follow(self._entries.get, key, last=last)
        self.link_steps += steps
        return key

    def _landing(self, key: bytes, entry: Entry) -> bytes:
        """Return where an entry is laid, following a link for a folder. Errors: `TreeError` (see `add`)."""
        old = self._entries.get(key)
        if old is None or (old.is_link and entry.is_link):
            return key
        end = key
        there: Entry | None = old
        if old.is_link:
            try:
                end = self.resolved(key, last=True)
            except TreeError:
                if entry.is_dir:
                    raise
                return key  # a loop of links is no loss
            there = self._entries.get(end) if end else _ROOT
        is_folder = there is not None and there.is_dir
        if entry.is_dir and (there is None or is_folder):
            return end
        if not entry.is_dir and (not is_folder or (entry.is_link and not self._children.get(key))):
            return key
        what = "a folder" if old.is_dir else "a link to a folder" if is_folder else "not a folder"
        mine = "a folder" if entry.is_dir else "a link" if entry.is_link else "a file"
        raise TreeError(
            f"{shown(key)} is {what} in the image, which {mine} cannot replace",
            hint="leave it out, or remove what the image has"
            if entry.is_link
            else "give another name"
            if entry.is_dir
            else "give the name of a file in that folder",
        )

    def _make_parents(self, key: bytes, mtime: int) -> None:
        missing = []
        for parent in reversed(_parents(key)):
            above = self._entries.get(parent)
            if above is None:
                missing.append(parent)
            elif not above.is_dir:
                raise TreeError(
                    f"{shown(key)} would be inside {shown(parent)}, which is not a folder",
                    hint="give a name in a folder, or remove that file from the image first",
                )
            else:
                break
        for parent in reversed(missing):
            self.put(parent, Entry(mode=stat.S_IFDIR | 0o755, mtime=mtime))


def follow(get: Callable[[bytes], Entry | None], key: bytes, *, last: bool = False) -> tuple[bytes, list[bytes], int]:
    """Resolve the links among a name's parents (with `last`, the name itself too); b"" is the root.

    `get` returns the entry of exactly a name. Returns the resolved name, the links on the way, and the number of
    parts of names. Errors: `TreeError` for a loop of links.
    """
    done = b""
    todo = key.split(b"/")[::-1] if key else []
    links: list[bytes] = []
    steps = 0
    while todo:
        part = todo.pop()
        steps += 1
        if part in (b"", b"."):
            continue
        if part == b"..":
            done = done.rpartition(b"/")[0]
            continue
        above, done = done, done + b"/" + part if done else part
        entry = get(done)
        if entry is None or not entry.is_link or (not todo and not last):
            continue
        links.append(done)
        if len(links) > LINKS_LIMIT:
            raise TreeError(
                f"{shown(key)} leads through a loop of symbolic links, or more than {LINKS_LIMIT} of them",
                hint=f"remove the link {shown(done)} from the image",
            )
        if entry.content.size > _NAME_LIMIT_BYTES:
            raise TreeError(f"the target of the link {shown(done)} is longer than {_NAME_LIMIT_BYTES} bytes")
        target = entry.content.read()
        done = b"" if target.startswith(b"/") else above
        todo.extend(target.split(b"/")[::-1])
    return clean_name(done), links, steps


def clean_name(name: str | bytes) -> bytes:
    """Normalise a name: no leading slash, no "." parts. Errors: `TreeError` for ".." and NUL."""
    try:
        raw = os.fsencode(name)
    except UnicodeEncodeError as error:
        raise TreeError(f"{name!r} is not a valid file name", hint="remove it from the image") from error
    if b"/." not in raw and b"//" not in raw and raw[:1] not in (b"/", b".", b"") and raw[-1:] != b"/":
        key = raw  # already normalised, as most names are
    else:
        parts = [part for part in raw.split(b"/") if part not in (b"", b".")]
        if b".." in parts:
            raise TreeError(f"{shown(raw)} leads out of the tree", hint="remove it from the image")
        key = b"/".join(parts)
    if b"\0" in key:
        raise TreeError(f"{shown(raw)} contains a NUL byte", hint="remove it from the image")
    if len(key) > _NAME_LIMIT_BYTES:
        raise TreeError(f"{shown(key[:60])}… is longer than {_NAME_LIMIT_BYTES} bytes")
    return key


def shown(name: bytes) -> str:
    """Quote a name for messages, on one line whatever its bytes."""
    return repr(name.decode(errors="backslashreplace"))


def _parents(key: bytes) -> list[bytes]:
    """Return the folders above a name, the highest first."""
    parts = key.split(b"/")
    return [b"/".join(parts[:depth]) for depth in range(1, len(parts))]


def _some(names: list[bytes], most: int = 8) -> str:
    text = ", ".join(shown(name) for name in names[:most])
    return text if len(names) <= most else f"{text} and {len(names) - most} more"
