"""Factors that did nothing in a swap study: what counts as a counter of a guest, and what such factors are in words."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from acon_nb.analysis.inert import inert_factors
from acon_nb.swap.analysis.choices import facts
from acon_nb.swap.analysis.measures import THROUGHPUT

if TYPE_CHECKING:
    import pandas as pd

_COUNTER = re.compile(
    r"(fill_)?(\w+_pages|major_faults|allocstalls?\w*|disk_(read|written)_bytes)"
    r"|(fault|hit|access)_count|swap_used_bytes|pool_(stored_|compressed_)?bytes|backing_\w+_bytes|zswap_\w+|oom_kills|end"
)


def inert_lines(rows: pd.DataFrame) -> list[str]:
    """A sentence for each factor that changed no counter of any guest and not its throughput, clock by clock."""
    if "factor_swap" not in rows:
        return []
    if "factor_workload" in rows:
        rows = rows[rows["factor_workload"] != "codec"]
    if "warmup" in rows:
        rows = rows[~rows["warmup"].fillna(False).astype(bool)]
    counters = [name for name in map(str, rows) if _COUNTER.fullmatch(name)]
    replicates = {row["name"] for row in facts()["factor"] if row["role"] == "replicate"}
    clocks = [part for _, part in rows.groupby("clock", sort=False)] if "clock" in rows else [rows]
    return [
        one.sentence()
        for part in clocks
        for one in inert_factors(part, counters, speeds=(THROUGHPUT,), replicates=replicates)
    ]
