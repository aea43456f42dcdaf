"""What options of other kernel series are called in a source tree: `renames.toml`, and the catalogue's former names.

A rename is known where, between two series, an option went and one with the same prompt came (`between`).
"""

from __future__ import annotations

import tomllib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from acon_nb.kernel.features import catalogue
from acon_nb.kernel.kconfig import Symbol

_FILE = Path(__file__).with_name("renames.toml")


@dataclass(frozen=True, kw_only=True)
class Rename:
    """An option that was called `old` before the series `since`, and `new` from it on."""

    old: str
    new: str
    since: str


@cache
def renames() -> tuple[Rename, ...]:
    """Return the known renames, the earliest first."""
    rows = (
        Rename(old=old, new=new, since=series["since"])
        for series in tomllib.loads(_FILE.read_text())["series"]
        for old, new in series["renamed"].items()
    )
    rules = (Rename(old=row.guide, new=row.option, since="") for row in catalogue() if row.guide and not row.rule)
    return (*rows, *(row for row in rules if row.old != row.new))


def became(option: str, symbols: Mapping[str, Symbol]) -> str:
    """Return what an option of another series is called in a tree with these `symbols`; "" if that is not known."""
    names, pending = {option}, [option]
    while pending:
        name = pending.pop(0)
        if name in symbols:
            return name
        for row in renames():
            for one, other in ((row.old, row.new), (row.new, row.old)):
                if one == name and other not in names:
                    names.add(other)
                    pending.append(other)
    return ""


def between(before: Mapping[str, Symbol], after: Mapping[str, Symbol]) -> dict[str, str]:
    """Return the options that went from one tree to a later one while one with the same prompt, and only one, came.

    Members of choices are left out: their prompts ("lzo") name what many choices have.
    """
    gone, came = _by_prompt(before, after), _by_prompt(after, before)
    return {
        names[0]: came[prompt][0]
        for prompt, names in sorted(gone.items(), key=lambda item: item[1][0])
        if len(names) == len(came.get(prompt, ())) == 1
    }


def _by_prompt(symbols: Mapping[str, Symbol], others: Mapping[str, Symbol]) -> Mapping[str, Sequence[str]]:
    names: dict[str, list[str]] = defaultdict(list)
    for name, symbol in symbols.items():
        if name not in others and symbol.prompt and not symbol.choice:
            names[symbol.prompt.casefold()].append(name)
    return names
