"""Text that came with evidence, as it may be shown on a terminal or a page."""

from __future__ import annotations


def printable(text: str, limit: int = 2000) -> str:
    """Return text without control characters, escape sequences or changes of direction, cut to `limit` characters.

    Each character that is not printable is shown as its escape in Python's notation.
    """
    shown = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text[:limit])
    return shown if len(text) <= limit else shown + "…"
