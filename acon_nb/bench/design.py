"""A plan as texts that a person edits, and back: every field's error at once, the number of cells, the time it takes.

Levels are words between blanks, quoted as in a shell where they hold blanks or nothing (`""`). The same `Plan` stands
behind a form, a notebook's parameters and TOML.
"""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from acon_nb.bench.boot_study import BootFactors, boot_factors
from acon_nb.bench.plan import Level, Plan
from acon_nb.bench.swap import SwapFactors
from acon_nb.errors import InvalidInput
from acon_nb.units import format_seconds
from acon_nb.vm import Clock

if TYPE_CHECKING:
    import pandas as pd

_MOST_CELLS = 20_000
_TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
# What an earlier run must share with a cell to say how long it takes, the most telling first.
_ALIKE = ("clock", "workload", "memory", "pressure", "swap", "kernel", "machine", "accesses")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a kind of study takes: the dataclass of its factors, and what checks the levels of a cell."""

    factors: type
    check: Callable[[Mapping[str, Any]], Any]


KINDS: Mapping[str, Kind] = {
    "boot": Kind(factors=BootFactors, check=boot_factors),
    "swap": Kind(factors=SwapFactors, check=SwapFactors.of),
}


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """How much a plan is: its cells, its runs (warm-ups too), the time from `low_s` to `high_s` (None: not known).

    `basis` says in words what the time is taken from. Builds come on top; what is in the store already comes off.
    """

    cells: int
    runs: int
    low_s: float | None = None
    high_s: float | None = None
    basis: str = ""

    def text(self) -> str:
        """In a sentence: "24 cells, 72 runs, some 12 min 0 s to 18 min 0 s (as 35 earlier runs took)"."""
        size = f"{self.cells} cell{'' if self.cells == 1 else 's'}, {self.runs} run{'' if self.runs == 1 else 's'}"
        if self.low_s is None or self.high_s is None:
            return f"{size}; the time is not known: {self.basis}"
        low, high = format_seconds(self.low_s), format_seconds(self.high_s)
        return f"{size}, some {low if low == high else f'{low} to {high}'} ({self.basis})"


def texts_of(plan: Plan, shown: Sequence[str] = ()) -> dict[str, str]:
    """The fields of a form: name, runs, seed, one field for each factor in `shown`, and the rest as lines.

    `more` has the other factors, a line `name = levels` each; `cells` the listed cells, `name=level` words a line.
    """
    levels = {name: [level] for name, level in plan.fixed.items()} | {k: list(v) for k, v in plan.factors.items()}
    more = [f"{name} = {_words(values)}" for name, values in levels.items() if name not in shown]
    cells = [" ".join(f"{name}={shlex.quote(_text(level))}" for name, level in cell.items()) for cell in plan.cells]
    return {
        "name": plan.name,
        "runs": str(plan.runs),
        "seed": str(plan.seed),
        **{name: _words(levels.get(name, [])) for name in shown},
        "more": "\n".join(more),
        "cells": "\n".join(cells),
    }


def read_texts(texts: Mapping[str, str], base: Plan, shown: Sequence[str] = ()) -> tuple[Plan | None, dict[str, str]]:
    """`base` with what the texts of `texts_of` say, and what is wrong, by field; the plan is None if anything is.

    Every cell is checked as the study itself would, before anything starts.
    """
    wrong: dict[str, str] = {}
    kind = kind_of(base)
    levels: dict[str, list[Level]] = {}
    for name in shown:
        _put(levels, wrong, kind, name, texts.get(name, ""), field=name)
    for line in filter(None, map(str.strip, texts.get("more", "").splitlines())):
        name, equals, words = line.partition("=")
        if not equals:
            wrong["more"] = f"{line!r} is no line: name = levels"
        elif name.strip() in levels:
            wrong["more"] = f"{name.strip()} is there twice"
        else:
            _put(levels, wrong, kind, name.strip(), words, field="more")
    cells = _cells(texts.get("cells", ""), kind, wrong)
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
            runs=runs,
            seed=seed,
            baseline={},
        )
        plan = _with_baseline(plan, base)
        check(plan)
    except InvalidInput as error:
        return None, {_field_of(error, shown, texts): _told(error)}
    return plan, {}


def with_levels(plan: Plan, levels: Mapping[str, Sequence[Level]], *, runs: int = 0) -> Plan:
    """A plan with other levels of some factors; one level makes it the same everywhere, none leaves it as it was.

    `runs` above 0 is the number of runs (seeds) of each cell. A factor that the listed cells name keeps their levels.
    Errors: `InvalidInput` for what the study cannot do.
    """
    factors, fixed = dict(plan.factors), dict(plan.fixed)
    for name, values in levels.items():
        if isinstance(values, str) or not isinstance(values, Sequence):
            raise InvalidInput(name, values, "is no list of levels", hint='such as ["disk", "zram:lz4"]')
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
    check(changed)
    return changed


def check(plan: Plan) -> None:
    """Check every cell of a plan as its study would. Errors: `InvalidInput` for a level that cannot be."""
    kind = kind_of(plan)
    for setting in plan.settings:
        kind.check(setting.levels)


def kind_of(plan: Plan) -> Kind:
    """What the study of a plan takes. Errors: `InvalidInput` for a kind of study that is none."""
    if plan.study not in KINDS:
        raise InvalidInput("study", plan.study, "is no kind of study", hint=f"one of {', '.join(KINDS)}")
    return KINDS[plan.study]


def estimate(plan: Plan, earlier: pd.DataFrame | None = None, *, parallel: int | None = None) -> Estimate:
    """How many runs a plan has and how long they take, by what runs like them took before.

    `earlier` are rows of results with `seconds` and factors. For each cell the runs that share most with it count:
    first their clock, then what they do. Of the times of these the quartiles are taken. `parallel` guests of the
    instruction clock run at a time (default: a CPU each).
    """
    kind = kind_of(plan)
    settings = plan.settings
    clocks = [str(getattr(kind.check(setting.levels), "clock", Clock.INSTRUCTIONS)) for setting in settings]
    per_cell = [plan.runs + (plan.warmups if clock == Clock.WALL else 0) for clock in clocks]
    size = Estimate(cells=len(settings), runs=sum(per_cell))
    if earlier is None or earlier.empty or "seconds" not in earlier:
        return replace(size, basis="no earlier run of this kind is in the folder of results")
    width = parallel or len(os.sched_getaffinity(0))
    low = high = 0.0
    used: set[Any] = set()
    for setting, clock, runs in zip(settings, clocks, per_cell, strict=True):
        alike = _alike(earlier, vars(kind.check(setting.levels)))
        if alike.empty:
            return replace(size, basis=f"no earlier run was on the {clock} clock")
        seconds = alike["seconds"].astype(float)
        share = runs / (1 if clock == Clock.WALL else width)
        low += share * float(seconds.quantile(0.25))
        high += share * float(seconds.quantile(0.75))
        used |= set(alike.index)
    return replace(size, low_s=low, high_s=high, basis=f"as {len(used)} earlier runs took; builds come on top")


def design_table(plan: Plan, size: Estimate | None = None) -> pd.DataFrame:
    """The plan for people: each factor with its levels, those that vary first, and with `size` how much it is."""
    import pandas as pd

    rows = [(name, _words(levels), "varies") for name, levels in plan.factors.items()]
    rows += [(name, _words([level]), "the same everywhere") for name, level in plan.fixed.items()]
    rows += [(f"cell {n + 1} of the list", ", ".join(f"{k}={_text(v)}" for k, v in cell.items()), "listed")
             for n, cell in enumerate(plan.cells)]  # fmt: skip
    rows += [("all", size.text(), "in total")] if size else []
    return pd.DataFrame(rows, columns=["factor", "levels", "is"])


def _put(
    levels: dict[str, list[Level]], wrong: dict[str, str], kind: Kind, name: str, words: str, *, field: str
) -> None:
    """Read the levels of a factor."""
    defaults = {item.name: item.default for item in fields(kind.factors)}
    if name not in defaults:
        wrong[field] = f"{name or 'nothing'} is no factor of this study"
        return
    try:
        read = [_level(word, name, defaults[name]) for word in shlex.split(words)]
    except ValueError as error:  # InvalidInput too
        wrong[field] = _told(error) if isinstance(error, InvalidInput) else f"{name}: {error}"
        return
    if read:
        levels[name] = read


def _level(word: str, name: str, default: Any) -> Level:
    """A word as the factor's type. Errors: `InvalidInput`."""
    if isinstance(default, bool):
        if word.lower() not in _TRUTH:
            raise InvalidInput(name, word, "is no truth value", hint="yes or no")
        return _TRUTH[word.lower()]
    if default is MISSING or not isinstance(default, int | float):
        return word
    try:
        number = float(word)
    except ValueError:
        raise InvalidInput(name, word, "is no number", hint=f"such as {default:g}") from None
    return int(number) if isinstance(default, int) and number.is_integer() else number


