"""Numbers in, numbers out: medians and their intervals."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass


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
    from scipy.stats import bootstrap

    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ties in a small sample: BCa then gives nan, and the range is taken
        result = bootstrap((sample,), np.median, vectorized=True, rng=np.random.default_rng(seed), n_resamples=2000)
    low, high = (float(x) for x in result.confidence_interval)
    if not (np.isfinite(low) and np.isfinite(high)):  # BCa is undefined for some tiny samples
        low, high = float(sample.min()), float(sample.max())
    return Summary(int(sample.size), median, low, high, False)
