"""What a study measures: factors with levels, or a list of cells, how often, and in which order.

The same plan comes from Python, from a notebook's parameters (`Plan.of`) or from a TOML file (`load`). A plan is pure:
what a factor means is the experiment's business (`bench.experiments`).
"""

from __future__ import annotations

import difflib
import functools
import itertools
import random
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from acon_nb.cache import key_of
from acon_nb.errors import InvalidInput

Level = str | int | float | bool
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_BUILT_IN = Path(__file__).with_name("plans")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One cell of a plan: what it is called among the others, and the level of each of its factors."""

    label: str
    levels: Mapping[str, Level]


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One run to do: of which setting (its number), in which block (0, 1, ...), at which place in the block."""

    setting: int
    block: int
    position: int
    warmup: bool = False


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A study: every combination of `factors`' levels (or the `cells` of a list), `runs` times each.

    `fixed` holds the factors that are the same everywhere. A block is one run of every cell in random order (`seed`);
    of two cells the order alternates. `warmups` runs a cell come first and never count; on the instruction clock there
    are none. `minimum_effect` is the share (0.01: 1 %) below which a difference does not matter. `baseline` are levels
    that pick the cell to compare with (default: the first).
    Errors: `InvalidInput` at construction.
    """

    name: str
    study: str = "boot"
    factors: Mapping[str, Sequence[Level]] = field(default_factory=dict)
    cells: Sequence[Mapping[str, Level]] = ()
    fixed: Mapping[str, Level] = field(default_factory=dict)
    runs: int = 5
    warmups: int = 1
    seed: int = 1
    minimum_effect: float = 0.01
    baseline: Mapping[str, Level] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            hint = "letters, digits, dots, dashes: it names a folder"
            raise InvalidInput("name", self.name, "is no name of a study", hint=hint)
        for name, least in (("runs", 1), ("warmups", 0), ("seed", 0)):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int) or number < least:
                raise InvalidInput(name, number, "is no such number", hint=f"a whole number from {least}")
        if isinstance(self.minimum_effect, bool) or not isinstance(self.minimum_effect, int | float):
            raise InvalidInput("minimum_effect", self.minimum_effect, "is no share", hint="such as 0.01 for 1 %")
        if not 0 <= self.minimum_effect < 1:
            raise InvalidInput("minimum_effect", self.minimum_effect, "is no share", hint="such as 0.01 for 1 %")
        self._check_factors()
        self._check_baseline()

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Plan:
        """A plan from a mapping with the fields' names. Errors: `InvalidInput`, also for a name that is none."""
        known = [item.name for item in fields(cls)]
        for key in data:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, 1)
                hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(known)}"
                raise InvalidInput(str(key), data[key], "is nothing that a plan has", hint=hint)
        if "name" not in data:
            raise InvalidInput("name", None, "is missing", hint="give the study a name")
        return cls(**data)

    @functools.cached_property
    def settings(self) -> tuple[Setting, ...]:
        """The cells, each with a label of the factors that vary ("kernel=guide, memory=512M")."""
        rows = [dict(cell) for cell in self.cells]
        if self.factors or not rows:
            names = list(self.factors)
            rows = [
                dict(zip(names, levels, strict=True)) for levels in itertools.product(*self.factors.values())
            ] + rows
        return tuple(Setting(label=_label(row), levels={**self.fixed, **row}) for row in rows)

    @property
    def baseline_label(self) -> str:
        """The label of the cell to compare with."""
        return next(row.label for row in self.settings if self.baseline.items() <= row.levels.items())

    @property
    def varying(self) -> tuple[str, ...]:
        """The factors that differ between cells, in the order of the plan."""
        return tuple(dict.fromkeys([*self.factors, *(name for cell in self.cells for name in cell)]))

    def turns(self) -> Iterator[Turn]:
        """Every run in the order in which they are to be done: warm-ups, then block after block."""
        count = len(self.settings)
        for number in range(self.warmups):
            yield from (Turn(setting=index, block=number, position=index, warmup=True) for index in range(count))
        first = random.Random(self.seed).randrange(2)
        for block in range(self.runs):
            order = list(range(count))
            if count == 2:
                order = order if (block + first) % 2 else order[::-1]
            else:
                random.Random(f"{self.seed} {block}").shuffle(order)
            yield from (Turn(setting=index, block=block, position=place) for place, index in enumerate(order))

    @property
    def key(self) -> str:
        """A hash of the plan's text: what was asked, not what it was run with."""
        return key_of({item.name: _plain(getattr(self, item.name)) for item in fields(self)})

    def _check_factors(self) -> None:
        for name in ("factors", "fixed", "baseline"):
            if not isinstance(getattr(self, name), Mapping):
                raise InvalidInput(name, getattr(self, name), "is no table", hint="such as {memory = [...]}")
        for name, levels in self.factors.items():
            if isinstance(levels, str) or not isinstance(levels, Sequence) or not levels:
                raise InvalidInput(f"factors.{name}", levels, "is no list of levels", hint='such as ["256M", "512M"]')
            if len({str(level) for level in levels}) < len(levels):
                raise InvalidInput(f"factors.{name}", levels, "has a level twice", hint="name each level once")
            if name in self.fixed:
                raise InvalidInput(f"fixed.{name}", self.fixed[name], "varies too", hint="take one of the two away")
        if isinstance(self.cells, str) or not all(isinstance(cell, Mapping) for cell in self.cells):
            raise InvalidInput("cells", self.cells, "is no list of tables", hint="[[cells]] in TOML")
        for place, level in self._all_levels():
            if not isinstance(level, str | int | float | bool):
                raise InvalidInput(place, level, "is no level", hint="a text, a number, true or false")
        labels = [row.label for row in self.settings]
        if len(set(labels)) < len(labels):
            twice = next(label for label, count in Counter(labels).items() if count > 1)
            raise InvalidInput("cells", twice, "is there twice", hint="name each cell once")

    def _all_levels(self) -> Iterator[tuple[str, object]]:
        for name, levels in self.factors.items():
            yield from ((f"factors.{name}", level) for level in levels)
        for table in (self.fixed, *self.cells):
            yield from table.items()

    def _check_baseline(self) -> None:
        if not any(self.baseline.items() <= row.levels.items() for row in self.settings):
            cells = "; ".join(row.label for row in self.settings[:8])
            raise InvalidInput("baseline", dict(self.baseline), "picks no cell", hint=f"levels of one of: {cells}")


