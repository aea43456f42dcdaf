"""A cache of content-addressed artifacts: built once, verified on every use, never half-written.

An artifact is a folder `ROOT/KIND/KEY/` whose key is a hash of its inputs. It is written to a temporary folder and
renamed, under a lock, with a manifest of its files. An artifact that does not match its manifest is reported in the
log, removed and built again.
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

from acon_nb.errors import InvalidInput, NoSpace, NotWritable
from acon_nb.progress import CancelToken, OnProgress, Progress, silent

_log = logging.getLogger(__name__)
_MANIFEST = "manifest.json"
_SETTLED_NS = 1_000_000_000
_HASHES_KEPT = 4096
_TELL_S = 1.0  # between two reports of waiting for a lock
_hashes: dict[tuple[int, ...], str] = {}
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_NOT_WRITABLE = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT, errno.ELOOP, errno.ENAMETOOLONG,
)  # fmt: skip


@dataclass(frozen=True)
class Artifact:
    """A finished artifact: its folder, its key, whether it came from the cache, and the seconds it took to build."""

    path: Path
    key: str
    cached: bool
    seconds: float


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal; it is not computed again while inode, size and times are unchanged.

    The hash of a file that changed within the last second is not kept: another change might leave its times the same.
    """
    with path.open("rb") as file:
        stat = os.fstat(file.fileno())
        version = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        if version in _hashes:
            return _hashes[version]
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > _SETTLED_NS:
        if len(_hashes) >= _HASHES_KEPT:
            _hashes.clear()
        _hashes[version] = digest
    return digest


