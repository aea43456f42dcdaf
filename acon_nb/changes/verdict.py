"""Whether two kernels are equal in the cells of a suite: every measure of every cell, exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from acon_nb.changes import functions
from acon_nb.changes.functions import CountChange, KernelChange
from acon_nb.changes.suite import SuiteCell
from acon_nb.results.metrics import metric
from acon_nb.vm import GOOD_ENDS, end_text

_IDLE = "idle_ns"
_TICK_NS = 10_000_000  # the longest of a kernel's choices, CONFIG_HZ_100


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

    `layout_change` are the instructions that code in other places costs, `timing_change` those that come of when
    something happens: nothing that the source says. `shown` are measures that make no verdict. `other_code` are the
    functions that ran with either kernel and have other instructions; None where that is not known.
    """

    name: str
    verdict: SeriesVerdict
    measures: tuple[MeasureChange, ...] = ()
    functions: tuple[CountChange, ...] = ()
    layout_change: int = 0
    timing_change: int = 0
    shown: tuple[MeasureChange, ...] = ()
    ends: tuple[str, str] = ("", "")
    other_code: tuple[str, ...] | None = None

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
            "timing": self.timing_change,
            "shown": {one.name: {"before": one.before, "after": one.after} for one in self.shown},
            "ends": list(self.ends),
            "other_code": None if self.other_code is None else list(self.other_code),
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
    measures, shown = _measures(cell.measures, before, after), _measures(cell.shown, before, after)
    ends = (str(before.get("end", "")), str(after.get("end", "")))
    if ends[0] == ends[1] and all(one.before == one.after for one in measures):
        return CellChange(name=cell.name, verdict=SeriesVerdict.EQUAL, measures=measures, shown=shown, ends=ends)
    change = functions.of_rows(before, after, last_phase=cell.last_phase)
    explained = all(one.before == one.after or _is_explained(one, change) for one in measures)
    is_layout = (change.is_same or (change.is_layout and explained)) and ends[0] == ends[1]
    by_chance = change.change - change.layout if is_layout and change.is_same else change.timing
    return CellChange(
        name=cell.name,
        verdict=SeriesVerdict.LAYOUT if is_layout else SeriesVerdict.DIFFERENT,
        measures=measures,
        functions=() if is_layout else change.functions,
        layout_change=change.layout,
        timing_change=by_chance,
        shown=shown,
        ends=ends,
        other_code=change.other_code,
    )


def _measures(names: Sequence[str], before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[MeasureChange, ...]:
    """Those of the measures that a guest had."""
    every = [MeasureChange(name=name, before=_number(before, name), after=_number(after, name)) for name in names]
    return tuple(one for one in every if one.before is not None or one.after is not None)


def _is_explained(one: MeasureChange, change: KernelChange) -> bool:
    """Whether the functions explain how a measure differs: a count, or idle time up to the next tick of equal code."""
    if one.name == _IDLE and None not in (one.before, one.after):
        return change.same_code and abs(one.change) <= _TICK_NS
    return metric(one.name).counted


def _number(row: Mapping[str, Any], name: str) -> float | None:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return int(value) if float(value).is_integer() else float(value)
