"""Answers of a swap study, from made-up rows whose answers are known."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

# Throughput is exp(height - slope * pressure): the logarithm of a ratio is a line, and a break-even can be computed.
CURVES = {
    "disk": (9.0, 0.5),
    "zram:lz4": (12.0, 1.5),
    "zram:zstd": (10.4, 0.8),
    "zswap:lz4": (11.5, 1.4),
    "zswap:zstd": (10.2, 0.6),
}
SAVED = {"disk": 0, "zram:lz4": 60, "zram:zstd": 80, "zswap:lz4": 40, "zswap:zstd": 70}
PRESSURES = (1.0, 1.5, 2.0, 2.5, 3.0)


def row_of(swap: str, pressure: float, seed: int, **more: Any) -> dict[str, Any]:
    kind, _, compressor = swap.partition(":")
    return {
        "run_id": f"{swap}-{pressure}-{seed}",
        "kind": "swap",
        "clock": "instructions",
        "end": "powered off",
        "error": "",
        "host_fault": "",
        "warmup": False,
        "host_class": "h",
        "seed": seed,
        "factor_swap": kind,
        "factor_compressor": compressor,
        "factor_encryption": "none",
        "factor_pressure": pressure,
        "factor_data": "mix",
        "factor_workload": "tmpfs",
        "factor_copy": "",
        "factor_disk_latency": "80us",
        **more,
    }


def study(
    swaps: dict[str, tuple[float, float]] = CURVES,
    pressures: tuple[float, ...] = PRESSURES,
    seeds: int = 6,
    noise: float = 0.03,
    dies: dict[str, float] | None = None,
    **more: Any,
) -> pd.DataFrame:
    """Rows with noise that all choices of a seed share, and a little of their own; `dies`: out of memory from there."""
    rng = np.random.default_rng(7)
    rows = []
    for seed in range(1, seeds + 1):
        shared = rng.normal(0, noise)
        for pressure in pressures:
            for swap, (height, slope) in swaps.items():
                own = rng.normal(0, noise / 3)
                speed = math.exp(height - slope * pressure + shared + own)
                row = row_of(swap, pressure, seed, access_ops_per_s=speed, saved_bytes=SAVED.get(swap, 0) << 20, **more)
                if pressure >= (dies or {}).get(swap, math.inf):
                    row |= {"end": "out of memory", "access_ops_per_s": speed * 5, "error": "killed"}
                rows.append(row)
    return pd.DataFrame(rows)


def crossing(first: str, second: str) -> float:
    (a, b), (c, d) = CURVES[first], CURVES[second]
    return (a - c) / (b - d)
