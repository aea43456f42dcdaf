"""Numbers in, numbers out: medians and their intervals, tests of a difference, effect sizes (docs/statistics.md).

All of it is exact where the sample is small enough to try every arrangement, and repeatable where it draws at random
(fixed seeds): the same numbers give the same answer.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[np.float64]]

_ALL_ARRANGEMENTS = 20_000  # up to so many are all tried; of more, RESAMPLES are drawn
RESAMPLES = 9_999
_BOOTSTRAPS = 2_000


@dataclass(frozen=True)
class Summary:
    """The median of `n` runs, and its 95 % bootstrap interval (BCa). `exact`: all runs gave the same number."""

    n: int
    median: float
    low: float
    high: float
    exact: bool

    def text(self, scale: float, unit: str, digits: int = 3) -> str:
        """The summary for people: "1.234 s [1.200, 1.260], n=5", values divided by `scale`."""
        value = f"{self.median / scale:.{digits}f} {unit}"
        if self.n < 2:
            return f"{value}, n=1"
        if self.exact:
            return f"{value}, the same in all {self.n} runs"
        return f"{value} [{self.low / scale:.{digits}f}, {self.high / scale:.{digits}f}], n={self.n}"


@dataclass(frozen=True)
class Ratio:
    """How many times the baseline's median the other one is, and its 95 % bootstrap interval (BCa)."""

    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class Significance:
    """A permutation test: `p` of two sides, the `smallest_p` that this many runs can give, and whether all
    arrangements were tried (`exact`) or some drawn."""

    p: float
    smallest_p: float
    exact: bool


def summarise(values: Sequence[float], *, seed: int = 0) -> Summary:
    """Median and interval of a sample; one value, or equal ones, give an interval of no width."""
    import numpy as np

    sample = np.asarray(list(values), dtype=float)
    if sample.size == 0:
        raise ValueError("no values to summarise")
    median = float(np.median(sample))
    exact = bool(np.all(sample == sample[0]))
    if sample.size < 3 or exact:
        return Summary(int(sample.size), median, float(sample.min()), float(sample.max()), exact and sample.size > 1)
    low, high = _interval((sample,), np.median, seed)
    if not (math.isfinite(low) and math.isfinite(high)):  # BCa is undefined for some tiny samples
        low, high = float(sample.min()), float(sample.max())
    return Summary(int(sample.size), median, low, high, False)


def median(values: Sequence[float]) -> float:
    """The median of some values (the mean of the middle two), without numpy's array for each."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return float(ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2)


def permutation_test(first: Sequence[float], second: Sequence[float], *, seed: int = 0) -> Significance:
    """Whether two samples differ in their medians: by how many ways of dealing out the values they would as much.

    Of arrangements with the same difference of medians the one with the larger rank sum counts as the larger:
    without that, medians of few runs tie so often that no result would be significant.
    """
    import numpy as np
    from scipy.stats import rankdata

    a, b = (np.asarray(list(values), dtype=float) for values in (first, second))
    if not a.size or not b.size:
        raise ValueError("no values to compare")
    pool, size = np.concatenate([a, b]), a.size
    deals = math.comb(pool.size, size)
    order = _deals(pool.size, size) if deals <= _ALL_ARRANGEMENTS else _drawn_deals(pool.size, seed)
    dealt = pool[order]
    medians = np.abs(np.median(dealt[:, size:], axis=1) - np.median(dealt[:, :size], axis=1))
    ranks = rankdata(pool)[order][:, :size].sum(axis=1)
    return _test(medians, np.abs(ranks - size * (pool.size + 1) / 2), deals)


def paired_test(differences: Sequence[float], *, seed: int = 0) -> Significance:
    """Whether paired differences (one a block) are not about zero: by all changes of their signs.

    The statistic is the signed rank sum, ties broken by the median: the median alone hardly moves under such changes.
    """
    import numpy as np
    from scipy.stats import rankdata

    pairs = np.asarray(list(differences), dtype=float)
    if not pairs.size:
        raise ValueError("no pairs to compare")
    flips = 2**pairs.size
    if flips <= _ALL_ARRANGEMENTS:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=pairs.size)))
    else:
        signs = _drawn_signs(pairs.size, seed)
    medians = np.abs(np.median(signs * pairs, axis=1))
    ranks = np.abs((signs * np.sign(pairs) * rankdata(np.abs(pairs))).sum(axis=1))
    return _test(ranks, medians, flips)


def smallest_p(first: int, second: int) -> float:
    """The smallest p that `permutation_test` can give for samples of these sizes."""
    return _least(math.comb(first + second, first))


def smallest_paired_p(pairs: int) -> float:
    """The smallest p that `paired_test` can give for so many pairs."""
    return _least(2**pairs)


def ratio_of_medians(baseline: Sequence[float], other: Sequence[float], *, seed: int = 0) -> Ratio:
    """The other's median over the baseline's, with its interval; the values must be positive.

    With fewer than three values on a side the interval is all that the values allow.
    """
    import numpy as np

    a, b = (np.asarray(list(values), dtype=float) for values in (baseline, other))
    if not a.size or not b.size or min(a.min(), b.min()) <= 0:
        raise ValueError("a ratio needs positive values on both sides")
    ratio = float(np.median(b) / np.median(a))
    widest = Ratio(ratio, float(b.min() / a.max()), float(b.max() / a.min()))
    if min(a.size, b.size) < 3 or widest.low == widest.high:
        return widest

    def statistic(x: Array, y: Array, axis: int = -1) -> Array:
        return np.asarray(np.median(y, axis=axis) / np.median(x, axis=axis))

    low, high = _interval((a, b), statistic, seed)
    return Ratio(ratio, low, high) if math.isfinite(low) and math.isfinite(high) else widest


def ratio_of_pairs(ratios: Sequence[float], *, seed: int = 0) -> Ratio:
    """The median of the ratios of pairs (one a block), with its interval."""
    summary = summarise(ratios, seed=seed)
    return Ratio(summary.median, summary.low, summary.high)


def cliffs_delta(baseline: Sequence[float], other: Sequence[float]) -> float:
    """How often a value of the other side is the larger one, less how often the smaller: from -1 to 1 (Cliff 1993)."""
    import numpy as np

    a, b = (np.asarray(list(values), dtype=float) for values in (baseline, other))
    return float(np.sign(b[:, None] - a[None, :]).mean())


def holm(p_values: Sequence[float]) -> list[float]:
    """The p of several comparisons, adjusted so that they may be read side by side (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda number: p_values[number])
    adjusted = [0.0] * len(p_values)
    worst = 0.0
    for place, number in enumerate(order):
        worst = max(worst, min(1.0, (len(p_values) - place) * p_values[number]))
        adjusted[number] = worst
    return adjusted


