"""Identifies a folder of kernel source by its content: every file's bytes and mode, links, and what git says of it.

Times say nothing: an edit may keep them, and an older version may be copied over a file with its own. Hashes are kept
in the cache by device, inode, size and times of change, so that a second look reads nothing. What git ignores and
backups of editors do not count. Links to folders are followed, since the compiler follows them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from acon_nb import process
from acon_nb.cache import Cache, atomic_file, key_of
from acon_nb.errors import CommandFailed, InvalidInput
from acon_nb.progress import CancelToken, OnProgress, Progress, silent

_KIND = "source-index"
_BACKUP = re.compile(r".*~|\.#.*|#.*#|\..*\.sw[a-p]|.*\.(?:orig|rej)|\.DS_Store")
# A file that changed just before it was read might change again within the same tick of its times
_SETTLED_NS = 2_000_000_000
_EVERY = 5_000  # files between two reports of progress
_MOST_FILES = 500_000  # five times the kernel's; a link may lead to a whole file system
# What decides which options there are, and what tinyconfig gives
_CONFIGURING = re.compile(r"(?:.*/)?(?:Kconfig|Makefile|Kbuild)[^/]*|scripts/.*|(?:.*/)?configs/.*\.config")


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a folder holds: by file (a path relative to it) its digest; `commit` is what git says of a checkout.

    `identity` is the hash of all of it, `configuring` of what decides how the tree is configured.
    """

    files: Mapping[str, str]
    commit: str

    @property
    def identity(self) -> str:
        """The hash of the files and of the commit, which is in the release of the kernel."""
        return key_of({"files": self.files, "commit": self.commit})

    @property
    def configuring(self) -> str:
        """The hash of the files of Kconfig and kbuild."""
        return key_of({name: digest for name, digest in self.files.items() if _CONFIGURING.fullmatch(name)})


def read(
    folder: Path, cache: Cache, *, on_progress: OnProgress = silent, cancel: CancelToken | None = None
) -> Contents:
    """Read what a folder holds. Errors: `InvalidInput` (a file or folder that cannot be read), `Cancelled`."""
    known_path = cache.root / _KIND / f"{key_of({'folder': str(folder)})}.json"
    known = _known(known_path)
    task = f"identify {folder}"
    now_ns = time.time_ns()
    files: dict[str, str] = {}
    kept: dict[str, list[object]] = {}
    try:
        for name, path in _walk(folder, _ignored(folder)):
            if cancel is not None:
                cancel.check()
            if len(files) >= _MOST_FILES:
                reason = f"holds more than {_MOST_FILES:,} files, with what its links lead to"
                raise InvalidInput("source", folder, reason, hint="remove links out of the tree")
            if len(files) % _EVERY == _EVERY - 1:
                on_progress(Progress(task, None, f"{len(files) + 1:,} files"))
            files[name], version = _digest(path, known.get(name))
            if version and now_ns - max(version[3:]) > _SETTLED_NS:
                kept[name] = [*version, files[name]]
    except OSError as error:
        reason = f"has a file that cannot be read: {error.filename}: {error.strerror}"
        raise InvalidInput("source", folder, reason, hint="make it readable, or remove it") from error
    if kept != known:
        known_path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(known_path) as temporary:
            temporary.write_text(json.dumps(kept))
    return Contents(files=dict(sorted(files.items())), commit=_commit(folder))


def _known(path: Path) -> dict[str, list[object]]:
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _walk(folder: Path, ignored: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Yield the name and the path of each file and link; a folder is entered once, however many links lead to it."""
    entered = set()
    pending = [("", str(folder))]
    while pending:
        prefix, path = pending.pop()
        status = Path(path).stat()
        if (status.st_dev, status.st_ino) in entered:
            continue
        entered.add((status.st_dev, status.st_ino))
        with os.scandir(path) as scanned:
            entries = list(scanned)
        for entry in entries:
            name = prefix + entry.name
            if entry.name == ".git" or _BACKUP.fullmatch(entry.name) or name in ignored:
                continue
            if entry.is_symlink():
                yield name, entry.path
            if entry.is_dir():
                # Folders of the tree itself come before those that links lead to
                pending.insert(0 if entry.is_symlink() else len(pending), (f"{name}/", entry.path))
            elif entry.is_file() and not entry.is_symlink():
                yield name, entry.path


def _digest(path: str, known: list[object] | None) -> tuple[str, tuple[int, ...]]:
    """Return a file's digest, and the version of it to know it by (empty for links, which are read each time)."""
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        behind = Path(path)
        target = os.fspath(behind.readlink())
        content = hashlib.sha256(behind.read_bytes()).hexdigest() if behind.is_file() else ""
        return f"link {target} {content}", ()
    version = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    mode = f"{stat.S_IMODE(status.st_mode):o}"
    if known is not None and known[:-1] == list(version):
        return str(known[-1]), version
    with Path(path).open("rb") as file:
        return f"{mode} {hashlib.file_digest(file, 'sha256').hexdigest()}", version


def _git(folder: Path, *argv: str) -> str:
    """Return what a git command prints; "" where it fails. No program that the repository's settings name is run."""
    command = ["git", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-C", str(folder), *argv]
    try:
        return process.output(command, env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"}, timeout_s=120)
    except CommandFailed:
        return ""


def _ignored(folder: Path) -> frozenset[str]:
    """The names that git ignores in a checkout; a folder's stands for all below it."""
    if not (folder / ".git").exists() or shutil.which("git") is None:
        return frozenset()
    listed = _git(folder, "ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--directory")
    return frozenset(name.rstrip("/") for name in listed.split("\0") if name)


def _commit(folder: Path) -> str:
    """Return the commit of a checkout and the tags that lead to it, of which kbuild makes the release; else ""."""
    if not (folder / ".git").exists() or shutil.which("git") is None:
        return ""
    parts = (_git(folder, "rev-parse", "HEAD"), _git(folder, "tag", "--points-at", "HEAD"), _git(folder, "describe"))
    return "\n".join(part.strip() for part in parts)
