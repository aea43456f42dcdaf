"""Log-linear histograms of latencies, as the guest's workload makes them: bucket starts and counts, error 3 %."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Latencies of one kind in ns of the guest's clock: `buckets` are (start, count), in order."""

    count: int
    total_ns: int
    max_ns: int
    buckets: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Histogram:
        """From a guest's line."""
        return cls(
            count=int(data["count"]),
            total_ns=int(data["total_ns"]),
            max_ns=int(data["max_ns"]),
            buckets=tuple((int(start), int(count)) for start, count in data["histogram_ns"]),
        )

    def __add__(self, other: Histogram) -> Histogram:
        counts = dict(self.buckets)
        for start, count in other.buckets:
            counts[start] = counts.get(start, 0) + count
        return Histogram(
            count=self.count + other.count,
            total_ns=self.total_ns + other.total_ns,
            max_ns=max(self.max_ns, other.max_ns),
            buckets=tuple(sorted(counts.items())),
        )

    def quantile_ns(self, share: float) -> int:
        """The latency that `share` of the accesses do not exceed (the start of its bucket)."""
        left = share * self.count
        for start, count in self.buckets:
            left -= count
            if left <= 0:
                return start
        return self.max_ns

    def row(self, prefix: str) -> dict[str, Any]:
        """Columns of a row: count, quantiles, mean, maximum, and the histogram itself as JSON; nothing if empty."""
        if not self.count:
            return {f"{prefix}_count": 0}
        return {
            f"{prefix}_count": self.count,
            **{f"{prefix}_{name}_ns": self.quantile_ns(share) for name, share in QUANTILES.items()},
            f"{prefix}_mean_ns": self.total_ns / self.count,
            f"{prefix}_max_ns": self.max_ns,
            f"{prefix}_histogram": json.dumps(self.buckets, separators=(",", ":")),
        }
