"""Plain text of at most 72 columns, as a cover letter takes it: paragraphs and rows of numbers."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import wcwidth

WIDTH = 72
_NUMBERS = 3


def wrapped(text: str, *, first: str = "", rest: str = "") -> list[str]:
    """Lines of at most 72 columns, words longer than a line broken; `first` and `rest` begin them."""
    words = " ".join(clean(text).split())
    lines = wcwidth.wrap(words, WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)
    return [line.rstrip() for line in lines]


def clean(text: str) -> str:
    """Text without control and escape sequences, and without characters that a terminal does not show as they are."""
    kept = (char if char == " " or unicodedata.category(char)[0] not in "CZ" else " " for char in text)
    return unicodedata.normalize("NFC", "".join(kept))


def table_row(name: str, numbers: Sequence[str], *, name_width: int) -> list[str]:
    """A row of a table: a name and three numbers; what does not fit on one line takes several.

    A name keeps the spaces that it begins with.
    """
    indent = " " * (len(name) - len(name.lstrip(" ")))
    name = indent + " ".join(clean(name).split())
    room = (WIDTH - name_width - _NUMBERS) // _NUMBERS
    columns = _columns(numbers, room)
    if columns and wcwidth.width(name) <= name_width:
        return [wcwidth.ljust(name, name_width) + columns]
    lines = wrapped(name, first=indent, rest=indent) if name.strip() else []
    if columns:
        return [*lines, " " * name_width + columns]
    columns = _columns(numbers, (WIDTH - _NUMBERS) // _NUMBERS)
    return [*lines, columns] if columns else [*lines, *(line for text in numbers for line in wrapped(text, first="  "))]


def _columns(numbers: Sequence[str], room: int) -> str:
    """Numbers next to each other; "" if one has no room."""
    return "".join(f" {text:>{room}}" for text in numbers) if all(len(text) <= room for text in numbers) else ""
