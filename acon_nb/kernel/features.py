"""The guide's tables of kernel options (`features/*.toml`), and the options and patches of profiles."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from acon_nb.errors import InvalidInput
from acon_nb.kernel.kconfig import Symbol, rivals

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
    "fast": (*_GUIDE, "fast-boot"),
    "fastest": (*_GUIDE, "fast-boot", "no-mitigations"),
}


@dataclass(frozen=True, kw_only=True)
class Feature:
    """A row of the catalogue.

    `option` is the current name (without CONFIG_). A row may be a rule, resolved against the source tree: `rule`
    "pattern" makes `option` a shell pattern of names; "under" means all options with a prompt in the submenu of
    `option`. `guide` is the guide's name for it ("": the guide does not name it). The row applies to kernel versions
    in [since, until). `question` is what the guide leaves open about it ("Open:"), and `answer` what is known today.
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
    question: str = ""
    answer: str = ""

    @property
    def text(self) -> str:
        """The note, and what the guide asks, with its answer."""
        return f"{self.note} The guide asks: {self.question} {self.answer}" if self.question else self.note

    @property
    def rule_text(self) -> str:
        """The rule as text, or ""."""
        return {"": "", "pattern": self.option, "under": f"all subitems under {self.option}"}[self.rule]

    def matches(self, symbols: Mapping[str, Symbol]) -> list[str]:
        """Return the options that the row covers in a tree with these `symbols`."""
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
class OptionRequest:
    """A requested value of one option: y, m, n (not set), a number or a string.

    `rule` is the rule of the catalogue that matched the option in the source tree, if any.
    """

    option: str
    value: str
    group: str = "set"
    optional: bool = False
    note: str = ""
    rule: str = ""

    def __post_init__(self) -> None:
        if not _OPTION.fullmatch(self.option):
            raise InvalidInput("option", self.option, "is not a valid option name", hint="such as ZRAM")
        if not _VALUE.fullmatch(self.value):
            reason = "contains a quote, $, ` or a control character"
            raise InvalidInput(f"CONFIG_{self.option}", self.value, reason, hint="remove it")


@dataclass(frozen=True, kw_only=True)
class Group:
    """A table of the catalogue. `needs` are the groups without which options of it cannot be set, on top of tinyconfig.

    Groups that the needed ones need are listed, too.
    """

    name: str
    title: str
    source: str
    needs: tuple[str, ...] = ()
    patch: str = ""


@cache
def tables() -> Mapping[str, Group]:
    """Return the groups by name."""
    headers = (tomllib.loads(path.read_text()) for path in sorted(_FOLDER.glob("*.toml")))
    return {
        data["group"]: Group(
            name=data["group"],
            title=data["title"],
            source=data["source"],
            needs=tuple(data.get("needs", ())),
            patch=data.get("patch", ""),
        )
        for data in headers
    }


def advice(profiles: Sequence[str]) -> str:
    """Say which groups of profiles do not stand alone, and what to add; "" if all that they need is there.

    Errors: `InvalidInput` (unknown profile).
    """
    chosen = _groups_of(profiles)
    lacking = {name: [one for one in tables()[name].needs if one not in chosen] for name in chosen}
    named = [name for name, missing in lacking.items() if missing]
    if not named:
        return ""
    order = (*_GUIDE, *groups())
    added = [one for one in dict.fromkeys(order) if any(one in missing for missing in lacking.values())]
    what = f"the group {named[0]} does" if len(named) == 1 else f"the groups {', '.join(named)} do"
    return f"{what} not stand alone: --profile {','.join([*added, *profiles])}"


@cache
def catalogue() -> tuple[Feature, ...]:
    """Return every row of every group."""
    return tuple(feature for path in sorted(_FOLDER.glob("*.toml")) for feature in _read(path))


