"""Finds where two choices break even along a numeric factor (pressure, a disk's latency), with an interval.

The ratio of the two is taken seed by seed at each measured level; between levels its logarithm is interpolated
linearly. A break-even is where the median ratio crosses 1; its interval comes from resampling the seeds (all levels of
a seed together, since they share its data). Where one side stops ending well the comparison ends: that is a limit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from acon_nb.stats.inference import medians_of_columns
from acon_nb.stats.intervals import LEAST_FOR_BOOTSTRAP

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[np.float64]]

_DRAWS = 1_000
_LEAST_SEEDS = 3
_Crossing = tuple[float, bool, int, int]
Values = Mapping[float, Mapping[int, float | None]]  # level -> seed -> value, None where the guest ended badly


class PointKind(StrEnum):
    """What happens at a point: their order changes, or one of them stops ending well."""

    CROSSING = "crossing"
    LIMIT = "limit"


@dataclass(frozen=True, kw_only=True)
class BreakEven:
    """A point along the axis.

    `below` and `above` are the measured levels around it. `at` is the interpolated position with its interval `low` to
    `high` (None for a limit, which is anywhere between the two, or with fewer than three seeds): the range with 95 % of
    the resampled studies, or with all of them for fewer than five seeds. `support` is the share of resampled
    studies that have this crossing. `ahead_below` says whether the second choice has the larger values below the point.
    `failing` is 1 or 2: which side stops ending well at a limit.
    """

    kind: PointKind
    below: float
    above: float
    n: int
    at: float | None = None
    low: float | None = None
    high: float | None = None
    support: float | None = None
    ahead_below: bool | None = None
    failing: int | None = None


def break_evens(first: Values, second: Values, *, logarithmic: bool = False, seed: int = 0) -> list[BreakEven]:
    """Find all points along the axis, the lowest first; levels that only one side has do not count.

    `logarithmic` interpolates on a logarithmic axis (latencies); levels must then be above 0.
    Errors: `ValueError` for such a level, or for a value that is not above 0.
    """
    import numpy as np

    levels = sorted(set(first) & set(second))
    if logarithmic and any(level <= 0 for level in levels):
        raise ValueError("a logarithmic axis needs levels above 0")
    seeds = sorted({number for side in (first, second) for level in levels for number in side[level]})
    if len(levels) < 2 or not seeds:
        return []
    table = np.full((len(seeds), len(levels)), np.nan)
    for row, number in enumerate(seeds):
        for column, level in enumerate(levels):
            table[row, column] = _log_ratio(first[level].get(number), second[level].get(number))
    alive = [_alive(first[level], second[level]) for level in levels]
    axis = np.log(levels) if logarithmic else np.asarray(levels, dtype=float)
    points = _limits(levels, first, second, alive)
    for run in _runs(alive):
        points += _crossings_of(table[:, run], axis[run], [levels[n] for n in run], logarithmic, seed)
    return sorted(points, key=lambda point: (point.below, point.at or point.below))


def _crossings_of(table: Array, axis: Array, levels: Sequence[float], logarithmic: bool, seed: int) -> list[BreakEven]:
    import numpy as np

    n = int((~np.isnan(table)).any(axis=1).sum())
    others = [_crossings(axis, drawn) for drawn in _drawn(table, seed)] if n >= _LEAST_SEEDS else []
    points = []
    for position, rising, below, above in _crossings(axis, medians_of_columns(table)):
        near = [_nearest(position, rising, candidates) for candidates in others]
        positions = [value for value in near if value is not None]
        shares = (0.025, 0.975) if n >= LEAST_FOR_BOOTSTRAP else (0, 1)
        low, high = (float(q) for q in np.quantile(positions, shares)) if positions else (None, None)
        back = math.exp if logarithmic else float
        points.append(
            BreakEven(
                kind=PointKind.CROSSING,
                below=levels[below],
                above=levels[above],
                n=n,
                at=back(position),
                low=None if low is None else back(low),
                high=None if high is None else back(high),
                support=len(positions) / len(others) if others else None,
                ahead_below=not rising,
            )
        )
    return points


def _crossings(axis: Array, medians: Array) -> list[_Crossing]:
    """Return where the line changes its sign: position, whether it rises, the numbers of the levels around it."""
    crossings = []
    last: int | None = None  # the last level that is not exactly 0
    for number, value in enumerate(medians):
        if value == 0 or value != value:
            continue
        if last is not None and (value > 0) != (medians[last] > 0):
            if number == last + 1:
                share = medians[last] / (medians[last] - value)
                position = axis[last] + share * (axis[number] - axis[last])
            else:  # equal at the levels in between: take the middle of them
                position = (axis[last + 1] + axis[number - 1]) / 2
            crossings.append((float(position), bool(value > 0), last, number))
        last = number
    return crossings


def _nearest(position: float, rising: bool, candidates: Sequence[_Crossing]) -> float | None:
    same = [value for value, way, _, _ in candidates if way == rising]
    return min(same, key=lambda value: abs(value - position)) if same else None


def _drawn(table: Array, seed: int) -> Array:
    """Return the medians of resampled studies, whose seeds are drawn from those of this one, one row per study."""
    import numpy as np

    picks = np.random.default_rng(seed).integers(0, len(table), size=(_DRAWS, len(table)))
    return medians_of_columns(table[picks])


def _limits(levels: Sequence[float], first: Values, second: Values, alive: Sequence[bool]) -> list[BreakEven]:
    points = []
    for number in range(1, len(levels)):
        if alive[number - 1] and not alive[number]:
            sides = [_lives(side[levels[number]]) for side in (first, second)]
            if sides[0] == sides[1]:
                continue  # both end badly there: no choice is left
            points.append(
                BreakEven(
                    kind=PointKind.LIMIT,
                    below=levels[number - 1],
                    above=levels[number],
                    n=len(first[levels[number]]),
                    failing=1 if not sides[0] else 2,
                )
            )
    return points


def _runs(alive: Sequence[bool]) -> list[list[int]]:
    """Return the groups of neighbouring levels at which both sides end well."""
    runs: list[list[int]] = []
    for number, lives in enumerate(alive):
        if lives and number and alive[number - 1]:
            runs[-1].append(number)
        elif lives:
            runs.append([number])
    return runs


def _alive(first: Mapping[int, float | None], second: Mapping[int, float | None]) -> bool:
    return _lives(first) and _lives(second)


def _lives(side: Mapping[int, float | None]) -> bool:
    """Whether no guest of this level ended badly: a choice that may fail does not count."""
    return bool(side) and all(value is not None for value in side.values())


def _log_ratio(first: float | None, second: float | None) -> float:
    if first is None or second is None:
        return math.nan
    if first <= 0 or second <= 0:
        raise ValueError("a ratio needs positive values on both sides")
    return math.log(second / first)
