"""Explains in Kconfig's terms why a requested option was not applied, and proposes the options it needs."""

from __future__ import annotations

import re
from collections.abc import Mapping

from acon_nb.kernel.expressions import evaluate, missing_options
from acon_nb.kernel.kconfig import Symbol, unmet

_WORD = re.compile(r"(?<![\"'$(\w])[A-Za-z0-9_]*[A-Z][A-Za-z0-9_]*(?![\"'\w])")
_DEPTH = 4


def why_not(option: str, wanted: str, config: Mapping[str, str], symbols: Mapping[str, Symbol]) -> str:
    """Return the chain of conditions that `config` does not meet: "needs A (n), B (n); A needs C (n)".

    Each unmet condition is given as in Kconfig, with the current values of its options, followed by the unmet
    conditions of those options. For an option that is on although "n" was requested: the enabled options that select
    or imply it.
    """
    symbol = symbols.get(option)
    if symbol is None:
        return "this tree has no such option"
    if wanted == "n":
        return _why_on(option, config, symbols)
    chain = _chain(option, config, symbols)
    if chain:
        return "; ".join(f"{'' if name == option else name + ' '}needs {', '.join(parts)}" for name, parts in chain)
    if not symbol.prompted:
        return "it has no prompt: only other options select it"
    return "another member of a choice or a range prevents it, or only the compiler can tell"


def propose(option: str, config: Mapping[str, str], symbols: Mapping[str, Symbol]) -> tuple[tuple[str, str], ...]:
    """Return further options, as (option, value), that would meet the conditions of `option`; () if there are none.

    Of each `||` the first alternative is taken. Only options with a prompt can be set. The proposal is not verified:
    only `make olddefconfig` can do that.
    """
    needed: dict[str, str] = {}
    pending = [option]
    while pending:
        name = pending.pop()
        for text in unmet(symbols[name], config):
            for other, value in missing_options(text, config):
                if other in needed or other not in symbols:
                    continue
                needed[other] = value
                if value != "n":
                    pending.append(other)
    settable = {name: value for name, value in needed.items() if symbols[name].prompted}
    return tuple(settable.items())


def with_values(expression: str, config: Mapping[str, str]) -> str:
    """Return a condition with the current value after each option: "SWAP (n)"."""
    return _WORD.sub(lambda match: f"{match.group(0)} ({config.get(match.group(0), 'n')})", expression)


def selectors(option: str, config: Mapping[str, str], symbols: Mapping[str, Symbol]) -> tuple[str, ...]:
    """Return the enabled options that select or imply `option`."""
    names = (
        name
        for name, symbol in symbols.items()
        if config.get(name, "n") in ("y", "m")
        and any(target == option and evaluate(text or "y", config) != "n" for target, text in symbol.selects)
    )
    return tuple(sorted(names))


def _why_on(option: str, config: Mapping[str, str], symbols: Mapping[str, Symbol]) -> str:
    if on_by := selectors(option, config, symbols):
        return f"turned on by {', '.join(on_by)}"
    if not symbols[option].prompted:
        return "it has no prompt: its default decides"
    return "it is a member of a choice, or it has no prompt in this configuration"


def _chain(option: str, config: Mapping[str, str], symbols: Mapping[str, Symbol]) -> list[tuple[str, list[str]]]:
    chain: list[tuple[str, list[str]]] = []
    level = [option]
    seen = {option}
    for _ in range(_DEPTH):
        below: list[str] = []
        for name in level:
            conditions = unmet(symbols[name], config)
            if not conditions:
                continue
            parts = [part for text in conditions for part in _false_parts(text, config)]
            chain.append((name, [with_values(part, config) for part in parts]))
            for text in conditions:
                below += [other for other, value in missing_options(text, config) if value != "n" and other in symbols]
        level = [name for name in dict.fromkeys(below) if name not in seen]
        seen.update(level)
    return chain


def _false_parts(expression: str, config: Mapping[str, str]) -> list[str]:
    """Return only the parts of a conjunction that are false."""
    if "(" in expression or "||" in expression:
        return [expression]
    return [part.strip() for part in expression.split("&&") if evaluate(part, config) == "n"]
