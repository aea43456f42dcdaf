"""Identifies a folder of kernel source by its content: every file's bytes and mode, links, and what git says of it.

Times say nothing: an edit may keep them, and an older version may be copied over a file with its own. Hashes are kept
in the cache by device, inode, size and times of change, so that a second look reads nothing. What git ignores and
backups of editors do not count, but for the files that kbuild reads the release from. Links to folders are followed,
since the compiler follows them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from acon_nb import process
from acon_nb.cache import Cache, atomic_file, key_of, writable_folder
from acon_nb.errors import CommandFailed, InvalidInput
from acon_nb.progress import CancelToken, OnProgress, Progress, silent

_KIND = "source-index"
_BACKUP = re.compile(r".*~|\.#.*|#.*#|\..*\.sw[a-p]|.*\.(?:orig|rej)|\.DS_Store")
# A file that changed just before it was read might change again within the same tick of its times
_SETTLED_NS = 2_000_000_000
# What scripts/setlocalversion reads, whatever git ignores: the kernel's own .gitignore hides .scmversion
_RELEASE = re.compile(r"localversion[^/]*|\.scmversion")
_EVERY = 5_000  # files between two reports of progress
_MOST_FILES = 500_000  # five times the kernel's; a link may lead to a whole file system
# What decides which options there are, and what tinyconfig gives
_CONFIGURING = re.compile(r"(?:.*/)?(?:Kconfig|Makefile|Kbuild)[^/]*|scripts/.*|(?:.*/)?configs/.*\.config")


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a folder holds: by file (a path relative to it) its digest; `commit` is what git says of a checkout.

    `identity` is the hash of all of it, `configuring` of what decides how the tree is configured. `versions` tells by
    file, without reading it, whether it was written since (device, inode, size, times of change).
    """

    files: Mapping[str, str]
    commit: str
    versions: Mapping[str, tuple[int, ...]] = field(default_factory=dict, repr=False, compare=False)

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
    versions: dict[str, tuple[int, ...]] = {}
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
            files[name], versions[name] = _digest(path, known.get(name))
            if now_ns - max(versions[name][4::5]) > _SETTLED_NS:
                kept[name] = [*versions[name], files[name]]
    except OSError as error:
        reason = f"has a file that cannot be read: {error.filename}: {error.strerror}"
        raise InvalidInput("source", folder, reason, hint="make it readable, or remove it") from error
    if kept != known:
        writable_folder(known_path.parent)
        with atomic_file(known_path) as temporary:
            temporary.write_text(json.dumps(kept))
    return Contents(files=dict(sorted(files.items())), commit=_commit(folder, files), versions=versions)


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
            left_out = entry.name == ".git" or _BACKUP.fullmatch(entry.name) or name in ignored
            if left_out and not (_RELEASE.fullmatch(name) and not name.endswith("~")):
                continue
            if entry.is_symlink():
                yield name, entry.path
            if entry.is_dir():
                # Folders of the tree itself come before those that links lead to
                pending.insert(0 if entry.is_symlink() else len(pending), (f"{name}/", entry.path))
            elif entry.is_file() and not entry.is_symlink():
                yield name, entry.path


def _digest(path: str, known: list[object] | None) -> tuple[str, tuple[int, ...]]:
    """Return the digest of a file, or of a link and the file behind it, and the version of both to know it by."""
    status = os.lstat(path)
    linked = stat.S_ISLNK(status.st_mode)
    behind = Path(path).stat() if linked and Path(path).is_file() else None
    version = (*_version(status), *(_version(behind) if behind else ()))
    if known is not None and known[:-1] == list(version):
        return str(known[-1]), version
    if not linked:
        return _content(path, status), version
    return f"link {Path(path).readlink()} {_content(path, behind) if behind else ''}", version


def _version(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _content(path: str, status: os.stat_result) -> str:
    with Path(path).open("rb") as file:
        return f"{stat.S_IMODE(status.st_mode):o} {hashlib.file_digest(file, 'sha256').hexdigest()}"


def _git(folder: Path, *argv: str) -> str:
    """Return what a git command prints; "" where it fails. No program that the repository's settings name is run.

    Variables such as GIT_DIR, which would name another repository, do not count: make does not hand them on, either.
    """
    command = ["git", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-C", str(folder), *argv]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        return process.output(command, env={**environment, "GIT_OPTIONAL_LOCKS": "0"}, timeout_s=120)
    except CommandFailed:
        return ""


def _ignored(folder: Path) -> frozenset[str]:
    """The names that git ignores in a checkout; a folder's stands for all below it."""
    if not (folder / ".git").exists() or shutil.which("git") is None:
        return frozenset()
    listed = _git(folder, "ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--directory")
    return frozenset(name.rstrip("/") for name in listed.split("\0") if name)


def _commit(folder: Path, files: Iterable[str]) -> str:
    """Return what kbuild makes the release of a checkout from, else "".

    That is its commit, the tags that lead to it, those named after its version or a localversion file wherever they
    are (scripts/setlocalversion asks for them by name), and whether its index differs from its commit ("-dirty").
    """
    if not (folder / ".git").exists() or shutil.which("git") is None:
        return ""
    makefile = (folder / "Makefile").read_text(errors="replace")[:4000]
    numbers = re.findall(r"^(?:VERSION|PATCHLEVEL) = (\d+)$", makefile, re.MULTILINE)
    local = [folder / name for name in files if _RELEASE.fullmatch(name)]
    named = [path.read_text(errors="replace").strip().lstrip("-") for path in local if path.is_file()]
    patterns = [f"refs/tags/v{'.'.join(numbers)}*", *(f"refs/tags/{name}" for name in named if name)]
    parts = (
        _git(folder, "rev-parse", "HEAD"),
        _git(folder, "tag", "--points-at", "HEAD"),
        _git(folder, "describe"),
        _git(folder, "for-each-ref", "--format=%(refname) %(objectname)", *patterns),
        _git(folder, "diff-index", "--cached", "--name-only", "HEAD"),
    )
    return "\n".join(part.strip() for part in parts)
