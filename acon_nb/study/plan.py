"""What a study measures: factors with levels, or a list of cells, how often, and in which order.

The same plan can come from Python, from a notebook's parameters (`Plan.of`) or from a TOML file (`load`). A plan is
pure data: the experiment defines what a factor means (`study.kinds`).
"""

from __future__ import annotations

import functools
import itertools
import random
import shlex
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from acon_nb import registry, user_file
from acon_nb.cache import key_of
from acon_nb.errors import InvalidInput
from acon_nb.study import conditions
from acon_nb.validation import Meta, build, check_fields

Level = conditions.Level
_NAME = Meta(
    pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z", description="letters, digits, dots, dashes: it names a folder"
)
_PROFILING = ("profile", "calls")
_OPTIONAL = (*_PROFILING, "applies", "kernels")  # not part of a plan's hash where they are not used
LISTS = ("program", "environment", "files")  # factors, of any kind, that also take a list of texts as a level
_LEVELS = Meta(min_length=1, description='give a list of levels, such as ["256M", "512M"]')


@dataclass(frozen=True, kw_only=True)
class PlanCell:
    """One cell of a plan: its label, the level of each of its factors, and `without`: those that do not apply to it."""

    label: str
    levels: Mapping[str, Level]
    without: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One run to do: the number of its cell, its block (0, 1, ...) and its position in the block."""

    cell: int
    block: int
    position: int
    warmup: bool = False


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A study: every combination of `factors`' levels (or the `cells` of a list), `runs` times each.

    `study` is its kind (`study.kinds`), which defines what the factors mean; `fixed` holds those that are the same
    everywhere. A level of `LISTS` that is a list of texts becomes one text with a shell's quotes. `applies` limits
    factors to levels of others: {"depth": {"shape": ["tree"]}} (`study.conditions`); the kind has such rules of its
    own. A block is one run of every cell in random order (`seed`); the order of two cells alternates. `warmups` runs of
    each cell come first and never count; the instruction clock has none. `minimum_effect` is the share (0.01: 1 %)
    below which a difference does not matter. `baseline` are levels that pick the cell to compare with (default: the
    first). With `profile` each run's profile is kept with its row (instruction clock; docs/profile.md), with `calls`
    also by call stack. `kernels` defines kernels by name, as levels of the factor kernel (`study.kernels.NamedKernel`).
    Errors: `InvalidInput` at construction.
    """

    name: Annotated[str, _NAME]
    study: str
    factors: Mapping[str, Annotated[Sequence[Level], _LEVELS]] = field(default_factory=dict)
    cells: Sequence[Mapping[str, Level]] = ()
    fixed: Mapping[str, Level] = field(default_factory=dict)
    applies: Mapping[str, Mapping[str, Annotated[Sequence[Level], _LEVELS]]] = field(default_factory=dict)
    runs: Annotated[int, Meta(ge=1)] = 5
    warmups: Annotated[int, Meta(ge=0)] = 1
    seed: Annotated[int, Meta(ge=0)] = 1
    minimum_effect: Annotated[float, Meta(ge=0, lt=1, description="give a share, such as 0.01 for 1 %")] = 0.01
    baseline: Mapping[str, Level] = field(default_factory=dict)
    profile: bool = False
    calls: bool = False
    kernels: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._join_lists()
        check_fields(self)
        if self.calls and not self.profile:
            raise InvalidInput("calls", True, "adds to a profile", hint="set profile = true, too")
        self._check_factors()
        self._check_baseline()

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Plan:
        """Build a plan from a mapping of its fields; `profile` and `calls` may also be among the fixed factors.

        Errors: `InvalidInput`, also for an unknown name.
        """
        try:
            return build(cls, _with_profile(data), what="a plan")
        except InvalidInput as error:
            if error.field != "study" or "study" in data:
                raise
            kinds = ", ".join(dict.fromkeys(one.name for one in registry.registrations()))
            raise InvalidInput("study", None, error.reason, hint=f"give the kind of study: one of {kinds}") from None

    @functools.cached_property
    def all_cells(self) -> tuple[PlanCell, ...]:
        """The cells, each with a label of the factors that vary ("kernel=guide, memory=512M").

        Combinations that differ only in a factor that applies to none of them are one cell.
        """
        products: list[Mapping[str, Level]] = []
        if self.factors or not self.cells:
            names = list(self.factors)
            products = [dict(zip(names, levels, strict=True)) for levels in itertools.product(*self.factors.values())]
        rows = [*products, *self.cells]
        reduced = conditions.reduced(rows, self.fixed, conditions.rule_of(self.study, self.applies), len(products))
        return tuple(
            PlanCell(label=_label(one.own), levels={**one.fixed, **one.own}, without=one.without) for one in reduced
        )

    @property
    def baseline_label(self) -> str:
        """The label of the cell to compare with."""
        return next(row.label for row in self.all_cells if self.baseline.items() <= row.levels.items())

    @property
    def varying(self) -> tuple[str, ...]:
        """The factors that differ between cells, in the order of the plan."""
        return tuple(dict.fromkeys([*self.factors, *(name for cell in self.cells for name in cell)]))

    def schedule(self) -> Iterator[PlannedRun]:
        """Yield every run in the order in which they are to be done: warm-ups, then block after block."""
        count = len(self.all_cells)
        for number in range(self.warmups):
            yield from (PlannedRun(cell=index, block=number, position=index, warmup=True) for index in range(count))
        first = random.Random(self.seed).randrange(2)
        for block in range(self.runs):
            order = list(range(count))
            if count == 2:
                order = order if (block + first) % 2 else order[::-1]
            else:
                random.Random(f"{self.seed} {block}").shuffle(order)
            yield from (PlannedRun(cell=index, block=block, position=number) for number, index in enumerate(order))

    @property
    def key(self) -> str:
        """A hash of the plan's text: what was requested, not what it was run with."""
        values = {item.name: _plain(getattr(self, item.name)) for item in fields(self)}
        return key_of({name: value for name, value in values.items() if name not in _OPTIONAL or value})

    def _join_lists(self) -> None:
        """Make each level of `LISTS` that is a list of texts one text with a shell's quotes."""
        for name in ("fixed", "baseline"):
            object.__setattr__(self, name, _with_joined(getattr(self, name)))
        if isinstance(self.cells, list | tuple):
            object.__setattr__(self, "cells", type(self.cells)(_with_joined(cell) for cell in self.cells))
        if isinstance(self.factors, Mapping):
            factors = {
                name: [_joined(name, level) for level in levels] if isinstance(levels, list | tuple) else levels
                for name, levels in self.factors.items()
            }
            object.__setattr__(self, "factors", factors)

    def _check_factors(self) -> None:
        for name, levels in self.factors.items():
            if len({str(level) for level in levels}) < len(levels):
                raise InvalidInput(f"factors.{name}", levels, "has a level twice", hint="name each level once")
            if name in self.fixed:
                raise InvalidInput(f"fixed.{name}", self.fixed[name], "varies too", hint="remove one of the two")
        conditions.check(self.applies, self.factors, self.fixed, self.cells)
        labels = [row.label for row in self.all_cells]
        if len(set(labels)) < len(labels):
            twice = next(label for label, count in Counter(labels).items() if count > 1)
            raise InvalidInput("cells", twice, "appears twice", hint="name each cell once")

    def _check_baseline(self) -> None:
        if not any(self.baseline.items() <= row.levels.items() for row in self.all_cells):
            cells = "; ".join(row.label for row in self.all_cells[:8])
            raise InvalidInput("baseline", dict(self.baseline), "matches no cell", hint=f"levels of one of: {cells}")


