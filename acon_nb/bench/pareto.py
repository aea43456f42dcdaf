"""Which choices are worth considering when two measures count: the Pareto front, and how sure a place on it is."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[np.float64]]

_DRAWS = 1_000
_LEAST_SEEDS = 3


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One choice: `on_front`, by the medians; `support`, the share of redrawn studies in which it is (None with fewer
    than three seeds); `beaten_by`, those that are at least as good in both measures and better in one."""

    on_front: bool
    support: float | None
    beaten_by: tuple[str, ...]


def front(points: Mapping[str, Mapping[int, tuple[float, float]]], *, seed: int = 0) -> dict[str, Standing]:
    """The standing of each choice, of which each seed has two values; more of either is better.

    Seeds are drawn anew for all choices together, since they share the data. Choices of equal medians share their
    place. Values that are not known (nan) leave a seed out of that choice.
    """
    import numpy as np

    names = [name for name, table in points.items() if any(_known(pair) for pair in table.values())]
    if not names:
        return {}
    seeds = sorted({number for name in names for number in points[name]})
    table = np.full((len(names), len(seeds), 2), np.nan)
    for row, name in enumerate(names):
        for column, number in enumerate(seeds):
            pair = points[name].get(number)
            if pair is not None and _known(pair):
                table[row, column] = pair
    medians = _medians(table)
    beats = _beats(medians)
    drawn = _support(table, seed) if len(seeds) >= _LEAST_SEEDS else None
    return {
        name: Standing(
            on_front=not beats[:, number].any(),
            support=None if drawn is None else float(drawn[number]),
            beaten_by=tuple(names[other] for other in np.flatnonzero(beats[:, number])),
        )
        for number, name in enumerate(names)
    }


def _support(table: Array, seed: int) -> Array:
    """How often each choice is on the front when the seeds are drawn anew."""
    import numpy as np

    seeds = table.shape[1]
    picks = np.random.default_rng(seed).integers(0, seeds, size=(_DRAWS, seeds))
    drawn = _medians(table[:, picks].swapaxes(0, 1))
    return np.asarray(1 - _beats(drawn).any(axis=-2).mean(axis=0))


def _beats(medians: Array) -> Any:
    """[..., i, j]: whether choice i is at least as good as j in both measures and better in one."""
    one, other = medians[..., :, None, :], medians[..., None, :, :]
    return (one >= other).all(axis=-1) & (one > other).any(axis=-1)


def _medians(table: Array) -> Array:
    """The medians over the seeds (the last axis but one)."""
    import numpy as np

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a choice without any of these seeds
        return np.asarray(np.nanmedian(table, axis=-2))


def _known(pair: tuple[float, float]) -> bool:
    return all(value is not None and value == value and abs(value) != float("inf") for value in pair)