def load(place: str | Path) -> Plan:
    """A plan from a TOML file, or a built-in one by its name (`built_in()`). Errors: `InvalidInput`."""
    path = _BUILT_IN / f"{place}.toml" if str(place) in built_in() else Path(place)
    try:
        data = tomllib.loads(path.read_text())
    except OSError as error:
        hint = f"a TOML file, or one of {', '.join(built_in())}"
        raise InvalidInput("plan", place, error.strerror or "cannot be read", hint=hint) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput("plan", place, f"is no TOML: {error}", hint="see docs/study.md") from error
    return Plan.of({"name": path.stem, **data})


def of_lines(field: str, lines: Sequence[str]) -> dict[str, Any]:
    """A table from lines of TOML (`memory = ["256M", "512M"]`), as a notebook's parameters hold them.

    Errors: `InvalidInput` that names `field` and the line.
    """
    found: dict[str, Any] = {}
    for line in lines:
        try:
            table = tomllib.loads(line)
        except (tomllib.TOMLDecodeError, TypeError, AttributeError) as error:
            raise InvalidInput(field, line, "is no line of TOML", hint='such as memory = ["256M", "512M"]') from error
        for name, value in table.items():
            if name in found:
                raise InvalidInput(field, line, "names a factor twice", hint="take one of the two away")
            found[name] = value
    return found


def built_in() -> tuple[str, ...]:
    """The names of the plans that come with the package."""
    return tuple(sorted(path.stem for path in _BUILT_IN.glob("*.toml")))


def _label(levels: Mapping[str, Level]) -> str:
    return ", ".join(f"{name}={_text(level)}" for name, level in levels.items()) or "the cell"


def _text(level: Level) -> str:
    if isinstance(level, bool):
        return "yes" if level else "no"
    return str(level) or "none"


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
