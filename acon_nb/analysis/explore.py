"""Views of the rows of any study: a measure by some factors, compared with a baseline. Pure; for all kinds of study.

`acon-nb bench plot`, the explorer widget and `plots.plot_study` use the same `View`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from acon_nb.analysis.compare import UNSET, compare, sentence
from acon_nb.errors import InvalidInput
from acon_nb.results.metrics import Metric, metric, metric_on
from acon_nb.results.select import newest, on_clock_of, usable
from acon_nb.stats import inference
from acon_nb.study.kinds import kind_of_rows
from acon_nb.units import parse_bytes
from acon_nb.vm import Clock

if TYPE_CHECKING:
    import pandas as pd

CELL = "cell"
NONE = ""


@dataclass(frozen=True, kw_only=True)
class View:
    """A view of rows: what is shown, by which factors.

    `metric` is a column of measures; `clock` wall or instructions ("": the only one that it exists on, or that the rows
    have); `x`, `colour` and `facet` are factors ("cell": all of them; "": none); `baseline` is the level of `x` that
    the others are compared with ("": the plan's), `minimum_effect` the share that matters (None: the plan's);
    `session` the session of the rows ("": the newest of each cell). Errors: `InvalidInput` at construction.
    """

    metric: str
    clock: str = ""
    x: str = CELL
    colour: str = NONE
    facet: str = NONE
    baseline: str = ""
    minimum_effect: float | None = None
    session: str = ""

    def __post_init__(self) -> None:
        metric(self.metric)
        if self.clock not in ("", *Clock):
            raise InvalidInput("clock", self.clock, "is not a clock", hint=f"one of {', '.join(Clock)}, or nothing")
        if not self.x:
            raise InvalidInput("x", self.x, "is missing", hint="a factor, or cell")
        twice = [name for name in (self.colour, self.facet) if name and name == self.x]
        if twice or (self.colour and self.colour == self.facet):
            raise InvalidInput("colour", self.colour, "is shown twice", hint="choose another factor, or none")


@dataclass(frozen=True, kw_only=True)
class Explored:
    """The result of a view: the rows that count, a summary of each group, the comparisons and their sentences."""

    view: View
    clock: str
    rows: pd.DataFrame
    summary: pd.DataFrame
    comparisons: pd.DataFrame
    sentences: tuple[str, ...]


def factors(rows: pd.DataFrame) -> list[str]:
    """Return the factors that vary in these rows, "cell" first."""
    names = [name for name in map(str, rows) if name.startswith("factor_") and rows[name].nunique(dropna=False) > 1]
    return [CELL, *(name.removeprefix("factor_") for name in names)]


def clocks(rows: pd.DataFrame) -> list[str]:
    """Return the clocks of these rows."""
    return list(dict.fromkeys(map(str, rows["clock"]))) if "clock" in rows else []


def metrics(rows: pd.DataFrame, clock: str) -> list[str]:
    """Return the measures in the rows of a clock: columns of numbers that mean a time or a size on it."""
    part = rows[rows["clock"] == clock] if "clock" in rows else rows
    names = []
    for name in map(str, part):
        try:
            metric_on(name, clock)
        except InvalidInput:
            continue
        if part[name].notna().any() and part[name].map(_is_number).all():
            names.append(name)
    return names


def levels(rows: pd.DataFrame, factor: str) -> list[str]:
    """Return the levels of a factor as texts, in natural order: sizes and numbers by value."""
    texts = list(dict.fromkeys(_level(value) for value in rows[_column(rows, factor)]))
    try:
        return sorted(texts, key=lambda text: parse_bytes(text, field=factor, bare=""))
    except InvalidInput:
        return texts


def measured(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that measure a cell: without those that their kind of study uses for calibration."""
    study_kind = kind_of_rows(rows)
    return rows if study_kind is None else study_kind.measured(rows)


