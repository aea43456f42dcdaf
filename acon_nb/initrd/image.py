"""Writes trees as initrd images and reads them back.

An image is a cpio archive, compressed according to its suffix and streamed to a file that appears only when complete.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from acon_nb.archive import cpio, segments, spool
from acon_nb.archive.compress import SUFFIXES, Writable, compressor
from acon_nb.archive.tree import FileTree, ImageLimits
from acon_nb.cache import atomic_file, raising_no_space
from acon_nb.errors import InvalidInput, TreeError
from acon_nb.progress import CancelToken, OnProgress, Progress, silent

# The guide's `T=.`: midnight of 1 January 2000, UTC
DEFAULT_MTIME = 946684800
# Compressors whose suffix differs from their name
ALIASES = {"zstd": "zst"}
_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class InitrdImage:
    """An initrd on disk: its path, its size, the size of the uncompressed archive, its SHA-256."""

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
    """Write `tree` to `path`, compressed according to the suffix: none, .gz, .bz2, .xz, .zst or .lz4.

    The tree's early archives come first, as they are: the kernel finds microcode only uncompressed. The file appears
    only when it is complete; no temporary file is left behind, even if the process is killed.

    Parameters: `mtime` None keeps each file's time, `owner` None its owner; `level` is that of the compressor (default:
    9 for gz, bz2 and lz4, 6 for xz, 19 for zst); `workers` is the maximum number of threads (default: the number of
    CPUs). Errors: `TreeError` (no init), `InvalidInput` (suffix, level), `NoSpace`, `Cancelled`.
    """
    suffix = suffix_of(path)
    if path.exists() and not path.is_file():  # a rename over /dev/null would replace it
        raise InvalidInput("image", path, "exists and is not a regular file", hint="give the name of a file")
    require_init(tree, path.name)
    with _whole_file(path) as file:
        sink = _Sink(file)
        early_bytes = _write_early(tree, sink)
        with compressor(suffix, sink, level=level, workers=workers) as stream:
            counted = _Watched(stream, tree, f"write {path.name}", on_progress, cancel)
            archive_bytes = early_bytes + cpio.write(tree, counted, mtime=mtime, owner=owner)
            counted.flush()
        sink.flush()
    on_progress(Progress(f"write {path.name}", 1.0))
    return InitrdImage(path=path, bytes=sink.bytes, archive_bytes=archive_bytes, sha256=sink.sha256.hexdigest())


def _write_early(tree: FileTree, sink: Writable) -> int:
    """Write the tree's early archives as they are, uncompressed; return their length, a multiple of 4."""
    if tree.early is None:
        return 0
    for chunk in tree.early.chunks():
        sink.write(chunk)
    pad = -tree.early.size % 4
    sink.write(bytes(pad))
    return tree.early.size + pad


def require_init(tree: FileTree, name: str) -> None:
    """Check that the kernel would find an init in the tree. Errors: `TreeError`."""
    if not tree.has_init():
        raise TreeError(
            f"{name} would have no executable init",
            hint="add /init (acon-nb initrd init TREE), or make sbin/init, etc/init or bin/init executable",
        )


def suffix_of(path: Path) -> str:
    """Return the compression according to a file's name ("" for none). Errors: `InvalidInput` if it is unknown."""
    suffix = {**ALIASES, "cpio": ""}.get(path.suffix[1:], path.suffix[1:])
    if suffix not in ("", *SUFFIXES):
        reason = f"has the suffix .{suffix}, which is not a known compression"
        raise InvalidInput("image", path, reason, hint=f"one of {', '.join(SUFFIXES)}")
    return suffix


def join(parts: Sequence[Path], path: Path) -> Path:
    """Write archives one after another into `path`, which a kernel unpacks into one root; returns it.

    All but the last must be uncompressed, their lengths multiples of 4. Errors: `NoSpace`.
    """
    with raising_no_space(path), path.open("wb") as file:
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, file, _BUFFER_BYTES)
    return path


def load(path: Path, *, limits: ImageLimits | None = None) -> FileTree:
    """Load the tree of an initrd image, as the kernel unpacks it; contents are read when needed.

    Consecutive segments, each an uncompressed archive or compressed in its own way, are unpacked in order. What the
    kernel loses is in the tree's `warnings()`. Errors: `InvalidInput` (not a file), `TreeError` (what a kernel does not
    read, a damaged or hostile image, or one over a limit).
    """
    return segments.read_whole(path, limits).tree


