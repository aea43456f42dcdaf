"""Numbers in, numbers out: medians and their intervals, tests of a difference, effect sizes (docs/statistics.md).

The tests and intervals are scipy's. They are exact where a sample is small enough to try every arrangement, and
repeatable where they draw at random (fixed seeds): the same numbers give the same answer.
"""

from __future__ import annotations

import itertools
import math
import statistics
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from acon_nb.stats.intervals import LARGE, LEAST_FOR_BOOTSTRAP, Interval, interval_words

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[np.float64]]

ALPHA = 0.05  # of all comparisons of one call together
_ALL_ARRANGEMENTS = 20_000  # up to this number, all are tried
_BOOTSTRAPS = 2_000
_FEW_PAIRS = 400


@dataclass(frozen=True)
class Summary:
    """The median of `n` runs, and its interval, of the kind `interval`. `exact`: all runs gave the same number."""

    n: int
    median: float
    low: float
    high: float
    exact: bool

    @property
    def interval(self) -> Interval:
        """What `low` and `high` are."""
        return Interval.of(self.n)

    def text(self, scale: float, unit: str, digits: int = 3) -> str:
        """Format the summary: "1.234 s [1.200, 1.260] (range of 3 runs)", values divided by `scale`."""
        value = f"{self.median / scale:.{digits}f} {unit}"
        if self.n < 2:
            return f"{value} (1 run)"
        if self.exact:
            return f"{value}, the same in all {self.n} runs"
        interval = f"[{self.low / scale:.{digits}f}, {self.high / scale:.{digits}f}]"
        return f"{value} {interval} ({interval_words(self.n, 'run')})"


@dataclass(frozen=True)
class Ratio:
    """How many times the baseline's median the other one is, and its interval."""

    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class Significance:
    """A two-sided test: `p`, the `smallest_p` that so many values can give, and whether `p` is exact or approximate."""

    p: float
    smallest_p: float
    exact: bool


def summarise(values: Sequence[float], *, seed: int = 0) -> Summary:
    """Return median and interval of a sample; the interval of one value, or of equal ones, has no width.

    The interval is the range of up to 4 values, a bootstrap interval (BCa) of up to 200, else from order statistics.
    Errors: `ValueError` for no values.
    """
    if not len(values):
        raise ValueError("no values to summarise")
    return _summary(tuple(map(float, values)), seed)


@lru_cache(maxsize=1024)
def _summary(values: tuple[float, ...], seed: int) -> Summary:
    """Summarise, cached: several tables of a study need the same summary."""
    import numpy as np

    sample = np.asarray(values)
    middle, least, most = float(np.median(sample)), float(sample.min()), float(sample.max())
    exact = least == most
    if sample.size < LEAST_FOR_BOOTSTRAP or exact:
        return Summary(int(sample.size), middle, least, most, exact and sample.size > 1)
    low, high = _median_interval(sample, seed)
    return Summary(int(sample.size), middle, low, high, False)


def median(values: Sequence[float]) -> float:
    """Return the median of a sample: the mean of the middle two values for an even number of them.

    For short lists of plain numbers, where numpy's `median` costs more than it saves.
    Errors: `ValueError` for no values.
    """
    return float(statistics.median(values))


def medians_of_columns(table: Array) -> Array:
    """Return the medians along the last axis but one without nan values; nan where a column has nothing else."""
    import numpy as np

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column of nan: its median is nan, as intended
        return np.asarray(np.nanmedian(table, axis=-2))


def unpaired_test(first: Sequence[float], second: Sequence[float]) -> Significance:
    """Test whether two samples differ in their medians.

    All arrangements are tried if there are at most 20,000 (8 and 8 values): the statistic is the difference of medians;
    equal ones are ordered by the rank sum. Larger samples use only the rank sum, with its normal approximation
    (Mann and Whitney). docs/statistics.md compares the two. Errors: `ValueError` for no values.
    """
    if not len(first) or not len(second):
        raise ValueError("no values to compare")
    return _unpaired(tuple(map(float, first)), tuple(map(float, second)))


@lru_cache(maxsize=1024)
def _unpaired(first: tuple[float, ...], second: tuple[float, ...]) -> Significance:
    from scipy import stats

    least = smallest_p(len(first), len(second))
    if _arrangements(len(first), len(second)) > _ALL_ARRANGEMENTS:
        p = float(stats.mannwhitneyu(first, second, method="asymptotic").pvalue)
        return Significance(max(least, p), least, exact=False)
    statistic = _medians_then_ranks([*first, *second])
    if 1 in (len(first), len(second)):
        return Significance(_p_of_one(first, second, statistic), least, exact=True)
    tested = stats.permutation_test(
        (first, second), statistic, vectorized=True, alternative="greater", n_resamples=_ALL_ARRANGEMENTS
    )
    return Significance(float(tested.pvalue), least, exact=True)


