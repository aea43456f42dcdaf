"""Two choices in the same situation, paired by seed: the ratio with its interval, and how sure it is.

A seed is a replicate: the same seed gives both guests the same pages and the same accesses. A guest that ended badly
(out of memory, a hang) did no work to divide by: it has no ratio. It still counts, as the worst value, in Cliff's delta
and in the test, and it is counted in words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from acon_nb.bench import stats

ALPHA = 0.05
MINIMUM_EFFECT = 0.05
_LEAST_SEEDS = 3  # of fewer that agree nothing is said


class Sure(StrEnum):
    """How sure a difference is. Only the first two are grounds for a ranking."""

    TESTED = "tested"
    EVERY_SEED = "every seed"
    SMALL = "too small to matter"
    CANNOT_TELL = "cannot tell"
    FEW_SEEDS = "too few seeds"
    NO_PAIRS = "no pairs"

    @property
    def ranks(self) -> bool:
        """Whether the better of the two may be called so."""
        return self in (Sure.TESTED, Sure.EVERY_SEED)


@dataclass(frozen=True, kw_only=True)
class Beside:
    """One choice beside its baseline.

    `ratio` is the median over the `n` seeds in which both ended well, with its 95 % bootstrap interval (None without
    such a seed). `failed` and `failed_baseline` count seeds whose guest ended badly. `delta` is Cliff's (above 0: the
    other choice's values are the larger), `p` that of the test of `method`, `p_holm` adjusted by `judge`. `smallest_p`
    is what so many seeds can give at best.
    """

    n: int
    failed: int
    failed_baseline: int
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    delta: float = 0.0
    p: float | None = None
    smallest_p: float | None = None
    method: str = ""
    p_holm: float | None = None
    sure: Sure = Sure.NO_PAIRS

    @property
    def larger(self) -> bool:
        """Whether the other choice's values are the larger (failures are neither)."""
        return self.ratio is not None and self.ratio > 1


def beside(
    baseline: Mapping[int, float | None],
    other: Mapping[int, float | None],
    *,
    more_is_better: bool,
    alpha: float = ALPHA,
    tests: int = 1,
) -> Beside:
    """Two choices beside each other: the value of each seed, None for a guest that ended badly.

    Values must be above 0. Seeds that only one side has do not enter the ratio. The test is paired where so many seeds
    could be significant among `tests` comparisons, else unpaired, which needs fewer: the design says which, not the
    data. Errors: `ValueError` for a value that is not above 0.
    """
    if any(value is not None and not 0 < value < math.inf for side in (baseline, other) for value in side.values()):
        raise ValueError("a ratio needs positive values on both sides")
    common = sorted(set(baseline) & set(other))
    pairs = [(baseline[seed], other[seed]) for seed in common]
    ratios = [b / a for a, b in pairs if a is not None and b is not None]
    failed = [sum(value is None for value in side.values()) for side in (baseline, other)]
    said = Beside(n=len(ratios), failed_baseline=failed[0], failed=failed[1])
    if not baseline or not other:
        return said
    first, second = (_with_failures(side, baseline, other, more_is_better) for side in (baseline, other))
    said = replace(said, delta=stats.cliffs_delta(first, second))
    if ratios:
        ratio = stats.ratio_of_pairs(ratios)
        said = replace(said, ratio=ratio.ratio, low=ratio.low, high=ratio.high)
    if len(pairs) > 1 and stats.smallest_paired_p(len(pairs)) * tests <= alpha:
        test = stats.paired_test(_differences(pairs, more_is_better))
        return replace(said, p=test.p, smallest_p=test.smallest_p, method="paired by seed")
    if min(len(first), len(second)) < 2:
        return said
    test = stats.permutation_test(first, second)
    return replace(said, p=test.p, smallest_p=test.smallest_p, method="unpaired")


