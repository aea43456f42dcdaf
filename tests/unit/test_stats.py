from __future__ import annotations

import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acon_nb.bench.stats import summarise


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
    assert summarise([5e8]).text(1e9, "s", 2) == "0.50 s, n=1"


def test_two_runs_show_their_range() -> None:
    assert summarise([1, 3]).text(1, "s", 1) == "2.0 s [1.0, 3.0], n=2"


def test_nothing_is_warned_of_samples_that_hardly_differ() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert summarise([1.0, 1.0, 1.0, 1.0, 2.0]).median == 1.0


def test_no_runs_are_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        summarise([])
