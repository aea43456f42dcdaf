"""Evaluates expressions of Kconfig against a .config.

What only the compiler can decide (`$(cc-option,...)`) is unknown. Source: kconfig-language.rst, "Menu dependencies".
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_TOKEN = re.compile(r"\s*(\$\((?:[^()]|\([^()]*\))*\)|&&|\|\||!=|<=|>=|[=<>!()]|\"[^\"]*\"|'[^']*'|[A-Za-z0-9_./-]+)")
_RANK = {"n": 0, "m": 1, "y": 2}
_MAX_NESTING = 200  # parentheses and `!` of one expression; the kernel's longest has far fewer


def evaluate(expression: str, config: Mapping[str, str]) -> str:
    """Return the value of an expression: y, m or n, or "?" if it depends on what only a compiler can decide."""
    tokens = _tokens(expression)
    try:
        value, rest = _or(tokens, config)
    except (IndexError, ValueError):
        return "?"
    return "?" if rest else value


def missing_options(expression: str, config: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return (option, value) pairs that would make a false expression true; of each `||` the first alternative."""
    tokens = _tokens(expression)
    missing: list[tuple[str, str]] = []
    for part in _split(tokens, "&&"):
        text = " ".join(part)
        if evaluate(text, config) != "n":
            continue
        alternatives = _split(_unwrapped(part), "||")
        if len(alternatives) > 1:
            missing += missing_options(" ".join(alternatives[0]), config)
        elif part != _unwrapped(part):
            missing += missing_options(" ".join(_unwrapped(part)), config)
        elif len(part) == 1:
            missing.append((part[0], "y"))
        elif len(part) == 2 and part[0] == "!":
            missing.append((part[1], "n"))
        elif len(part) == 3 and part[1] == "=":
            missing.append((part[0], part[2].strip("\"'")))
    return missing


def requirements(expression: str) -> set[str]:
    """Return the options without which an expression is false: the names (`A`, `A=y`) of its top-level conjunction."""
    required: set[str] = set()
    for part in _split(_unwrapped(_tokens(expression)), "&&"):
        inner = _unwrapped(part)
        if inner != part:
            required |= requirements(" ".join(inner))
        elif len(part) == 1 or (len(part) == 3 and (part[1], part[2]) in (("=", "y"), ("!=", "n"))):
            required.add(part[0])
    return required


def _tokens(expression: str) -> list[str]:
    """Split an expression into tokens; return none, so that its value is unknown, if it is nested too deeply."""
    tokens: list[str] = _TOKEN.findall(expression)
    return tokens if tokens.count("(") + tokens.count("!") <= _MAX_NESTING else []


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
    """Combine two values in Kleene's logic: an unknown one makes the result unknown unless the other decides it."""
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
            raise ValueError("missing closing parenthesis")
        return value, rest[1:]
    if rest and rest[0] in ("=", "!=", "<", ">", "<=", ">="):
        sides = [_side(one, other, config) for one, other in ((head, rest[1]), (rest[1], head))]
        return _compared(sides[0], rest[0], sides[1]), rest[2:]
    value = _value(head, config)
    return (value if value in _RANK or value == "?" else "n"), rest


def _side(word: str, other: str, config: Mapping[str, str]) -> str:
    """A side of a comparison: next to a quoted text, an option that is not set is a string, and empty."""
    unset_string = other[0] in "\"'" and word not in config and re.fullmatch(r"\w*[A-Z]\w*", word)
    return "" if unset_string and other[1:-1] not in _RANK else _value(word, config)


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
    """Split at the operators that are not inside parentheses."""
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
    """Remove a pair of parentheses that encloses all tokens."""
    if len(tokens) > 2 and tokens[0] == "(" and tokens[-1] == ")":
        depth = 0
        for number, token in enumerate(tokens):
            depth += (token == "(") - (token == ")")
            if depth == 0:
                return tokens[1:-1] if number == len(tokens) - 1 else tokens
    return tokens