def compress(path: Path, suffix: str, *, on_progress: OnProgress = silent) -> InitrdImage:
    """Compress an uncompressed initrd into `path` with the suffix appended, which is replaced if it exists.

    Errors: `InvalidInput` (not a file, already compressed, or with microcode that the kernel finds only uncompressed),
    `TreeError` (not an initrd, or a damaged one), `NoSpace`.
    """
    content = spool.open_file(path)
    unpacked = segments.read(content, path.name)
    packed = [part.compression for part in unpacked.segments if part.compression]
    if unpacked.problem is not None and unpacked.problem.compression:
        packed.append(unpacked.problem.compression)
    if packed:
        hint = f"give an uncompressed image; {path.name} can be booted as it is"
        raise InvalidInput("image", path, f"is compressed already ({', '.join(packed)})", hint=hint)
    if unpacked.problem is not None:
        raise unpacked.problem.error(path.name)
    if any(part.early for part in unpacked.segments):
        hint = "compress what follows the early archive: acon-nb initrd from cpio:FILE -o NEW.cpio.xz does that"
        raise InvalidInput(
            "image", path, "starts with microcode or ACPI tables, which must stay uncompressed", hint=hint
        )
    target = path.with_name(f"{path.name}.{suffix}")
    task = f"write {target.name}"
    with _whole_file(target) as file:
        sink, done = _Sink(file), 0
        with compressor(suffix, sink) as stream:
            for chunk in content.chunks():
                stream.write(chunk)
                done += len(chunk)
                on_progress(Progress(task, min(0.999, done / content.size)))
        sink.flush()
    on_progress(Progress(task, 1.0))
    return InitrdImage(path=target, bytes=sink.bytes, archive_bytes=content.size, sha256=sink.sha256.hexdigest())


class _Joined(ABC):
    """Combines small writes; `flush` writes what is buffered."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._buffered_bytes = 0

    def write(self, data: bytes) -> int:
        """Buffer bytes."""
        self._parts.append(data)
        self._buffered_bytes += len(data)
        if self._buffered_bytes >= _BUFFER_BYTES:
            self.flush()
        return len(data)

    def flush(self) -> None:
        """Write what is buffered."""
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts, self._buffered_bytes = [], 0
        self._write_through(data)

    @abstractmethod
    def _write_through(self, data: bytes) -> None: ...


class _Sink(_Joined):
    """Buffers writes to a file, and counts and hashes the bytes."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self.bytes = 0
        self.sha256 = hashlib.sha256()

    def _write_through(self, data: bytes) -> None:
        self.sha256.update(data)
        self.bytes += len(data)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]


class _Watched(_Joined):
    """Buffers writes to a stream, reports progress, and stops when cancelled."""

    def __init__(
        self, stream: Writable, tree: FileTree, task: str, on_progress: OnProgress, cancel: CancelToken | None
    ) -> None:
        super().__init__()
        self._stream, self._task, self._on_progress, self._cancel = stream, task, on_progress, cancel
        self._total = max(1, sum(entry.content.size for _, entry in tree.items()))
        self._done = 0

    def _write_through(self, data: bytes) -> None:
        if self._cancel is not None:
            self._cancel.check()
        self._stream.write(data)
        self._done += len(data)
        self._on_progress(Progress(self._task, min(0.999, self._done / self._total)))


@contextmanager
def _whole_file(path: Path) -> Iterator[BinaryIO]:
    """Yield an unnamed file that is linked to `path` when the block succeeds; a killed process leaves nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path.parent, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT):
            raise
        with atomic_file(path) as temporary, temporary.open("wb", buffering=0) as file:  # no O_TMPFILE there
            yield file
        return
    with raising_no_space(path), os.fdopen(descriptor, "wb", buffering=0) as file:
        yield file
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{descriptor}")
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        folder = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY)
        try:  # with src_dir_fd Python calls linkat(2), which follows the link in /proc
            os.link(str(descriptor), temporary, src_dir_fd=folder, follow_symlinks=True)
        finally:
            os.close(folder)
        temporary.replace(path)
