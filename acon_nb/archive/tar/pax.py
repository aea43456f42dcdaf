"""Parses the records of pax extended headers.

Source: POSIX.1-2017 pax, "pax Header Block" and "pax Extended Header".
"""

from __future__ import annotations

import math
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from decimal import Decimal

from acon_nb.archive.tar.header import HINT
from acon_nb.errors import TreeError

_DECIMAL = re.compile(rb"-?[0-9]{1,20}")
_SECONDS = re.compile(rb"-?(?=[0-9.]*[0-9])[0-9]{0,20}(\.[0-9]*)?")
_SPARSE = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
# Records that name one member, or describe its data, make no sense as defaults for all members
_OF_ONE_MEMBER = (b"path", b"linkpath", b"size")
_XATTR = b"SCHILY.xattr."
_XATTR_QUOTED = b"LIBARCHIVE.xattr."  # its name is quoted as in URLs
_NOT_STORED = {
    b"RHT.security.selinux": "security.selinux",
    b"SCHILY.acl.access": "system.posix_acl_access",
    b"SCHILY.acl.default": "system.posix_acl_default",
    b"SCHILY.acl.ace": "system.nfs4_acl",
}


class Records(dict[bytes, bytes]):
    """The records of extended headers by keyword; an empty value means that the header block's own field applies.

    `sparse` is the map of the sparse format 0.0, whose keywords repeat.
    """

    def __init__(self, records: Mapping[bytes, bytes] | None = None) -> None:
        super().__init__(records or {})
        self.sparse: list[tuple[int, int]] | None = None

    def number(self, keyword: bytes, default: int, where: str) -> int:
        """Return the decimal number of a keyword. Errors: `TreeError` that begins with `where`."""
        text = self.get(keyword)
        return decimal(text, f"{where}: {keyword.decode()} in its extended header") if text else default

    def seconds(self, keyword: bytes, where: str) -> int:
        """Return a time in seconds, rounded down as by GNU tar. Errors: `TreeError` that begins with `where`."""
        text = self[keyword]
        if not _SECONDS.fullmatch(text):
            reason = f"{keyword.decode()} in its extended header is {text[:40]!r}, not a time in seconds"
            raise TreeError(f"{where}: {reason}", hint=HINT)
        return math.floor(Decimal(text[:60].decode()))

    def xattrs(self) -> list[str]:
        """Return the names of the extended attributes, access control lists included."""
        names = []
        for keyword in self:
            if keyword.startswith(_XATTR):
                names.append(keyword[len(_XATTR) :])
            elif keyword.startswith(_XATTR_QUOTED):
                names.append(urllib.parse.unquote_to_bytes(keyword[len(_XATTR_QUOTED) :]))
            elif keyword in _NOT_STORED:
                names.append(_NOT_STORED[keyword].encode())
        return [name.decode(errors="backslashreplace") for name in dict.fromkeys(names)]


def decimal(text: bytes, what: str) -> int:
    """Parse a decimal number. Errors: `TreeError` that begins with `what`."""
    if not _DECIMAL.fullmatch(text):
        raise TreeError(f"{what} is {text[:40]!r}, not a decimal number", hint=HINT)
    return int(text)


def parse(body: bytes, where: str) -> Records:
    """Parse the records of one extended header. Errors: `TreeError` that begins with `where`."""
    records = Records()
    starts: list[int] = []
    sparse: list[tuple[int, int]] = []
    for keyword, value in _records(body, where):
        if keyword == _SPARSE[0]:
            starts.append(decimal(value, f"{where}: {keyword.decode()}"))
        elif keyword == _SPARSE[1]:
            if len(starts) != len(sparse) + 1:
                raise TreeError(f"{where}: its sparse map is damaged: a length without an offset", hint=HINT)
            sparse.append((starts[-1], decimal(value, f"{where}: {keyword.decode()}")))
        else:
            records[keyword] = value
    if len(starts) != len(sparse):
        raise TreeError(f"{where}: its sparse map is damaged: an offset without a length", hint=HINT)
    records.sparse = sparse or None
    return records


def check_global(records: Records, where: str) -> None:
    """Check that a global header has no records that can belong to one member only. Errors: `TreeError`."""
    for keyword in records:
        if keyword in _OF_ONE_MEMBER or keyword.startswith(b"GNU.sparse."):
            reason = f"it sets {keyword.decode(errors='backslashreplace')} for all members that follow"
            raise TreeError(f"{where}: the global header is invalid: {reason}", hint=HINT)
    if records.sparse:
        raise TreeError(f"{where}: the global header is invalid: it has a sparse map", hint=HINT)


def _records(body: bytes, where: str) -> Iterator[tuple[bytes, bytes]]:
    """Yield the records `LENGTH KEYWORD=VALUE\\n`; NULs after the last one are padding of old writers."""
    position = 0
    while position < len(body):
        if not body[position] and not body[position:].strip(b"\0"):
            return
        digits = body[position : position + 9].split(b" ")[0]
        length = int(digits) if digits.isdigit() else 0
        record = body[position : position + length]
        keyword, equals, value = record[len(digits) + 1 : -1].partition(b"=")
        if len(record) != length or record[-1:] != b"\n" or not equals or not keyword:
            reason = f"the record at byte {position} is not LENGTH KEYWORD=VALUE: {body[position : position + 40]!r}"
            raise TreeError(f"{where}: the extended header is damaged: {reason}", hint=HINT)
        yield keyword, value
        position += length
