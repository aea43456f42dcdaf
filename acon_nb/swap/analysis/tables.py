"""The tables behind the answers of a swap study: for each figure one `df_...`, and `acon_nb.plots` has its `plot_...`.

Each takes `Counted` rows, so one clock alone, and returns a tidy DataFrame with the clock, the measure and the number
of seeds with each number. Verdicts and ends are codes; what there may be several of is a tuple. Guests that ended
badly are rows too. `acon_nb.swap.analysis.study` computes each once for a study.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from acon_nb.errors import InvalidInput
from acon_nb.stats import breakeven, inference
from acon_nb.stats.comparison import Comparison, Replicate
from acon_nb.stats.inference import ALPHA
from acon_nb.stats.intervals import Interval, count_text
from acon_nb.stats.pareto import front
from acon_nb.swap.analysis.best import MINIMUM_EFFECT, Best, Ranking, ranking
from acon_nb.swap.analysis.choices import Choice
from acon_nb.swap.analysis.effects import effects
from acon_nb.swap.analysis.measures import THROUGHPUT, measure, number_of, place_text, sorting_key, value_in
from acon_nb.swap.analysis.outcomes import GuestResult, failures
from acon_nb.swap.analysis.rows import Counted, by_choice, factor_of, pressure_of, situation_of, strata, values
from acon_nb.swap.derived import AVAILABLE, FREED

if TYPE_CHECKING:
    import pandas as pd

_NOTHING = Comparison(replicate=Replicate.SEED, n_baseline=0, n=0, more_is_better=True, minimum_effect=MINIMUM_EFFECT)


def baseline_of(rows: Counted, baseline: str = "") -> Choice:
    """The choice to compare with: that of the label `baseline`, else plain disk, else the first.

    Errors: `InvalidInput` for a label that no choice has.
    """
    choices = rows.choices
    named = [choice for choice in choices if str(choice) == baseline]
    if baseline and not named:
        hint = f"one of {', '.join(map(str, choices))}"
        raise InvalidInput("baseline", baseline, "is not a choice of this study", hint=hint)
    return next(iter([*named, *(choice for choice in choices if choice.swap == "disk"), *choices]))


def df_choices(
    rows: Counted, metric: str = THROUGHPUT, *, baseline: str = "", order: Ranking | None = None
) -> pd.DataFrame:  # fmt: skip
    """Every choice in every situation: median with interval, and compared with the baseline, paired by seed.

    p are adjusted for all pairs of choices in all situations of the study (`Ranking`).
    """
    first, order = baseline_of(rows, baseline), order or ranking(rows, metric)
    records: list[dict[str, Any]] = []
    for situation, part in strata(rows):
        table = values(part, metric)
        for choice, mine in by_choice(part):
            record = {"situation": situation, AVAILABLE: pressure_of(mine), **choice.columns()}
            record |= _summary(table.get(choice, {}), mine)
            result = order.compared(situation_of(part), first, choice) if choice != first else _NOTHING
            records.append(record | {"baseline": str(first), **_ratio_columns(result), **_verdict_columns(result)})
    return _frame(records, rows, metric)


def df_pareto(rows: Counted, metric: str = THROUGHPUT) -> pd.DataFrame:
    """A measure against the RAM freed, a row a situation and choice, with its standing on the Pareto front.

    RAM freed is the swap in use less the RAM that the pool takes, so that a disk frees all that lies on it. A choice of
    which some guest ended badly is not on the front. `beaten_by` are the labels of the choices that beat it.
    """
    sign = 1 if measure(metric).more_is_better else -1
    records = []
    for situation, part in strata(rows):
        parts: dict[Choice, pd.DataFrame] = dict(by_choice(part))
        points = {choice: _points(mine, metric) for choice, mine in parts.items()}
        ends = {choice: failures(mine["result"]) for choice, mine in parts.items()}
        standing = front(
            {
                choice: {seed: (freed, sign * value) for seed, (freed, value) in points[choice].items()}
                for choice in points
                if not ends[choice]
            }
        )
        for choice, seeds in points.items():
            at = standing.get(choice)
            record: dict[str, Any] = {"situation": situation, AVAILABLE: pressure_of(part)}
            record |= {**choice.columns(), "n": len(seeds)}
            for axis, prefix in enumerate(("freed", "speed")):
                summary = inference.summarise([pair[axis] for pair in seeds.values()]) if seeds else None
                record |= {prefix: summary and summary.median, f"{prefix}_low": summary and summary.low}
                record[f"{prefix}_high"] = summary and summary.high
            record |= {"on_front": bool(at and at.on_front), "support": at and at.support}
            record["beaten_by"] = tuple(map(str, at.beaten_by)) if at else ()
            record |= {"runs": len(parts[choice]), "failures": ends[choice]}
            records.append(record)
    return _frame(records, rows, metric)


def df_pressure(
    rows: Counted, metric: str = THROUGHPUT, *, axis: str = "pressure", baseline: str = "", order: Ranking | None = None
) -> pd.DataFrame:
    """Each choice along a numeric factor: median, interval, ratio to the baseline; a row a level and choice.

    `level` is the place on the axis, of pressure the working set over the memory that was available; `nominal` is the
    level in the plan, and `measured` whether the place was measured (rows of early versions do not have it).
    Errors: `InvalidInput` where the factor is not there or its levels are not numbers.
    """
    first, order = baseline_of(rows, baseline), order or ranking(rows, metric)
    records = []
    for situation, part in strata(rows, [axis]):
        for place, here in _by_level(rows, part, axis):
            table = values(here, metric)
            for choice, mine in by_choice(here):
                result = order.compared(situation_of(here), first, choice)
                record = {"situation": situation, "axis": axis, **asdict(place), **choice.columns()}
                record |= {"baseline": str(first), **_summary(table.get(choice, {}), mine)}
                records.append(record | _ratio_columns(result))
    return _frame(records, rows, metric)


def df_breakeven(
    rows: Counted, metric: str = THROUGHPUT, *, axis: str = "pressure", pairs: Sequence[tuple[Choice, Choice]] = (),
    order: Ranking | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Where two choices change places along a numeric factor, or one stops ending well; a row a point, in words too.

    `pairs` of choices; by default each choice with a pool and the disk, and zram and zswap that are otherwise the same.
    `sure`: at some level on either side of a crossing the one that is ahead is surely better (`Ranking`).
    """
    what, order = measure(metric), order or ranking(rows, metric)
    records = []
    for situation, part in strata(rows, [axis]):
        levels = _by_level(rows, part, axis)
        tables = {place.level: values(here, metric) for place, here in levels}
        places = {place.level: situation_of(here) for place, here in levels}
        measured = all(place.measured for place, _ in levels)
        logarithmic = axis == "disk_latency" and next(iter(tables)) > 0
        for first, second in pairs or _pairs(list(dict.fromkeys(part["choice"]))):
            one, two = ({level: table[choice] for level, table in tables.items() if choice in table}
                        for choice in (first, second))  # fmt: skip
            for point in breakeven.break_evens(one, two, logarithmic=logarithmic):
                record: dict[str, Any] = {"situation": situation, "axis": axis}
                record |= {"first": str(first), "second": str(second)}
                record |= {**asdict(point), "kind": str(point.kind)}
                below, above = _ahead(first, second, point, what.more_is_better)
                sure = point.kind is breakeven.PointKind.LIMIT or _is_sure(order, places, point, below, above)
                record |= {"sure": sure, "measured": measured}
                words = _Words(axis, measured, situation)
                record["sentence"] = _point_words(first, second, point, words, (below, above), sure)
                records.append(record)
    columns = [
        "situation",
        "axis",
        "first",
        "second",
        *breakeven.BreakEven.__dataclass_fields__,
        "sure",
        "measured",
        "sentence",
    ]
    return _frame(records, rows, metric, columns)


