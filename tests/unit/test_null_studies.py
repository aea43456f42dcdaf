"""Studies of equal choices, made up: none may be called better, in tables and sentences as in the self-check."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from acon_nb.cli import main
from acon_nb.errors import InvalidInput
from acon_nb.stats.comparison import Verdict
from acon_nb.stats.inference import most_false
from acon_nb.swap.analysis.null_studies import NOISES, FalseRankings, NullStudies, false_rankings
from acon_nb.swap.analysis.study import SwapAnalysis
from tests.unit.test_answers import row_of

CHOICES = ("disk", "zram:lz4", "zram:zstd", "zswap:lz4", "zswap:zstd")


@pytest.mark.parametrize("noise", NOISES)
def test_equal_choices_are_ranked_in_no_more_studies_than_the_level_allows(noise: str) -> None:
    for one in false_rankings(NullStudies(seeds=(3, 5), choices=(2, 5), studies=150, powered=20, noise=noise)):
        assert one.passed, one.text()


def test_a_real_difference_is_found_more_often_with_more_seeds_and_fewer_choices() -> None:
    spec = NullStudies(seeds=(3, 8), choices=(2, 5), studies=10, powered=100)
    power = {(one.seeds, one.choices): one.power_at_10_percent for one in false_rankings(spec)}
    assert power[8, 2] > 0.6
    assert power[8, 2] > power[8, 5] > power[3, 5]
    assert power[8, 2] > power[3, 2]


def test_several_situations_are_one_study() -> None:
    (one,) = false_rankings(NullStudies(seeds=(5,), choices=(3,), situations=4, studies=150, powered=20))
    assert one.passed, one.text()


def test_the_same_spec_gives_the_same_numbers() -> None:
    spec = NullStudies(seeds=(4,), choices=(3,), studies=50, powered=10)
    assert false_rankings(spec) == false_rankings(spec)


def test_the_limit_is_that_of_the_binomial_distribution() -> None:
    assert [most_false(trials) for trials in (20, 200, 1000, 2000)] == [3, 15, 62, 116]
    at = FalseRankings(seeds=3, choices=2, studies=2000, false=116, power_at_10_percent=0.2)
    above = FalseRankings(seeds=3, choices=2, studies=2000, false=117, power_at_10_percent=0.2)
    assert (at.passed, above.passed) == (True, False)
    assert above.text() == (
        "FAILED: 3 seeds, 2 choices: 5.9 % of 2,000 studies are false; a true 10 % is found in 20 % of comparisons"
    )


@pytest.mark.parametrize("seeds", [3, 4, 5])
def test_no_table_and_no_sentence_ranks_equals(seeds: int) -> None:
    false = 0
    for trial in range(12):
        clock = SwapAnalysis(equals(np.random.default_rng((seeds, trial)), seeds)).clocks[0]
        said = [line for line in clock.explanation.lines if "significant (" in line]
        ranked = [Verdict(verdict).ranks for verdict in (*clock.choices["verdict"], *clock.effects["verdict"])]
        assert clock.best is not None
        best = [len(names) < len(CHOICES) for names in clock.best["best"]]
        crossed = clock.break_evens["pressure"]["sure"]
        false += bool(said or any(ranked) or any(best) or any(crossed))
    assert false <= most_false(12)


def equals(rng: Any, seeds: int) -> pd.DataFrame:
    """Rows of choices that are equal at each of two pressures, with a spread of 5 %, and more that a seed has."""
    rows = []
    for seed in range(1, seeds + 1):
        shared = rng.normal(0, 0.1)
        for pressure, swap in itertools.product((1.0, 1.5), CHOICES):
            speed = 5000 * np.exp(shared + rng.normal(0, 0.05))
            rows.append(row_of(swap, pressure, seed, access_ops_per_s=float(speed)))
    return pd.DataFrame(rows)


def said(*words: object, status: int = 0) -> str:
    result = CliRunner().invoke(main, ["bench", "selfcheck", *map(str, words)])
    assert result.exit_code == status, result.output
    return result.stdout if status == 0 else result.output


def test_the_command_prints_shares_and_power() -> None:
    text = said("--swap", "--seeds", "4", "--choices", "2,3", "--studies", 60)
    assert "4 seeds, 3 choices: " in text
    data = json.loads(said("--swap", "--seeds", "4", "--choices", "2", "--studies", 60, "--cv", 0.1, "--json"))
    (one,) = data["false_rankings"]
    assert {"seeds", "choices", "share", "power_at_10_percent"} <= set(one)
    assert (one["seeds"], one["choices"], one["studies"], data["simulated"]["cv"]) == (4, 2, 60, 0.1)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--seeds", "3"], "--seeds needs --swap"),
        (["--swap", "--real"], "cannot be combined with --swap"),
        (["--swap", "--seeds", "3,x"], "seeds='3,x': is not a list of whole numbers"),
        (["--swap", "--seeds", "1"], "seeds"),
        (["--swap", "--choices", "11"], "choices"),
        (["--swap", "--noise", "loud"], "noise='loud'"),
        (["--swap", "--cv", "0"], "cv=0"),
    ],
)
def test_what_cannot_be_simulated_is_refused(words: list[str], error: str) -> None:
    assert error in said(*words, status=2)


def test_a_spec_without_seeds_is_refused() -> None:
    with pytest.raises(InvalidInput, match="seeds"):
        NullStudies(seeds=())
