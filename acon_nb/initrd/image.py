"""From a tree to an initrd image and back: cpio, compressed by suffix, streamed to a file that appears whole."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from acon_nb.cache import atomic_file, said_no_space
from acon_nb.errors import InvalidInput, TreeError
from acon_nb.initrd import cpio, spool
from acon_nb.initrd.compress import SUFFIXES, compressor
from acon_nb.initrd.tree import Content, FileTree, Limits
from acon_nb.progress import CancelToken, OnProgress, Progress, silent

# What the guide's `T=.` means: midnight of 1 January 2000, UTC.
DEFAULT_MTIME = 946684800
# Programs whose suffix is another
ALIASES = {"zstd": "zst"}
_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class InitrdImage:
    """An initrd on disk: where it is, its size and that of the archive in it, its SHA-256."""

    path: Path
    bytes: int
    archive_bytes: int
    sha256: str


def create(
    tree: FileTree,
    path: Path,
    *,
    mtime: int | None = DEFAULT_MTIME,
    owner: tuple[int, int] | None = (0, 0),
    level: int | None = None,
    workers: int | None = None,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> InitrdImage:
    """Write `tree` to `path`, compressed by the suffix: none, .gz, .bz2, .xz, .zst or .lz4.

    Parameters: `mtime` None keeps each file's own time, `owner` None its owner; `level` of the compressor (default: 9
    of gz, bz2 and lz4, 6 of xz, 19 of zst); `workers` is how many threads may compress (default: the processors).
    Errors: `TreeError` (no init), `InvalidInput` (suffix, level), `NoSpace`, `Cancelled`; the file appears only when it
    is whole, and nothing is left beside it, even when the process is killed.
    """
    suffix = suffix_of(path)
    if path.exists() and not path.is_file():  # a rename over /dev/null would take it from the host
        raise InvalidInput("image", path, "is there and is no regular file", hint="give the name of a file")
    require_init(tree, path.name)
    with _whole_file(path) as file:
        sink = _Sink(file)
        with compressor(suffix, sink, level=level, workers=workers) as stream:
            counted = _Watched(stream, tree, f"write {path.name}", on_progress, cancel)
            archive_bytes = cpio.write(tree, counted, mtime=mtime, owner=owner)
            counted.flush()
        sink.flush()
    on_progress(Progress(f"write {path.name}", 1.0))
    return InitrdImage(path=path, bytes=sink.bytes, archive_bytes=archive_bytes, sha256=sink.sha256.hexdigest())


def require_init(tree: FileTree, name: str) -> None:
    """Errors: `TreeError` when the kernel would find no init in the tree."""
    if not tree.has_init():
        raise TreeError(
            f"{name} would have no init that is executable",
            hint="add /init (acon-nb initrd init TREE), or make sbin/init, etc/init or bin/init executable",
        )


def suffix_of(path: Path) -> str:
    """The compression that a file's name asks for ("" for none). Errors: `InvalidInput` for one that is not known."""
    suffix = {**ALIASES, "cpio": ""}.get(path.suffix[1:], path.suffix[1:])
    if suffix not in ("", *SUFFIXES):
        raise InvalidInput("image", path, f".{suffix} is no known compression", hint=f"one of {', '.join(SUFFIXES)}")
    return suffix


def load(path: Path, *, limits: Limits | None = None) -> FileTree:
    """The tree of an initrd image, of whatever compression; contents stay in the file (or an unnamed one) until read.

    Archives that follow each other (an early, uncompressed one of microcode, then the rest) are laid over each other,
    as the kernel does. Errors: `InvalidInput` (no file), `TreeError` (damaged, hostile, or over a limit).
    """
    limits = limits or Limits()
    return load_content(Content(size=path.stat().st_size if path.is_file() else 0, path=path), path.name, limits)


def load_content(content: Content, name: str, limits: Limits) -> FileTree:
    """As `load`, of bytes that lie anywhere."""
    tree: FileTree | None = None
    left = spool.plain(content, name, limits)
    while tree is None or left.size:
        found, used = cpio.read_content(left, limits=limits)
        if tree is None:
            tree = found
        else:
            for key, entry in found.items():
                tree.add(key, entry)
        rest = Content(size=left.size - used, source=left.source, offset=left.offset + used)
        left = spool.plain(rest, name, limits) if rest.size else rest
    return tree


class _Joined(ABC):
    """Joins small writes; `flush` at the end passes on the last of them."""

    def __init__(self) -> None:
        self._held: list[bytes] = []
        self._held_bytes = 0

    def write(self, data: bytes) -> int:
        """Take bytes."""
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes >= _BUFFER_BYTES:
            self.flush()
        return len(data)

    def flush(self) -> None:
        """Pass on what is held."""
        data = self._held[0] if len(self._held) == 1 else b"".join(self._held)
        self._held, self._held_bytes = [], 0
        self._pass_on(data)

    @abstractmethod
    def _pass_on(self, data: bytes) -> None: ...


class _Sink(_Joined):
    """Buffers small writes to a file; counts and hashes what is written."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self.bytes = 0
        self.sha256 = hashlib.sha256()

    def _pass_on(self, data: bytes) -> None:
        self.sha256.update(data)
        self.bytes += len(data)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]


class _Watched(_Joined):
    """Joins small writes, tells how far they are, and stops when cancelled."""

    def __init__(
        self, stream: cpio.Writable, tree: FileTree, task: str, on_progress: OnProgress, cancel: CancelToken | None
    ) -> None:
        super().__init__()
        self._stream, self._task, self._on_progress, self._cancel = stream, task, on_progress, cancel
        self._total = max(1, sum(entry.content.size for _, entry in tree.items()))
        self._done = 0

    def _pass_on(self, data: bytes) -> None:
        if self._cancel is not None:
            self._cancel.check()
        self._stream.write(data)
        self._done += len(data)
        self._on_progress(Progress(self._task, min(0.999, self._done / self._total)))


@contextmanager
def _whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file without a name that gets its name when the block ends well; a killed process leaves nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path.parent, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT):
            raise
        with atomic_file(path) as temporary, temporary.open("wb", buffering=0) as file:  # a file system without
            yield file
        return
    with said_no_space(path), os.fdopen(descriptor, "wb", buffering=0) as file:
        yield file
        beside = path.with_name(f".{path.name}.{os.getpid()}.{descriptor}")
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()
        folder = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY)
        try:  # with src_dir_fd Python calls linkat(2), which follows the link that /proc has
            os.link(str(descriptor), beside, src_dir_fd=folder, follow_symlinks=True)
        finally:
            os.close(folder)
        beside.replace(path)