def load(source: str | Path) -> Plan:
    """Load a plan from a TOML file, or a built-in one by its name (`built_in()`). Errors: `InvalidInput`."""
    path = _built_in().get(str(source), Path(source))
    text = user_file.read_text("plan", path, hint=f"a TOML file, or one of {', '.join(built_in())}")
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput("plan", source, f"is not valid TOML: {error}", hint="see docs/study.md") from error
    return Plan.of({"name": path.stem, **_with_paths(data, path.parent)})


def of_lines(field: str, lines: Sequence[str]) -> dict[str, Any]:
    """Read a table from lines of TOML (`memory = ["256M", "512M"]`), as a notebook's parameters contain them.

    Errors: `InvalidInput` that names `field` and the line.
    """
    merged: dict[str, Any] = {}
    for line in lines:
        try:
            table = tomllib.loads(line)
        except (tomllib.TOMLDecodeError, TypeError, AttributeError) as error:
            raise InvalidInput(
                field, line, "is not a line of TOML", hint='such as memory = ["256M", "512M"]'
            ) from error
        for name, value in table.items():
            if name in merged:
                raise InvalidInput(field, line, "names a factor twice", hint="remove one of the two")
            merged[name] = value
    return merged


def built_in() -> tuple[str, ...]:
    """The names of the plans that come with the installed kinds of study."""
    return tuple(sorted(_built_in()))


