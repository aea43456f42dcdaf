"""Parts of pages that tests make of what was measured: they stand between two comments, and are compared with it.

ACON_NB_WRITE_TABLES=1 writes them in place of comparing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

END = "<!-- ends -->\n"
NOT_TRIED = "not tried yet"


def is_written() -> bool:
    """Whether pages are to be written."""
    return bool(os.environ.get("ACON_NB_WRITE_TABLES"))


def part_of(page: Path, name: str) -> str:
    """The part of a page behind the comment "NAME begins"."""
    return page.read_text().split(_begin(name), 1)[1].split(END, 1)[0]


def write_part(page: Path, name: str, text: str) -> None:
    before, rest = page.read_text().split(_begin(name), 1)
    page.write_text(before + _begin(name) + text + END + rest.split(END, 1)[1])


def lines_by_name(page: Path, name: str) -> dict[str, str]:
    """The lines of a table by what stands in their first column between backticks."""
    return {line.split("`")[1]: line for line in part_of(page, name).splitlines() if line.startswith("| `")}


def write_lines(page: Path, name: str, head: Sequence[str], lines: Mapping[str, str], order: Sequence[str]) -> None:
    """Put some lines into a table that has one for each of `order`; those that were never tried are marked."""
    known = {**lines_by_name(page, name), **lines}
    columns = head[0].count("|") - 1
    empty = f" {NOT_TRIED} |" + "  |" * (columns - 2)
    rows = [known.get(one) or f"| `{one}` |{empty}" for one in order]
    write_part(page, name, "\n".join(["", *head, *rows, "", ""]))


def _begin(name: str) -> str:
    return f"<!-- {name} begins -->\n"
