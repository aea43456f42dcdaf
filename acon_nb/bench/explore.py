"""Questions to the rows of any study: which measure, beside which baseline, by which factors. Pure; for all kinds.

The same `View` is behind `acon-nb bench plot`, the explorer widget and `plots.plot_study`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from acon_nb.bench import stats
from acon_nb.bench.compare import UNSET, compare, sentence
from acon_nb.bench.metrics import metric, metric_on
from acon_nb.bench.rows import newest, on_clock_of, usable
from acon_nb.errors import InvalidInput
from acon_nb.units import parse_bytes
from acon_nb.vm import Clock

if TYPE_CHECKING:
    import pandas as pd

CELL = "cell"
NONE = ""


@dataclass(frozen=True, kw_only=True)
class View:
    """How rows are looked at.

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
            raise InvalidInput("clock", self.clock, "is no clock", hint=f"one of {', '.join(Clock)}, or nothing")
        if not self.x:
            raise InvalidInput("x", self.x, "is missing", hint="a factor, or cell")
        twice = [name for name in (self.colour, self.facet) if name and name == self.x]
        if twice or (self.colour and self.colour == self.facet):
            raise InvalidInput("colour", self.colour, "is shown twice", hint="choose another factor, or none")


@dataclass(frozen=True, kw_only=True)
class Explored:
    """What a view shows: the rows that count, a summary of each group, the comparisons and their sentences."""

    view: View
    clock: str
    rows: pd.DataFrame
    summary: pd.DataFrame
    comparisons: pd.DataFrame
    sentences: tuple[str, ...]


def factors(rows: pd.DataFrame) -> list[str]:
    """The factors that vary in these rows, "cell" first."""
    names = [name for name in map(str, rows) if name.startswith("factor_") and rows[name].nunique(dropna=False) > 1]
    return [CELL, *(name.removeprefix("factor_") for name in names)]


def clocks(rows: pd.DataFrame) -> list[str]:
    """The clocks of these rows."""
    return list(dict.fromkeys(map(str, rows["clock"]))) if "clock" in rows else []


def metrics(rows: pd.DataFrame, clock: str) -> list[str]:
    """The measures that rows of a clock have: columns of numbers that mean a time or a size on it."""
    part = rows[rows["clock"] == clock] if "clock" in rows else rows
    found = []
    for name in map(str, part):
        try:
            metric_on(name, clock)
        except InvalidInput:
            continue
        if part[name].notna().any() and part[name].map(_is_number).all():
            found.append(name)
    return found


def levels(rows: pd.DataFrame, factor: str) -> list[str]:
    """The levels of a factor as texts, in an order that a person expects: sizes and numbers by value."""
    found = list(dict.fromkeys(_level(value) for value in rows[_column(rows, factor)]))
    try:
        return sorted(found, key=lambda text: parse_bytes(text, field=factor, bare=""))
    except InvalidInput:
        return found


def explore(rows: pd.DataFrame, view: View) -> Explored:
    """The rows as the view asks for them. Errors: `InvalidInput` for what is no factor, level or measure of them."""
    chosen = rows[rows["session"] == view.session] if view.session else newest(rows)[0]
    chosen = on_clock_of(chosen, metric(view.metric))
    if view.clock:
        chosen = chosen[chosen["clock"] == view.clock]
    if chosen.empty:
        raise InvalidInput("metric", view.metric, "has no rows of that clock and session", hint="choose others")
    found = clocks(chosen)
    if len(found) > 1:
        raise InvalidInput("clock", view.clock, "is not said, and there are rows of both", hint=f"{' or '.join(found)}")
    for name in filter(None, (view.x, view.colour, view.facet)):
        _column(chosen, name)
    # Beside each other stand only cells that differ in one thing: compare() holds the other factors.
    judged = compare(
        chosen, view.metric, factor=view.x, baseline=view.baseline or None, minimum_effect=view.minimum_effect
    )
    records: list[Mapping[str, Any]] = [
        {str(key): value for key, value in row.items()} for row in judged.to_dict("records")
    ]
    kept, _ = usable(chosen)
    kept = kept[kept[view.metric].notna()]
    return Explored(
        view=view,
        clock=found[0] if found else Clock.WALL.value,
        rows=kept,
        summary=_summary(kept, view, found[0] if found else Clock.WALL.value),
        comparisons=judged,
        sentences=tuple(sentence(row) for row in records),
    )


def grouped(rows: pd.DataFrame, names: Sequence[str]) -> list[tuple[tuple[str, ...], pd.DataFrame]]:
    """The rows by the levels of some factors, in the order of `levels`; groups without rows are left out."""
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
    found = []
    for key, part in grouped(rows, names):
        summary = stats.summarise(list(part[view.metric]))
        found.append(
            {
                **dict(zip(names, key, strict=True)),
                "runs": summary.n,
                f"{measure.label} ({clock} clock)": measure.text(summary.median, clock),
                "95 % interval": "all equal"
                if summary.exact
                else f"{measure.text(summary.low, clock)} to {measure.text(summary.high, clock)}",
            }
        )
    return pd.DataFrame(found)


def _column(rows: pd.DataFrame, factor: str) -> str:
    column = factor if factor in rows else f"factor_{factor}"
    if column not in rows:
        hint = f"one of {', '.join(factors(rows))}"
        raise InvalidInput("factor", factor, "is no factor of these rows", hint=hint)
    return column


def _level(value: Any) -> str:
    return UNSET if value is None or value != value else str(value) or "none"


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
