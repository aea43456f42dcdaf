"""What a store already has of a study: the runs that need not be measured again, and each run's row once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from acon_nb.results.store import Store
from acon_nb.vm import Clock

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = ("run_key", "session", "host_fault", "host_class", "clock", "end", "error", "log")


@dataclass(frozen=True, kw_only=True)
class Kept:
    """The rows of runs without a fault and the number of attempts with one, by key, and the classes of counted rows."""

    rows: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    faults: Mapping[str, int] = field(default_factory=dict)
    classes: frozenset[str] = frozenset()


def kept(store: Store, kind: str, study: str, session: str) -> Kept:
    """Return what the store has of a study."""
    table = store.load(kind, study, only=_COLUMNS)
    if table.empty or "run_key" not in table:
        return Kept()
    rows_of_session = table[table["session"] == session]
    fault = rows_of_session["host_fault"] != ""
    complete = rows_of_session[~fault]
    rows = dict(zip(complete["run_key"], complete[["end", "error", "log"]].to_dict("records"), strict=True))
    classes = frozenset(complete["host_class"][complete["clock"] == Clock.INSTRUCTIONS.value].dropna())
    return Kept(rows=rows, faults=Counter(rows_of_session["run_key"][fault]), classes=classes)


def counted(table: pd.DataFrame, labels: Sequence[str], session: str, keys: Collection[str] | None) -> pd.DataFrame:
    """Return the rows of the cells with those labels in that order (and of those keys), the first of each run.

    `attrs["duplicates"]` is the number of rows omitted.
    """
    if table.empty:
        table.attrs["duplicates"] = 0
        return table
    order = {label: number for number, label in enumerate(labels)}
    selected = table[(table["session"] == session) & table["cell"].isin(order)]
    selected = selected if keys is None else selected[selected["run_key"].isin(keys)]
    complete = selected["host_fault"] == ""
    double = complete & selected["run_key"].where(complete, selected["run_id"]).duplicated()
    rows = selected[~double].sort_values("cell", key=lambda cells: cells.map(order), kind="stable", ignore_index=True)
    rows.attrs["duplicates"] = int(double.sum())
    return rows