def df_best(
    rows: Counted, metric: str = THROUGHPUT, *, down: str = "data", across: str = "pressure",
    order: Ranking | None = None,
) -> pd.DataFrame:  # fmt: skip
    """The best choice for each level of two factors, and the choices that do not differ surely from it.

    A row a pair of levels (and a combination of the situation's other factors). A factor that does not vary has one
    level. `best` are labels, the best one first; `died` are (label, its failures, its runs).
    """
    order = order or ranking(rows, metric)
    records = []
    for situation, part in strata(rows, [down, across]):
        for low, here in _by_text(rows, part, down):
            for high, cell in _by_text(rows, here, across):
                best = order.best(situation_of(cell), set(cell["choice"]))
                place: dict[str, Any] = {"situation": situation, "down": down, "across": across}
                place |= {"down_level": low, "across_level": high, AVAILABLE: pressure_of(cell)}
                records.append(place | _best_columns(best, cell))
    return _frame(records, rows, metric)


def df_effects(
    rows: Counted, metric: str = THROUGHPUT, *, alpha: float = ALPHA, minimum_effect: float = MINIMUM_EFFECT
) -> pd.DataFrame:
    """What each factor does with all else equal: a row a level, ending in a sentence."""
    records = []
    for effect in effects(rows, metric, alpha=alpha, minimum_effect=minimum_effect):
        result = effect.result.with_interval()
        record = {"factor": effect.factor, "level": effect.level, "baseline": effect.baseline, "ratio": result.ratio}
        record |= {"low": result.ratio_low, "high": result.ratio_high, "interval": str(Interval.of(result.pairs))}
        record |= {"seeds": result.pairs}
        record |= _verdict_columns(result)
        record |= {"combinations": len(effect.contrasts), "used": effect.used, "up": effect.up, "down": effect.down}
        records.append(record | {"turns": effect.turns, "why": effect.why, "sentence": effect.sentence()})
    columns = ["factor", "level", "baseline", "ratio", "low", "high", "sentence"]
    return _frame(records, rows, metric, columns)


