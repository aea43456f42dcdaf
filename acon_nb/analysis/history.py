"""Many nights of one study: a value a night for each cell and measure, the steps among them, and what they mean.

Pure: rows in, tables and verdicts out. A series is of one cell, clock, host class and measure; nothing is compared
across them. docs/nightly.md says how a night is judged.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

from acon_nb.errors import InvalidInput
from acon_nb.results.metrics import metric_on
from acon_nb.results.select import changed, newest, usable
from acon_nb.stats import inference
from acon_nb.stats.comparison import Verdict
from acon_nb.stats.steps import LEAST_NIGHTS, Step, exact_steps, noisy_steps
from acon_nb.units import format_share
from acon_nb.validation import Meta, check_fields
from acon_nb.vm import Clock

if TYPE_CHECKING:
    import pandas as pd

_SHARE = Meta(gt=0, lt=1, description="give a share above 0, such as 0.01 for 1 %")
_LEAST_STEP = 0.1  # steps below this share of the limit are omitted


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a night must not lose, as shares: of counted instructions, of wall time, of the guest's memory."""

    instructions: Annotated[float, _SHARE] = 0.002
    wall: Annotated[float, _SHARE] = 0.05
    memory: Annotated[float, _SHARE] = 0.005

    def __post_init__(self) -> None:
        check_fields(self, prefix="limit_")

    def of(self, metric: str, clock: str) -> float:
        """The limit of a measure on a clock."""
        if metric_on(metric, clock).unit == "MiB":
            return self.memory
        return self.wall if clock == Clock.WALL else self.instructions


@dataclass(frozen=True, kw_only=True)
class Night:
    """One night of a series: the median of its runs with its interval, and whether equal runs differed."""

    night: str
    timestamp: str
    value: float
    low: float
    high: float
    runs: int
    repeats: bool = True


@dataclass(frozen=True, kw_only=True)
class Change:
    """A step of a series: the first `night` of the new level, the nights it may be (95 %), what else changed then."""

    night: str
    first: str
    last: str
    ratio: float
    low: float
    high: float
    p: float | None
    also: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Series:
    """A measure of a cell over the nights, and its verdict.

    `verdict`: worse or better (the level of the last night lies beyond the limit, the wrong or the right way: a
    regression, an improvement), below the minimum (it changed by less), no change, too few nights (a noisy series needs
    six), no values (this night gave none).
    `reference` is the level that it is held against (the first of the nights, or that of the accepted night), `current`
    that of the last night. `exact` series repeat to the instruction or byte, so any change is real.
    """

    cell: str
    clock: str
    host_class: str
    metric: str
    limit: float
    exact: bool
    nights: tuple[Night, ...]
    changes: tuple[Change, ...]
    levels: tuple[float, ...]
    verdict: Verdict
    reference: float
    current: float
    plan: str = ""

    @property
    def ratio(self) -> float:
        """The current level over the reference."""
        return self.current / self.reference

    def text(self) -> str:
        """The verdict in a sentence."""
        measure = metric_on(self.metric, self.clock)
        head = f"{self.cell}, {measure.label} ({self.clock} clock)"
        if self.verdict is Verdict.NO_VALUES:
            return f"{head}: no whole run this night."
        if self.verdict is Verdict.TOO_FEW_NIGHTS:
            return f"{head}: {len(self.nights)} nights so far; a step on the wall clock needs {2 * LEAST_NIGHTS}."
        if self.verdict is Verdict.NO_CHANGE and len(self.nights) == 1:
            return f"{head}: recorded, for later nights to be compared with."
        if self.verdict is Verdict.NO_CHANGE:
            return f"{head}: no change in {len(self.nights)} nights."
        word = measure.change(self.ratio - 1, self.clock)
        since = self.changes[-1] if len(self.changes) == 1 else max(self.changes, key=lambda step: abs(step.ratio - 1))
        many = "" if len(self.changes) == 1 else f" in {len(self.changes)} steps, the largest"
        about = "" if since.first == since.last else f" (between {since.first} and {since.last})"
        text = (
            f"{head}: {word} by {format_share(abs(self.ratio - 1))}{many} since the night {since.night}{about};"
            f" the limit is {format_share(self.limit)}."
        )
        return f"{text} Also changed then: {'; '.join(since.also)}." if since.also else text


def night_text(verdict: Verdict) -> str:
    """The verdict on a series, or on a whole night, in the words for nights: "regression"."""
    return _NIGHT_TEXTS.get(verdict, verdict.text)


_NIGHT_TEXTS = {
    Verdict.WORSE: "regression",
    Verdict.BETTER: "improvement",
    Verdict.BELOW_MINIMUM: "within the limit",
    Verdict.NO_CHANGE: "steady",
    Verdict.NO_VALUES: "no value",
}


