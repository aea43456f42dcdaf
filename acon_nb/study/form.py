"""A plan as editable texts, and back: the errors of all fields at once, and the plan as a table.

Levels are separated by blanks, and quoted as in a shell if they contain blanks or are empty (`""`). A form, a
notebook's parameters and TOML all describe the same `Plan`.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, replace
from typing import TYPE_CHECKING, Any

from acon_nb.errors import InvalidInput
from acon_nb.study.estimate import Estimate
from acon_nb.study.kinds import kind
from acon_nb.study.plan import Level, Plan

if TYPE_CHECKING:
    import pandas as pd

_MOST_CELLS = 20_000
_TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def texts_of(plan: Plan, shown: Sequence[str] = ()) -> dict[str, str]:
    """Return the fields of a form: name, runs, seed, one field for each factor in `shown`, and the rest as lines.

    `more` has a line `name = levels` for each other factor, `cells` a line of `name=level` words for each listed cell,
    `applies` a line `name: other = levels` for each condition of the plan.
    """
    levels = {name: [level] for name, level in plan.fixed.items()} | {k: list(v) for k, v in plan.factors.items()}
    more = [f"{name} = {_words(values)}" for name, values in levels.items() if name not in shown]
    cells = [" ".join(f"{name}={shlex.quote(_text(level))}" for name, level in cell.items()) for cell in plan.cells]
    conditions = [f"{name}: {other} = {_words(known)}" for name, named in plan.applies.items()
                  for other, known in named.items()]  # fmt: skip
    return {
        "name": plan.name,
        "runs": str(plan.runs),
        "seed": str(plan.seed),
        **{name: _words(levels.get(name, [])) for name in shown},
        "more": "\n".join(more),
        "cells": "\n".join(cells),
        "applies": "\n".join(conditions),
    }


def read_texts(texts: Mapping[str, str], base: Plan, shown: Sequence[str] = ()) -> tuple[Plan | None, dict[str, str]]:
    """Read the texts of `texts_of` into `base`; return the plan (None if anything is wrong) and the errors by field.

    Every cell is checked as the study itself would check it, before anything starts.
    """
    wrong: dict[str, str] = {}
    factors = kind(base.study).factors
    levels: dict[str, list[Level]] = {}
    for name in shown:
        _put(levels, wrong, factors, name, texts.get(name, ""), field=name)
    for line in filter(None, map(str.strip, texts.get("more", "").splitlines())):
        name, equals, words = line.partition("=")
        if not equals:
            wrong["more"] = f"{line!r} is not a line of the form name = levels"
        elif name.strip() in levels:
            wrong["more"] = f"{name.strip()} appears twice"
        else:
            _put(levels, wrong, factors, name.strip(), words, field="more")
    cells = _cells(texts.get("cells", ""), factors, wrong)
    applies = _applies(texts["applies"], factors, wrong) if "applies" in texts else base.applies
    runs, seed = (_whole(texts.get(name, ""), name, wrong) for name in ("runs", "seed"))
    count = math.prod(len(values) for values in levels.values())
    if count > _MOST_CELLS:
        wrong["more"] = f"{count} cells are more than a form can check: at most {_MOST_CELLS}"
    if wrong or runs is None or seed is None:
        return None, wrong
    order = [*(name for name in base.factors if name in levels), *(name for name in levels if name not in base.factors)]
    try:
        plan = replace(
            base,
            name=texts.get("name", "").strip(),
            factors={name: levels[name] for name in order if len(levels[name]) > 1},
            fixed={name: levels[name][0] for name in order if len(levels[name]) == 1},
            cells=cells,
            applies=applies,
            runs=runs,
            seed=seed,
            baseline={},
        )
        plan = _with_baseline(plan, base)
        kind(plan.study).check(plan)
    except InvalidInput as error:
        return None, {_field_of(error, shown, texts): _error_text(error)}
    return plan, {}


def with_levels(plan: Plan, levels: Mapping[str, Sequence[Level]], *, runs: int = 0) -> Plan:
    """Return a plan with other levels of some factors; one level fixes a factor, an empty list leaves it unchanged.

    `runs` above 0 is the number of runs (seeds) of each cell. A factor that the listed cells name keeps their levels.
    Errors: `InvalidInput` for what the study cannot do.
    """
    factors, fixed = dict(plan.factors), dict(plan.fixed)
    for name, values in levels.items():
        if isinstance(values, str) or not isinstance(values, Sequence):
            raise InvalidInput(name, values, "is not a list of levels", hint='such as ["disk", "zram:lz4"]')
        if not values:
            continue
        factors.pop(name, None)
        fixed.pop(name, None)
        if len(values) == 1:
            fixed[name] = values[0]
        else:
            factors[name] = list(values)
    changed = replace(plan, factors=factors, fixed=fixed, runs=runs or plan.runs, baseline={})
    changed = _with_baseline(changed, plan)
    kind(changed.study).check(changed)
    return changed


def design_table(plan: Plan, size: Estimate | None = None) -> pd.DataFrame:
    """Return the plan as a table: each factor with its levels, those that vary first, and the size if given."""
    import pandas as pd

    rows = [(name, _words(levels), "varies") for name, levels in plan.factors.items()]
    rows += [(name, _words([level]), "the same everywhere") for name, level in plan.fixed.items()]
    rows += [(f"cell {n + 1} of the list", ", ".join(f"{k}={_text(v)}" for k, v in cell.items()), "listed")
             for n, cell in enumerate(plan.cells)]  # fmt: skip
    rows += [(name, f"only with {', '.join(f'{other} {_words(known)}' for other, known in named.items())}", "applies")
             for name, named in plan.applies.items()]  # fmt: skip
    rows += [("all", size.text(), "in total")] if size else []
    return pd.DataFrame(rows, columns=["factor", "levels", "is"])


def _put(
    levels: dict[str, list[Level]], wrong: dict[str, str], factors: type, name: str, words: str, *, field: str
) -> None:
    """Read the levels of a factor."""
    defaults = {item.name: item.default for item in fields(factors)}
    if name not in defaults:
        wrong[field] = f"{name or 'nothing'} is not a factor of this study"
        return
    try:
        read = [_level(word, name, defaults[name]) for word in shlex.split(words)]
    except ValueError as error:  # InvalidInput too
        wrong[field] = _error_text(error) if isinstance(error, InvalidInput) else f"{name}: {error}"
        return
    if read:
        levels[name] = read


def _level(word: str, name: str, default: Any) -> Level:
    """A word as the factor's type. Errors: `InvalidInput`."""
    if isinstance(default, bool):
        if word.lower() not in _TRUTH:
            raise InvalidInput(name, word, "is not true or false", hint="yes or no")
        return _TRUTH[word.lower()]
    if default is MISSING or not isinstance(default, int | float):
        return word
    try:
        number = float(word)
    except ValueError:
        raise InvalidInput(name, word, "is not a number", hint=f"such as {default:g}") from None
    return int(number) if isinstance(default, int) and number.is_integer() else number