def judge(found: Sequence[Beside], *, alpha: float = ALPHA, minimum_effect: float = MINIMUM_EFFECT) -> list[Beside]:
    """The same, each with its p adjusted for all of them (Holm) and how sure it is.

    tested: the adjusted p is at most `alpha`. every seed: too few seeds for that, yet all of at least three went the
    same way and the two sides do not overlap. too small to matter: the whole interval is within `minimum_effect` of 1.
    """
    tests = [number for number, said in enumerate(found) if said.p is not None]
    adjusted: list[float | None] = [None] * len(found)
    for number, p in zip(tests, stats.holm([found[n].p or 0.0 for n in tests]), strict=True):
        adjusted[number] = p
    return [
        replace(said, p_holm=p, sure=_sure(said, p, len(tests), alpha, minimum_effect))
        for said, p in zip(found, adjusted, strict=True)
    ]


def share_text(ratio: float) -> str:
    """A ratio for people: "3.40 times", "0.81 times"."""
    return f"{ratio:.2f} times" if ratio < 100 else f"{ratio:,.0f} times"


def interval_text(said: Beside) -> str:
    """The ratio with its interval and seeds: "3.40 times [3.10, 3.62], n=5"."""
    if said.ratio is None or said.low is None or said.high is None:
        return "no seed in which both ended well"
    if said.n == 1:
        return f"{share_text(said.ratio)}, n=1"
    return f"{share_text(said.ratio)} [{said.low:.2f}, {said.high:.2f}], n={said.n}"


def sure_text(said: Beside) -> str:
    """How sure it is, in words."""
    p = "" if said.p_holm is None else f"p={said.p_holm:.2g} after Holm, {said.method}"
    if said.sure is Sure.TESTED:
        return f"sure ({p})"
    if said.sure is Sure.EVERY_SEED:
        seeds = said.n + max(said.failed, said.failed_baseline)
        return f"the same way in all {seeds} seeds, which are too few for a test"
    if said.sure is Sure.FEW_SEEDS:
        seeds = said.n + max(said.failed, said.failed_baseline)
        return "one seed: nothing is known of the spread" if seeds < 2 else "two seeds are too few to tell"
    if said.sure is Sure.SMALL:
        return "too small to matter"
    if said.sure is Sure.CANNOT_TELL:
        return f"cannot tell ({p})" if p else "cannot tell: too few seeds"
    return "cannot tell: no seed in which both ended well"


def _sure(said: Beside, p: float | None, tests: int, alpha: float, minimum_effect: float) -> Sure:
    broken = said.failed + said.failed_baseline
    if said.ratio is not None and not broken and max(said.high or 0, 1 / (said.low or 1)) - 1 <= minimum_effect:
        return Sure.SMALL if said.n >= _LEAST_SEEDS else Sure.FEW_SEEDS
    seeds = said.n + max(said.failed, said.failed_baseline)
    if seeds == 0:
        return Sure.NO_PAIRS
    if seeds < _LEAST_SEEDS:
        return Sure.FEW_SEEDS
    if p is not None and p <= alpha:
        return Sure.TESTED
    too_few = said.smallest_p is not None and said.smallest_p * max(tests, 1) > alpha
    if seeds >= _LEAST_SEEDS and too_few and abs(said.delta) == 1:
        return Sure.EVERY_SEED
    return Sure.CANNOT_TELL


def _with_failures(
    side: Mapping[int, float | None],
    one: Mapping[int, float | None],
    other: Mapping[int, float | None],
    more_is_better: bool,
) -> list[float]:
    """The values, a failure being worse than all that either side has."""
    values = [value for table in (one, other) for value in table.values() if value is not None]
    worst = 0.0 if more_is_better else 2 * max(values, default=1.0)
    return [worst if side[seed] is None else float(side[seed] or 0) for seed in sorted(side)]


def _differences(pairs: Sequence[tuple[float | None, float | None]], more_is_better: bool) -> list[float]:
    """The logarithms of the ratios; a seed in which one side failed is farther out than all others."""
    known = [math.log(b / a) for a, b in pairs if a is not None and b is not None]
    far = 1.0 + 2 * max((abs(value) for value in known), default=0.0)
    worse = -far if more_is_better else far
    found = []
    for a, b in pairs:
        if a is None or b is None:
            found.append(0.0 if a is None and b is None else worse if b is None else -worse)
        else:
            found.append(math.log(b / a))
    return found
