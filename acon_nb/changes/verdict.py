"""Whether two kernels are equal in the cells of a suite: every measure of every cell, exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from acon_nb.changes import functions
from acon_nb.changes.functions import CountChange
from acon_nb.changes.suite import SuiteCell
from acon_nb.results.metrics import metric
from acon_nb.vm import GOOD_ENDS, end_text


class SeriesVerdict(StrEnum):
    """What a series of patches amounts to in a cell, or as a whole."""

    EQUAL = "equal"
    LAYOUT = "layout"
    DIFFERENT = "different"


@dataclass(frozen=True, kw_only=True)
class MeasureChange:
    """A measure of a cell with two kernels; None where a guest did not have it."""

    name: str
    before: float | None
    after: float | None

    @property
    def label(self) -> str:
        """The measure for people."""
        return metric(self.name).label

    @property
    def change(self) -> float:
        """How much more it is with the second kernel."""
        return (self.after or 0) - (self.before or 0)


@dataclass(frozen=True, kw_only=True)
class CellChange:
    """A cell with two kernels: its measures, the first of which counts instructions, and the functions that differ.

    `layout_change` are the instructions that code in other places costs, and nothing that the source says.
    """

    name: str
    verdict: SeriesVerdict
    measures: tuple[MeasureChange, ...] = ()
    functions: tuple[CountChange, ...] = ()
    layout_change: int = 0
    ends: tuple[str, str] = ("", "")

    @property
    def failure(self) -> str:
        """How its guests ended, in words, if one of them did not end well."""
        words = [end_text(end) for end in self.ends]
        return "" if all(not end or end in GOOD_ENDS for end in self.ends) else " -> ".join(dict.fromkeys(words))

    @property
    def changed(self) -> tuple[MeasureChange, ...]:
        """The measures that differ."""
        return tuple(one for one in self.measures if one.before != one.after)

    def values(self) -> dict[str, Any]:
        """The cell as values for JSON."""
        return {
            "cell": self.name,
            "verdict": self.verdict.value,
            "measures": {one.name: {"before": one.before, "after": one.after} for one in self.measures},
            "functions": [
                {"name": one.name, "before": one.before, "after": one.after, "difference": one.difference}
                for one in self.functions
            ],
            "layout": self.layout_change,
            "ends": list(self.ends),
        }


def compare(
    cells: Sequence[SuiteCell], before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]]
) -> tuple[CellChange, ...]:
    """Compare the rows of each cell, by the cell's name."""
    return tuple(_compared(cell, before[cell.name], after[cell.name]) for cell in cells)


def same(cells: Sequence[SuiteCell]) -> tuple[CellChange, ...]:
    """The cells of two kernels that are the same byte for byte: there is nothing to measure."""
    return tuple(CellChange(name=cell.name, verdict=SeriesVerdict.EQUAL) for cell in cells)


def whole(cells: Sequence[CellChange]) -> SeriesVerdict:
    """The verdict of all cells: equal where none is different; what is of layout does not count."""
    different = any(cell.verdict is SeriesVerdict.DIFFERENT for cell in cells)
    return SeriesVerdict.DIFFERENT if different else SeriesVerdict.EQUAL


def _compared(cell: SuiteCell, before: Mapping[str, Any], after: Mapping[str, Any]) -> CellChange:
    pairs = [(name, _number(before, name), _number(after, name)) for name in cell.measures]
    measures = tuple(
        MeasureChange(name=name, before=old, after=new)
        for name, old, new in pairs
        if old is not None or new is not None
    )
    ends = (str(before.get("end", "")), str(after.get("end", "")))
    if ends[0] == ends[1] and all(one.before == one.after for one in measures):
        return CellChange(name=cell.name, verdict=SeriesVerdict.EQUAL, measures=measures, ends=ends)
    change = functions.of_rows(before, after)
    only_counts = all(metric(one.name).counted for one in measures if one.before != one.after)
    return CellChange(
        name=cell.name,
        verdict=SeriesVerdict.LAYOUT
        if change.is_layout and only_counts and ends[0] == ends[1]
        else SeriesVerdict.DIFFERENT,
        measures=measures,
        functions=change.functions,
        layout_change=change.layout,
        ends=ends,
    )


def _number(row: Mapping[str, Any], name: str) -> float | None:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return int(value) if float(value).is_integer() else float(value)
