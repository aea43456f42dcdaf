"""The files of a guest as its kernel finds them: paths followed through links, with the reason where one leads nowhere.

Source: fs/namei.c of Linux 6.12.
"""

from __future__ import annotations

import functools
import stat
from dataclasses import dataclass

from acon_nb.archive.newc import NAME_BYTES, PATH_BYTES
from acon_nb.archive.rootfs import BUILT_IN
from acon_nb.archive.tree import LINKS_LIMIT, Entry, FileTree, shown

_ROOT = Entry(mode=stat.S_IFDIR | 0o755)


@dataclass(frozen=True)
class Found:
    """What a path leads to, and its path from the root without links ("/usr/bin/sh")."""

    entry: Entry
    path: bytes


@dataclass(frozen=True)
class Missing:
    """Why a path leads nowhere: the links that were followed, and what is wrong."""

    why: str
    links: tuple[str, ...] = ()

    def __str__(self) -> str:
        return ", ".join((*self.links, self.why))


class Files:
    """The files of a guest before its init runs."""

    def __init__(self, tree: FileTree) -> None:
        self._entries = {**BUILT_IN, **dict(tree.items())}
        self.dropped = dict(reversed([(name, what) for what, name in tree.dropped]))

    def lookup(self, path: bytes) -> Found | Missing:
        """Resolve a path from the root, links included, as root does in the guest."""
        if len(path) > PATH_BYTES:
            return Missing(f"its path is longer than {PATH_BYTES} bytes")
        done: list[bytes] = []
        todo = path.split(b"/")[::-1]
        links: list[str] = []
        here = _ROOT
        while todo:
            part = todo.pop()
            if not here.is_dir:
                return Missing(f"{_path(done)} is not a folder", tuple(links))
            if part in (b"", b"."):
                continue
            if part == b"..":
                del done[-1:]
                here = self._entries[b"/".join(done)] if done else _ROOT
                continue
            if len(part) > NAME_BYTES:
                return Missing(f"a part of its path is longer than {NAME_BYTES} bytes", tuple(links))
            done.append(part)
            entry = self._entries.get(b"/".join(done))
            if entry is None:
                lost = self.dropped.get(b"/".join(done))
                return Missing(f"{_path(done)} {f'is {lost}' if lost else 'does not exist'}", tuple(links))
            here = entry
            if entry.is_link:
                if len(links) == LINKS_LIMIT:
                    return Missing(f"{_path(path.split(b'/'))} leads through more than {LINKS_LIMIT} links: a loop?")
                target = entry.content.read()
                links.append(f"{_path(done)} is a link to {plain(target)}")
                done = [] if target.startswith(b"/") else done[:-1]
                here = self._entries[b"/".join(done)] if done else _ROOT
                todo.extend(target.split(b"/")[::-1])
        return Found(here, b"/" + b"/".join(done))

    def find(self, path: bytes) -> Found | None:
        """Resolve a path; None if it leads nowhere."""
        target = self.lookup(path)
        return target if isinstance(target, Found) else None

    def file(self, path: bytes) -> Entry | None:
        """Return the regular file that a path leads to; None if there is none."""
        target = self.find(path)
        return target.entry if target is not None and target.entry.is_file else None

    def text(self, path: bytes, limit_bytes: int = 1 << 20) -> str:
        """Return the beginning of a file as text; "" if there is no such file."""
        entry = self.file(path)
        return "" if entry is None else head(entry, limit_bytes).decode(errors="replace")

    @functools.cached_property
    def modules(self) -> frozenset[str]:
        """The names of the kernel modules, with underscores, whatever their kernel."""
        names = (name.rpartition(b"/")[2].decode(errors="replace") for name in self._entries if b"lib/modules/" in name)
        return frozenset(name.split(".ko")[0].replace("-", "_") for name in names if ".ko" in name)

    @functools.cached_property
    def releases(self) -> frozenset[str]:
        """The releases of the kernels for which there are modules."""
        target = self.find(b"/lib/modules")
        start = b"" if target is None else target.path[1:] + b"/"
        below = (name[len(start) :] for name in self._entries if start and name.startswith(start))
        return frozenset(name.decode(errors="replace") for name in below if b"/" not in name)


def executable(entry: Entry) -> bool:
    """Whether root may execute it: a regular file that anyone may execute."""
    return entry.is_file and bool(entry.mode & 0o111)


def head(entry: Entry, count: int) -> bytes:
    """Return the first bytes of a file."""
    parts = []
    for chunk in entry.content.chunks():
        parts.append(chunk[:count])
        count -= len(parts[-1])
        if not count:
            break
    return b"".join(parts)


def plain(path: bytes) -> str:
    """A path in messages, on one line whatever its bytes, without quotes."""
    return shown(path)[1:-1]


def _path(parts: list[bytes]) -> str:
    return plain(b"/" + b"/".join(part for part in parts if part))