@registry.cached
def _built_in() -> Mapping[str, Path]:
    """The files of the built-in plans, by name. Errors: `InvalidInput` for a name that two kinds use."""
    files: dict[str, Path] = {}
    for kind in registry.registrations():
        for path in sorted(kind.folder.glob("plans/*.toml")) if kind.folder is not None else ():
            if files.setdefault(path.stem, path) != path:
                hint = f"rename the plan, or uninstall {kind.distribution}"
                raise InvalidInput("plan", path.stem, f"is both {files[path.stem]} and {path}", hint=hint)
    return files


def _with_paths(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A plan's fields with the patches and .config of its kernels as paths from `folder`, where the plan's file is."""
    kernels = data.get("kernels")
    if not isinstance(kernels, dict):
        return data
    made = {name: _row_with_paths(row, folder) if isinstance(row, dict) else row for name, row in kernels.items()}
    return {**data, "kernels": made}


def _row_with_paths(row: dict[str, Any], folder: Path) -> dict[str, Any]:
    patches, config = row.get("patches"), row.get("config")
    if isinstance(patches, list):
        patches = [str(folder / patch) if isinstance(patch, str) else patch for patch in patches]
        row = {**row, "patches": patches}
    return {**row, "config": str(folder / config)} if isinstance(config, str) and config else row


def _with_profile(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields of a plan whose fixed factors say `profile = true`, which is not a factor: those may have its name."""
    fixed = data.get("fixed")
    if not isinstance(fixed, Mapping):
        return data
    asked = {name: fixed[name] for name in _PROFILING if isinstance(fixed.get(name), bool)}
    return {**asked, **data, "fixed": {name: level for name, level in fixed.items() if name not in asked}}


def _label(levels: Mapping[str, Level]) -> str:
    return ", ".join(f"{name}={_text(level)}" for name, level in levels.items()) or "the cell"


def _text(level: Level) -> str:
    if isinstance(level, bool):
        return "yes" if level else "no"
    text = str(level)
    return (text if text.isprintable() else repr(text)) or "none"


def _joined(name: object, level: Any) -> Any:
    return joined_words(level) if name in LISTS else level


def joined_words(level: Any) -> Any:
    """A list of texts as the one text that `shlex.split` takes apart again; anything else as it is."""
    if isinstance(level, list | tuple) and level and all(isinstance(word, str) for word in level):
        return shlex.join(level)
    return level


def _with_joined(levels: Any) -> Any:
    if not isinstance(levels, Mapping):
        return levels
    return {name: _joined(name, level) for name, level in levels.items()}


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