def _p_of_one(first: Sequence[float], second: Sequence[float], statistic: Callable[..., Array]) -> float:
    """Return the p of all arrangements if one sample is a single value, which scipy refuses: it may be any value."""
    import numpy as np

    pool = np.asarray([*first, *second])
    others = np.asarray([np.delete(pool, index) for index in range(len(pool))])
    dealt = statistic(pool[:, None], others) if len(first) == 1 else statistic(others, pool[:, None])
    return float(np.mean(dealt >= statistic(np.asarray(first), np.asarray(second))))


def _medians_then_ranks(pool: Sequence[float]) -> Callable[..., Array]:
    """Return a statistic of two samples from `pool`: the distance of their medians (9 digits), then of their ranks.

    Medians of few values are often equal: alone they hardly ever give a small p.
    """
    import numpy as np
    from scipy.stats import rankdata

    values = np.asarray(pool)
    order = np.argsort(values)
    ranks, ordered = rankdata(values)[order], values[order]
    unit = (ordered[-1] - ordered[0]) / 1e9 or 1.0

    def statistic(one: Array, other: Array, axis: int = -1) -> Array:
        apart = np.rint(np.abs(np.median(other, axis=axis) - np.median(one, axis=axis)) / unit)
        sums = ranks[np.searchsorted(ordered, one)].sum(axis=axis)
        expected = one.shape[axis] * (values.size + 1) / 2
        return np.asarray(apart * values.size**2 + np.abs(sums - expected))

    return statistic


def paired_test(differences: Sequence[float]) -> Significance:
    """Test whether paired differences (one per block or seed) are centred at zero: Wilcoxon's signed-rank test.

    Differences of zero keep their ranks (Pratt). Exact up to 50 pairs without ties, and up to 14 with ties.
    Errors: `ValueError` for no pairs.
    """
    if not len(differences):
        raise ValueError("no pairs to compare")
    return _paired(tuple(map(float, differences)))


@lru_cache(maxsize=1024)
def _paired(differences: tuple[float, ...]) -> Significance:
    import numpy as np
    from scipy import stats

    pairs, least = np.asarray(differences), smallest_paired_p(len(differences))
    if not pairs.any():
        return Significance(1.0, least, exact=True)
    is_tied = 0 in differences or len(set(np.abs(pairs))) < pairs.size
    if is_tied and 2.0**pairs.size <= _ALL_ARRANGEMENTS:
        # scipy's wilcoxon does the same for ties, one arrangement after another: 1.3 s for 13 pairs.
        tested = stats.permutation_test(
            (pairs,), _signed_ranks, vectorized=True, permutation_type="samples", n_resamples=_ALL_ARRANGEMENTS
        )
        return Significance(float(tested.pvalue), least, exact=True)
    p = float(stats.wilcoxon(pairs, zero_method="pratt").pvalue)
    return Significance(max(least, p), least, exact=not is_tied and pairs.size <= 50)


def _signed_ranks(pairs: Array, axis: int = -1) -> Array:
    import numpy as np
    from scipy.stats import rankdata

    return np.asarray((np.sign(pairs) * rankdata(np.abs(pairs), axis=axis)).sum(axis=axis))


def t_test_p(mean: float, deviation: float, n: int) -> float:
    """Return the two-sided p of a t test of `n` differences against 0; 1 for fewer than two."""
    from scipy.special import stdtr

    if n < 2 or mean == 0:
        return 1.0
    return float(2 * stdtr(n - 1, -abs(mean) * math.sqrt(n) / deviation)) if deviation > 0 else 0.0


@lru_cache(maxsize=256)
def t_quantile(share: float, n: int) -> float:
    """Return the quantile of Student's t for `n` differences."""
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, share))


@lru_cache(maxsize=256)
def most_false(trials: int, *, level: float = ALPHA, confidence: float = 0.95) -> int:
    """Return the most false alarms in `trials` that a test of `level` explains: more has a chance below 1 - confidence.

    This alone decides when a check of false alarms fails: 15 of 200 pass, 62 of 1,000, 116 of 2,000 (binomial).
    """
    from scipy.stats import binom

    return int(binom.ppf(confidence, trials, level))


def smallest_p(first: int, second: int) -> float:
    """Return the smallest p that `unpaired_test` can give for samples of these sizes."""
    return min(1.0, 2 / _arrangements(first, second))


def smallest_paired_p(pairs: int) -> float:
    """Return the smallest p that `paired_test` can give for this number of pairs."""
    return min(1.0, 2.0 ** (1 - pairs))


def _arrangements(first: int, second: int) -> float:
    """Return the number of ways to divide the values into two samples; infinite if it would be huge."""
    return math.inf if min(first, second) > 100 else math.comb(first + second, first)


