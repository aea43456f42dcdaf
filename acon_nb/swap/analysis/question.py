"""What is asked of a swap study: the situation that one is in, and the rows that answer for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from acon_nb.errors import InvalidInput
from acon_nb.swap.analysis.measures import THROUGHPUT, measure, number_of, pressure_text
from acon_nb.swap.analysis.rows import Counted, factor_of, grouped, pressure_of

if TYPE_CHECKING:
    import pandas as pd

_SAME = 0.005  # a pressure that is as near as this (of logarithms) is the one that was asked for
_AS_NEAR = 0.1  # and one that is no farther than this behind the nearest one is as near
_NAMED = ("data", "workload", "pattern", "disk_preset", "disk_latency")
_NUMERIC = ("disk_latency",)


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of a study: the situation one is in. What is empty (0, "") is not asked.

    `data`, `workload`, `pattern` and `disk_preset` are levels of the plan; `pressure` is the working set over the
    memory that is available and `disk_latency` the device's as on hardware ("80us"): of these the nearest that was
    measured answers, and is named. `metric` is what counts, `clock` whose rows (needed where the study has both).
    `decide` names factors that are decided too, with commas: "kernel" asks which kernel with which swap, where it is
    otherwise a situation with a best swap of its own.
    Errors: `InvalidInput` at construction.
    """

    data: str = ""
    workload: str = ""
    pattern: str = ""
    pressure: float = 0.0
    disk_preset: str = ""
    disk_latency: str = ""
    metric: str = THROUGHPUT
    clock: str = ""
    decide: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.pressure, bool) or not isinstance(self.pressure, int | float):
            raise InvalidInput(
                "pressure", self.pressure, "is not a number", hint="working set over available memory, such as 1.5"
            )
        if not 0 <= self.pressure < math.inf:
            hint = "such as 1.5; 0: not asked"
            raise InvalidInput("pressure", self.pressure, "is not a multiple of the available memory", hint=hint)
        if self.disk_latency and math.isnan(number_of(self.disk_latency)):
            raise InvalidInput("disk_latency", self.disk_latency, "is not a time", hint="such as 80us or 0.5ms")
        measure(self.metric)

    def asked(self) -> dict[str, str]:
        """The factors asked for, and their levels."""
        named = {name: getattr(self, name) for name in _NAMED}
        pressure = {"pressure": f"{self.pressure:g}"} if self.pressure else {}
        return {name: level for name, level in named.items() if level} | pressure


@dataclass(frozen=True, kw_only=True)
class Narrowed:
    """The rows that fit a question, the levels that they have, and in words which level stands for one not measured."""

    rows: Counted
    levels: Mapping[str, str]
    nearest: tuple[str, ...]

    def where(self, situation: str) -> str:
        """A situation in words, with the levels that were asked for."""
        return ", ".join(filter(None, [*(f"{name}={level}" for name, level in self.levels.items()), situation]))


def narrowed(rows: Counted, question: Question) -> Narrowed:
    """The rows that fit a question.

    Errors: `InvalidInput` for a level of data, workload, pattern or disk_preset that the study does not have.
    """
    frame, nearest = rows.frame, []
    levels: dict[str, str] = {}
    for name, level in question.asked().items():
        if name == "pressure":
            frame, levels[name], notes = _of_pressure(rows, frame, question.pressure)
            nearest += notes
            continue
        texts = factor_of(rows, name).loc[frame.index]
        known = list(dict.fromkeys(texts))
        chosen = _nearest(level, known) if name in _NUMERIC else level
        if chosen not in known:
            raise InvalidInput(name, level, "was not measured", hint=f"one of {', '.join(map(str, known))}")
        if number_of(chosen) != number_of(level) and chosen != level:
            nearest.append(f"{name} {level} was not measured: {chosen} is the nearest.")
        frame = frame[texts == chosen]
        levels[name] = chosen
    kept = tuple(name for name in rows.situations if rows.levels.loc[frame.index, name].nunique() > 1)
    part = replace(rows, frame=frame, levels=rows.levels.loc[frame.index], situations=kept)
    return Narrowed(rows=part, levels=levels, nearest=tuple(nearest))


def _of_pressure(rows: Counted, frame: pd.DataFrame, asked: float) -> tuple[pd.DataFrame, str, list[str]]:
    """The rows whose pressure is nearest to `asked`, their nominal level, what to note.

    The pressure is the working set over the memory that was available; the nominal one for rows that do not say. Each
    of the other situations (another size of memory) has its own nearest level; one that was measured at clearly
    other pressures alone does not answer.
    """
    texts = factor_of(rows, "pressure").loc[frame.index]
    others = [name for name in rows.situations if name != "pressure"]
    nearest = [
        _Nearest.of(frame.loc[index], texts.loc[index], asked)
        for _, index in grouped(rows.levels.loc[frame.index], others)
    ]
    least = min(one.distance for one in nearest)
    kept = [one for one in nearest if one.distance <= least + _AS_NEAR]
    words = dict.fromkeys(pressure_text(one.level, one.measured) for one in kept if one.distance > _SAME)
    notes = [f"pressure {asked:g} was not measured: {' and '.join(words)} is the nearest."] if words else []
    indices = sorted(index for one in kept for index in one.indices)
    return frame.loc[indices], " or ".join(dict.fromkeys(one.level for one in kept)), notes


@dataclass(frozen=True)
class _Nearest:
    """The nominal level of some rows whose pressure is nearest to one that was asked for.

    `distance` is that of the logarithms, `measured` the pressure (nan: not known), `indices` the rows that have it.
    """

    level: str
    distance: float
    measured: float
    indices: tuple[int, ...]

    @classmethod
    def of(cls, rows: pd.DataFrame, levels: pd.Series[str], asked: float) -> _Nearest:
        """Find it; of two as near the larger one, which is harder."""
        measured = {str(level): pressure_of(part) for level, part in rows.groupby(levels, sort=False)}
        is_known = all(map(math.isfinite, measured.values()))
        places = {level: place if is_known else number_of(level) for level, place in measured.items()}
        away = {level: round(abs(math.log(place / asked)), 9) for level, place in places.items()}
        level = min(places, key=lambda name: (away[name], -places[name]))
        return cls(level, away[level], measured[level], tuple(rows.index[levels == level]))


def _nearest(level: str, known: Sequence[str]) -> str:
    """The level that is nearest in proportion; of two as near the harder (larger) one."""
    wanted = number_of(level)
    numbers = {text: number_of(text) for text in known}
    usable = [text for text, number in numbers.items() if number > 0]
    if not usable or not wanted > 0:
        return level
    return min(usable, key=lambda text: (abs(math.log(numbers[text] / wanted)), -numbers[text]))