def series_of(
    rows: pd.DataFrame,
    metrics: Sequence[str],
    *,
    nights: int = 30,
    limits: Limits | None = None,
    accepted: str = "",
) -> list[Series]:
    """The series of all cells and `metrics` of the last night, on its host class, over the last `nights` nights.

    A cell that its plan no longer has gives no series. `rows` are those of one study, each `session` a night.
    `accepted` names a night (or the start of its name, such as a date): what it measured is the level to hold from then
    on.
    Errors: `InvalidInput` for a night that is not there.
    """
    if rows.empty:
        return []
    rows = rows.sort_values("timestamp", kind="stable")
    last = rows.iloc[-1]
    rows = rows[rows["host_class"] == last["host_class"]]
    names = list(dict.fromkeys(rows["session"]))[-nights:]
    held = _held(names, accepted)
    planned = rows.loc[rows["session"] == names[-1], "cell"]
    rows = rows[rows["session"].isin(names) & rows["cell"].isin(set(planned))]
    clocks = set(rows["clock"])
    counted = usable(newest(rows, ("session",))[0])[0]  # once for all nights: there may be many hundreds
    series = []
    for (cell, clock), part in rows.groupby(["cell", "clock"], sort=False):
        kept = counted[(counted["cell"] == cell) & (counted["clock"] == clock)]
        for name in metrics:
            if name in part and _is_followed(name, str(clock), clocks) and part[name].notna().any():
                limit = (limits or Limits()).of(name, str(clock))
                nights_of = _nights(part, kept, name)
                series.append(_series(part, nights_of, str(cell), str(clock), name, limit, held, str(names[-1])))
    return series


def nights_table(series: Sequence[Series]) -> pd.DataFrame:
    """A row a night of each series: value, interval, runs, level, reference and limit, for plots."""
    import pandas as pd

    return pd.DataFrame(
        {
            **{name: getattr(one, name) for name in ("cell", "clock", "host_class", "metric", "limit", "reference")},
            **{name: getattr(one, name) for name in ("exact", "verdict")},
            **asdict(night),
            "level": level,
        }
        for one in series
        for night, level in zip(one.nights, one.levels, strict=True)
    )


def changes_table(series: Sequence[Series]) -> pd.DataFrame:
    """A row a step, the largest first: where, when, how much, how sure, and what else changed that night."""
    import pandas as pd

    names = ("cell", "clock", "metric", "night", "first", "last", "ratio", "low", "high", "p", "also")
    rows = [
        {"cell": one.cell, "clock": one.clock, "metric": one.metric, **asdict(step), "also": "; ".join(step.also)}
        for one in series
        for step in one.changes
    ]
    rows.sort(key=lambda row: -abs(row["ratio"] - 1))
    return pd.DataFrame(rows, columns=list(names), dtype=object)  # a p that is None stays so


def shown_changes(series: Sequence[Series]) -> pd.DataFrame:
    """The steps as a table for people."""
    import pandas as pd

    def share(ratio: float) -> str:
        return format_share(ratio - 1, sign=True)

    return pd.DataFrame(
        {
            "cell": row["cell"],
            "measure": f"{metric_on(row['metric'], row['clock']).label} ({row['clock']} clock)",
            "since the night": row["night"],
            "may be (95 %)": "exact" if row["p"] is None else " to ".join(dict.fromkeys((row["first"], row["last"]))),
            "change": share(row["ratio"]),
            "interval": f"{share(row['low'])} to {share(row['high'])}" if row["p"] is not None else "exact",
            "p": "" if row["p"] is None else f"{row['p']:.2g}",
            "also changed": row["also"],
        }
        for row in changes_table(series).to_dict("records")
    )


def verdict_table(series: Sequence[Series]) -> pd.DataFrame:
    """A row a series for people: what it is, its levels, its verdict; the bad ones first."""
    import pandas as pd

    def row(one: Series) -> dict[str, Any]:
        measure = metric_on(one.metric, one.clock)
        return {
            "cell": one.cell,
            "measure": f"{measure.label} ({one.clock} clock)",
            "nights": len(one.nights),
            "held against": measure.text(one.reference, one.clock),
            "now": "" if one.verdict is Verdict.NO_VALUES else measure.text(one.current, one.clock),
            "change": format_share(one.ratio - 1, sign=True) if one.changes else "none",
            "limit": f"{100 * one.limit:g} %",
            "verdict": night_text(one.verdict),
        }

    order = (Verdict.NO_VALUES, Verdict.WORSE, Verdict.BETTER, Verdict.BELOW_MINIMUM)
    ranked = sorted(series, key=lambda one: order.index(one.verdict) if one.verdict in order else len(order))
    return pd.DataFrame([row(one) for one in ranked])


