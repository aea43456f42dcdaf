"""Explains in Kconfig's terms why a requested option was not applied, and proposes the options it needs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from acon_nb.kernel.expressions import evaluate, missing_options
from acon_nb.kernel.kconfig import Symbol, rivals, unmet

_WORD = re.compile(r"(?<![\"'$(\w])[A-Za-z0-9_]*[A-Z][A-Za-z0-9_]*(?![\"'\w])")
_DEPTH = 4
NEEDS_MODULES = "m needs MODULES"
OUT_OF_RANGE = "it takes "


def why_not(option: str, wanted: str, config: Mapping[str, str], symbols: Mapping[str, Symbol]) -> str:
    """Return the chain of conditions that `config` does not meet: "needs A (n), B (n); A needs C (n)".

    Each unmet condition is given as in Kconfig, with the current values of its options, followed by the unmet
    conditions of those options. For an option that is on although "n" was requested: the enabled options that select
    or imply it.
    """
    symbol = symbols.get(option)
    if symbol is None:
        return "this tree has no such option"
    if symbol.transitional:
        return former_name(option, symbols)
    if wanted == "n":
        return _why_on(option, config, symbols)
    chain = _chain(option, config, symbols)
    if chain:
        return "; ".join(f"{'' if name == option else name + ' '}needs {', '.join(parts)}" for name, parts in chain)
    if not symbol.prompted:
        if symbol.kind in ("int", "hex", "string"):
            return "it has no prompt: its defaults decide, by what other options are"
        return "it has no prompt: only other options select it"
    if wanted == "m" and config.get("MODULES", "n") != "y":
        return f"{NEEDS_MODULES} ({config.get('MODULES', 'n')}): without modules it is y or n"
    chosen = [name for name in rivals(symbol, symbols) if config.get(name) == "y"]
    if chosen:
        return f"{chosen[0]} (y) is chosen in the choice of which it is a member"
    return (
        _beyond(symbol, wanted, config) or "only the compiler can tell: its conditions as far as they are known are met"
    )


def way_out(reasons: Sequence[str]) -> str:
    """What a user can do about options that were not applied for these reasons, as of `why_not`."""
    hints = {
        NEEDS_MODULES: "allow modules (--modules), or set it to y",
        OUT_OF_RANGE: "give a number within its limits",
    }
    fitting = [hint for start, hint in hints.items() if any(reason.startswith(start) for reason in reasons)]
    if not all(reason.startswith(tuple(hints)) for reason in reasons):
        fitting.append("set the options it depends on too (--set OPT=VAL)")
    return "; ".join([*fitting, "or omit it"])


def former_name(option: str, symbols: Mapping[str, Symbol]) -> str:
    """Say which option a former name has become: the one whose default it is."""
    now = sorted(name for name, symbol in symbols.items() if option in symbol.defaults)
    return (
        f"it is a former name: set {' or '.join(now)}" if now else "it is a former name that only old .config files set"
    )


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
    if others := rivals(symbols[option], symbols):
        return f"it is chosen in a choice: set another member of it, {', '.join(others)}"
    return "it has no prompt in this configuration: its default decides"


def _beyond(symbol: Symbol, wanted: str, config: Mapping[str, str]) -> str:
    """Name the limit that a number exceeds, and the options that set the limit; "" if none does."""
    try:
        number = int(wanted, 0)
    except ValueError:
        return ""
    for least, most, condition in symbol.ranges:
        if condition and evaluate(condition, config) == "n":
            continue
        low, high = (_number(word, config) for word in (least, most))
        if (low is not None and number < low) or (high is not None and number > high):
            where = f" where {with_values(condition, config)}" if condition else ""
            return f"{OUT_OF_RANGE}{_limit(least, low)} to {_limit(most, high)}{where}"
        return ""  # the first range whose condition holds counts
    return ""


def _number(word: str, config: Mapping[str, str]) -> int | None:
    try:
        return int(config.get(word, word), 0)
    except ValueError:
        return None


def _limit(word: str, value: int | None) -> str:
    return word if value is None or word == str(value) else f"{value} ({word})"


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