def first_view(rows: pd.DataFrame) -> View:
    """Return a view that works for any rows: the first clock, and the first measure of their kind of study.

    Errors: `InvalidInput` for rows without a measure.
    """
    clock = next(iter(clocks(rows)), Clock.WALL.value)
    study_kind, measures = kind_of_rows(rows), metrics(rows, clock)
    wanted = [name for name in (study_kind.measures if study_kind is not None else ()) if name in measures]
    if not measures:
        raise InvalidInput("results", "rows", "have no measure", hint="rows of a study, one row per run")
    return View(metric=(wanted or measures)[0], clock=clock)


def explore(rows: pd.DataFrame, view: View) -> Explored:
    """Return the rows as the view selects them. Errors: `InvalidInput` for an unknown factor, level or measure."""
    chosen = rows[rows["session"] == view.session] if view.session else newest(rows)[0]
    chosen = on_clock_of(chosen, metric(view.metric))
    if view.clock:
        chosen = chosen[chosen["clock"] == view.clock]
    if chosen.empty:
        raise InvalidInput("metric", view.metric, "has no rows of that clock and session", hint="choose others")
    present = clocks(chosen)
    if len(present) > 1:
        raise InvalidInput("clock", view.clock, "is missing, and there are rows of both", hint=" or ".join(present))
    for name in filter(None, (view.x, view.colour, view.facet)):
        _column(chosen, name)
    # Only cells that differ in one factor are compared: compare() holds the other factors.
    judged = compare(
        chosen, view.metric, factor=view.x, baseline=view.baseline or None, minimum_effect=view.minimum_effect
    )
    records: list[Mapping[str, Any]] = [
        {str(key): value for key, value in row.items()} for row in judged.to_dict("records")
    ]
    usable_rows, _ = usable(chosen)
    usable_rows = usable_rows[usable_rows[view.metric].notna()]
    return Explored(
        view=view,
        clock=present[0] if present else Clock.WALL.value,
        rows=usable_rows,
        summary=_summary(usable_rows, view, present[0] if present else Clock.WALL.value),
        comparisons=judged,
        sentences=tuple(sentence(row) for row in records),
    )


def grouped(rows: pd.DataFrame, names: Sequence[str]) -> list[tuple[tuple[str, ...], pd.DataFrame]]:
    """Group the rows by the levels of some factors, in the order of `levels`; empty groups are omitted."""
    if not names:
        return [((), rows)]
    first, *rest = names
    texts = rows[_column(rows, first)].map(_level)
    return [
        ((level, *more), part)
        for level in levels(rows, first)
        for more, part in grouped(rows[texts == level], rest)
        if len(part)
    ]


def _summary(rows: pd.DataFrame, view: View, clock: str) -> pd.DataFrame:
    import pandas as pd

    measure = metric_on(view.metric, clock)
    names = [name for name in (view.facet, view.colour, view.x) if name]
    lines = []
    for key, part in grouped(rows, names):
        summary = inference.summarise(list(part[view.metric]))
        lines.append(
            {
                **dict(zip(names, key, strict=True)),
                "runs": summary.n,
                f"{measure.label} ({clock} clock)": measure.text(summary.median, clock),
                "interval": _interval(summary, measure, clock),
            }
        )
    return pd.DataFrame(lines)


def _interval(summary: inference.Summary, measure: Metric, clock: str) -> str:
    """An interval, and what it is."""
    if summary.exact:
        return "all equal"
    if summary.n < 2:
        return summary.interval.text
    return f"{measure.text(summary.low, clock)} to {measure.text(summary.high, clock)} ({summary.interval.text})"


def _column(rows: pd.DataFrame, factor: str) -> str:
    column = factor if factor in rows else f"factor_{factor}"
    if column not in rows:
        hint = f"one of {', '.join(factors(rows))}"
        raise InvalidInput("factor", factor, "is not a factor of these rows", hint=hint)
    return column


def _level(value: Any) -> str:
    return UNSET if value is None or value != value else str(value) or "none"


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
