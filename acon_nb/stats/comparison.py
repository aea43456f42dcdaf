"""Compares one side with its baseline, for cells of a study, choices of swap and effects of factors.

A side is either the runs of a cell, whose blocks share the host's drift, or the seeds of a choice, whose guests share
pages and accesses (`acon_nb.stats.seeds`). `Comparison` has the numbers of both and a `Verdict`; `judge` decides for
all comparisons of runs of a call together. Counts that repeat need no test: `compare_counts`. docs/statistics.md has
the rules.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from acon_nb.stats import inference
from acon_nb.stats.inference import ALPHA
from acon_nb.stats.intervals import Interval


class Verdict(StrEnum):
    """What a comparison shows: a code for files, with `text` for people.

    Only better and worse are grounds for an alarm or a ranking: the difference is real and at least the minimum effect.
    """

    BETTER = "better"
    WORSE = "worse"
    EQUAL = "equal"
    BELOW_MINIMUM = "below_minimum"
    NO_CHANGE = "no_change"
    UNSURE = "unsure"
    TOO_FEW_SEEDS = "too_few_seeds"
    TOO_FEW_NIGHTS = "too_few_nights"
    NO_VALUES = "no_values"

    @property
    def ranks(self) -> bool:
        """Whether one of the two sides may be called better."""
        return self in (Verdict.BETTER, Verdict.WORSE)

    @property
    def text(self) -> str:
        """The verdict as text: "real, but too small to matter"."""
        return _VERDICT_TEXTS[self]


_VERDICT_TEXTS = {
    Verdict.BETTER: "better",
    Verdict.WORSE: "worse",
    Verdict.EQUAL: "equal",
    Verdict.BELOW_MINIMUM: "real, but too small to matter",
    Verdict.NO_CHANGE: "too small to matter",
    Verdict.UNSURE: "undecided",
    Verdict.TOO_FEW_SEEDS: "too few seeds",
    Verdict.TOO_FEW_NIGHTS: "too few nights",
    Verdict.NO_VALUES: "nothing to compare",
}


class Evidence(StrEnum):
    """What a difference rests on, the strongest first: exact counts, a test, or nothing."""

    EXACT = "exact"
    TESTED = "tested"
    NONE = ""


class Method(StrEnum):
    """How two sides were compared: a code for files, with `text` for people."""

    EXACT = "exact"
    PAIRED_BY_BLOCK = "paired_by_block"
    PAIRED_T = "paired_t"
    PAIRED_RANKS = "paired_ranks"
    UNPAIRED = "unpaired"
    NONE = ""

    @property
    def text(self) -> str:
        """The method as text: "paired by block"."""
        return _METHODS.get(self, self.value.replace("_", " "))


_METHODS = {
    Method.PAIRED_T: "paired t test of the log ratios of the seeds",
    Method.PAIRED_RANKS: "signed ranks of the seeds, a guest that ended badly being the worst",
}


class Replicate(StrEnum):
    """What each value of a side is: a run of the same guest, or a guest with its own data."""

    RUN = "run"
    SEED = "seed"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A side compared with its baseline.

    `n` and `n_baseline` count the values of each side, `failed` and `failed_baseline` the guests that ended badly: they
    have no ratio and are the worst values of the test and of Cliff's delta. `ratio` is how many times the baseline's
    value the other one is: the median over the `pairs` (seeds, blocks) where the ratio is taken pair by pair, else the
    ratio of the medians. `ratio_low` and `ratio_high` are its interval, whose kind `Interval.of` derives from the
    number of pairs; that of seeds is computed when a view needs it (`with_interval`), since most are only judged.
    `log_mean` and `log_deviation` are those of the pairs' log ratios. `p` is that of the test of `method`, `smallest_p`
    the least that so many values can give, `p_holm` is adjusted for the `family` of comparisons that were judged
    together. `minimum_effect` is the share that matters.
    """

    replicate: Replicate
    n_baseline: int
    n: int
    more_is_better: bool
    minimum_effect: float
    failed_baseline: int = 0
    failed: int = 0
    pairs: int = 0
    baseline_median: float | None = None
    median: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    ratios: tuple[float, ...] = ()
    log_mean: float | None = None
    log_deviation: float | None = None
    cliffs_delta: float | None = None
    method: Method = Method.NONE
    p: float | None = None
    smallest_p: float | None = None
    p_holm: float | None = None
    family: int = 0
    verdict: Verdict = Verdict.NO_VALUES
    evidence: Evidence = Evidence.NONE

    @property
    def is_larger(self) -> bool:
        """Whether the other side's values are larger, by the ratio."""
        return self.ratio is not None and self.ratio > 1

    @property
    def seeds(self) -> int:
        """The number of seeds that were compared, including those with a failure."""
        return self.pairs + max(self.failed, self.failed_baseline)

    @property
    def direction(self) -> Verdict:
        """The direction of the difference, significant or not: by the ratio, or with failures by Cliff's delta."""
        is_larger = (self.cliffs_delta or 0) > 0 if self.failed or self.failed_baseline else self.is_larger
        return Verdict.BETTER if is_larger == self.more_is_better else Verdict.WORSE

    def with_interval(self) -> Comparison:
        """Return the same with the interval of the ratio, for a comparison of seeds."""
        if not self.ratios or self.ratio_low is not None:
            return self
        interval = inference.ratio_of_pairs(self.ratios)
        return replace(self, ratio_low=interval.low, ratio_high=interval.high)


