"""Stores streams and decompressed files in unnamed files, which disappear with the process."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from acon_nb.archive.content import SourceStream
from acon_nb.archive.decompress import compression_of, decompressed
from acon_nb.archive.tar.header import BLOCK_BYTES, is_header
from acon_nb.archive.tree import Content, ImageLimits
from acon_nb.cache import default_root, raising_no_space
from acon_nb.errors import InvalidInput, TreeError
from acon_nb.units import format_bytes

_CHUNK_BYTES = 1 << 20


class OpenFile:
    """A file that stays open while contents of a tree refer to it; it can be read at any offset, from any thread."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.close = weakref.finalize(self, os.close, descriptor)

    @classmethod
    def open(cls, path: Path) -> OpenFile:
        """Open a regular file. Errors: `InvalidInput` (not a regular file)."""
        if not path.is_file():
            reason = "is not a file" if path.exists() else "does not exist"
            raise InvalidInput("image", path, reason, hint="give the file of an image")
        return cls(os.open(path, os.O_RDONLY | os.O_CLOEXEC))

    @property
    def size(self) -> int:
        """The length of the file in bytes."""
        return os.fstat(self._descriptor).st_size

    def read_at(self, offset: int, count: int) -> bytes:
        """Read `count` bytes from `offset`; fewer only at the end."""
        data = os.pread(self._descriptor, count, offset)
        while data and len(data) < count:
            more = os.pread(self._descriptor, count - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data


def keep(chunks: Iterable[bytes], limit_bytes: int, what: str) -> Content:
    """Store a stream in an unnamed file in the user cache; it disappears when the process ends.

    Errors: `TreeError` if the stream is longer than `limit_bytes`, `NoSpace`.
    """
    folder = _folder()
    size = 0
    with raising_no_space(folder), tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for chunk in _joined(chunks):
            size += len(chunk)
            if size > limit_bytes:
                raise TreeError(
                    f"{what} contains more than {format_bytes(limit_bytes)}, which exceeds the limit total_bytes",
                    hint="raise the limit (--limit) if you trust the image",
                )
            view = memoryview(chunk)
            while view:
                view = view[file.write(view) :]
        return Content(size=size, source=OpenFile(os.dup(file.fileno())))


def _folder() -> Path:
    """Return the folder for unnamed files: in the user cache, or the one for temporary files if that fails."""
    folder = default_root() / "spool"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return Path(tempfile.gettempdir())
    return folder


def _joined(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Join the small chunks that a socket gives into chunks of about 1 MiB."""
    parts: list[bytes] = []
    count = 0
    for chunk in chunks:
        parts.append(chunk)
        count += len(chunk)
        if count >= _CHUNK_BYTES:
            yield b"".join(parts)
            parts, count = [], 0
    yield b"".join(parts)


def stream_limit(limits: ImageLimits) -> int:
    """Return the maximum length of a tar or cpio: that of its files, and as much again for headers of small files."""
    return 2 * limits.total_bytes + (64 << 20)


def open_file(path: Path) -> Content:
    """Open a file of the host as content. Errors: `InvalidInput` (not a regular file)."""
    file = OpenFile.open(path)
    return Content(size=file.size, source=file)


def opened(content: Content, what: str) -> Content:
    """Return content with an open source, which `read_at` reads at any offset. Errors: `InvalidInput`."""
    if content.data is not None:
        content = keep([content.data], content.size, what)
    if content.path is not None:
        content = Content(size=content.size, source=OpenFile.open(content.path), offset=content.offset)
    return content


def plain(content: Content, what: str, limits: ImageLimits) -> Content:
    """Return uncompressed content with an open source; the compression is detected from the first bytes.

    Errors: `TreeError` for damaged data, or more data than the limits allow.
    """
    content = opened(content, what)
    assert content.source is not None
    head = content.source.read_at(content.offset, min(BLOCK_BYTES, content.size))
    name = compression_of(head)
    if not name or is_header(head):  # the name of a tar's first member may begin like a compressed file: BZh, ]
        return content
    stream = cast(BinaryIO, SourceStream(content.source, content.offset, content.offset + content.size))
    return keep(decompressed(stream, name, what), stream_limit(limits), what)
