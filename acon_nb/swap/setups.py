"""Named set-ups of swap: what people run, by a name, as levels of the factors of a swap study (setups.toml)."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from acon_nb.errors import InvalidInput
from acon_nb.validation import one_of

_TABLE = Path(__file__).with_name("setups.toml")
_ALWAYS = ("swap", "compressor")  # what every set-up decides, named or not: a disk has no compressor
Level = str | int | float | bool


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A named set-up: its levels, where they were read, of which version, and what could not be verified there."""

    name: str
    description: str
    source: str
    levels: Mapping[str, Level]
    as_of: str = ""
    unverified: str = ""

    @property
    def decides(self) -> frozenset[str]:
        """The factors that a plan must not give as well."""
        return frozenset((*_ALWAYS, *self.levels))


@functools.cache
def table() -> Mapping[str, Setup]:
    """Every set-up by its name, in the order of the file."""
    rows = tomllib.loads(_TABLE.read_text())["setup"]
    return {row["name"]: Setup(**row) for row in rows}


NAMES = tuple(table())


def by_name(name: str) -> Setup:
    """The set-up of a name. Errors: `InvalidInput` with the nearest name."""
    one_of("setup", name, NAMES)
    return table()[name]


def decided_by(name: str) -> Mapping[str, Level]:
    """The levels that a set-up gives; none for "", or for a name that this version does not have."""
    setup = table().get(name)
    return setup.levels if setup else {}


def check_given(levels: Mapping[str, object]) -> None:
    """Check that a cell gives no level that its set-up gives. Errors: `InvalidInput` that names the factor."""
    name = levels.get("setup")
    if not name:
        return
    setup = by_name(str(name))
    for factor in levels:
        if factor in setup.decides:
            its = setup.levels.get(factor, "none")
            hint = f"omit {factor}, or omit setup and give its levels yourself: acon-nb bench setups lists them"
            reason = f"is given by setup={setup.name}, too ({its})"
            raise InvalidInput(factor, levels[factor], reason, hint=hint)
