"""The bytes of files: in memory, or by reference to a file of the host or a part of an archive."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from acon_nb.errors import TreeError

_CHUNK_BYTES = 1 << 20


class Source(Protocol):
    """An open file that contents refer to."""

    def read_at(self, offset: int, count: int) -> bytes:
        """Read `count` bytes from `offset`; fewer only at the end."""


@dataclass
class SourceStream:
    """A part of a source as a stream, from `position` up to `end`."""

    source: Source
    position: int
    end: int

    def read(self, count: int = -1) -> bytes:
        """Read at most `count` bytes; fewer only at the end."""
        left = self.end - self.position
        data = self.source.read_at(self.position, left if count < 0 else min(count, left)) if left else b""
        self.position += len(data)
        return data


@dataclass(frozen=True)
class Content:
    """The bytes of a file: in memory (`data`), or `size` bytes at `offset` of a file of the host (`path` or `source`).

    `extents` of a sparse file are (position in the file, offset in the source, length), with zeros in between.
    """

    size: int
    data: bytes | None = None
    path: Path | None = None
    offset: int = 0
    source: Source | None = None
    extents: tuple[tuple[int, int, int], ...] | None = None

    @classmethod
    def of(cls, data: bytes) -> Content:
        """Create content in memory."""
        return cls(size=len(data), data=data)

    @classmethod
    def of_file(cls, path: Path) -> Content:
        """Refer to the content of a file of the host, which is read when needed."""
        return cls(size=path.stat().st_size, path=path)

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes in chunks of at most 1 MiB. Errors: `TreeError` if the file has become shorter."""
        if self.path is not None:
            yield from self._chunks_of_path(self.path)
        elif self.source is None:
            data = self.data or b""
            yield from (data[start : start + _CHUNK_BYTES] for start in range(0, len(data), _CHUNK_BYTES))
        elif self.extents is None:
            yield from _run(self.source, self.offset, self.size)
        else:
            position = 0
            for start, offset, length in self.extents:
                yield from _zeros(start - position)
                yield from _run(self.source, offset, length)
                position = start + length
            yield from _zeros(self.size - position)

    def read(self) -> bytes:
        """Return all bytes."""
        return b"".join(self.chunks())

    def digest(self, algorithm: str = "sha256") -> str:
        """Return the hexadecimal digest of the bytes."""
        digest = hashlib.new(algorithm)
        for chunk in self.chunks():
            digest.update(chunk)
        return digest.hexdigest()

    def _chunks_of_path(self, path: Path) -> Iterator[bytes]:
        with path.open("rb", buffering=0) as file:
            file.seek(self.offset)
            left = self.size
            while left:
                chunk = file.read(min(left, _CHUNK_BYTES))
                if not chunk:
                    raise TreeError(f"{path} became shorter than its {self.size} bytes while it was being read")
                left -= len(chunk)
                yield chunk


def _run(source: Source, offset: int, size: int) -> Iterator[bytes]:
    while size:
        chunk = source.read_at(offset, min(size, _CHUNK_BYTES))
        if not chunk:
            raise TreeError(f"an archive became shorter while it was being read ({size} bytes are missing)")
        offset += len(chunk)
        size -= len(chunk)
        yield chunk


def _zeros(count: int) -> Iterator[bytes]:
    while count > 0:
        yield bytes(min(count, _CHUNK_BYTES))
        count -= _CHUNK_BYTES
