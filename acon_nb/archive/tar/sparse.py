"""Reads the maps of sparse files: GNU tar's formats (old, 0.0, 0.1, 1.0), which bsdtar uses too, and star's.

Source: the GNU tar manual, "Storing Sparse Files"; star(5).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from acon_nb.archive.tar.header import BLOCK_BYTES, GNU, HINT, STAR, Header, number
from acon_nb.archive.tar.pax import Records, decimal
from acon_nb.archive.tree import Content, Source
from acon_nb.errors import TreeError

# Of a header of type S: where its four pairs are, where it says that more follow, where the size of the file is
_IN_HEADER = {GNU: (386, 482, 483), STAR: (356, 355, 452)}
_PAIRS_LIMIT = 1 << 18
_FORMATS = ((b"0", b"0"), (b"0", b"1"), (b"1", b"0"))
_LINE_BYTES = 22


@dataclass(frozen=True)
class Map:
    """A sparse map: (position in the file, length) of each part that is stored, the file's size, where the data is."""

    pairs: tuple[tuple[int, int], ...]
    size: int
    data: int

    def content(self, source: Source, where: str) -> Content:
        """Return the content that the map describes. Errors: `TreeError` if parts overlap or exceed the size."""
        extents, offset, last = [], self.data, 0
        for start, length in self.pairs:
            if start < last or length < 0:
                reason = f"the part of {length} bytes at {start} overlaps the one before it"
                raise TreeError(f"{where}: its sparse map is invalid: {reason}", hint=HINT)
            if length:
                extents.append((start, offset, length))
            offset, last = offset + length, start + length
        if last > self.size:
            reason = f"it describes {last} bytes of a file of {self.size}"
            raise TreeError(f"{where}: its sparse map is invalid: {reason}", hint=HINT)
        return Content(size=self.size, source=source, extents=tuple(extents))

    @property
    def stored_bytes(self) -> int:
        """The length of the stored parts."""
        return sum(length for _, length in self.pairs)

    @property
    def is_aligned(self) -> bool:
        """Whether all parts but the last fill blocks. Of others, tools disagree whether each starts a block."""
        lengths = [length for _, length in self.pairs if length]
        return not any(length % BLOCK_BYTES for length in lengths[:-1])


class Reader:
    """Reads a source up to `end`. Errors: `TreeError` for data beyond it."""

    def __init__(self, source: Source, end: int) -> None:
        self.source, self.end = source, end

    def exactly(self, position: int, size: int, where: str) -> bytes:
        """Read `size` bytes at `position`."""
        data = self.source.read_at(position, size) if position + size <= self.end else b""
        if len(data) != size:
            raise TreeError(f"{where}: the tar is truncated: {size} bytes of this header are missing", hint=HINT)
        return data


def map_of(reader: Reader, head: Header, records: Records, position: int, size: int) -> Map | None:
    """Return the sparse map of a regular file whose header ends at `position`, or None if the file is not sparse.

    `size` is its size according to the header. Errors: `TreeError` for a damaged map or an unknown format.
    """
    if b"SUN.holesdata" in records:
        hint = "create the archive with GNU tar or bsdtar"
        raise TreeError(f"{head.where} is a sparse file in the format of Solaris, which is not supported", hint=hint)
    if head.kind == b"S":
        return _old(reader, head, position)
    size = records.number(b"GNU.sparse.realsize", records.number(b"GNU.sparse.size", size, head.where), head.where)
    version = records.get(b"GNU.sparse.major") or None, records.get(b"GNU.sparse.minor") or None
    if version != (None, None) and version not in _FORMATS:
        text = b".".join(part or b"?" for part in version).decode(errors="backslashreplace")
        hint = "create the archive with tar --sparse-version=1.0, or without --sparse"
        raise TreeError(f"{head.where} is a sparse file of the unknown format {text}", hint=hint)
    if records.sparse is not None:
        return Map(tuple(records.sparse), size, position)
    if records.get(b"GNU.sparse.map"):
        return Map(tuple(_pairs_of_text(records[b"GNU.sparse.map"], head.where)), size, position)
    if version == (b"1", b"0"):
        pairs, used = _pairs_of_data(reader, head.where, position)
        return Map(tuple(pairs), size, position + used)
    if version != (None, None) or b"GNU.sparse.size" in records:
        if records.get(b"GNU.sparse.numblocks") == b"0":
            return Map((), size, position)
        raise TreeError(f"{head.where} is a sparse file without its map", hint=HINT)
    return None


def _old(reader: Reader, head: Header, position: int) -> Map:
    """Read the map of GNU's old format, or star's: four pairs in the header, 21 in each block that follows."""
    if head.format not in _IN_HEADER:
        reason = f"is a sparse file (type S) in a header of the format {head.format}, which has none"
        raise TreeError(f"{head.where} {reason}", hint=HINT)
    first, more_at, size_at = _IN_HEADER[head.format]
    pairs: list[tuple[int, int]] = []
    more = True
    if head.format == GNU or head.bytes_at(345, 1) == b"\0" != head.bytes_at(first + 10, 1):  # not star's prefix
        pairs += _pairs_of_block(head.bytes_at(first, 4 * 24), head.where)
        more = head.bytes_at(more_at, 1) != b"\0"
    while more:
        block = reader.exactly(position, BLOCK_BYTES, head.where)
        position += BLOCK_BYTES
        pairs += _pairs_of_block(block[: 21 * 24], head.where)
        more = bool(block[504])
        _check_count(len(pairs), head.where)
    return Map(tuple(pairs), head.number("realsize", size_at, 12), position)


def _pairs_of_block(raw: bytes, where: str) -> Iterator[tuple[int, int]]:
    for at in range(0, len(raw), 24):
        if not raw[at]:
            return
        yield number(raw[at : at + 12], where, "sparse offset"), number(raw[at + 12 : at + 24], where, "sparse length")


def _pairs_of_text(text: bytes, where: str) -> list[tuple[int, int]]:
    numbers = [decimal(part, f"{where}: its sparse map") for part in text.split(b",")]
    if len(numbers) % 2:
        raise TreeError(f"{where}: its sparse map is damaged: an offset without a length", hint=HINT)
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _pairs_of_data(reader: Reader, where: str, position: int) -> tuple[list[tuple[int, int]], int]:
    """Read the map of format 1.0, decimal lines in blocks before the data; return it and its length in bytes."""
    numbers: list[int] = []
    wanted, used, rest = 1, 0, b""
    while len(numbers) < wanted:
        *lines, rest = (rest + reader.exactly(position + used, BLOCK_BYTES, where)).split(b"\n")
        used += BLOCK_BYTES
        for line in lines:
            if len(numbers) == wanted:
                break
            numbers.append(decimal(line, f"{where}: its sparse map"))
            if len(numbers) == 1:
                _check_count(numbers[0], where)
                wanted = 1 + 2 * numbers[0]
        if len(numbers) < wanted and len(rest) > _LINE_BYTES:
            decimal(rest, f"{where}: its sparse map")
    return list(zip(numbers[1::2], numbers[2::2], strict=True)), used


def _check_count(count: int, where: str) -> None:
    if not 0 <= count <= _PAIRS_LIMIT:
        hint = "create the archive without --sparse"
        raise TreeError(f"{where}: its sparse map has {count} parts; the limit is {_PAIRS_LIMIT}", hint=hint)
