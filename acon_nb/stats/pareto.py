"""The Pareto front of choices by two measures, and how sure it is that a choice is on it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from acon_nb.stats.inference import medians_of_columns

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[np.float64]]

_Name = TypeVar("_Name", bound=Hashable)
_DRAWS = 1_000
_LEAST_SEEDS = 3


@dataclass(frozen=True, kw_only=True)
class Standing:
    """The position of one choice: `on_front` is by the medians, `support` the share of resampled studies with it on the
    front (None with fewer than three seeds), `beaten_by` those at least as good in both measures and better in one."""

    on_front: bool
    support: float | None
    beaten_by: tuple[Any, ...]


def front(points: Mapping[_Name, Mapping[int, tuple[float, float]]], *, seed: int = 0) -> dict[_Name, Standing]:
    """Return the standing of each choice, from two values per seed; larger values are better.

    Seeds are resampled for all choices together, since they share the data. Choices of equal medians have
    the same standing. A value that is not known (nan) excludes its seed from that choice.
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
    medians = medians_of_columns(table)
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
    """Return the share of resampled studies in which each choice is on the front."""
    import numpy as np

    seeds = table.shape[1]
    picks = np.random.default_rng(seed).integers(0, seeds, size=(_DRAWS, seeds))
    drawn = medians_of_columns(table[:, picks].swapaxes(0, 1))
    return np.asarray(1 - _beats(drawn).any(axis=-2).mean(axis=0))


def _beats(medians: Array) -> Any:
    """Return for [..., i, j] whether choice i is at least as good as j in both measures and better in one."""
    one, other = medians[..., :, None, :], medians[..., None, :, :]
    return (one >= other).all(axis=-1) & (one > other).any(axis=-1)


def _known(pair: tuple[float, float]) -> bool:
    return all(value is not None and value == value and abs(value) != float("inf") for value in pair)
