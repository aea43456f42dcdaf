"""The guide's tables of kernel options, kept as data in `features/*.toml`, and what a build wishes from them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from acon_nb.errors import InvalidInput
from acon_nb.kernel.kconfig import Symbol

_FOLDER = Path(__file__).with_name("features")
_OPTION = re.compile(r"[A-Z0-9_a-z]+")
_VALUE = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\"\\$`]*")
# The newest tree that the rows were checked against.
_CHECKED = (6, 12)
# Profiles add up groups; a group's own name is a profile too.
_GUIDE = ("minimal", "container", "performance", "security", "not-needed", "storage")
PROFILES: Mapping[str, tuple[str, ...]] = {
    "guide": _GUIDE,
    "tdx": ("minimal", "container", "performance", "security", "not-needed"),
    "swap-study": (*_GUIDE, "delay-disk", "study"),
    "everything": (*_GUIDE, "delay-disk", "study", "microvm"),
}


@dataclass(frozen=True, kw_only=True)
class Feature:
    """A row of the catalogue.

    `option` is the name today (without CONFIG_). A row may be a rule on the tree at hand: `rule` "pattern" makes
    `option` a shell pattern of names, "under" means what a person can set in the submenu of `option`. `guide` is the
    guide's name for it ("": the guide does not name it). The row holds for kernel versions in [since, until).
    """

    option: str
    value: str
    group: str
    guide: str
    optional: bool = False
    rule: str = ""
    since: tuple[int, int] = (0, 0)
    until: tuple[int, int] = (999, 0)
    note: str = ""

    @property
    def rule_text(self) -> str:
        """The rule in words, or ""."""
        return {"": "", "pattern": self.option, "under": f"all subitems under {self.option}"}[self.rule]

    def matches(self, symbols: Mapping[str, Symbol]) -> list[str]:
        """The options that the row is about in a tree with these `symbols`."""
        if not self.rule:
            return [self.option]
        if self.rule == "pattern":
            return [name for name in sorted(symbols) if fnmatchcase(name, self.option)]
        switches = ("bool", "tristate")
        return [
            name
            for name, symbol in sorted(symbols.items())
            if self.option in symbol.under and symbol.prompted and symbol.kind in switches and not symbol.choice
        ]


@dataclass(frozen=True, kw_only=True)
class Wish:
    """One option that a configuration should have. `value` is y, m, n, a number or a string; n means: not set.

    `rule` is the rule of the catalogue that matched the option in the tree at hand, if one did.
    """

    option: str
    value: str
    group: str = "set"
    optional: bool = False
    note: str = ""
    rule: str = ""

    def __post_init__(self) -> None:
        if not _OPTION.fullmatch(self.option):
            raise InvalidInput("option", self.option, "is no name of a kernel option", hint="such as ZRAM")
        if not _VALUE.fullmatch(self.value):
            raise InvalidInput(
                f"CONFIG_{self.option}", self.value, "has a quote, $, ` or line break", hint="write it without"
            )


@cache
def catalogue() -> tuple[Feature, ...]:
    """Every row of every group."""
    return tuple(feature for path in sorted(_FOLDER.glob("*.toml")) for feature in _read(path))


def groups() -> tuple[str, ...]:
    """The names of the groups."""
    return tuple(sorted({feature.group for feature in catalogue()}))


def wishes(
    profiles: Sequence[str],
    version: tuple[int, int],
    symbols: Mapping[str, Symbol] | None = None,
    settings: Sequence[str] = (),
) -> tuple[Wish, ...]:
    """What the named profiles wish of a kernel of this version, and then the user's own `OPT=VAL` settings.

    `symbols` are the options of the tree at hand, on which the catalogue's rules work. A later wish for the same option
    replaces an earlier one. On a tree that is newer than those the catalogue was checked against the tree decides: a
    row whose option is there holds, and one whose option is gone is optional, so it is reported and not refused.
    Errors: `InvalidInput` (unknown profile, malformed setting).
    """
    known = symbols or {}
    chosen = _groups_of(profiles)
    found: dict[str, Wish] = {}
    rows = [row for group in chosen for row in catalogue() if row.group == group and _holds(row, version, known)]
    for row in sorted(rows, key=lambda row: not row.rule):  # what a rule turns off, a named row may turn on
        for option in row.matches(known):
            found[option] = Wish(
                option=option,
                value=row.value,
                group=row.group,
                optional=row.optional or bool(row.rule) or (version > _CHECKED and option not in known),
                note=row.note,
                rule=row.rule_text,
            )
    for setting in settings:
        wish = parse_setting(setting)
        found[wish.option] = wish
    return tuple(found.values())


def parse_setting(text: str) -> Wish:
    """A wish of `OPT=VAL` or `CONFIG_OPT=VAL`."""
    option, equals, value = text.partition("=")
    if not equals:
        raise InvalidInput("set", text, "is not OPT=VAL", hint="such as --set ZRAM=y")
    return Wish(option=option.strip().removeprefix("CONFIG_"), value=value.strip().strip('"'))


def _holds(row: Feature, version: tuple[int, int], known: Mapping[str, Symbol]) -> bool:
    unchecked = version > _CHECKED and row.until > _CHECKED
    return row.since <= version and (version < row.until or (unchecked and row.option in known))


def _groups_of(profiles: Sequence[str]) -> list[str]:
    chosen: list[str] = []
    for profile in profiles:
        members = PROFILES.get(profile, (profile,))
        for group in members:
            if group not in groups():
                known = ", ".join([*PROFILES, *groups()])
                raise InvalidInput("profile", profile, "is not known", hint=f"one or more of {known}")
            if group not in chosen:
                chosen.append(group)
    return chosen


def _read(path: Path) -> list[Feature]:
    data = tomllib.loads(path.read_text())
    rows = []
    for row in data["feature"]:
        rule = next((word for word in ("pattern", "under") if word in row), "")
        option = row[rule or "option"]
        rows.append(
            Feature(
                option=option,
                value=row["value"],
                group=data["group"],
                guide=row.get("guide", option),
                optional=row.get("optional", False),
                rule=rule,
                since=_version(row.get("since", "0.0")),
                until=_version(row.get("until", "999.0")),
                note=row.get("note", ""),
            )
        )
    return rows


def _version(text: str) -> tuple[int, int]:
    major, minor = text.split(".")
    return int(major), int(minor)
