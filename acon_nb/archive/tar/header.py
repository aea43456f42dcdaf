"""Decodes the header blocks of tar archives: V7, POSIX ustar, GNU and star.

Sources: POSIX.1-2017 pax, "ustar Interchange Format"; the GNU tar manual, "Basic Tar Format"; tar(5) of libarchive.
"""

from __future__ import annotations

from acon_nb.archive.tree import shown
from acon_nb.errors import TreeError

BLOCK_BYTES = 512
HINT = "the archive is damaged or hostile: create or download it again"
GNU, USTAR, STAR, OLD = "gnu", "ustar", "star", "v7"
_MAGICS = {b"ustar  \0": GNU, b"ustar\0": USTAR}
_CHECKSUM = slice(148, 156)


class Header:
    """A header block whose checksum is right. Fields are decoded on demand; errors name the member and the field."""

    __slots__ = ("_block", "format", "kind", "position", "where")

    def __init__(self, block: bytes, position: int) -> None:
        if len(block) < BLOCK_BYTES:
            raise TreeError(f"the tar is truncated: its last header, at byte {position}, is incomplete", hint=HINT)
        self._block, self.position = block, position
        self.kind = block[156:157]
        self.format = _MAGICS.get(block[257:265]) or _MAGICS.get(block[257:263], OLD)
        if self.format == USTAR and block[508:512] == b"tar\0":
            self.format = STAR
        self.where = f"the member at byte {position} of the tar"
        if not is_header(block):
            reason = "the checksum of a header is wrong"
            raise TreeError(f"not a tar, or damaged at byte {position}: {reason}", hint=HINT)
        self.where = shown(self.name)

    @property
    def name(self) -> bytes:
        """The name in the block itself, prefix included."""
        name, prefix = _text(self._block[:100]), self._prefix()
        return prefix + b"/" + name if prefix else name

    @property
    def link(self) -> bytes:
        """The target of a link in the block itself."""
        return _text(self._block[157:257])

    @property
    def mode(self) -> int:
        """The permissions, without a type."""
        return self.number("mode", 100, 8) & 0o7777

    @property
    def size(self) -> int:
        """The number of bytes that follow the header. Errors: `TreeError` if it is negative."""
        size = self.number("size", 124, 12)
        if size < 0:
            raise TreeError(f"{self.where} has the negative size {size}", hint=HINT)
        return size

    def number(self, field: str, start: int, length: int) -> int:
        """Decode a number at `start`, octal or in base 256 (of two's complement). Errors: `TreeError`."""
        return number(self._block[start : start + length], self.where, field)

    def bytes_at(self, start: int, length: int) -> bytes:
        """Return some bytes of the block."""
        return self._block[start : start + length]

    def _prefix(self) -> bytes:
        block = self._block
        if self.format == OLD:
            if block[257:262] == b"ustar" and block[345]:
                magic = block[257:265]
                reason = f"has a prefix to its name and the unknown magic number {magic!r}: tools disagree on its name"
                raise TreeError(f"{self.where} {reason}", hint="create the archive with another tool")
            return b""
        if self.format == GNU:
            return _text(block[345:500]) if _is_prefix_of_go(block) else b""
        return _text(block[345 : 476 if self.format == STAR else 500])


def _is_prefix_of_go(block: bytes) -> bool:
    """Whether a GNU header has a prefix where the times of access and change should be, as Go before 1.8 wrote it.

    Source: https://go.dev/issue/12594.
    """
    if not block[345]:
        return False
    try:
        number(block[345:357], "", "")
        number(block[357:369], "", "")
    except TreeError:
        return block[345:500].isascii()
    return False


def is_header(block: bytes) -> bool:
    """Whether a block has a right checksum: the sum of its bytes, unsigned, or signed as in some old tars."""
    if len(block) < BLOCK_BYTES:
        return False
    try:
        expected = number(block[_CHECKSUM], "", "")
    except TreeError:
        return False
    unsigned = sum(block) - sum(block[_CHECKSUM]) + 8 * 0x20
    if expected == unsigned:
        return True
    negative = sum(byte > 0x7F for byte in block) - sum(byte > 0x7F for byte in block[_CHECKSUM])
    return expected == unsigned - 256 * negative


def number(raw: bytes, where: str, field: str) -> int:
    """Decode a number of a header: octal digits, or GNU's base 256. Errors: `TreeError` that begins with `where`."""
    if raw[-1:] in (b"\0", b" ") and not raw[:-1].translate(None, b"01234567"):
        return int(raw[:-1], 8)  # as most are
    if raw[0] & 0x80:
        bits = 8 * len(raw) - 1
        value = int.from_bytes(raw, "big") & (1 << bits) - 1
        return value - (1 << bits) if raw[0] & 0x40 else value
    text = raw.lstrip(b" \0").split(b"\0")[0].split(b" ")[0]
    if text.translate(None, b"01234567"):
        raise TreeError(f"{where}: the field {field} of its header is {raw!r}, not a number in octal", hint=HINT)
    return int(text or b"0", 8)


def _text(raw: bytes) -> bytes:
    return raw.split(b"\0")[0]
