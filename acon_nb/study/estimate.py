"""Estimates the size of a plan and its time, from similar earlier runs or from typical runs of its kind."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from acon_nb.study.state import format_left
from acon_nb.vm import Clock

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class CellSize:
    """A cell to be estimated: its clock, its runs with warm-ups, and the levels of all its factors."""

    clock: Clock
    runs: int
    levels: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The size of a plan: its cells, its runs with warm-ups, its time from `low_s` to `high_s` (None: not known).

    `cell_s` is the time of a run of each cell, in the middle between the two. `basis` states what the time is estimated
    from. Builds take extra time, and runs already in the store take none.
    """

    cells: int
    runs: int
    low_s: float | None = None
    high_s: float | None = None
    cell_s: tuple[float, ...] = ()
    basis: str = ""

    def text(self) -> str:
        """The estimate as text: "24 cells, 72 runs, some 12 min to 18 min (as 35 earlier runs took)"."""
        size = f"{self.cells} cell{'' if self.cells == 1 else 's'}, {self.runs} run{'' if self.runs == 1 else 's'}"
        if self.low_s is None or self.high_s is None:
            return f"{size}; the time is not known: {self.basis}"
        low, high = format_left(self.low_s), format_left(self.high_s)
        return f"{size}, some {low if low == high else f'{low} to {high}'} ({self.basis})"


def columns(alike: Sequence[str]) -> tuple[str, ...]:
    """Return the columns of earlier rows by which similar ones are recognised."""
    return ("clock", *(f"factor_{name}" for name in alike))


def estimate(
    cells: Sequence[CellSize],
    earlier: pd.DataFrame | None,
    *,
    alike: Sequence[str] = (),
    typical_s: Mapping[str, tuple[float, float]] | None = None,
    parallel: int | None = None,
) -> Estimate:
    """Estimate the time that cells take, from the times of similar earlier runs.

    `earlier` are rows of results with `seconds` and the `columns`. For each cell the most similar runs count: first
    their clock, then the factors `alike`. The estimate is the quartiles of their times; on a clock without an earlier
    run `typical_s`, the quartiles of such runs on another host. `parallel` guests of the instruction clock run at a
    time (default: one per CPU).
    """
    size = Estimate(cells=len(cells), runs=sum(cell.runs for cell in cells))
    width = parallel or len(os.sched_getaffinity(0))
    runs = _Runs(earlier, alike)
    typical = typical_s or {}
    low = high = 0.0
    each: list[float] = []
    guessed = False
    for cell in cells:
        quartiles = runs.quartiles(cell) or typical.get(cell.clock)
        if quartiles is None:
            what = f"was on the {cell.clock} clock" if runs.seconds else "of this kind is in the folder of results"
            return replace(size, basis=f"no earlier run {what}")
        guessed |= runs.quartiles(cell) is None
        share = cell.runs / (1 if cell.clock == Clock.WALL else width)
        low, high = low + share * quartiles[0], high + share * quartiles[1]
        each.append(sum(quartiles) / 2)
    used = len(runs.used)
    took = [f"as {used} earlier run{'' if used == 1 else 's'} took"] if used else []
    take = ["as such runs took on another host, since there are no earlier ones"] if guessed else []
    basis = f"{', or '.join([*took, *take])}; builds take extra time"
    return replace(size, low_s=low, high_s=high, cell_s=tuple(each), basis=basis)


class _Runs:
    """Earlier runs, divided by clock and then by one factor after another; each part is computed once for all cells.

    `used` are the runs from which the time of any cell was estimated.
    """

    def __init__(self, earlier: pd.DataFrame | None, alike: Sequence[str]) -> None:
        self._values: dict[str, list[str]] = {}
        self.seconds: list[float] = []
        self.used: set[int] = set()
        self._parts: dict[tuple[Any, ...], dict[str, list[int]]] = {}
        self._quartiles: dict[tuple[Any, ...], tuple[float, float]] = {}
        if earlier is None or earlier.empty or "seconds" not in earlier:
            return
        timed = earlier[earlier["seconds"].notna()]
        self.seconds = [float(seconds) for seconds in timed["seconds"]]
        for name, column in zip(("clock", *alike), columns(alike), strict=True):
            if column in timed:
                self._values[name] = [str(value) for value in timed[column]]

    def quartiles(self, cell: CellSize) -> tuple[float, float] | None:
        """Return the quartiles of the times of the runs most similar to a cell; None without a run on its clock."""
        part: Sequence[int] = range(len(self.seconds))
        path: tuple[Any, ...] = ()
        for name, levels in self._values.items():
            level = str(cell.clock if name == "clock" else cell.levels.get(name))
            same = self._part(part, (path, name), levels).get(level)
            if same is not None:
                part, path = same, (path, name, level)
            elif name == "clock":
                return None
        if not part:
            return None
        if path not in self._quartiles:
            self.used |= set(part)
            times = [self.seconds[number] for number in part]
            low, _, high = statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else times * 3
            self._quartiles[path] = low, high
        return self._quartiles[path]

    def _part(self, part: Sequence[int], path: tuple[Any, ...], levels: Sequence[str]) -> dict[str, list[int]]:
        if path not in self._parts:
            split: dict[str, list[int]] = {}
            for number in part:
                split.setdefault(levels[number], []).append(number)
            self._parts[path] = split
        return self._parts[path]