def patches(profiles: Sequence[str]) -> tuple[Path, ...]:
    """Return the patches that the groups of profiles bring: for `patch -p1`, before those of the user.

    Errors: `InvalidInput` (unknown profile).
    """
    chosen = _groups_of(profiles)
    return tuple(_FOLDER / table.patch for table in tables().values() if table.name in chosen and table.patch)


def groups() -> tuple[str, ...]:
    """Return the names of the groups."""
    return tuple(sorted({feature.group for feature in catalogue()}))


def requested_options(
    profiles: Sequence[str],
    version: tuple[int, int],
    symbols: Mapping[str, Symbol] | None = None,
    settings: Sequence[str] = (),
) -> tuple[OptionRequest, ...]:
    """Return the options that profiles request of a kernel of this version, followed by the user's `OPT=VAL` settings.

    `symbols` are the options of the source tree, against which the catalogue's rules are resolved. A later request for
    the same option replaces an earlier one. If the tree is newer than those the catalogue was checked against, the tree
    decides: a row applies if its option exists, and is optional, so reported but not an error, if it does not.
    Errors: `InvalidInput` (unknown profile, malformed setting).
    """
    known = symbols or {}
    chosen = _groups_of(profiles)
    requests: dict[str, OptionRequest] = {}
    rows = [row for group in chosen for row in catalogue() if row.group == group and _applies(row, version, known)]
    for row in sorted(rows, key=lambda row: not row.rule):  # a named row overrides a rule
        for option in row.matches(known):
            request = OptionRequest(
                option=option,
                value=row.value,
                group=row.group,
                optional=row.optional or bool(row.rule) or (version > _CHECKED and option not in known),
                note=row.note,
                rule=row.rule_text,
            )
            _give_way(request, requests, known)
            requests[option] = request
    for setting in settings:
        request = parse_setting(setting)
        _give_way(request, requests, known)
        requests[request.option] = request
    return tuple(requests.values())


def _give_way(request: OptionRequest, requests: dict[str, OptionRequest], known: Mapping[str, Symbol]) -> None:
    """Drop the member of a choice of which a later group, or a user's setting, turns on another member.

    Errors: `InvalidInput` if the user sets two members of one choice.
    """
    if request.value != "y" or request.option not in known:
        return
    for name in rivals(known[request.option], known):
        other = requests.get(name)
        if other is None or other.value != "y":
            continue
        if other.group != request.group:
            del requests[name]
        elif request.group == OptionRequest.group:  # of one group of the catalogue, reading back says which was applied
            reason = f"is a member of the same choice as {name}, which is set too"
            raise InvalidInput("set", f"{request.option}=y", reason, hint="set one of them")


def parse_setting(text: str) -> OptionRequest:
    """Parse `OPT=VAL` or `CONFIG_OPT=VAL`. Errors: `InvalidInput`."""
    option, equals, value = text.partition("=")
    if not equals:
        raise InvalidInput("set", text, "is not of the form OPT=VAL", hint="such as --set ZRAM=y")
    return OptionRequest(option=option.strip().removeprefix("CONFIG_"), value=value.strip().strip('"'))


def _applies(row: Feature, version: tuple[int, int], known: Mapping[str, Symbol]) -> bool:
    unchecked = version > _CHECKED and row.until > _CHECKED
    return row.since <= version and (version < row.until or (unchecked and row.option in known))


def _groups_of(profiles: Sequence[str]) -> list[str]:
    chosen: list[str] = []
    for profile in profiles:
        members = PROFILES.get(profile, (profile,))
        for group in members:
            if group not in groups():
                known = ", ".join([*PROFILES, *groups()])
                raise InvalidInput(
                    "profile", profile, "is not a known profile or group", hint=f"one or more of {known}"
                )
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
                question=row.get("question", ""),
                answer=row.get("answer", ""),
            )
        )
    return rows


def _version(text: str) -> tuple[int, int]:
    major, minor = text.split(".")
    return int(major), int(minor)
