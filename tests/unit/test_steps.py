from __future__ import annotations

import numpy as np
import pytest

from acon_nb.stats.steps import exact_steps, noisy_steps

NIGHTS = 30


def counts(rng: np.random.Generator, step: float = 0.0, night: int = 0) -> list[float]:
    """Made-up counts of instructions: a kernel rebuilt each night differs by some microseconds."""
    values = 306_508_000 + 1000.0 * rng.integers(-2, 3, NIGHTS)
    values[night:] *= 1 + step
    return list(values)


def times(rng: np.random.Generator, step: float = 0.0, night: int = 0) -> list[float]:
    values = 2e9 * np.exp(rng.normal(0, 0.03, NIGHTS))
    values[night:] *= 1 + step
    return list(values)


@pytest.mark.parametrize("night", [1, 12, 29])
def test_a_step_of_half_a_per_cent_is_found_at_its_night(night: int) -> None:
    (step,) = exact_steps(counts(np.random.default_rng(night), 0.005, night), jitter=2e-5)
    assert (step.night, step.first, step.last, step.p) == (night, night, night, None)
    assert step.ratio == pytest.approx(1.005, abs=5e-5)


def test_no_step_is_found_in_200_histories_without_one() -> None:
    rng = np.random.default_rng(0)
    assert not any(exact_steps(counts(rng), jitter=2e-5) for _ in range(200))


def test_without_jitter_any_change_is_a_step_and_so_is_the_way_back() -> None:
    assert [step.night for step in exact_steps([7, 7, 8, 7, 7])] == [2, 3]
    assert exact_steps([7, 7]) == exact_steps([7]) == exact_steps([]) == []


def test_a_creep_is_found_later() -> None:
    assert exact_steps([1e9 * (1 + 1e-5 * night) for night in range(NIGHTS)], jitter=2e-5)


def test_a_noisy_step_is_found_about_its_night_and_few_are_seen_where_none_are() -> None:
    rng = np.random.default_rng(1)
    assert sum(bool(noisy_steps(times(rng))) for _ in range(100)) < 5
    near = within = 0
    for _ in range(50):
        night = int(rng.integers(6, 25))
        steps = noisy_steps(times(rng, 0.1, night), minimum_effect=0.03)
        near += any(abs(step.night - night) <= 1 for step in steps)
        within += any(step.first <= night <= step.last for step in steps)
    assert near >= 43
    assert within >= 45


def test_two_steps_are_both_found_and_a_single_bad_night_is_none() -> None:
    values = np.array(times(np.random.default_rng(2)))
    bad = values.copy()
    bad[11] *= 3
    assert noisy_steps(list(bad)) == []
    values[10:] *= 1.2
    values[20:] *= 1.2
    assert [step.night for step in noisy_steps(list(values), minimum_effect=0.05)] == [10, 20]


def test_steps_below_the_minimum_effect_are_not_told() -> None:
    values = [100.0] * 10 + [101.0] * 10
    assert exact_steps(values, minimum_effect=0.02) == []
    assert noisy_steps([value + 0.001 * (i % 3) for i, value in enumerate(values)], minimum_effect=0.02) == []
