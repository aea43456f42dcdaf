"""A minimal reader of Kconfig: which options a tree defines, and what each depends on.

It follows `source` from the top Kconfig for one architecture and records, for each definition of an option, the
conditions that apply there: its own `depends on`, the `if` of its prompt, and those of the enclosing menus, choices and
`if` blocks; also its prompt, its location, what it selects, and the options whose submenu contains it. Defaults and
ranges are recorded and not evaluated: `make olddefconfig` does that.

Source: Documentation/kbuild/kconfig-language.rst, kconfig-macro-language.rst.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from acon_nb.errors import InvalidInput
from acon_nb.kernel.expressions import evaluate, requirements

_ENTRY = re.compile(
    r"(config|menuconfig|choice|comment|menu|if|endif|endmenu|endchoice|source|mainmenu)(?![\w-])\s*(.*)"
)
_TYPE = re.compile(r"(bool|tristate|string|hex|int|def_bool|def_tristate)\b\s*(.*)")
_QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'")
_RANGE = re.compile(r"range\s+(\S+)\s+(\S+)(?:\s+if\s+(.*))?")
_DEFAULT = re.compile(r"(?:default|def_bool|def_tristate)\s+(.*?)(?:\s+if\s+.*)?")
_SELECT = re.compile(r"(?:select|imply)\s+(\w+)(?:\s+if\s+(.*))?")
# What precedes a comment: quoted texts, in which # is a character, and anything else
_COMMENT = re.compile(r"""^((?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^"'])*?)\s#.*$""")
_DEPTH_LIMIT = 100


@dataclass(frozen=True, kw_only=True)
class Symbol:
    """An option: its type, whether any of its definitions has a prompt, and the conditions of each definition.

    `prompt` is its text in menuconfig, `location` the "file:line" of its first definition, `selects` the options it
    selects or implies, as (option, condition), `under` the options in whose submenus it appears, the outermost first;
    `choice` is the location of the choice that it is a member of ("": of none). `ranges` are the limits of a number, as
    (least, most, condition); `defaults` its default values. `transitional`: a former name, which an old .config may
    have, and whose value becomes the default of another option.
    """

    name: str
    kind: str = ""
    prompted: bool = False
    definitions: tuple[tuple[str, ...], ...] = ()
    prompt: str = ""
    location: str = ""
    selects: tuple[tuple[str, str], ...] = ()
    under: tuple[str, ...] = ()
    choice: str = ""
    ranges: tuple[tuple[str, str, str], ...] = ()
    defaults: tuple[str, ...] = ()
    transitional: bool = False


@dataclass
class _Entry:
    """The entry being read; a menu, choice or comment has no name. `choice`: it is a choice."""

    name: str = ""
    choice: bool = False
    kind: str = ""
    prompt: str = ""
    location: str = ""
    own: list[str] = field(default_factory=list)
    selects: list[tuple[str, str]] = field(default_factory=list)
    ranges: list[tuple[str, str, str]] = field(default_factory=list)
    defaults: list[str] = field(default_factory=list)
    transitional: bool = False


@dataclass
class _Submenus:
    """Tracks submenus: the entries that directly follow an option belong to its submenu while they depend on it.

    Source: kconfig-language.rst, "Menu structure".
    """

    open: dict[str, set[str]] = field(default_factory=dict)

    def add(self, name: str, conditions: list[str]) -> tuple[str, ...]:
        """Add the next option; return the options in whose submenus it appears."""
        needed = set().union(*map(requirements, conditions)) if self.open else set()
        for parent, members in list(self.open.items()):
            if needed & members:
                members.add(name)
            else:
                del self.open[parent]
        above = tuple(parent for parent in self.open if parent != name)
        self.open[name] = {name}
        return above


@dataclass
class _Reader:
    tree: Path
    arch: str
    symbols: dict[str, Symbol] = field(default_factory=dict)
    blocks: list[list[str]] = field(default_factory=list)
    submenus: _Submenus = field(default_factory=_Submenus)
    depth: int = 0
    choices: list[str] = field(default_factory=list)
    current: _Entry = field(default_factory=_Entry)

    def file(self, path: str) -> None:
        if self.depth > _DEPTH_LIMIT:
            raise InvalidInput("source", self.tree, "has Kconfig files that include each other endlessly")
        name = path.replace("$(SRCARCH)", self.arch).replace("$(srctree)/", "")
        file = self.tree / name
        if not file.is_file():
            return  # optional, or named by macros of another architecture
        self.depth += 1
        for number, line in _lines(file):
            match = _ENTRY.match(line)
            if match:
                self.entry(match.group(1), match.group(2).strip(), f"{name}:{number}")
            else:
                self.attribute(line)
        self.close()
        self.depth -= 1

    def entry(self, word: str, rest: str, location: str) -> None:
        self.close()
        if word in ("config", "menuconfig"):
            self.current = _Entry(name=rest.split()[0] if rest else "", location=location)
        elif word in ("if", "menu", "choice"):
            self.current = _Entry(own=[rest] if word == "if" else [], choice=word == "choice")
            self.blocks.append(self.current.own)
            self.choices += [location] if word == "choice" else []
        elif word in ("endif", "endmenu", "endchoice") and self.blocks:
            self.blocks.pop()
            if word == "endchoice" and self.choices:
                self.choices.pop()
        elif word == "source":
            self.file(rest.strip("\"'"))

    def attribute(self, line: str) -> None:
        entry = self.current
        if line.startswith("depends on "):
            what, _, condition = " ".join(line.split()[2:]).partition(" if ")
            entry.own.append(f"{_grouped(what)} || !{_grouped(condition)}" if condition else what)
        elif line.startswith("visible if "):
            entry.own.append(line.removeprefix("visible if ").strip())
        elif (entry.name or entry.choice) and (match := _TYPE.match(line)):
            entry.kind = entry.kind or match.group(1)
            if not match.group(1).startswith("def_"):
                self.prompt(match.group(2))
        elif (entry.name or entry.choice) and line.startswith("prompt "):
            self.prompt(line.removeprefix("prompt "))
        elif entry.name and (match := _SELECT.match(line)):
            entry.selects.append((match.group(1), (match.group(2) or "").strip()))
        elif entry.name and (limits := _RANGE.match(line)):
            entry.ranges.append((limits.group(1), limits.group(2), (limits.group(3) or "").strip()))
        elif entry.name and line == "transitional":
            entry.transitional = True
        if entry.name and (default := _DEFAULT.fullmatch(line)):
            entry.defaults.append(default.group(1).strip())

    def prompt(self, rest: str) -> None:
        text = _QUOTED.match(rest.strip())
        if text is None:
            return
        self.current.prompt = text.group()[1:-1]
        condition = rest.strip()[text.end() :].strip()
        if condition.startswith("if "):
            self.current.own.append(condition[3:].strip())

    def close(self) -> None:
        """Record the option being read; conditions of menus and choices stay on `blocks` for their contents."""
        entry, self.current = self.current, _Entry()
        if not entry.name:
            return
        conditions = [condition for block in self.blocks for condition in block] + entry.own
        above = self.submenus.add(entry.name, conditions)
        old = self.symbols.get(entry.name, Symbol(name=entry.name, location=entry.location))
        self.symbols[entry.name] = replace(
            old,
            kind=old.kind or entry.kind,
            prompted=old.prompted or bool(entry.prompt),
            definitions=(*old.definitions, tuple(conditions)),
            prompt=old.prompt or entry.prompt,
            selects=(*old.selects, *entry.selects),
            under=old.under or above,
            choice=old.choice or (self.choices[-1] if self.choices else ""),
            ranges=(*old.ranges, *entry.ranges),
            defaults=(*old.defaults, *entry.defaults),
            transitional=old.transitional or entry.transitional,
        )


def _grouped(expression: str) -> str:
    return f"({expression})" if " " in expression else expression


def read_symbols(tree: Path, arch: str = "x86") -> dict[str, Symbol]:
    """Read every option that the tree defines for one architecture. Errors: `InvalidInput` (endless includes)."""
    reader = _Reader(tree=tree, arch=arch)
    reader.file("Kconfig")
    return reader.symbols


def help_text(tree: Path, symbol: Symbol) -> str:
    """Return the help text of an option, as menuconfig shows it; "" if it has none."""
    name, _, number = symbol.location.rpartition(":")
    if not name:
        return ""
    lines = (tree / name).read_text(errors="replace").expandtabs().split("\n")[int(number) :]
    start = next((i for i, line in enumerate(lines) if line.strip() in ("help", "---help---")), None)
    entry = next((i for i, line in enumerate(lines) if _ENTRY.match(line)), len(lines))
    if start is None or start > entry:
        return ""
    body = lines[start + 1 :]
    first = next((line for line in body if line.strip()), "")
    indent = len(first) - len(first.lstrip())
    end = next((i for i, line in enumerate(body) if line.strip() and len(line) - len(line.lstrip()) < indent), None)
    return textwrap.dedent("\n".join(body[:end])).strip() if indent else ""


def rivals(symbol: Symbol, symbols: Mapping[str, Symbol]) -> tuple[str, ...]:
    """Return the other members of the choice that an option is a member of; () if it is of none."""
    if not symbol.choice:
        return ()
    return tuple(name for name, other in symbols.items() if other.choice == symbol.choice and name != symbol.name)


def unmet(symbol: Symbol, config: Mapping[str, str]) -> tuple[str, ...]:
    """Return the conditions of `symbol` that `config` does not meet; () if those of any definition are met.

    Of several definitions, the one with the fewest unmet conditions counts.
    """
    unmet_of_each = [
        tuple(dict.fromkeys(text for text in conditions if evaluate(text, config) == "n"))
        for conditions in symbol.definitions
    ]
    return min(unmet_of_each, key=len, default=())


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the numbered lines, stripped, with continuations joined; blank lines, comments and help are skipped."""
    help_indent = -1  # -1: not in a help text, 0: before its first line
    joined, start = "", 0
    for number, raw in enumerate(path.read_text(errors="replace").expandtabs().split("\n"), 1):
        if raw.endswith("\\"):
            joined, start = joined + raw[:-1] + " ", start or number
            continue
        line, joined, here, start = joined + raw, "", start or number, 0
        stripped = line.strip()
        indent = len(line) - len(line.lstrip())
        if not stripped:
            continue
        if help_indent == 0 and indent > 0:
            help_indent = indent
        if help_indent > 0 and indent >= help_indent:
            continue
        help_indent = 0 if stripped in ("help", "---help---") else -1
        if help_indent < 0 and not stripped.startswith("#"):
            yield here, _COMMENT.sub(r"\1", stripped)
