"""Factors that apply only to some levels of others: which factors a cell of a plan has.

A plan says it (`applies`), or its kind does (`StudyKind.applies`). A factor that does not apply to a cell is not part
of it: combinations that differ in it alone are one cell, and their rows have no level of it, rather than a default,
which would pair with that level in other cells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from acon_nb import registry
from acon_nb.errors import AconError, InvalidInput
from acon_nb.validation import closest

Level = str | int | float | bool
Conditions = Mapping[str, Mapping[str, Sequence[Level]]]
Rule = Callable[[str, Mapping[str, Any]], bool]  # whether a factor applies to a cell of these levels


@dataclass(frozen=True, kw_only=True)
class Reduced:
    """A cell of the factors that apply to it: its own levels, those of the fixed factors, and what does not apply."""

    own: Mapping[str, Level]
    fixed: Mapping[str, Level]
    without: tuple[str, ...]


def rule_of(study: str, applies: Conditions) -> Rule:
    """The rule of a plan: its own conditions and those of its kind. A kind that does not load has none; who uses it
    says why."""
    implied = _rule_of_kind(study)

    def rule(factor: str, levels: Mapping[str, Any]) -> bool:
        named = applies.get(factor, {})
        return all(_is_one(levels.get(other), known) for other, known in named.items()) and implied(factor, levels)

    return rule


def reduced(
    rows: Sequence[Mapping[str, Level]], fixed: Mapping[str, Level], rule: Rule, products: int
) -> list[Reduced]:  # fmt: skip
    """The cells of the factors that apply to them; the first `products` rows are combinations, the others are listed.

    A factor that a listed cell names is that cell's, whether it applies or not: the kind refuses it by name. So is one
    that applies nowhere. Combinations that are the same without what does not apply are one.
    """
    without = [
        _without({**fixed, **row}, rule, () if number < products else tuple(row)) for number, row in enumerate(rows)
    ]
    useless = set.intersection(*map(set, without)) if without else set()
    cells: dict[Any, Reduced] = {}
    for number, (row, names) in enumerate(zip(rows, without, strict=True)):
        gone = tuple(name for name in names if name not in useless)
        own = {name: level for name, level in row.items() if name not in gone}
        rest = {name: level for name, level in fixed.items() if name not in gone}
        key = tuple((name, str(level)) for name, level in own.items()) if number < products else number
        cells.setdefault(key, Reduced(own=own, fixed=rest, without=gone))
    return list(cells.values())


def check(
    applies: Conditions,
    factors: Mapping[str, Sequence[Level]],
    fixed: Mapping[str, Level],
    cells: Sequence[Mapping[str, Level]],
) -> None:
    """Check the conditions of a plan. Errors: `InvalidInput` for a name or a level that the plan does not have."""
    levels = {name: [level] for name, level in fixed.items()} | {name: list(known) for name, known in factors.items()}
    for cell in cells:
        for name, level in cell.items():
            levels[name] = [*levels.get(name, []), level]
    for factor, named in applies.items():
        if factor not in levels:
            hint = closest(factor, levels)
            raise InvalidInput(f"applies.{factor}", dict(named), "is not a factor of this plan", hint=hint)
        for other, known in named.items():
            field = f"applies.{factor}.{other}"
            if other not in levels or other == factor:
                hint = closest(other, [name for name in levels if name != factor])
                raise InvalidInput(field, list(known), "is not another factor of this plan", hint=hint)
            for level in known:
                if not any(_is_one(one, [level]) for one in levels[other]):
                    hint = f"one of {', '.join(map(str, dict.fromkeys(levels[other])))}"
                    raise InvalidInput(field, level, f"is not a level of {other} in this plan", hint=hint)


def _without(levels: Mapping[str, Level], rule: Rule, kept: Sequence[str]) -> tuple[str, ...]:
    """The factors that do not apply, in order; one that depends on another that does not apply does not either."""
    gone: list[str] = []
    while True:
        present = {name: level for name, level in levels.items() if name not in gone}
        more = [name for name in present if name not in kept and not rule(name, present)]
        if not more:
            return tuple(name for name in levels if name in gone)
        gone += more


def _is_one(level: Any, known: Sequence[Level]) -> bool:
    """Whether a level is one of these, or begins with one: "zip" stands for "zip:9", whose rest is a detail."""
    return any(level == one or (isinstance(one, str) and str(level).startswith(f"{one}:")) for one in known)


def _rule_of_kind(study: str) -> Rule:
    for registration in registry.registrations():
        if registration.name == study:
            try:
                rule: Rule | None = getattr(registration.load(), "applies", None)
            except AconError:
                break
            return rule or _always
    return _always


def _always(_: str, __: Mapping[str, Any]) -> bool:
    return True