def spread(values: Sequence[float]) -> float:
    """The coefficient of variation, from the median absolute deviation: outliers do not count for more than others."""
    import numpy as np

    sample = np.asarray(list(values), dtype=float)
    median = float(np.median(sample))
    return 1.4826 * float(np.median(np.abs(sample - median))) / abs(median) if median else math.inf


def required_runs(cv: float, effect: float, *, alpha: float = 0.01, power: float = 0.8, paired: bool = False) -> int:
    """The runs a side (or pairs) that find a difference of the share `effect` with the chance `power`.

    `cv` is the spread of the runs (or of the pairs' ratios) as a share of the median. Normal approximation with the
    5 % that rank tests need more (pi/3); never fewer than can reach `alpha` at all.
    """
    from scipy.stats import norm

    if effect <= 0 or not math.isfinite(cv):
        raise ValueError("a number of runs needs an effect above 0 and a known spread")
    quantiles = float(norm.isf(alpha / 2) + norm.ppf(power))
    runs = math.ceil((1 if paired else 2) * math.pi / 3 * (quantiles * cv / effect) ** 2)
    least = next(n for n in itertools.count(2) if (smallest_paired_p(n) if paired else smallest_p(n, n)) <= alpha)
    return max(runs, least)


def _interval(samples: Sequence[Array], statistic: Callable[..., Any], seed: int) -> tuple[float, float]:
    import numpy as np
    from scipy.stats import bootstrap

    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ties in a small sample: BCa then gives nan, which the caller handles
        rng = np.random.default_rng(seed)
        result = bootstrap(tuple(samples), statistic, vectorized=True, rng=rng, n_resamples=_BOOTSTRAPS)
    low, high = (float(number) for number in result.confidence_interval)
    return low, high


@lru_cache(maxsize=8)
def _deals(size: int, first: int) -> Any:
    """All ways to deal out `size` places: rows of places, those of the first hand before the other's."""
    import numpy as np

    hands = np.array(list(itertools.combinations(range(size), first)))
    others = np.ones((len(hands), size), dtype=bool)
    np.put_along_axis(others, hands, False, axis=1)
    return np.hstack([hands, np.nonzero(others)[1].reshape(len(hands), size - first)])


@lru_cache(maxsize=8)
def _drawn_signs(size: int, seed: int) -> Any:
    import numpy as np

    drawn = np.random.default_rng(seed).choice((1.0, -1.0), size=(RESAMPLES, size))
    return np.vstack([np.ones(size), drawn])


@lru_cache(maxsize=8)
def _drawn_deals(size: int, seed: int) -> Any:
    import numpy as np

    drawn = np.argsort(np.random.default_rng(seed).random((RESAMPLES, size)), axis=1)
    return np.vstack([np.arange(size), drawn])


def _test(statistic: Array, ties: Array, arrangements: int) -> Significance:
    """The share of arrangements that are as far out as the first one, which is the observed."""
    import numpy as np

    close = np.isclose(statistic, statistic[0], rtol=1e-9, atol=0)
    beyond = (statistic > statistic[0]) & ~close | close & (ties >= ties[0] - 1e-9)
    return Significance(float(beyond.mean()), _least(arrangements), arrangements <= _ALL_ARRANGEMENTS)


def _least(arrangements: int) -> float:
    """The smallest p: the observed arrangement and its mirror image are always among those as far out."""
    return min(1.0, 2 / arrangements) if arrangements <= _ALL_ARRANGEMENTS else 1 / (RESAMPLES + 1)