def ratio_of_medians(baseline: Sequence[float], other: Sequence[float], *, seed: int = 0) -> Ratio:
    """Return the other's median over the baseline's, with its interval; the values must be positive.

    With fewer than five values on a side the interval is all that the values allow: from the smallest of one side over
    the largest of the other to the reverse.
    """
    import numpy as np

    a, b = (np.asarray(list(values), dtype=float) for values in (baseline, other))
    if not a.size or not b.size or min(a.min(), b.min()) <= 0:
        raise ValueError("a ratio needs positive values on both sides")
    ratio = float(np.median(b) / np.median(a))
    widest = Ratio(ratio, float(b.min() / a.max()), float(b.max() / a.min()))
    if min(a.size, b.size) < LEAST_FOR_BOOTSTRAP or widest.low == widest.high:
        return widest
    if max(a.size, b.size) > LARGE:
        return _ratio_of_large(a, b, seed)

    def statistic(x: Array, y: Array, axis: int = -1) -> Array:
        return np.asarray(np.median(y, axis=axis) / np.median(x, axis=axis))

    low, high = _interval((a, b), statistic, seed)
    return Ratio(ratio, low, high) if math.isfinite(low) and math.isfinite(high) else widest


def _ratio_of_large(first: Array, second: Array, seed: int) -> Ratio:
    """Return the ratio of medians, with its interval from those of the two medians (Donner and Zou 2012)."""
    import numpy as np

    logs = [np.log(sample) for sample in (first, second)]
    (one, one_low, one_high), (two, two_low, two_high) = (
        (float(np.median(sample)), *_median_interval(sample, seed)) for sample in logs
    )
    apart = two - one
    low = apart - math.hypot(two - two_low, one_high - one)
    high = apart + math.hypot(two_high - two, one - one_low)
    return Ratio(float(np.median(second) / np.median(first)), math.exp(low), math.exp(high))


def ratio_of_pairs(ratios: Sequence[float], *, seed: int = 0) -> Ratio:
    """Return the median of the ratios of pairs (one per block), with its interval."""
    summary = summarise(ratios, seed=seed)
    return Ratio(summary.median, summary.low, summary.high)


def cliffs_delta(baseline: Sequence[float], other: Sequence[float]) -> float:
    """Return how often a value of the other side is larger, minus how often it is smaller: -1 to 1 (Cliff 1993)."""
    size, all_pairs = len(other), len(baseline) * len(other)
    if all_pairs <= _FEW_PAIRS:  # for a few seeds ranking takes longer than counting
        return sum((b > a) - (b < a) for a in baseline for b in other) / all_pairs
    from scipy.stats import rankdata

    ranks = rankdata([*baseline, *other])[len(baseline) :].sum()
    return float((2 * ranks - size * (size + 1) - all_pairs) / all_pairs)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p of several comparisons, adjusted so that they can be read together (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda number: p_values[number])
    adjusted = [0.0] * len(p_values)
    worst = 0.0
    for rank, number in enumerate(order):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[number]))
        adjusted[number] = worst
    return adjusted


def spread(values: Sequence[float]) -> float:
    """Return the coefficient of variation from the median absolute deviation, which is robust to outliers."""
    import numpy as np

    sample = np.asarray(list(values), dtype=float)
    median = float(np.median(sample))
    return 1.4826 * float(np.median(np.abs(sample - median))) / abs(median) if median else math.inf


def required_runs(cv: float, effect: float, *, alpha: float = ALPHA, power: float = 0.8, paired: bool = False) -> int:
    """Return the runs per side (or the pairs) that find a difference of the share `effect` with probability `power`.

    `cv` is the spread of the runs (or of the pairs' ratios) as a share of the median. Normal approximation plus
    the 5 % more that rank tests need (pi/3); never fewer than can reach `alpha`.
    """
    from scipy.stats import norm

    if effect <= 0 or not math.isfinite(cv):
        raise ValueError("a number of runs needs an effect above 0 and a known spread")
    quantiles = float(norm.isf(alpha / 2) + norm.ppf(power))
    runs = math.ceil((1 if paired else 2) * math.pi / 3 * (quantiles * cv / effect) ** 2)
    least = next(n for n in itertools.count(2) if (smallest_paired_p(n) if paired else smallest_p(n, n)) <= alpha)
    return max(runs, least)


def _median_interval(sample: Array, seed: int) -> tuple[float, float]:
    """Return the 95 % interval of a median."""
    import numpy as np

    if sample.size > LARGE:
        from scipy.stats import quantile_test

        bounds: Any = quantile_test(sample, p=0.5).confidence_interval(0.95)
        low, high = bounds.low, bounds.high
    else:
        low, high = _interval((sample,), np.median, seed)
        if not (math.isfinite(low) and math.isfinite(high)):  # BCa is undefined for some tiny samples
            low, high = sample.min(), sample.max()
    return float(low), float(high)


def _interval(samples: Sequence[Array], statistic: Callable[..., Any], seed: int) -> tuple[float, float]:
    import numpy as np
    from scipy.stats import bootstrap

    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ties in a small sample: BCa then gives nan, which the caller handles
        rng = np.random.default_rng(seed)
        result = bootstrap(tuple(samples), statistic, vectorized=True, rng=rng, n_resamples=_BOOTSTRAPS)
    low, high = (float(number) for number in result.confidence_interval)
    return low, high