def _cells(text: str, factors: type, wrong: dict[str, str]) -> list[dict[str, Level]]:
    cells = []
    for line in filter(None, map(str.strip, text.splitlines())):
        cell: dict[str, list[Level]] = {}
        try:
            words = shlex.split(line)
        except ValueError as error:
            wrong["cells"] = f"{line!r}: {error}"
            continue
        for word in words:
            name, equals, level = word.partition("=")
            if not equals:
                wrong["cells"] = f"{word!r} is not name=level"
                continue
            _put(cell, wrong, factors, name, shlex.quote(level), field="cells")
        cells.append({name: values[0] for name, values in cell.items()})
    return cells


def _applies(text: str, factors: type, wrong: dict[str, str]) -> dict[str, dict[str, list[Level]]]:
    """Read the conditions of a plan: a line `name: other = levels` for each."""
    applies: dict[str, dict[str, list[Level]]] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, colon, condition = line.partition(":")
        other, equals, words = condition.partition("=")
        if not colon or not equals:
            wrong["applies"] = f"{line!r} is not a line of the form name: other = levels"
            continue
        known = applies.setdefault(name.strip(), {})
        if other.strip() in known:
            wrong["applies"] = f"{name.strip()}: {other.strip()} appears twice"
        _put(known, wrong, factors, other.strip(), words, field="applies")
    return applies


def _whole(text: str, name: str, wrong: dict[str, str]) -> int | None:
    try:
        return int(text.strip())
    except ValueError:
        wrong[name] = f"{text.strip()!r} is not a whole number"
        return None


def _with_baseline(plan: Plan, base: Plan) -> Plan:
    """Return the plan with the baseline of `base`, if some cell still matches it."""
    try:
        return replace(plan, baseline=base.baseline)
    except InvalidInput:
        return plan


def _field_of(error: InvalidInput, shown: Sequence[str], texts: Mapping[str, str]) -> str:
    """Return the field of a form next to which an error is shown."""
    if error.field.startswith("applies."):
        return "applies"
    name = error.field.removeprefix("factors.").removeprefix("fixed.")
    if name in shown or name in ("name", "runs", "seed", "cells"):
        return name
    return "cells" if texts.get("cells", "").strip() and name not in texts.get("more", "") else "more"


def _error_text(error: InvalidInput) -> str:
    text = f"{error.field}={error.value!r} {error.reason}"
    return f"{text}: {error.hint}" if error.hint else text


def _words(levels: Sequence[Level]) -> str:
    return " ".join(shlex.quote(_text(level)) if str(level) else '""' for level in levels)


def _text(level: Level) -> str:
    if isinstance(level, bool):
        return "yes" if level else "no"
    return f"{level:g}" if isinstance(level, float) else str(level)
