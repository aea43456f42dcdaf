"""Finds steps in a series of nights, one value per night (docs/statistics.md).

Pure: numbers in, steps out. Exact series (the instruction clock) are read night by night: any change of value is a
step. Noisy series are cut where the levels on both sides differ most, as long as a permutation test shows that a
series without a step rarely has such a cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from acon_nb.stats import inference

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[np.float64]]

LEAST_NIGHTS = 3
_SHUFFLES = 1_999
_CLIP = 2.5  # the limit, in robust standard deviations, for a night's distance from its neighbours' median
_LOCATION = 8.0  # loss of 2 log likelihood up to which a night may be that of the step (95 % by simulation)


@dataclass(frozen=True, kw_only=True)
class Step:
    """A change of level: `night` is the first of the new level, `first` to `last` the nights that it may be (95 %).

    All three count from 0. `before` and `after` are the medians of the levels, `ratio` is the latter over the former
    with its 95 % interval. `p` is None for an exact series, where nothing is left to chance.
    """

    night: int
    first: int
    last: int
    before: float
    after: float
    ratio: float
    low: float
    high: float
    p: float | None = None


def exact_steps(values: Sequence[float], *, jitter: float = 0.0, minimum_effect: float = 0.0) -> list[Step]:
    """Find the steps of a series whose values repeat: nights that leave the level by more than `jitter` (a share).

    The level is the median of its nights so far, so that a slow drift is found as well, but later. Steps below
    `minimum_effect` are omitted.
    """
    cuts: list[int] = []
    start = 0
    for night in range(1, len(values)):
        level = inference.median(values[start:night])
        if abs(values[night] - level) > jitter * abs(level):
            cuts.append(night)
            start = night
    return _steps(values, cuts, dict.fromkeys(cuts), {}, minimum_effect)


def noisy_steps(
    values: Sequence[float],
    *,
    alpha: float = 0.01,
    minimum_effect: float = 0.0,
    least_nights: int = LEAST_NIGHTS,
    seed: int = 0,
) -> list[Step]:
    """Find the steps of a noisy series of positive values: the largest first, then those on either side of it.

    The statistic is the largest t between the mean logarithms of both sides, single outliers clipped towards their
    neighbours; its p comes from shuffling the nights. A level has at least `least_nights` nights, so that a step is
    reported some nights after it occurred.
    """
    import numpy as np

    logs = np.log(np.asarray(values, dtype=float))
    p_values: dict[int, float | None] = {}
    parts = [(0, len(logs))]
    while parts:
        start, end = parts.pop()
        if end - start < 2 * least_nights:
            continue
        cut, p = _best_cut(logs[start:end], least_nights, seed)
        if p <= alpha:
            p_values[start + cut] = p
            parts += [(start, start + cut), (start + cut, end)]
    cuts = sorted(p_values)
    where = {cut: _where(logs, before, cut, after, least_nights) for before, cut, after in _triples(cuts, len(logs))}
    return _steps(values, cuts, p_values, where, minimum_effect)


def _steps(
    values: Sequence[float],
    cuts: Sequence[int],
    p_values: dict[int, float | None],
    where: dict[int, tuple[int, int]],
    minimum_effect: float,
) -> list[Step]:
    """Return the steps at the cuts, except those below the minimum effect."""
    large = _large(values, list(cuts), minimum_effect)
    steps = []
    for before, cut, after in _triples(large, len(values)):
        ratio = inference.ratio_of_medians(values[before:cut], values[cut:after])
        first, last = where.get(cut, (cut, cut))
        steps.append(
            Step(
                night=cut, first=first, last=last, before=inference.median(values[before:cut]),
                after=inference.median(values[cut:after]), ratio=ratio.ratio, low=ratio.low, high=ratio.high,
                p=p_values[cut],
            )
        )  # fmt: skip
    return steps


def _large(values: Sequence[float], cuts: list[int], minimum_effect: float) -> list[int]:
    """Remove the cuts below the minimum effect, the smallest first, each of which joins two levels."""
    while cuts:
        sizes = {
            cut: abs(inference.median(values[cut:after]) / inference.median(values[before:cut]) - 1)
            for before, cut, after in _triples(cuts, len(values))
        }
        smallest = min(sizes, key=lambda cut: sizes[cut])
        if sizes[smallest] >= minimum_effect:
            break
        cuts.remove(smallest)
    return cuts


def _triples(cuts: Sequence[int], length: int) -> list[tuple[int, int, int]]:
    """Return each cut with the start of the level before it and the end of the level after it."""
    bounds = [0, *cuts, length]
    return [(before, cut, after) for before, cut, after in zip(bounds, bounds[1:], bounds[2:], strict=False)]


def _best_cut(logs: Array, least: int, seed: int) -> tuple[int, float]:
    """Return the cut with the largest t, and its p; clipping is part of the statistic, so the test keeps its level."""
    import numpy as np

    shuffles = np.argsort(np.random.default_rng(seed).random((_SHUFFLES, logs.size)), axis=1)
    rows = _clipped(np.vstack([logs, logs[shuffles]]))
    scores = _scores(rows, least)
    most = scores.max(axis=1)
    return least + int(scores[0].argmax()), float((most >= most[0] * (1 - 1e-9)).mean())


def _clipped(rows: Array) -> Array:
    """Clip each night that is an outlier among the five around it towards their median."""
    import numpy as np

    padded = np.concatenate([rows[:, 2:0:-1], rows, rows[:, -2:-4:-1]], axis=1)
    around = np.median(np.lib.stride_tricks.sliding_window_view(padded, 5, axis=1), axis=-1)
    width = _CLIP * 1.15 * 1.4826 * np.median(np.abs(rows - around), axis=1, keepdims=True)
    return np.asarray(np.clip(rows, around - width, around + width))


def _scores(rows: Array, least: int) -> Array:
    """Return the t of each cut of each row."""
    import numpy as np

    cuts, size = np.arange(least, rows.shape[1] - least + 1), rows.shape[1]
    error, gap = _squares(rows, least)
    scale = np.sqrt(np.maximum(error, 1e-18) / (size - 2) * (1 / cuts + 1 / (size - cuts)))
    return np.asarray(np.abs(gap) / scale)


def _squares(rows: Array, least: int) -> tuple[Array, Array]:
    """Return for each cut of each row the residual sum of squares of the two means, and the difference of the means."""
    import numpy as np

    centred = rows - rows.mean(axis=1, keepdims=True)
    size = rows.shape[1]
    cuts = np.arange(least, size - least + 1)
    left = np.cumsum(centred, axis=1)[:, cuts - 1]
    gap = -left / (size - cuts) - left / cuts
    return np.square(centred).sum(axis=1, keepdims=True) - gap**2 * cuts * (size - cuts) / size, gap


def _where(logs: Array, before: int, cut: int, after: int, least: int) -> tuple[int, int]:
    """Return the range of nights at which the step may be: a cut there explains the nights around it nearly as well."""
    import numpy as np

    part = _clipped(logs[None, before:after])
    error = np.maximum(_squares(part, least)[0][0], 1e-18)
    loss = part.shape[1] * np.log(error / error[min(cut - before - least, error.size - 1)])
    near = np.nonzero(loss <= _LOCATION)[0] + before + least
    return min(int(near.min()), cut), max(int(near.max()), cut)
