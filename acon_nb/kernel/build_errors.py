"""What a kernel build prints when compiler, tools and tree do not fit each other (build_errors.toml)."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class BuildError:
    """A row of build_errors.toml: lines that `match`, such as `example`, have this cause and remedy."""

    match: re.Pattern[str]
    example: str
    cause: str
    hint: str
    source: str


@functools.cache
def build_errors() -> tuple[BuildError, ...]:
    """Return the rows of build_errors.toml, in their order."""
    rows = tomllib.loads(Path(__file__).with_name("build_errors.toml").read_text(encoding="utf-8"))["error"]
    return tuple(BuildError(**{**row, "match": re.compile(row["match"])}) for row in rows)


def hint_for(lines: Sequence[str]) -> str:
    """Return cause and remedy of the first row that matches a line of a build's output; "" if none does."""
    for row in build_errors():
        for line in lines:
            if match := row.match.search(line):
                groups = {f"{{{number}}}": text or "" for number, text in enumerate(match.groups(), 1)}
                return re.sub(r"\{\d\}", lambda place: groups.get(place[0], ""), f"{row.cause}: {row.hint}")  # noqa: B023
    return ""
