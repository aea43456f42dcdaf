"""How good the tests and intervals of docs/statistics.md are, on a made-up busy host.

    python benchmarks/statistics_check.py [--trials N]

Prints the share of differences found at 5 % by `unpaired_test` and by scipy's exact Mann-Whitney test, and the share of
95 % intervals that hold the true median, and the true ratio of two medians. The host is log-normal (4 %), a tenth of
the runs is slowed down by a neighbour. The same numbers in every run.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy.stats import mannwhitneyu

from acon_nb.stats import inference

SIZES = (4, 5, 6)
EFFECTS = (0.0, 0.08, 0.15)
INTERVALS = (3, 5, 10, 20, 40, 200, 201, 2_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1_000)
    trials = parser.parse_args().trials
    for size in SIZES:
        rng = np.random.default_rng(size)
        for effect in EFFECTS:
            samples = [(busy(rng, size), busy(rng, size, effect)) for _ in range(trials)]
            ours = np.mean([inference.unpaired_test(*pair).p <= 0.05 for pair in samples])
            ranks = np.mean([mannwhitneyu(*pair, method="exact").pvalue <= 0.05 for pair in samples])
            print(f"{size}+{size} runs, {effect:.0%} longer: found {ours:.1%}, by Mann-Whitney {ranks:.1%}", flush=True)
    true = float(np.median(busy(np.random.default_rng(0), 2_000_000)))
    for size in INTERVALS:
        rng = np.random.default_rng(size)
        pairs = [(busy(rng, size), busy(rng, size)) for _ in range(trials)]
        medians = [inference.summarise(first) for first, _ in pairs]
        ratios = [inference.ratio_of_medians(*pair) for pair in pairs]
        held = [
            np.mean([one.low <= middle <= one.high for one in found])
            for found, middle in ((medians, true), (ratios, 1.0))
        ]
        print(f"{size} runs: {held[0]:.1%} of the intervals hold the median, {held[1]:.1%} the ratio", flush=True)


def busy(rng: np.random.Generator, runs: int, effect: float = 0.0) -> list[float]:
    """Times of runs of which a tenth is slowed down."""
    slowed = np.where(rng.random(runs) < 0.1, 1 + rng.exponential(0.4, runs), 1)
    return [float(value) for value in np.exp(rng.normal(0, 0.04, runs)) * slowed * (1 + effect)]


if __name__ == "__main__":
    main()
