"""What follows from a swap run's own columns: how hard memory was pressed, and how much RAM the swap freed.

Rows have both as columns; those of earlier versions get them here when they are analysed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

AVAILABLE = "pressure_available"
FREED = "freed_bytes"
LIMIT = "limit_bytes"


def derived_columns(row: Mapping[Any, Any]) -> dict[str, float]:
    """`pressure_available` and `freed_bytes` of a row, as far as they are known."""
    columns = {AVAILABLE: pressure_available(row), FREED: freed_bytes(row)}
    return {name: value for name, value in columns.items() if math.isfinite(value)}


def pressure_available(row: Mapping[Any, Any]) -> float:
    """The working set over the memory that was available when the fill began; nan where either is not known.

    What is available to a workload in control groups is at most what they may have together (`limit_bytes`).
    The working set is what the workload really holds (`held_bytes`, of redis), else the pages that it fills.
    """
    held, planned = _number(row, "held_bytes"), _number(row, "working_set_bytes")
    available = _number(row, "memavailable_start_bytes")
    limit = _number(row, LIMIT)
    available = min(available, limit) if limit > 0 else available
    working_set = held if held > 0 else planned
    return working_set / available if working_set > 0 and available > 0 else math.nan


def freed_bytes(row: Mapping[Any, Any]) -> float:
    """The RAM that the swap freed: what lies in it, less the RAM that its pool takes (none on a disk)."""
    used, pool = _number(row, "swap_used_bytes"), _number(row, "pool_bytes")
    return used - (pool if math.isfinite(pool) else 0.0)


def _number(row: Mapping[Any, Any], name: str) -> float:
    value = row.get(name)
    try:
        return math.nan if value is None else float(value)
    except (TypeError, ValueError):
        return math.nan
