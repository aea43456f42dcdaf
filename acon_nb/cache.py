"""Content-addressed artifacts: made once, checked on every use, never half-written.

An artifact is a folder `ROOT/KIND/KEY/` whose key is the hash of all that it was made from. It is written beside its
place and renamed into it, under a lock, with a manifest of its files; a file that does not match its manifest is set
aside, said in the log, and made again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import platformdirs

from acon_nb.errors import NoSpace

_log = logging.getLogger(__name__)
_MANIFEST = "manifest.json"
_SETTLED_NS = 1_000_000_000
_HASHES_KEPT = 4096
_hashes: dict[tuple[int, ...], str] = {}
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Artifact:
    """A finished artifact: its folder, its key, whether it was there before, and the seconds its making took."""

    path: Path
    key: str
    cached: bool
    seconds: float


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; not computed again while its inode, size and times stay.

    A file that changed within the last second is not remembered: its times might not tell a change right after.
    """
    with path.open("rb") as file:
        stat = os.fstat(file.fileno())
        mark = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        if mark in _hashes:
            return _hashes[mark]
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > _SETTLED_NS:
        if len(_hashes) >= _HASHES_KEPT:
            _hashes.clear()
        _hashes[mark] = digest
    return digest


def key_of(inputs: Mapping[str, Any]) -> str:
    """The key of an artifact: 32 hexadecimal digits of the SHA-256 of its inputs as canonical JSON."""
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def default_root() -> Path:
    """The user cache's folder for this package (it follows XDG_CACHE_HOME)."""
    return platformdirs.user_cache_path("acon_nb")


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it is renamed to `path` at the end, or removed if the block fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    try:
        with said_no_space(path):
            yield Path(name)
            umask = os.umask(0)
            os.umask(umask)
            Path(name).chmod(0o666 & ~umask)
            Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def said_no_space(path: Path) -> Iterator[None]:
    """Turn the operating system's "disk full" into `NoSpace` that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise NoSpace(path, "writing stopped") from error
        raise


def require_space(path: Path, needed_bytes: int, what: str) -> None:
    """Raise `NoSpace` when the disk of `path` has less than `needed_bytes` free."""
    probe = path
    while not probe.exists():
        probe = probe.parent
    free = shutil.disk_usage(probe).free
    if free < needed_bytes:
        raise NoSpace(path, f"{what} needs {needed_bytes >> 20} MiB, {free >> 20} MiB are free")


class Cache:
    """The artifacts under one root folder (default: the user cache)."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or default_root()

    def get(
        self,
        kind: str,
        inputs: Mapping[str, Any],
        make: Callable[[Path], None],
        *,
        hashed: bool = True,
    ) -> Artifact:
        """Return the artifact made from `inputs`, making it with `make(folder)` if it is not there.

        `hashed` files are checked by SHA-256 on every use; without it only the folder's completeness is trusted
        (large source trees). Concurrent callers wait for each other. Errors: `NoSpace`, and whatever `make` raises;
        nothing is left behind then.
        """
        key = key_of(inputs)
        place = self.root / kind / key
        with said_no_space(place), self.lock(f"{kind}-{key}"):
            if self._sound(place, hashed=hashed):
                return Artifact(place, key, True, 0.0)
            started = time.monotonic()
            self._make(place, inputs, make, hashed=hashed)
            return Artifact(place, key, False, time.monotonic() - started)

    def has(self, kind: str, inputs: Mapping[str, Any]) -> bool:
        """Whether the artifact of `inputs` is there (its files are checked only by `get`)."""
        return (self.root / kind / key_of(inputs) / _MANIFEST).is_file()

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the lock of that name against all other processes of this user."""
        locks = self.root / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(locks / f"{name}.lock"):
            yield

    def workdir(self, kind: str, inputs: Mapping[str, Any]) -> Path:
        """A folder that stays between runs (an incremental build); hold `lock` of its name while using it."""
        path = self.root / kind / key_of(inputs)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def _make(self, place: Path, inputs: Mapping[str, Any], make: Callable[[Path], None], *, hashed: bool) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        for stale in place.parent.glob(f".{place.name}.*"):  # of a killed process: we hold the lock
            shutil.rmtree(stale, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
        try:
            make(temporary)
            manifest = {"inputs": inputs, "files": _files(temporary) if hashed else None}
            (temporary / _MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True))
            temporary.chmod(0o755)
            temporary.rename(place)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise

    def _sound(self, place: Path, *, hashed: bool) -> bool:
        """Whether a whole artifact is at `place`; a damaged one is moved out of the way."""
        if not place.exists():
            return False
        try:
            manifest = json.loads((place / _MANIFEST).read_text())
            damaged = _damaged(place, manifest["files"]) if hashed else []
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            damaged = [_MANIFEST]
        if not damaged:
            return True
        _log.warning("%s is corrupt in the cache (%s): thrown away and made again", place, ", ".join(damaged))
        shutil.rmtree(place)
        return False


def _files(folder: Path) -> dict[str, str]:
    found = (path for path in sorted(folder.rglob("*")) if path.is_symlink() or path.is_file())
    return {str(path.relative_to(folder)): _digest(path) for path in found}


def _damaged(place: Path, files: Mapping[str, str]) -> list[str]:
    return [name for name, digest in files.items() if _digest(place / name) != digest]


def _digest(path: Path) -> str:
    """What a file must still be: its bytes, or where it points (never what is there); "" if it is gone."""
    if path.is_symlink():
        return f"link to {os.fsdecode(path.readlink())}"
    if not path.is_file():
        return ""
    with path.open("rb") as file:  # never from memory: damage does not change a file's times
        return hashlib.file_digest(file, "sha256").hexdigest()
