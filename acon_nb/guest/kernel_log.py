"""A guest's kernel log: the records that its report sends, and their text form, which is that of dmesg."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_LINE = re.compile(r"(?:<\d+>)?\[ *(\d{1,12})\.(\d{6})\](?:\[[^\]]*\])? ?(.*)")
_ESCAPE = re.compile(r"\\x([0-9a-f]{2})")
_LONGEST = 8192


@dataclass(frozen=True)
class Record:
    """One record of the log: microseconds on the kernel's clock, and its text."""

    us: int
    text: str


def of_messages(messages: Iterable[Mapping[str, Any]]) -> tuple[Record, ...]:
    """Return the records of a guest's messages ("log"); anything else is omitted."""
    records = []
    for message in messages:
        if message.get("event") != "log" or not isinstance(message.get("records"), list):
            continue
        for item in message["records"]:
            match item:
                case [int(us), str(text)] if us >= 0 and len(text) <= _LONGEST:
                    records.append(Record(us, _ESCAPE.sub(_unescaped, text)))
    return tuple(records)


def to_text(records: Sequence[Record]) -> str:
    """Format the log like dmesg, a line per record: "[    1.234567] text". Control characters are shown as `\\xNN`."""
    return "".join(f"[{r.us // 10**6:5d}.{r.us % 10**6:06d}] {_printable(r.text)}\n" for r in records)


def of_text(text: str) -> tuple[Record, ...]:
    """Parse the records of a log as dmesg or a console shows it; lines without a time are omitted."""
    records = []
    for line in text.replace("\r", "").split("\n"):
        match = _LINE.match(line)
        if match:
            records.append(Record(int(match[1]) * 10**6 + int(match[2]), match[3][:_LONGEST]))
    return tuple(records)


def _unescaped(match: re.Match[str]) -> str:
    """Unescape a tab; every other byte that the kernel escaped stays escaped, since it may be anything."""
    return "\t" if match[1] == "09" else match[0]


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() or c == "\t" else f"\\x{ord(c):02x}" for c in text)
