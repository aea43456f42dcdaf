"""What a store already has of a study: the runs that need not be measured again, and the rows that count once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from acon_nb.bench.results import Store

if TYPE_CHECKING:
    import pandas as pd

_NEEDED = ("end", "error", "log")


@dataclass(frozen=True, kw_only=True)
class Kept:
    """The whole rows by their key (end, error, log), earlier attempts that were at fault by key, and host classes."""

    rows: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    attempts: Mapping[str, int] = field(default_factory=dict)
    classes: frozenset[str] = frozenset()


def kept(store: Store, kind: str, study: str, session: str) -> Kept:
    """What is there of a study."""
    table = store.load(kind, study)
    if table.empty or "turn_key" not in table:
        return Kept()
    mine = table[table["session"] == session]
    fault = mine["host_fault"] != ""
    whole = mine[~fault]
    rows = dict(zip(whole["turn_key"], whole[list(_NEEDED)].to_dict("records"), strict=True))
    return Kept(rows=rows, attempts=Counter(mine["turn_key"][fault]), classes=frozenset(whole["host_class"].dropna()))


def counted(table: pd.DataFrame, labels: Sequence[str], session: str) -> pd.DataFrame:
    """The rows of the cells of those labels in their order; of a run that was measured twice, the first.

    `attrs["duplicates"]` is how many were left away.
    """
    if table.empty:
        table.attrs["duplicates"] = 0
        return table
    order = {label: number for number, label in enumerate(labels)}
    mine = table[(table["session"] == session) & table["cell"].isin(order)]
    double = mine["turn_key"].where(mine["host_fault"] == "").duplicated() & (mine["host_fault"] == "")
    rows = mine[~double].sort_values("cell", key=lambda cells: cells.map(order), kind="stable", ignore_index=True)
    rows.attrs["duplicates"] = int(double.sum())
    return rows