def _cells(text: str, kind: Kind, wrong: dict[str, str]) -> list[dict[str, Level]]:
    found = []
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
                wrong["cells"] = f"{word!r} is no name=level"
                continue
            _put(cell, wrong, kind, name, shlex.quote(level), field="cells")
        found.append({name: values[0] for name, values in cell.items()})
    return found


def _whole(text: str, name: str, wrong: dict[str, str]) -> int | None:
    try:
        return int(text.strip())
    except ValueError:
        wrong[name] = f"{text.strip()!r} is no whole number"
        return None


def _with_baseline(plan: Plan, base: Plan) -> Plan:
    """The baseline of before, if some cell still has it."""
    try:
        return replace(plan, baseline=base.baseline)
    except InvalidInput:
        return plan


def _alike(earlier: pd.DataFrame, levels: Mapping[str, Any]) -> pd.DataFrame:
    """The rows with the cell's clock that share the most of what tells the time, factor after factor."""
    found = earlier[earlier["seconds"].notna()]
    for name in _ALIKE:
        column = "clock" if name == "clock" else f"factor_{name}"
        if column not in found or name not in levels:
            continue
        same = found[found[column].astype(str) == str(levels[name])]
        if same.empty and name == "clock":
            return same
        found = found if same.empty else same
    return found


def _field_of(error: InvalidInput, shown: Sequence[str], texts: Mapping[str, str]) -> str:
    """The field of a form in which to tell an error."""
    name = error.field.removeprefix("factors.").removeprefix("fixed.")
    if name in shown or name in ("name", "runs", "seed", "cells"):
        return name
    return "cells" if texts.get("cells", "").strip() and name not in texts.get("more", "") else "more"


def _told(error: InvalidInput) -> str:
    text = f"{error.field}={error.value!r} {error.reason}"
    return f"{text}: {error.hint}" if error.hint else text


def _words(levels: Sequence[Level]) -> str:
    return " ".join(shlex.quote(_text(level)) if str(level) else '""' for level in levels)


def _text(level: Level) -> str:
    if isinstance(level, bool):
        return "yes" if level else "no"
    return f"{level:g}" if isinstance(level, float) else str(level)