def compare_counts(
    baseline: Sequence[float], other: Sequence[float], *, more_is_better: bool, minimum_effect: float = 0.0
) -> Comparison:
    """Compare counts that repeat (one value per side, however often it was taken): any difference is real."""
    comparison = _with_ratio_of_medians(baseline, other, more_is_better, minimum_effect)
    ratio = comparison.ratio or 1.0
    verdict = comparison.direction if abs(ratio - 1) >= minimum_effect else Verdict.BELOW_MINIMUM
    if baseline[0] == other[0]:
        verdict = Verdict.EQUAL
    return replace(comparison, method=Method.EXACT, verdict=verdict, evidence=Evidence.EXACT)


def compare_runs(
    baseline: Sequence[float],
    other: Sequence[float],
    block_ratios: Sequence[float],
    *,
    more_is_better: bool,
    minimum_effect: float,
    alpha: float = ALPHA,
    tests: int = 1,
) -> Comparison:
    """Compare the runs of two cells; `judge` adds the verdict.

    `block_ratios` are the ratios of the blocks that both cells ran in. The test and the ratio are paired by block if
    that many blocks could be significant among `tests` comparisons, else they are of all runs.
    Errors: `ValueError` for a value that is not above 0, or for no values.
    """
    comparison = _with_ratio_of_medians(baseline, other, more_is_better, minimum_effect)
    if _can_pair(len(block_ratios), tests, alpha):
        ratio = inference.ratio_of_pairs(block_ratios)
        comparison = replace(
            comparison, pairs=len(block_ratios), ratio=ratio.ratio, ratio_low=ratio.low, ratio_high=ratio.high
        )
        test = inference.paired_test([math.log(value) for value in block_ratios])
        return _with_test(comparison, test, Method.PAIRED_BY_BLOCK)
    return _with_test(comparison, inference.unpaired_test(baseline, other), Method.UNPAIRED)


def judge(comparisons: Sequence[Comparison], *, alpha: float = ALPHA) -> list[Comparison]:
    """Return comparisons of runs, each with its verdict and with its p adjusted for all of them (Holm).

    Better or worse: the adjusted p is at most `alpha` and the ratio is at least the minimum effect away from 1. No
    change: the whole interval is within the minimum effect. Comparisons of counts keep the verdict that they have.
    """
    tests = [number for number, comparison in enumerate(comparisons) if comparison.p is not None]
    adjusted = dict(zip(tests, inference.holm([comparisons[n].p or 0.0 for n in tests]), strict=True))
    judged = []
    for number, comparison in enumerate(comparisons):
        if comparison.evidence is not Evidence.EXACT:
            tested = replace(comparison, p_holm=adjusted.get(number), family=len(tests))
            verdict, evidence = _decide(tested, alpha)
            comparison = replace(tested, verdict=verdict, evidence=evidence)
        judged.append(comparison)
    return judged


def ratio_text(ratio: float) -> str:
    """Format a ratio: "3.40 times", "0.81 times"."""
    return f"{ratio:.2f} times" if ratio < 100 else f"{ratio:,.0f} times"


def _decide(comparison: Comparison, alpha: float) -> tuple[Verdict, Evidence]:
    ratio, p = comparison.ratio, comparison.p_holm
    if ratio is None:
        return Verdict.NO_VALUES, Evidence.NONE
    is_real = p is not None and p <= alpha
    if _is_within(comparison):
        return (Verdict.BELOW_MINIMUM, Evidence.TESTED) if is_real else (Verdict.NO_CHANGE, Evidence.NONE)
    if is_real:
        is_beyond = abs(ratio - 1) >= comparison.minimum_effect
        return (comparison.direction if is_beyond else Verdict.BELOW_MINIMUM), Evidence.TESTED
    return Verdict.UNSURE, Evidence.NONE


def _is_within(comparison: Comparison) -> bool:
    """Whether the whole interval, which the range of a few values is not, is within the minimum effect."""
    low, high = comparison.ratio_low, comparison.ratio_high
    if Interval.of(comparison.pairs or min(comparison.n, comparison.n_baseline)) in (Interval.NONE, Interval.RANGE):
        return False
    return low is not None and high is not None and max(high - 1, 1 - low) < comparison.minimum_effect


def _can_pair(pairs: int, tests: int, alpha: float) -> bool:
    return pairs > 1 and inference.smallest_paired_p(pairs) * tests <= alpha


def _with_test(comparison: Comparison, test: inference.Significance, method: Method) -> Comparison:
    return replace(comparison, p=test.p, smallest_p=test.smallest_p, method=method)


def _with_ratio_of_medians(
    baseline: Sequence[float], other: Sequence[float], more_is_better: bool, minimum_effect: float
) -> Comparison:
    ratio = inference.ratio_of_medians(baseline, other)
    return Comparison(
        replicate=Replicate.RUN, n_baseline=len(baseline), n=len(other), more_is_better=more_is_better,
        minimum_effect=minimum_effect, baseline_median=inference.median(baseline), median=inference.median(other),
        ratio=ratio.ratio, ratio_low=ratio.low, ratio_high=ratio.high,
        cliffs_delta=inference.cliffs_delta(baseline, other),
    )  # fmt: skip
