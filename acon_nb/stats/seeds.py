"""Compares choices seed by seed; this module alone decides whether one of two is called better.

A seed gives every choice the same pages and accesses, so the ratios within a seed count. The test is a paired t test
of their logarithms, the only one possible with few seeds: no test by signs or ranks gets below 0.25 with three. All
comparisons that may be ranked in a study are judged together. `bench selfcheck --swap` runs studies of equal choices
through this module; docs/statistics.md has the results, by kind of noise.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

from acon_nb.stats import inference
from acon_nb.stats.comparison import Comparison, Evidence, Method, Replicate, Verdict, ratio_text
from acon_nb.stats.inference import ALPHA
from acon_nb.stats.intervals import count_text, interval_words

Seeds = Mapping[int, float | None]  # the value of each seed; None: its guest ended badly
LEAST_SEEDS = 3  # fewer rank nothing
# With fewer, a pair is taken to spread no less than the median pair of its family: three or four ratios may agree by
# chance, as they do where a guest falls into one of two regimes (docs/statistics.md has the rates without this rule).
_SPREAD_IS_SHARED_BELOW = 5


def compare_seeds(baseline: Seeds, other: Seeds, *, more_is_better: bool, minimum_effect: float) -> Comparison:
    """Compare the seeds of two choices; `judge_seeds` adds the verdict.

    Seeds that only one side has do not enter. If a guest of a common seed ended badly, the test is one of signed ranks,
    in which that seed has the largest rank. Errors: `ValueError` for a value that is not above 0.
    """
    values = [*baseline.values(), *other.values()]
    if not all(value is None or 0 < value < math.inf for value in values):
        raise ValueError("a ratio needs positive values on both sides")
    pairs = [(baseline[seed], other[seed]) for seed in sorted(set(baseline) & set(other))]
    ratios = [b / a for a, b in pairs if a is not None and b is not None]
    sides = [[value for value in side.values() if value is not None] for side in (baseline, other)]
    medians = [inference.median(values) if values else None for values in sides]
    delta = None
    if baseline and other:
        first, second = (_with_failures(side, baseline, other, more_is_better) for side in (baseline, other))
        delta = inference.cliffs_delta(first, second)
    ranks, (mean, deviation) = None, _moments([math.log(ratio) for ratio in ratios])
    method = Method.NONE if deviation is None else Method.PAIRED_T
    if len(ratios) < len(pairs):
        method, ranks = Method.PAIRED_RANKS, inference.paired_test(_differences(pairs, more_is_better))
    return Comparison(
        replicate=Replicate.SEED, n_baseline=len(sides[0]), n=len(sides[1]), pairs=len(ratios),
        failed_baseline=len(baseline) - len(sides[0]), failed=len(other) - len(sides[1]),
        more_is_better=more_is_better, minimum_effect=minimum_effect, baseline_median=medians[0], median=medians[1],
        ratio=inference.median(ratios) if ratios else None, ratios=tuple(ratios), cliffs_delta=delta, method=method,
        log_mean=mean, log_deviation=deviation, p=ranks.p if ranks else None,
        smallest_p=ranks.smallest_p if ranks else 0.0,
    )  # fmt: skip


def judge_seeds(comparisons: Sequence[Comparison], *, alpha: float = ALPHA, part: float = 1.0) -> list[Comparison]:
    """Return comparisons of seeds, each with its verdict and with its p adjusted for all of them (Holm).

    `part` is the share of `alpha` of this family of comparisons, if a study has several: each p is divided by it, so
    that all are compared with the same `alpha`. Better or worse: the adjusted p is at most `alpha`, and the ratio is
    at least the minimum effect away from 1. No change: the whole 95 % interval of the t test is within the minimum
    effect. A test that so few seeds cannot make significant does not count among the others.
    """
    deviations = [one.log_deviation for one in comparisons if one.log_deviation is not None]
    least = statistics.median(deviations) if deviations else 0.0
    tests = [_p(comparison, least) for comparison in comparisons]
    members = [
        number
        for number, (p, one) in enumerate(zip(tests, comparisons, strict=True))
        if p is not None and (one.smallest_p or 0) <= alpha * part
    ]
    adjusted = inference.holm([tests[number] or 0.0 for number in members])
    p_holm = {number: min(1.0, p / part) for number, p in zip(members, adjusted, strict=True)}
    judged = []
    for number, (one, p) in enumerate(zip(comparisons, tests, strict=True)):
        mine = p_holm.get(number)
        verdict = _verdict(one, mine is not None and mine <= alpha)
        evidence = Evidence.TESTED if verdict.ranks or verdict is Verdict.BELOW_MINIMUM else Evidence.NONE
        judged.append(replace(one, p=p, p_holm=mine, family=len(members), verdict=verdict, evidence=evidence))
    return judged


def interval_text(comparison: Comparison) -> str:
    """Format the ratio with its interval, and the kind of that: "3.40 times [3.10, 3.62] (range of 3 seeds)"."""
    spanned = comparison.with_interval()
    ratio, low, high = spanned.ratio, spanned.ratio_low, spanned.ratio_high
    if ratio is None or low is None or high is None:
        return "no seed in which both ended well"
    interval = "" if spanned.pairs == 1 else f" [{low:.2f}, {high:.2f}]"
    return f"{ratio_text(ratio)}{interval} ({interval_words(spanned.pairs)})"


def verdict_text(comparison: Comparison) -> str:
    """Describe how sure a comparison is: "significant (p=0.031 after Holm, ...)"."""
    p, seeds = comparison.p_holm, comparison.seeds
    together = f" over {comparison.family} comparisons" if comparison.family > 1 else ""
    numbers = "" if p is None else f"p={p:.2g} after Holm{together}, {comparison.method.text}"
    if comparison.verdict.ranks:
        return f"significant ({numbers})"
    if comparison.verdict is Verdict.TOO_FEW_SEEDS:
        return f"too few seeds to rank: {seeds}, and {LEAST_SEEDS} are needed"
    if comparison.verdict is Verdict.UNSURE:
        return f"undecided ({numbers})" if numbers else f"undecided: {count_text(seeds)} cannot show such a difference"
    if comparison.verdict is Verdict.NO_VALUES:
        return "undecided: no seed in which both ended well"
    return comparison.verdict.text


def _moments(logs: Sequence[float]) -> tuple[float | None, float | None]:
    """Return mean and standard deviation; None if there are too few values."""
    if not logs:
        return None, None
    mean = math.fsum(logs) / len(logs)
    if len(logs) < 2:
        return mean, None
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in logs) / (len(logs) - 1))


def _p(comparison: Comparison, least_deviation: float) -> float | None:
    """Return the p of a comparison, with a spread of few seeds of at least `least_deviation`; None without a test."""
    mean, deviation, n = comparison.log_mean, comparison.log_deviation, comparison.pairs
    if comparison.method is not Method.PAIRED_T or mean is None or deviation is None or n < LEAST_SEEDS:
        return comparison.p
    if n < _SPREAD_IS_SHARED_BELOW:
        deviation = max(deviation, least_deviation)
    return inference.t_test_p(mean, deviation, n)


def _verdict(comparison: Comparison, is_real: bool) -> Verdict:
    if comparison.seeds < LEAST_SEEDS:
        return Verdict.TOO_FEW_SEEDS if comparison.seeds else Verdict.NO_VALUES
    if comparison.failed or comparison.failed_baseline:
        return comparison.direction if is_real else Verdict.UNSURE
    if _is_within(comparison):
        return Verdict.BELOW_MINIMUM if is_real else Verdict.NO_CHANGE
    if not is_real:
        return Verdict.UNSURE
    ratio = comparison.ratio or 1.0
    agrees = (ratio > 1) == ((comparison.log_mean or 0.0) > 0)
    is_beyond = abs(ratio - 1) >= comparison.minimum_effect
    return comparison.direction if is_beyond and agrees else Verdict.BELOW_MINIMUM


def _is_within(comparison: Comparison) -> bool:
    """Whether the 95 % interval that goes with the t test is within the minimum effect."""
    mean, deviation, n = comparison.log_mean, comparison.log_deviation, comparison.pairs
    if mean is None or deviation is None or n < LEAST_SEEDS:
        return False
    half = inference.t_quantile(0.975, n) * deviation / math.sqrt(n)
    return max(math.exp(mean + half) - 1, 1 - math.exp(mean - half)) < comparison.minimum_effect


def _with_failures(side: Seeds, one: Seeds, other: Seeds, more_is_better: bool) -> list[float]:
    """Return the values, with failures worse than all values of both sides."""
    values = [value for seeds in (one, other) for value in seeds.values() if value is not None]
    worst = 0.0 if more_is_better else 2 * max(values, default=1.0)
    return [worst if side[seed] is None else float(side[seed] or 0) for seed in sorted(side)]


def _differences(pairs: Sequence[tuple[float | None, float | None]], more_is_better: bool) -> list[float]:
    """Return the logarithms of the ratios; a seed in which one side failed has a larger one than all others."""
    logs = [math.log(b / a) for a, b in pairs if a is not None and b is not None]
    far = 1.0 + 2 * max((abs(value) for value in logs), default=0.0)
    worse = -far if more_is_better else far
    differences = []
    for a, b in pairs:
        if a is None or b is None:
            differences.append(0.0 if a is None and b is None else worse if b is None else -worse)
        else:
            differences.append(math.log(b / a))
    return differences
