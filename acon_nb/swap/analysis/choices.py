"""What one decides in a swap study: a choice, its label, and which choices must not be ranked (answers.toml)."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from acon_nb.swap import setups
from acon_nb.swap.analysis.measures import level_text

FACTOR_PREFIX = "factor_"
_TABLE = Path(__file__).with_name("answers.toml")
_NO_POOL = ("none", "disk")


@dataclass(frozen=True)
class Choice:
    """What one decides: the kind of swap, its compressor and encryption, and the knobs that vary in the study.

    A field that does not apply to the kind, or does not vary, is "". `knobs` are (factor, level) in the order of
    answers.toml. `setup` is the named set-up, if the plan gave one; it stands in the label for the levels that it
    gives, which the other fields have all the same. `str(choice)` is its label: "zram lz4 + @xts disksize 1G".
    """

    swap: str
    compressor: str = ""
    encryption: str = ""
    knobs: tuple[tuple[str, str], ...] = ()
    setup: str = ""

    @classmethod
    def of(cls, row: Mapping[Any, Any], varying: Sequence[str]) -> Choice:
        """The choice of a row, with those factors of a choice that are in `varying` (and the compressor always)."""
        setup = setup_of(row)
        names = {*varying, "compressor", *setups.decided_by(setup)} - {"swap", "setup"}
        levels = {name: level for name in sorted(names, key=order_of) if (level := level_of(name, row))}
        compressor, encryption = levels.pop("compressor", ""), levels.pop("encryption", "")
        swap = level_text(row.get(f"{FACTOR_PREFIX}swap")) or "none"
        return cls(swap, compressor, encryption, tuple(levels.items()), setup)

    @functools.cached_property
    def label(self) -> str:
        """The choice in words: "zram lz4 + @xts"."""
        levels = [("swap", self.swap), ("compressor", self.compressor), ("encryption", self.encryption), *self.knobs]
        texts = [] if not self.setup else [self.setup]
        texts += [_words_of(name, level) for name, level in levels if level and not _is_its(self.setup, name, level)]
        return " ".join(texts)

    def __str__(self) -> str:
        return self.label

    @property
    def has_pool(self) -> bool:
        """Whether it keeps pages in RAM, compressed."""
        return self.swap not in _NO_POOL

    @property
    def variant(self) -> Choice:
        """The choice whatever its kind of swap: what zram and zswap of one compressor share; no knobs of one alone."""
        shared = tuple(knob for knob in self.knobs if len(_factor(knob[0]).get("applies_to", [])) != 1)
        return replace(self, swap="", knobs=shared)

    def columns(self) -> dict[str, str]:
        """The choice as columns of a table: its label and its fields, the knobs as "name=level"."""
        knobs = ", ".join(f"{name}={level}" for name, level in self.knobs)
        fields = {"swap": self.swap, "compressor": self.compressor, "encryption": self.encryption, "knobs": knobs}
        return {"choice": self.label, **fields}


@functools.lru_cache(maxsize=4096)
def unranked(first: Choice, second: Choice, clock: str) -> str:
    """Why two choices must not be ranked, or "": they differ in two compressors of one table alone."""
    for row in facts()["unranked"]:
        if row["clock"] in ("", clock):
            one, two = (_masked(choice, row["compressors"]) for choice in (first, second))
            if first != second and one == two:
                return str(row["why"])
    return ""


def unranked_levels(first: str, second: str, clock: str) -> str:
    """Why two levels of a factor must not be ranked, or "": they are two compressors of one table."""
    return unranked(Choice("", first), Choice("", second), clock)


@functools.cache
def facts() -> Mapping[str, Any]:
    """The tables of answers.toml."""
    return tomllib.loads(_TABLE.read_text())


@functools.cache
def role_of(factor: str) -> str:
    """What a factor is: choice, situation or replicate. One that is not in answers.toml is a situation."""
    return str(_factor(factor)["role"])


def order_of(factor: str) -> int:
    """The place of a factor in answers.toml, which is that in a label; unknown ones come last."""
    names = [row["name"] for row in facts()["factor"]]
    return names.index(factor) if factor in names else len(names)


def applies(factor: str, row: Mapping[Any, Any]) -> bool:
    """Whether a factor means something for the kind of swap of a row."""
    if factor == "setup":
        return bool(setup_of(row))
    kinds = _factor(factor).get("applies_to", [])
    return not kinds or level_text(row.get(f"{FACTOR_PREFIX}swap")) in kinds


def setup_of(row: Mapping[Any, Any]) -> str:
    """The named set-up of a row, "" for none."""
    return level_text(row.get(f"{FACTOR_PREFIX}setup"))


def is_given_by_setup(factor: str, row: Mapping[Any, Any]) -> bool:
    """Whether a row's level of a factor is that of its named set-up, whose name then says it."""
    return _is_its(setup_of(row), factor, level_text(row.get(FACTOR_PREFIX + factor)))


def level_of(factor: str, row: Mapping[Any, Any]) -> str:
    """The level of a factor in a row, in words; "" where there is none or it means nothing."""
    level = level_text(row.get(FACTOR_PREFIX + factor))
    return level if applies(factor, row) and level != _factor(factor).get("nothing", "") else ""


def _masked(choice: Choice, compressors: Sequence[str]) -> Choice:
    """The choice with each of these compressors made the same."""

    def mask(level: str) -> str:
        return "*" if level in compressors else level

    knobs = tuple((name, mask(level)) for name, level in choice.knobs)
    return replace(choice, compressor=mask(choice.compressor), knobs=knobs, setup="")


def _is_its(setup: str, factor: str, level: str) -> bool:
    """Whether a set-up (by this version's table) means this level of a factor."""
    if not setup or setup not in setups.NAMES:
        return False
    named = setups.by_name(setup)
    return factor in named.decides and level == level_text(named.levels.get(factor))


def _words_of(factor: str, level: str) -> str:
    return str(_factor(factor).get("words", f"{factor} {{}}")).replace("{}", level)


@functools.cache
def _factor(name: str) -> Mapping[str, Any]:
    return next((row for row in facts()["factor"] if row["name"] == name), {"name": name, "role": "situation"})