def df_outcomes(rows: Counted) -> pd.DataFrame:
    """How the guests ended: a row a situation and choice with any that ended badly, its ends counted."""
    records = []
    for situation, part in strata(rows):
        for choice, mine in by_choice(part):
            if ends := failures(mine["result"]):
                errors = tuple(sorted({str(text) for text in mine.get("error", []) if text and text == text}))
                record = {"situation": situation, **choice.columns(), "runs": len(mine)}
                records.append(record | {"failures": ends, "errors": errors})
    return _frame(records, rows, "", ["situation", "choice", "runs", "failures", "errors"])


def _summary(seeds: Mapping[int, float | None], part: pd.DataFrame) -> dict[str, Any]:
    numbers = [value for value in seeds.values() if value is not None]
    summary = inference.summarise(numbers) if numbers else None
    ends = {"n": len(numbers), "interval": str(Interval.of(len(numbers)))}
    ends |= {"runs": len(part), "failures": failures(part["result"])}
    if summary is None:
        return {"median": None, "low": None, "high": None, **ends}
    return {"median": summary.median, "low": summary.low, "high": summary.high, **ends}


def _ratio_columns(compared: Comparison) -> dict[str, Any]:
    result = compared.with_interval()
    return {
        "ratio": result.ratio,
        "ratio_low": result.ratio_low,
        "ratio_high": result.ratio_high,
        "ratio_interval": str(Interval.of(result.pairs)),
        "pairs": result.pairs,
    }


def _verdict_columns(result: Comparison) -> dict[str, Any]:
    codes = {name: str(getattr(result, name)) for name in ("verdict", "evidence", "method")}
    return {"cliffs_delta": result.cliffs_delta, "p_holm": result.p_holm, **codes}


def _best_columns(best: Best, cell: pd.DataFrame) -> dict[str, Any]:
    ends = {choice: cell.loc[cell["choice"] == choice, "result"] for choice in best.died}
    return {
        "best": tuple(map(str, best.choices)),
        "value": best.value,
        "seeds": best.seeds,
        "verdict": str(best.verdict),
        "evidence": str(best.evidence),
        "next": str(best.next or ""),
        "gap": best.gap.ratio if best.gap else None,
        "why": best.why,
        "died": tuple((str(choice), failures(results), len(results)) for choice, results in ends.items()),
        "choices": cell["choice"].nunique(),
    }


def _points(part: pd.DataFrame, metric: str) -> dict[int, tuple[float, float]]:
    """RAM freed and the measure of each seed that ended well; several runs of a seed count once, the first."""
    points: dict[int, tuple[float, float]] = {}
    columns = [name for name in ("pair", metric, FREED) if name in part]
    for row in part.loc[part["result"] == GuestResult.WELL, columns].to_dict("records"):
        speed, freed = value_in(row, metric), value_in(row, FREED)
        if math.isfinite(speed) and math.isfinite(freed):
            points.setdefault(int(row["pair"]), (freed, speed))
    return points


@dataclass(frozen=True)
class _Place:
    """A level of a numeric factor: its place on the axis, its name in the plan, whether the place was measured."""

    level: float
    nominal: str
    measured: bool


@dataclass(frozen=True)
class _Words:
    """How places on an axis are written in a sentence about a situation."""

    axis: str
    measured: bool
    situation: str

    def at(self, *levels: float) -> str:
        """Places in words: "2.00 times the available memory", "disk_latency 22 µs and 80 µs"."""
        texts = " and ".join(place_text(self.axis, level) for level in levels)
        if self.axis != "pressure":
            return f"{self.axis} {texts}"
        return f"{texts} times the available memory" if self.measured else f"pressure {texts} (nominal)"


