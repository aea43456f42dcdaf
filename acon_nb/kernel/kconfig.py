"""The smallest honest reader of Kconfig: which options a tree defines, and what each depends on.

It follows `source` from the top Kconfig for one architecture and keeps, for each definition of an option, the
conditions that hold there: its own `depends on`, the `if` of its prompt, and those of the menus, choices and `if`
blocks around it. It evaluates expressions against a .config, and never guesses: what only running the compiler would
tell (`$(cc-option,...)`) is unknown. It does not follow selects, defaults or ranges: `make olddefconfig` does that.

Source: Documentation/kbuild/kconfig-language.rst, kconfig-macro-language.rst.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from acon_nb.errors import InvalidInput

_ENTRY = re.compile(
    r"(config|menuconfig|choice|comment|menu|if|endif|endmenu|endchoice|source|mainmenu)(?![\w-])\s*(.*)"
)
_TYPE = re.compile(r"(bool|tristate|string|hex|int|def_bool|def_tristate)\b\s*(.*)")
_QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'")
_TOKEN = re.compile(r"\s*(\$\((?:[^()]|\([^()]*\))*\)|&&|\|\||!=|<=|>=|[=<>!()]|\"[^\"]*\"|'[^']*'|[A-Za-z0-9_./-]+)")
_RANK = {"n": 0, "m": 1, "y": 2}
_DEPTH_LIMIT = 100


@dataclass(frozen=True, kw_only=True)
class Symbol:
    """An option: its type, whether a person can set it anywhere, and the conditions of each of its definitions."""

    name: str
    kind: str = ""
    prompted: bool = False
    definitions: tuple[tuple[str, ...], ...] = ()


@dataclass
class _Reader:
    tree: Path
    arch: str
    symbols: dict[str, Symbol] = field(default_factory=dict)
    blocks: list[list[str]] = field(default_factory=list)
    depth: int = 0
    # the entry that is being read: name ("": a menu, choice or comment), type, prompt seen, own conditions
    name: str = ""
    kind: str = ""
    prompted: bool = False
    own: list[str] = field(default_factory=list)

    def file(self, path: str) -> None:
        if self.depth > _DEPTH_LIMIT:
            raise InvalidInput("source", self.tree, "its Kconfig files include each other without end")
        place = self.tree / path.replace("$(SRCARCH)", self.arch).replace("$(srctree)/", "")
        if not place.is_file():
            return  # of another architecture's macros, or optional
        self.depth += 1
        for line in _lines(place):
            match = _ENTRY.match(line.strip())
            if match:
                self.entry(match.group(1), match.group(2).strip())
            else:
                self.attribute(line.strip())
        self.close()
        self.depth -= 1

    def entry(self, word: str, rest: str) -> None:
        self.close()
        if word in ("config", "menuconfig"):
            self.name = rest.split()[0] if rest else ""
        elif word in ("if", "menu", "choice"):
            self.own = [rest] if word == "if" else []
            self.blocks.append(self.own)
        elif word in ("endif", "endmenu", "endchoice") and self.blocks:
            self.blocks.pop()
        elif word == "source":
            self.file(rest.strip("\"'"))

    def attribute(self, line: str) -> None:
        if line.startswith("depends on "):
            self.own.append(" ".join(line.split()[2:]))
        elif line.startswith("visible if "):
            self.own.append(line.removeprefix("visible if ").strip())
        elif self.name and (match := _TYPE.match(line)):
            self.kind = self.kind or match.group(1)
            if not match.group(1).startswith("def_"):
                self.prompt(match.group(2))
        elif self.name and line.startswith("prompt "):
            self.prompt(line.removeprefix("prompt "))

    def prompt(self, rest: str) -> None:
        text = _QUOTED.match(rest.strip())
        if text is None:
            return
        self.prompted = True
        condition = rest.strip()[text.end() :].strip()
        if condition.startswith("if "):
            self.own.append(condition[3:].strip())

    def close(self) -> None:
        """Keep the option that was being read; menus and choices keep their own conditions for what is inside."""
        if self.name:
            around = [condition for block in self.blocks for condition in block]
            old = self.symbols.get(self.name, Symbol(name=self.name))
            self.symbols[self.name] = Symbol(
                name=self.name,
                kind=old.kind or self.kind,
                prompted=old.prompted or self.prompted,
                definitions=(*old.definitions, (*around, *self.own)),
            )
        self.name, self.kind, self.prompted, self.own = "", "", False, []


def read_symbols(tree: Path, arch: str = "x86") -> dict[str, Symbol]:
    """Every option that the tree defines for one architecture. Errors: `InvalidInput` (endless includes)."""
    reader = _Reader(tree=tree, arch=arch)
    reader.file("Kconfig")
    return reader.symbols


def unmet(symbol: Symbol, config: Mapping[str, str]) -> tuple[str, ...]:
    """The conditions of `symbol` that `config` does not meet, of the definition that lacks fewest; () if one is met."""
    lacking = [
        tuple(dict.fromkeys(text for text in conditions if evaluate(text, config) == "n"))
        for conditions in symbol.definitions
    ]
    return min(lacking, key=len, default=())


def evaluate(expression: str, config: Mapping[str, str]) -> str:
    """The value of an expression: y, m or n, or "?" when it hangs on what only a compiler can tell."""
    tokens = _TOKEN.findall(expression)
    try:
        value, rest = _or(tokens, config)
    except (IndexError, ValueError):
        return "?"
    return "?" if rest else value


def missing_options(expression: str, config: Mapping[str, str]) -> list[tuple[str, str]]:
    """What would turn a false expression true, as (option, value) pairs: the first way that each `||` offers."""
    tokens = _TOKEN.findall(expression)
    found: list[tuple[str, str]] = []
    for part in _split(tokens, "&&"):
        text = " ".join(part)
        if evaluate(text, config) != "n":
            continue
        alternatives = _split(_unwrapped(part), "||")
        if len(alternatives) > 1:
            found += missing_options(" ".join(alternatives[0]), config)
        elif part != _unwrapped(part):
            found += missing_options(" ".join(_unwrapped(part)), config)
        elif len(part) == 1:
            found.append((part[0], "y"))
        elif len(part) == 2 and part[0] == "!":
            found.append((part[1], "n"))
        elif len(part) == 3 and part[1] == "=":
            found.append((part[0], part[2].strip("\"'")))
    return found


def _lines(path: Path) -> Iterator[str]:
    """The lines of a file that say something: continued ones joined, comments and help texts left out."""
    text = path.read_text(errors="replace").replace("\\\n", " ")
    help_indent = -1  # -1: no help text, 0: its first line is to come
    for raw in text.expandtabs().splitlines():
        stripped = raw.strip()
        indent = len(raw) - len(raw.lstrip())
        if not stripped:
            continue
        if help_indent == 0 and indent > 0:
            help_indent = indent
        if help_indent > 0 and indent >= help_indent:
            continue
        help_indent = 0 if stripped in ("help", "---help---") else -1
        if help_indent < 0:
            yield stripped.partition(" #")[0] if not stripped.startswith("#") else ""


def _or(tokens: list[str], config: Mapping[str, str]) -> tuple[str, list[str]]:
    value, rest = _and(tokens, config)
    while rest and rest[0] == "||":
        other, rest = _and(rest[1:], config)
        value = _joined(value, other, "y")
    return value, rest


def _and(tokens: list[str], config: Mapping[str, str]) -> tuple[str, list[str]]:
    value, rest = _atom(tokens, config)
    while rest and rest[0] == "&&":
        other, rest = _atom(rest[1:], config)
        value = _joined(value, other, "n")
    return value, rest


def _joined(left: str, right: str, decided: str) -> str:
    """Kleene's logic: an unknown side matters unless the other one decides."""
    if decided in (left, right):
        return decided
    if "?" in (left, right):
        return "?"
    return max(left, right, key=_RANK.__getitem__) if decided == "y" else min(left, right, key=_RANK.__getitem__)


