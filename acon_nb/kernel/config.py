"""Kernel configurations as texts: read, compared with wishes, explained. Starts nothing.

`.config` is written by Kconfig; a wish that Kconfig does not take vanishes from it in silence, so every wish is read
back, and one that did not come true is an error unless it is optional.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from acon_nb.errors import KernelConfigError
from acon_nb.kernel.features import Wish
from acon_nb.kernel.kconfig import Symbol
from acon_nb.kernel.why import why_not

_SET = re.compile(r"CONFIG_([A-Za-z0-9_]+)=(.*)")
_UNSET = re.compile(r"# CONFIG_([A-Za-z0-9_]+) is not set")


@dataclass(frozen=True, kw_only=True)
class WishResult:
    """A wish and what became of it.

    `got` is the value in .config ("n": not set); `why` the reason if it did not take; `proposal` further options with
    which it does, tried with olddefconfig; `rule` the catalogue's rule that matched the option.
    """

    option: str
    wanted: str
    got: str
    ok: bool
    optional: bool
    group: str
    why: str = ""
    proposal: tuple[tuple[str, str], ...] = ()
    rule: str = ""


def parse(text: str) -> dict[str, str]:
    """The options of a .config: name without CONFIG_ -> value, quotes stripped; "is not set" -> "n"."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        if match := _SET.fullmatch(line.strip()):
            value = match.group(2)
            quoted = len(value) >= 2 and value[0] == value[-1] == '"'
            values[match.group(1)] = re.sub(r"\\(.)", r"\1", value[1:-1]) if quoted else value
        elif match := _UNSET.fullmatch(line.strip()):
            values[match.group(1)] = "n"
    return values


def fragment(wishes: Iterable[Wish], symbols: Mapping[str, Symbol]) -> str:
    """The wishes as lines of a .config; strings are quoted where the tree says that the option is one."""
    lines = []
    for wish in wishes:
        kind = symbols[wish.option].kind if wish.option in symbols else ""
        if wish.value == "n" and kind != "string":
            lines.append(f"# CONFIG_{wish.option} is not set")
        elif kind == "string":
            lines.append(f'CONFIG_{wish.option}="{wish.value}"')
        else:
            lines.append(f"CONFIG_{wish.option}={wish.value}")
    return "\n".join(lines) + "\n"


def refuse_impossible(wishes: Sequence[Wish], symbols: Mapping[str, Symbol]) -> None:
    """Raise `KernelConfigError` for wishes that no configuration of this tree can grant.

    These are unknown names, and values of the wrong type; an optional wish for an unknown name is let go, as is
    "not set" for one that does not exist.
    """
    bad: list[WishResult] = []
    for wish in wishes:
        reason = _impossible(wish, symbols)
        if reason and not wish.optional:
            bad.append(
                WishResult(
                    option=wish.option,
                    wanted=wish.value,
                    got="n",
                    ok=False,
                    optional=False,
                    group=wish.group,
                    why=reason,
                )
            )
    if bad:
        raise KernelConfigError(
            f"{len(bad)} kernel option{'s' * (len(bad) > 1)} cannot be set in this source tree",
            bad,
            details=[f"CONFIG_{row.option}={row.wanted}: {row.why}" for row in bad],
            hint="check the spelling and the kernel version, or leave it out",
        )


def compare(wishes: Sequence[Wish], config: Mapping[str, str], symbols: Mapping[str, Symbol]) -> tuple[WishResult, ...]:
    """Each wish with the value that it got; of what a rule matched, only the options that this configuration offers."""
    rows = []
    for wish in wishes:
        if wish.rule and wish.option not in config:
            continue
        got = config.get(wish.option, "n")
        wanted_off = wish.value in ("n", "")
        ok = got in ("n", "") if wanted_off else got == wish.value
        why = "" if ok else _impossible(wish, symbols) or why_not(wish.option, wish.value, config, symbols)
        rows.append(
            WishResult(
                option=wish.option,
                wanted=wish.value,
                got=got,
                ok=ok,
                optional=wish.optional,
                group=wish.group,
                why=why,
                rule=wish.rule,
            )
        )
    return tuple(rows)


def require(rows: Sequence[WishResult]) -> None:
    """Raise `KernelConfigError` if a wish that is not optional did not come true."""
    bad = [row for row in rows if not row.ok and not row.optional]
    if bad:
        raise KernelConfigError(
            f"{len(bad)} kernel option{'s' * (len(bad) > 1)} did not take",
            bad,
            details=[f"CONFIG_{row.option} wanted {row.wanted}, is {row.got}: {row.why}" for row in bad],
            hint="set what it depends on too (--set OPT=VAL), or leave it out",
        )


@dataclass(frozen=True, kw_only=True)
class Difference:
    """An option that two configurations set differently ("n": not set)."""

    option: str
    left: str
    right: str


def diff(left: Mapping[str, str], right: Mapping[str, str]) -> tuple[Difference, ...]:
    """What differs between two configurations (or two sets of wishes), sorted by option."""
    rows = (
        Difference(option=name, left=left.get(name, "n"), right=right.get(name, "n"))
        for name in sorted({*left, *right})
    )
    return tuple(row for row in rows if row.left != row.right)


def _wrong_type(wish: Wish, symbol: Symbol) -> str:
    """Why `wish` cannot have this value by the option's type, or ""."""
    kind = symbol.kind.removeprefix("def_")
    checks = {
        "bool": (r"[yn]", "is a bool: y or n"),
        "tristate": (r"[ymn]", "is a tristate: y, m or n"),
        "int": (r"-?\d+", "is a whole number"),
        "hex": (r"(0[xX])?[0-9a-fA-F]+", "is a hexadecimal number"),
    }
    pattern, said = checks.get(kind, (r".*", ""))
    return "" if re.fullmatch(pattern, wish.value) or wish.value == "n" else said


def _impossible(wish: Wish, symbols: Mapping[str, Symbol]) -> str:
    symbol = symbols.get(wish.option)
    if symbol is None:
        if wish.value == "n" and wish.group != "set":
            return ""
        near = difflib.get_close_matches(wish.option, symbols, n=3, cutoff=0.75)
        return "this tree has no such option" + (f"; did you mean {', '.join(near)}?" if near else "")
    return _wrong_type(wish, symbol)