def _series(
    part: pd.DataFrame,
    nights: Sequence[Night],
    cell: str,
    clock: str,
    metric: str,
    limit: float,
    held: str,
    tonight: str,
) -> Series:
    measure = metric_on(metric, clock)
    values = [night.value for night in nights]
    exact = measure.is_exact(clock)
    least = _LEAST_STEP * limit
    steps = exact_steps(values, minimum_effect=least) if exact else noisy_steps(values, minimum_effect=least)
    levels = _levels(values, steps)
    place = next((number for number, night in enumerate(nights) if night.night >= held), 0) if held else 0
    reference, current = (levels[place], levels[-1]) if levels else (1.0, 1.0)
    since = [step for step in steps if step.night > place]
    verdict = _verdict(measure.is_worse(current / reference), abs(current / reference - 1), limit, bool(since))
    if not nights or nights[-1].night != tonight:
        verdict = Verdict.NO_VALUES
    elif not exact and len(nights) < 2 * LEAST_NIGHTS:
        verdict = Verdict.TOO_FEW_NIGHTS
    changes = tuple(_change(step, nights, part) for step in steps if step in since)
    return Series(
        cell=cell, clock=clock, host_class=str(part["host_class"].iloc[0]), metric=metric, limit=limit, exact=exact,
        nights=tuple(nights), changes=changes, levels=tuple(levels), verdict=verdict, reference=reference,
        current=current,
    )  # fmt: skip


def _verdict(worse: bool, change: float, limit: float, stepped: bool) -> Verdict:
    if not stepped:
        return Verdict.NO_CHANGE
    if change < limit:
        return Verdict.BELOW_MINIMUM
    return Verdict.WORSE if worse else Verdict.BETTER


def _nights(part: pd.DataFrame, kept: pd.DataFrame, metric: str) -> list[Night]:
    """The nights of a measure of a cell that have a value: `kept` are those of its rows that count."""
    stamps = dict(zip(reversed(list(part["session"])), reversed(list(part["timestamp"])), strict=True))
    seeds = list(kept["seed"]) if "seed" in kept else [None] * len(kept)
    runs: dict[str, list[tuple[object, float]]] = {str(name): [] for name in dict.fromkeys(part["session"])}
    for session, seed, value in zip(kept["session"], seeds, kept[metric], strict=True):
        if value > 0:  # neither missing nor 0
            runs[str(session)].append((seed, float(value)))
    return [_night(name, str(stamps[name]), measured) for name, measured in runs.items() if measured]


def _night(name: str, timestamp: str, measured: Sequence[tuple[object, float]]) -> Night:
    summary = inference.summarise([value for _, value in measured])
    by_seed: dict[object, set[float]] = {}  # equal runs are those of one seed, where runs have seeds
    for seed, value in measured:
        by_seed.setdefault(seed, set()).add(value)
    return Night(
        night=name, timestamp=timestamp, value=summary.median, low=summary.low, high=summary.high, runs=summary.n,
        repeats=all(len(values) == 1 for values in by_seed.values()),
    )  # fmt: skip


def _change(step: Step, nights: Sequence[Night], part: pd.DataFrame) -> Change:
    before, after = (part[part["session"] == nights[number].night] for number in (step.night - 1, step.night))
    return Change(
        night=nights[step.night].night, first=nights[step.first].night, last=nights[step.last].night, ratio=step.ratio,
        low=step.low, high=step.high, p=step.p, also=tuple(changed(before, after)),
    )  # fmt: skip


def _levels(values: Sequence[float], steps: Sequence[Step]) -> list[float]:
    """The level of each night: the median of the nights between two steps."""
    places = [0, *(step.night for step in steps), len(values)]
    levels: list[float] = []
    for start, end in itertools.pairwise(places):
        if end > start:
            levels += [inference.median(values[start:end])] * (end - start)
    return levels


def _is_followed(metric: str, clock: str, clocks: Collection[str]) -> bool:
    """Whether a measure is followed on a clock; a size is on the instruction clock if it can be: there it repeats."""
    try:
        measure = metric_on(metric, clock)
    except InvalidInput:
        return False
    return measure.unit != "MiB" or clock == Clock.INSTRUCTIONS or Clock.INSTRUCTIONS not in clocks


def _held(names: Sequence[str], accepted: str) -> str:
    """The first of the nights from the accepted one on; "" if none was named, or it is before all of these."""
    if not accepted or accepted < min(names, default=""):
        return ""
    later = [name for name in names if name >= accepted]
    if not later:
        raise InvalidInput("accepted", accepted, "is after the last night", hint=f"such as {names[-1]}")
    return min(later)