def json_sha256(value: Any) -> str:
    """Return the SHA-256 of a value as JSON with sorted keys, in hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def key_of(inputs: Mapping[str, Any]) -> str:
    """Return the key of an artifact: 32 hexadecimal digits of the SHA-256 of its inputs as canonical JSON."""
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def default_root() -> Path:
    """Return this package's folder in the user cache (below XDG_CACHE_HOME if set).

    Errors: `InvalidInput` for a user without a home folder (no HOME, and no entry among the host's users).
    """
    no_home = InvalidInput("HOME", "", "there is no home folder to cache in", hint="set XDG_CACHE_HOME to a folder")
    try:
        root = platformdirs.user_cache_path("acon_nb")
    except RuntimeError as error:  # of newer platformdirs
        raise no_home from error
    if root.parts[:1] == ("~",):  # of older ones
        raise no_home
    return root


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with all in it; what a link leads to stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def writable_folder(path: Path, mode: int = 0o777) -> Path:
    """Create a folder, and its parents, unless it exists; return it. Errors: `NoSpace`, `NotWritable`."""
    with writing(path):
        path.mkdir(mode=mode, parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Convert what the operating system says of a path that cannot be written: `NoSpace`, or `NotWritable`."""
    try:
        with raising_no_space(path):
            yield
    except NotWritable:
        raise
    except OSError as error:
        if error.errno not in _NOT_WRITABLE:
            raise
        hint = "give another folder; what is cached goes below XDG_CACHE_HOME"
        raise NotWritable(path, error, hint=hint) from error


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`; it is renamed to `path` at the end, or removed if the block fails.

    Errors: `NoSpace`, `NotWritable`.
    """
    writable_folder(path.parent)
    with writing(path):
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
    try:
        with raising_no_space(path):
            yield Path(name)
            umask = os.umask(0)
            os.umask(umask)
            Path(name).chmod(0o666 & ~umask)
            Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def raising_no_space(path: Path) -> Iterator[None]:
    """Convert "disk full" errors of the operating system into a `NoSpace` that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise NoSpace(path, "writing stopped") from error
        raise


def require_space(path: Path, needed_bytes: int, what: str) -> None:
    """Raise `NoSpace` if the disk of `path` has less than `needed_bytes` free."""
    probe = path
    while not probe.exists():
        probe = probe.parent
    free = shutil.disk_usage(probe).free
    if free < needed_bytes:
        raise NoSpace(path, f"{what} needs {needed_bytes >> 20} MiB, but only {free >> 20} MiB are free")


class Cache:
    """The artifacts below one root folder (default: the user cache)."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or default_root()

    def get(
        self,
        kind: str,
        inputs: Mapping[str, Any],
        make: Callable[[Path], None],
        *,
        hashed: bool = True,
        on_progress: OnProgress = silent,
        cancel: CancelToken | None = None,
    ) -> Artifact:
        """Return the artifact of `inputs`; if the cache does not hold it, build it with `make(folder)`.

        With `hashed`, files are verified by SHA-256 on every use; without it, a folder that has a manifest is trusted
        (large source trees). Concurrent callers wait for each other, and say so. Errors: `NoSpace`, `Cancelled` while
        waiting, `NotWritable`, and whatever `make` raises; a failed build leaves nothing behind.
        """
        key = key_of(inputs)
        folder = self.root / kind / key
        with raising_no_space(folder), self.lock(f"{kind}-{key}", on_progress=on_progress, cancel=cancel):
            if self._is_complete(folder, hashed=hashed):
                return Artifact(folder, key, True, 0.0)
            started = time.monotonic()
            self._make(folder, inputs, make, hashed=hashed)
            return Artifact(folder, key, False, time.monotonic() - started)

    def has(self, kind: str, inputs: Mapping[str, Any]) -> bool:
        """Whether the cache holds the artifact of `inputs` (only `get` verifies its files)."""
        return (self.root / kind / key_of(inputs) / _MANIFEST).is_file()

    def file_beside(self, kind: str, name: str, sha256: str, wanted: str) -> Path | None:
        """Return the file `wanted` of the artifact of a kind whose file `name` has this hash; None if there is none."""
        for path in sorted((self.root / kind).glob(f"*/{_MANIFEST}")):
            try:
                files = json.loads(path.read_text())["files"] or {}
            except (OSError, ValueError, KeyError):
                continue  # being made or removed
            if files.get(name) == sha256 and (path.parent / wanted).is_file():
                return path.parent / wanted
        return None

    @contextlib.contextmanager
    def lock(
        self,
        name: str,
        *,
        wait: bool = True,
        on_progress: OnProgress = silent,
        cancel: CancelToken | None = None,
    ) -> Iterator[bool]:
        """Hold the named lock, which excludes all other processes of this user; yields whether it was acquired.

        With `wait` it always is, and each second of waiting is reported; without, it is not while another process holds
        it.
        Errors: `Cancelled`.
        """
        locks = writable_folder(self.root / "locks")
        path = locks / f"{name}.lock"
        lock = filelock.FileLock(path)
        started = time.monotonic()
        while True:
            try:
                with writing(locks):
                    lock.acquire(timeout=_TELL_S if wait else 0)
                break
            except filelock.Timeout:
                if not wait:
                    yield False
                    return
            if cancel is not None:
                cancel.check()
            waited = f"{time.monotonic() - started:.0f} s: {_holder(path)} works on the same"
            on_progress(Progress("wait for another process", None, waited))
        try:
            yield True
        finally:
            lock.release()

    def workdir(self, kind: str, inputs: Mapping[str, Any]) -> Path:
        """Return a folder that persists between runs (for incremental builds); hold the lock of its name in use."""
        return writable_folder(self.root / kind / key_of(inputs))

    def keep_recent(self, kind: str, number: int) -> None:
        """Remove the working folders of `kind` except the `number` most recently used (by modification time).

        A folder whose lock (`KIND-NAME`) is taken is kept.
        """
        folders = [path for path in (self.root / kind).glob("[!.]*") if path.is_dir()]
        for folder in sorted(folders, key=_modified_ns, reverse=True)[number:]:
            with self.lock(f"{kind}-{folder.name}", wait=False) as held:
                if held:
                    shutil.rmtree(folder, ignore_errors=True)

    def _make(self, folder: Path, inputs: Mapping[str, Any], make: Callable[[Path], None], *, hashed: bool) -> None:
        writable_folder(folder.parent)
        for stale in folder.parent.glob(f".{folder.name}.*"):  # left by a killed process: we hold the lock
            shutil.rmtree(stale, ignore_errors=True)
        with writing(folder.parent):
            temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            make(temporary)
            manifest = {"inputs": inputs, "files": _files(temporary) if hashed else None}
            (temporary / _MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True))
            temporary.chmod(0o755)
            temporary.rename(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise

    def _is_complete(self, folder: Path, *, hashed: bool) -> bool:
        """Whether `folder` is a complete artifact; a damaged one is removed."""
        if not folder.exists():
            return False
        try:
            manifest = json.loads((folder / _MANIFEST).read_text())
            damaged = _damaged(folder, manifest["files"]) if hashed else []
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            damaged = [_MANIFEST]
        if not damaged:
            return True
        _log.warning("%s is corrupt in the cache (%s): removing and rebuilding it", folder, ", ".join(damaged))
        shutil.rmtree(folder)
        return False


def _holder(lock: Path) -> str:
    """Who holds a lock, by the kernel's list of locks (proc_locks(5)); in another container it cannot be seen."""
    try:
        inode = lock.stat().st_ino
        fields = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        pid = next(int(one[4]) for one in fields if one[1] == "FLOCK" and one[5].endswith(f":{inode}"))
        return f"process {pid} ({Path(f'/proc/{pid}/comm').read_text().strip()})"
    except (OSError, ValueError, IndexError, StopIteration):
        return "another process"


def _modified_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:  # another process removed it
        return 0


def _files(folder: Path) -> dict[str, str]:
    paths = (path for path in sorted(folder.rglob("*")) if path.is_symlink() or path.is_file())
    return {str(path.relative_to(folder)): _digest(path) for path in paths}


def _damaged(folder: Path, files: Mapping[str, str]) -> list[str]:
    return [name for name, digest in files.items() if _digest(folder / name) != digest]


def _digest(path: Path) -> str:
    """Return the hash of a file's bytes, or a link's target (links are not followed); "" if it does not exist."""
    if path.is_symlink():
        return f"link to {os.fsdecode(path.readlink())}"
    if not path.is_file():
        return ""
    with path.open("rb") as file:  # not sha256_file: disk corruption does not change a file's times
        return hashlib.file_digest(file, "sha256").hexdigest()
