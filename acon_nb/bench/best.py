"""The best choice of one situation, and whether it can be told from the next."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from acon_nb.bench.paired import ALPHA, MINIMUM_EFFECT, Beside, Sure, beside, judge
from acon_nb.bench.swap_rows import unranked

Values = Mapping[str, Mapping[int, float | None]]


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best choice.

    `names` are the one with the best median and all that cannot be told from it, by name; none where no choice ended
    well in every seed. `value` is the best median. `sure` says how the rest was told from them (tested, every seed), or
    why nothing was, when all of them are in `names`. `behind` is the best of the rest and `gap` that beside the best.
    `why` says why an order is not told that the numbers would give. `died` are the choices that ended badly in some
    seed: they are never the best.
    """

    names: tuple[str, ...]
    sure: Sure
    seeds: int
    value: float | None = None
    behind: str = ""
    gap: Beside | None = None
    why: str = ""
    died: tuple[str, ...] = ()


def best_of(
    values: Values,
    *,
    more_is_better: bool,
    clock: str,
    alpha: float = ALPHA,
    minimum_effect: float = MINIMUM_EFFECT,
) -> Best:
    """The best of the choices by their median; `values` has each seed's value, None for a guest that ended badly."""
    died = tuple(sorted(name for name, seeds in values.items() if any(value is None for value in seeds.values())))
    medians = {
        name: statistics.median([value for value in seeds.values() if value is not None])
        for name, seeds in values.items()
        if seeds and name not in died
    }
    seeds = max((len(seeds) for seeds in values.values()), default=0)
    if not medians:
        return Best(names=(), sure=Sure.NO_PAIRS, seeds=seeds, died=died)
    order = sorted(medians, key=lambda name: (-medians[name] if more_is_better else medians[name], name))
    first, others = order[0], order[1:]
    found = [
        beside(values[first], values[name], more_is_better=more_is_better, alpha=alpha, tests=len(others))
        for name in others
    ]
    judged = dict(zip(others, judge(found, alpha=alpha, minimum_effect=minimum_effect), strict=True))
    reasons = {name: unranked(first, name, clock) for name in others}
    tied = [name for name in others if not judged[name].sure.ranks or reasons[name]]
    rest = [name for name in others if name not in tied]
    return Best(
        names=(first, *tied),
        sure=_weakest([judged[name].sure for name in rest] or [judged[name].sure for name in tied], seeds),
        seeds=seeds,
        value=medians[first],
        behind=rest[0] if rest else "",
        gap=judged[rest[0]] if rest else None,
        why=next((reason for reason in reasons.values() if reason), ""),
        died=died,
    )


def _weakest(kinds: list[Sure], seeds: int) -> Sure:
    """The least of several; of a choice alone there is nothing to tell."""
    if not kinds:
        return Sure.FEW_SEEDS if seeds < 3 else Sure.NO_PAIRS
    order = list(Sure)
    return max(kinds, key=order.index)