def _by_level(rows: Counted, part: pd.DataFrame, axis: str) -> list[tuple[_Place, pd.DataFrame]]:
    """The rows by their place on a numeric axis, in order; the place of a pressure is what all its rows measured."""
    texts = factor_of(rows, axis).loc[part.index]
    groups = {str(text): here for text, here in part.groupby(texts, sort=False)}
    nominal = {text: number_of(text) for text in groups}
    bad = [text for text, place in nominal.items() if math.isnan(place)]
    if bad:
        raise InvalidInput("axis", axis, f"has a level that is not a number: {bad[0]!r}", hint="such as pressure")
    known = {text: pressure_of(here) if axis == "pressure" else math.nan for text, here in groups.items()}
    measured = all(map(math.isfinite, known.values()))
    places = known if measured else nominal
    placed = [(_Place(places[text], text, measured or axis != "pressure"), here) for text, here in groups.items()]
    return sorted(placed, key=lambda one: one[0].level)


def _by_text(rows: Counted, part: pd.DataFrame, factor: str) -> list[tuple[str, pd.DataFrame]]:
    """The rows by the level of a factor in words, in order, whether it varies or not."""
    groups = part.groupby(factor_of(rows, factor).loc[part.index], sort=False)
    return sorted(((str(level), here) for level, here in groups), key=lambda one: sorting_key(one[0]))


def _pairs(choices: Sequence[Choice]) -> list[tuple[Choice, Choice]]:
    """The disk with each choice that has a pool, and zram with the zswap that is otherwise the same."""
    disks = [choice for choice in choices if choice.swap == "disk"][:1]
    pairs = [(disk, choice) for disk in disks for choice in choices if choice.has_pool]
    zrams, zswaps = ([choice for choice in choices if choice.swap == kind] for kind in ("zram", "zswap"))
    return pairs + [(zram, zswap) for zram in zrams for zswap in zswaps if zram.variant == zswap.variant]


def _ahead(
    first: Choice, second: Choice, point: breakeven.BreakEven, more_is_better: bool
) -> tuple[Choice, Choice]:  # fmt: skip
    """The choice that is ahead below a crossing, and the one above it."""
    return (second, first) if bool(point.ahead_below) == more_is_better else (first, second)


def _is_sure(
    order: Ranking, places: Mapping[float, str], point: breakeven.BreakEven, below: Choice, above: Choice
) -> bool:  # fmt: skip
    """Whether the one that is ahead on each side of a crossing is surely better at some level there."""
    return any(order.is_better(place, below, above) for level, place in places.items() if level <= point.below) and any(
        order.is_better(place, above, below) for level, place in places.items() if level >= point.above
    )


def _point_words(
    first: Choice, second: Choice, point: breakeven.BreakEven, words: _Words, ahead: tuple[Choice, Choice], sure: bool
) -> str:
    """A break-even in a sentence."""
    where = f" ({words.situation})" if words.situation else ""
    between = f"between {words.at(point.below, point.above)}"
    if point.kind is breakeven.PointKind.LIMIT:
        dying, living = (first, second) if point.failing == 1 else (second, first)
        return f"{dying} stops ending well {between}{where}; {living} still does."
    text = f"{ahead[0]} is ahead below {words.at(point.at or 0.0)}, {ahead[1]} above{where}"
    unsure = "" if sure else "; by the medians alone, an order that is not sure on both sides"
    if point.low is None or point.high is None:
        return f"{text}: measured {between}, {count_text(point.n)}: no interval{unsure}."
    support = point.support or 0
    seen = f", seen in {100 * support:.0f} % of resampled studies" if support < 0.995 else ""
    span = f"[{place_text(words.axis, point.low)}, {place_text(words.axis, point.high)}]"
    kind = "range of resampled studies" if Interval.of(point.n) is Interval.RANGE else "bootstrap 95 %"
    return f"{text}: {span} ({kind}, {count_text(point.n)}){seen}{unsure}."


def _frame(
    records: Sequence[Mapping[str, Any]], rows: Counted, metric: str, columns: list[str] | None = None
) -> pd.DataFrame:
    import pandas as pd

    table = pd.DataFrame([dict(record) for record in records], columns=None if records else columns)
    return table.assign(clock=rows.clock, **({"metric": metric} if metric else {}))
