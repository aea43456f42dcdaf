"""Binary data written as text: hexadecimal, with or without 0x, and base64."""

from __future__ import annotations

import base64
import binascii
import re

_HEX = re.compile(r"(?:0[xX])?(?:[0-9a-fA-F]{2})+")
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_URL = re.compile(r"[A-Za-z0-9_-]+={0,2}")
_DUMP = re.compile(r"^[0-9a-fA-F]{4,16}:? ", re.MULTILINE)


def decode(text: str) -> tuple[bytes, str] | None:
    """Return the data that a text encodes and the name of the encoding; None if it is not such a text.

    Spaces and line ends are ignored; hexadecimal wins where a text is both, as a quote's always is.
    """
    packed = "".join(text.split())
    for separated in (packed, packed.replace(":", "").replace("\\x", "")):
        if _HEX.fullmatch(separated):
            digits = separated[2:] if separated[:2].lower() == "0x" else separated
            return bytes.fromhex(digits), "hexadecimal"
    for pattern, altchars, name in ((_BASE64, None, "base64"), (_URL, b"-_", "base64 for URLs")):
        if pattern.fullmatch(packed):
            padded = packed.rstrip("=") + "=" * (-len(packed.rstrip("=")) % 4)
            try:
                return base64.b64decode(padded, altchars, validate=True), name
            except (ValueError, binascii.Error):
                return None
    return None


def is_dump(text: str) -> bool:
    """Whether a text looks like a dump with offsets, as xxd or hexdump print it."""
    return len(_DUMP.findall(text[:4000])) > 2
