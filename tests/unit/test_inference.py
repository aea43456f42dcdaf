from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from acon_nb.stats import inference
from acon_nb.stats.inference import summarise


def test_the_median_lies_in_its_interval_and_the_interval_in_the_sample() -> None:
    summary = summarise([1.0, 1.1, 1.2, 1.3, 9.0])
    assert summary.median == 1.2
    assert 1.0 <= summary.low <= 1.2 <= summary.high <= 9.0
    assert (summary.n, summary.exact) == (5, False)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=12))
def test_any_sample_has_an_interval_around_its_median(values: list[float]) -> None:
    summary = summarise(values)
    assert summary.n == len(values)
    rounding = 1 + 1e-12
    assert min(values) / rounding <= summary.low <= summary.high <= max(values) * rounding


def test_the_same_numbers_give_the_same_interval() -> None:
    assert summarise([3, 1, 4, 1, 5, 9]) == summarise([3, 1, 4, 1, 5, 9])
    assert summarise([3, 1, 4, 1, 5, 9]) == summarise([9, 5, 1, 4, 1, 3])


def test_equal_runs_are_said_to_be_equal() -> None:
    summary = summarise([1e9, 1e9, 1e9])
    assert summary.exact
    assert summary.low == summary.high == 1e9
    assert summary.text(1e9, "s") == "1.000 s, the same in all 3 runs"


def test_one_run_is_not_called_exact() -> None:
    assert not summarise([5]).exact
    assert summarise([5e8]).text(1e9, "s", 2) == "0.50 s (1 run)"


def test_two_runs_show_their_range() -> None:
    assert summarise([1, 3]).text(1, "s", 1) == "2.0 s [1.0, 3.0] (range of 2 runs)"


def test_nothing_is_warned_of_samples_that_hardly_differ() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert summarise([1.0, 1.0, 1.0, 1.0, 2.0]).median == 1.0


def test_no_runs_are_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        summarise([])


def samples(seed: int, first: int, second: int) -> tuple[list[float], list[float]]:
    rng = np.random.default_rng(seed)
    return list(rng.normal(1.0, 0.1, first)), list(rng.normal(1.1, 0.1, second))


@pytest.mark.parametrize("pairs", [6, 10, 20, 60])
def test_the_paired_test_is_scipys_signed_rank_test(pairs: int) -> None:
    first, second = samples(pairs, pairs, pairs)
    differences = [b - a for a, b in zip(first, second, strict=True)]
    test = inference.paired_test(differences)
    assert test.p == pytest.approx(stats.wilcoxon(differences).pvalue)
    assert test.exact is (pairs <= 50)


@pytest.mark.parametrize("differences", [[1, 1, 2, 3, -1], [0, 1, 2, -3, 4, 5], [0.0] * 6, [2, 2, 2, 2, 2, 2]])
def test_with_ties_and_zeros_every_change_of_sign_is_tried(differences: list[float]) -> None:
    size = len(differences)
    ranks = stats.rankdata(np.abs(differences)) * np.sign(differences)
    sums = [abs(sum(sign * rank for sign, rank in zip(signs, np.abs(ranks), strict=True)))
            for signs in itertools.product((1, -1), repeat=size)]  # fmt: skip
    expected = np.mean([total >= abs(ranks.sum()) - 1e-9 for total in sums])
    test = inference.paired_test(differences)
    assert (test.p, test.exact) == (pytest.approx(expected), True)


def test_few_unpaired_runs_are_tested_by_their_medians_and_ties_of_them_by_ranks() -> None:
    first, second = [1.0, 2.0, 3.0, 7.0, 8.0], [2.5, 4.0, 5.0, 6.0, 9.0]
    pool = np.array([*first, *second])
    ranks = stats.rankdata(pool)

    def apart(hand: tuple[int, ...]) -> tuple[float, float]:
        rest = [place for place in range(10) if place not in hand]
        return (abs(np.median(pool[list(hand)]) - np.median(pool[rest])), abs(ranks[list(hand)].sum() - 27.5))

    observed = apart((0, 1, 2, 3, 4))
    expected = np.mean([apart(hand) >= observed for hand in itertools.combinations(range(10), 5)])
    test = inference.unpaired_test(first, second)
    assert (test.p, test.exact) == (pytest.approx(expected), True)
    assert test.p != pytest.approx(stats.mannwhitneyu(first, second, method="exact").pvalue)


def test_many_unpaired_runs_are_tested_by_scipys_mann_whitney() -> None:
    first, second = samples(1, 15, 12)
    test = inference.unpaired_test(first, second)
    assert test.p == pytest.approx(stats.mannwhitneyu(first, second, method="asymptotic").pvalue)
    assert not test.exact


def test_large_samples_have_intervals_that_hold_and_take_no_square_of_memory() -> None:
    held = 0
    for seed in range(200):
        first, second = samples(seed, 300, 400)
        summary, ratio = inference.summarise(first), inference.ratio_of_medians(first, second)
        held += (summary.low <= 1.0 <= summary.high) + (ratio.low <= 1.1 <= ratio.high)
    assert held >= 370, "95 % of 400, less chance"
    first, second = samples(0, 100_000, 100_000)
    ratio = inference.ratio_of_medians(first, second)
    assert ratio.low < 1.1 < ratio.high
    assert inference.unpaired_test(first, second).p < 1e-6
    assert inference.cliffs_delta(first, second) == pytest.approx(0.52, abs=0.01)
    assert inference.paired_test([b - a for a, b in zip(first, second, strict=True)]).p < 1e-6


def test_cliffs_delta_is_the_share_of_pairs() -> None:
    first, second = [1.0, 2.0, 2.0, 5.0], [2.0, 3.0, 0.5]
    pairs = [np.sign(b - a) for a in first for b in second]
    assert inference.cliffs_delta(first, second) == pytest.approx(np.mean(pairs))
    assert (inference.cliffs_delta([1, 2], [3, 4]), inference.cliffs_delta([3, 4], [1, 2])) == (1, -1)


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [
        ([1], [2], 1.0),
        ([5], [5], 1.0),
        ([1, 2], [3], 2 / 3),
        ([9], [1, 2, 3, 4, 5], 1 / 6),
        ([1, 2, 3, 4, 5], [9], 1 / 6),
    ],
)
def test_a_sample_of_one_run_is_compared_too(first: list[float], second: list[float], p: float) -> None:
    found = inference.unpaired_test(first, second)
    assert (found.p, found.exact) == (pytest.approx(p), True)
