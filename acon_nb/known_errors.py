"""Tables of what other programs print when they fail: the cause of each, and what to do."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class KnownError:
    """A row of a table: lines that `match`, such as `example`, have this cause and remedy."""

    match: re.Pattern[str]
    example: str
    cause: str
    hint: str
    source: str


def read_errors(path: Path, flags: re.RegexFlag = re.NOFLAG) -> tuple[KnownError, ...]:
    """Return the rows of a TOML file (tables `error`), in their order; `flags` are of their regular expressions."""
    rows = tomllib.loads(path.read_text(encoding="utf-8"))["error"]
    return tuple(KnownError(**{**row, "match": re.compile(row["match"], flags)}) for row in rows)


def explanation(errors: Sequence[KnownError], lines: Sequence[str]) -> str:
    """Return cause and remedy of the first row that matches a line; "" if none does."""
    for row in errors:
        for line in lines:
            if match := row.match.search(line):
                return filled(f"{row.cause}: {row.hint}", match)
    return ""


def filled(text: str, match: re.Match[str]) -> str:
    """Return a text with the groups of a match in place of {1}, {2}, ..."""
    return re.sub(r"\{(\d)\}", lambda group: match[int(group[1])] or "", text)
