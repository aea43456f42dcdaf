"""What a store already has of a study: the runs that need not be measured again, and the rows that count once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from acon_nb.bench.results import Store
from acon_nb.vm import Clock

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = ("turn_key", "session", "host_fault", "host_class", "clock", "end", "error", "log")


@dataclass(frozen=True, kw_only=True)
class Kept:
    """The whole rows by their key, how many attempts were at fault by key, and the host classes of counted rows."""

    rows: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    faults: Mapping[str, int] = field(default_factory=dict)
    classes: frozenset[str] = frozenset()


def kept(store: Store, kind: str, study: str, session: str) -> Kept:
    """What is there of a study."""
    table = store.load(kind, study, only=_COLUMNS)
    if table.empty or "turn_key" not in table:
        return Kept()
    mine = table[table["session"] == session]
    fault = mine["host_fault"] != ""
    whole = mine[~fault]
    rows = dict(zip(whole["turn_key"], whole[["end", "error", "log"]].to_dict("records"), strict=True))
    classes = frozenset(whole["host_class"][whole["clock"] == Clock.INSTRUCTIONS.value].dropna())
    return Kept(rows=rows, faults=Counter(mine["turn_key"][fault]), classes=classes)


def counted(table: pd.DataFrame, labels: Sequence[str], session: str, keys: Collection[str] | None) -> pd.DataFrame:
    """The rows of the cells of those labels in their order (and of those keys); of a run measured twice, the first.

    `attrs["duplicates"]` is how many were left away.
    """
    if table.empty:
        table.attrs["duplicates"] = 0
        return table
    order = {label: number for number, label in enumerate(labels)}
    mine = table[(table["session"] == session) & table["cell"].isin(order)]
    mine = mine if keys is None else mine[mine["turn_key"].isin(keys)]
    whole = mine["host_fault"] == ""
    double = whole & mine["turn_key"].where(whole, mine["run_id"]).duplicated()
    rows = mine[~double].sort_values("cell", key=lambda cells: cells.map(order), kind="stable", ignore_index=True)
    rows.attrs["duplicates"] = int(double.sum())
    return rows
