"""Kernel configurations as texts: read, compared with wishes, explained. Starts nothing.

`.config` is written by Kconfig; a wish that Kconfig does not take vanishes from it in silence, so every wish is read
back, and one that did not come true is an error unless it is optional.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from acon_nb.errors import KernelConfigError
from acon_nb.kernel.features import Wish

_SET = re.compile(r"CONFIG_([A-Za-z0-9_]+)=(.*)")
_UNSET = re.compile(r"# CONFIG_([A-Za-z0-9_]+) is not set")
_SYMBOL = re.compile(r"^\s*(?:menu)?config\s+([A-Za-z0-9_]+)\s*(?:#.*)?$")
_DEPENDS = re.compile(r"^\s+depends on\s+(.*)$")
_TYPE = re.compile(r"^\s+(bool|tristate|string|hex|int|def_bool|def_tristate)\b")
_PROMPT = re.compile(r"^\s+(?:(?:bool|tristate|string|hex|int)\s+[\"'].|prompt\s+[\"'].)")
_HELP = re.compile(r"^\s+(?:help|---help---)\s*$")
_WORD = re.compile(r"\b[A-Z0-9][A-Z0-9_]+\b")


@dataclass(frozen=True, kw_only=True)
class Symbol:
    """What the tree's Kconfig files say of an option: its type, its `depends on` lines, whether a person can set it."""

    name: str
    kind: str = ""
    depends: tuple[str, ...] = ()
    prompted: bool = False


@dataclass(frozen=True, kw_only=True)
class WishResult:
    """A wish and what became of it. `got` is the value in .config ("n": not set); `why` a reason if it did not take."""

    option: str
    wanted: str
    got: str
    ok: bool
    optional: bool
    group: str
    why: str = ""


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


def read_symbols(tree: Path, arch: str = "x86") -> dict[str, Symbol]:
    """Every option that the tree's Kconfig files define (for one architecture), with its type and dependencies."""
    symbols: dict[str, Symbol] = {}
    for path in sorted(tree.rglob("Kconfig*")):
        parts = path.relative_to(tree).parts
        if parts[0] == "arch" and len(parts) > 2 and parts[1] != arch:
            continue
        if path.is_file():
            _read_kconfig(path, symbols)
    return symbols


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
    """Each wish with the value that it got."""
    rows = []
    for wish in wishes:
        got = config.get(wish.option, "n")
        wanted_off = wish.value in ("n", "")
        ok = got in ("n", "") if wanted_off else got == wish.value
        why = "" if ok else _why(wish, config, symbols)
        rows.append(
            WishResult(
                option=wish.option, wanted=wish.value, got=got, ok=ok, optional=wish.optional, group=wish.group, why=why
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


def _why(wish: Wish, config: Mapping[str, str], symbols: Mapping[str, Symbol]) -> str:
    symbol = symbols.get(wish.option)
    if symbol is None:
        return "this tree has no such option"
    if wish.value == "n":
        return "another option that is on selects it" if not symbol.prompted or symbol.depends else "it is forced on"
    unmet = []
    for expression in symbol.depends:
        words = dict.fromkeys(word for word in _WORD.findall(expression))
        values = " ".join(f"{word}={config.get(word, 'n')}" for word in words)
        unmet.append(f"depends on {expression} ({values})")
    if unmet:
        return "; ".join(unmet)
    return (
        "Kconfig offers no prompt for it: only other options select it"
        if not symbol.prompted
        else "a menu or choice around it is off"
    )


def _read_kconfig(path: Path, symbols: dict[str, Symbol]) -> None:
    name = ""
    help_indent = -1  # inside a help text: the indentation of its first line
    in_help = False
    text = path.read_text(errors="replace").replace("\\\n", " ")
    for line in text.splitlines():
        if in_help:
            indent = len(line.expandtabs()) - len(line.expandtabs().lstrip())
            if not line.strip():
                continue
            help_indent = indent if help_indent < 0 else help_indent
            if indent >= help_indent > 0:
                continue
            in_help = False
        if _HELP.match(line):
            in_help, help_indent = True, -1
        elif match := _SYMBOL.match(line):
            name = match.group(1)
            symbols.setdefault(name, Symbol(name=name))
        elif line and not line[0].isspace() and not line.startswith("#"):
            name = ""
        elif name:
            symbols[name] = _with_line(symbols[name], line)


def _with_line(symbol: Symbol, line: str) -> Symbol:
    """The symbol with what one line of its block adds."""
    depends, kind = symbol.depends, symbol.kind
    if match := _DEPENDS.match(line):
        depends = (*depends, match.group(1).strip())
    if match := _TYPE.match(line):
        kind = kind or match.group(1)
    return Symbol(name=symbol.name, kind=kind, depends=depends, prompted=symbol.prompted or bool(_PROMPT.match(line)))