def _atom(tokens: list[str], config: Mapping[str, str]) -> tuple[str, list[str]]:
    head, rest = tokens[0], tokens[1:]
    if head == "!":
        value, rest = _atom(rest, config)
        return {"y": "n", "n": "y", "m": "m"}.get(value, "?"), rest
    if head == "(":
        value, rest = _or(rest, config)
        if not rest or rest[0] != ")":
            raise ValueError("a bracket does not close")
        return value, rest[1:]
    if rest and rest[0] in ("=", "!=", "<", ">", "<=", ">="):
        return _compared(_value(head, config), rest[0], _value(rest[1], config)), rest[2:]
    value = _value(head, config)
    return (value if value in _RANK or value == "?" else "n"), rest


def _value(word: str, config: Mapping[str, str]) -> str:
    if word.startswith("$("):
        return "?"
    if word[0] in "\"'":
        return word[1:-1]
    if word in _RANK or re.fullmatch(r"-?\d+|0[xX][0-9a-fA-F]+", word):
        return word if word in _RANK or word not in config else config[word]
    return config.get(word, "n")


def _compared(left: str, sign: str, right: str) -> str:
    if "?" in (left, right):
        return "?"
    if sign in ("=", "!="):
        return "y" if (left == right) == (sign == "=") else "n"
    try:
        one, two = int(left, 0), int(right, 0)
    except ValueError:
        return "?"
    return "y" if {"<": one < two, ">": one > two, "<=": one <= two, ">=": one >= two}[sign] else "n"


def _split(tokens: list[str], sign: str) -> list[list[str]]:
    """The parts between the signs that stand in no bracket."""
    parts: list[list[str]] = [[]]
    depth = 0
    for token in tokens:
        depth += (token == "(") - (token == ")")
        if token == sign and depth == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _unwrapped(tokens: list[str]) -> list[str]:
    """The tokens without a pair of brackets around them all."""
    if len(tokens) > 2 and tokens[0] == "(" and tokens[-1] == ")":
        depth = 0
        for number, token in enumerate(tokens):
            depth += (token == "(") - (token == ")")
            if depth == 0:
                return tokens[1:-1] if number == len(tokens) - 1 else tokens
    return tokens
