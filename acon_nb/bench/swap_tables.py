"""The tables behind the answers of a swap study: for each figure one `df_...`, and `acon_nb.plots` has its `plot_...`.

Each takes `Counted` rows, so one clock alone, and returns a tidy DataFrame with the clock, the measure and the number
of seeds beside each number. Guests that ended badly are rows too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from acon_nb.bench import breakeven, stats
from acon_nb.bench.best import best_of
from acon_nb.bench.effects import effects
from acon_nb.bench.paired import ALPHA, MINIMUM_EFFECT, beside, interval_text, judge, sure_text
from acon_nb.bench.pareto import front
from acon_nb.bench.swap_rows import (
    THROUGHPUT,
    Counted,
    Result,
    factor_of,
    failures,
    measure,
    number_of,
    result_value,
    sorting_key,
    strata,
    values,
)
from acon_nb.errors import InvalidInput

if TYPE_CHECKING:
    import pandas as pd

SAVED = "saved_bytes"
_NO_POOL = ("none", "disk")


def baseline_of(found: Counted, baseline: str = "") -> str:
    """The choice to compare with: `baseline`, else plain disk, else the first. Errors: `InvalidInput` for none such."""
    names = list(dict.fromkeys(found.frame["choice"]))
    if baseline and baseline not in names:
        raise InvalidInput("baseline", baseline, "is no choice of this study", hint=f"one of {', '.join(names)}")
    return baseline or next((name for name in names if name.split(" ")[0] == "disk"), names[0])


def df_choices(
    found: Counted, metric: str = THROUGHPUT, *, baseline: str = "", alpha: float = ALPHA,
    minimum_effect: float = MINIMUM_EFFECT,
) -> pd.DataFrame:  # fmt: skip
    """Every choice in every situation: median with interval, and beside the baseline, paired by seed.

    p are adjusted for all choices and situations of the call (Holm).
    """
    what, first = measure(metric), baseline_of(found, baseline)
    rows: list[dict[str, Any]] = []
    saids = []
    tests = found.frame.groupby(["situation", "choice"]).ngroups - found.frame["situation"].nunique()
    for situation, part in strata(found):
        table = values(part, metric)
        for choice, mine in part.groupby("choice", sort=False):
            name = str(choice)
            rows.append({"situation": situation, "choice": name, **_summary(table.get(name, {}), mine)})
            pair = (table.get(first, {}), table.get(name, {})) if name != first else ({}, {})
            saids.append(beside(*pair, more_is_better=what.more_is_better, alpha=alpha, tests=max(1, tests)))
    for row, said in zip(rows, judge(saids, alpha=alpha, minimum_effect=minimum_effect), strict=True):
        row |= {"ratio": said.ratio, "ratio_low": said.low, "ratio_high": said.high, "pairs": said.n}
        row |= {"cliffs_delta": said.delta, "p_holm": said.p_holm, "sure": str(said.sure), "method": said.method}
        row |= {
            "baseline": first,
            "against": "" if row["choice"] == first else f"{interval_text(said)}; {sure_text(said)}",
        }
    return _frame(rows, found, metric)


def df_pareto(found: Counted, metric: str = THROUGHPUT, saved: str = SAVED) -> pd.DataFrame:
    """Throughput against memory saved, a row a situation and choice, with its standing on the Pareto front.

    Memory saved is what the pool holds less what it takes; a disk has no pool and saves 0 in this sense. A choice of
    which some guest ended badly is not on the front.
    """
    measure(metric)
    rows = []
    for situation, part in strata(found):
        points = {str(choice): _points(mine, metric, saved) for choice, mine in part.groupby("choice", sort=False)}
        whole = {name: part[part["choice"] == name] for name in points}
        standing = front({name: points[name] for name in points if not failures(whole[name])})
        for name, seeds in points.items():
            place = standing.get(name)
            sides = [[pair[axis] for pair in seeds.values()] for axis in (0, 1)]
            row: dict[str, Any] = {"situation": situation, "choice": name, "n": len(seeds)}
            for prefix, numbers in zip(("saved", "speed"), sides, strict=True):
                summary = stats.summarise(numbers) if numbers else None
                row |= {prefix: summary and summary.median, f"{prefix}_low": summary and summary.low}
                row[f"{prefix}_high"] = summary and summary.high
            row |= {"on_front": bool(place and place.on_front), "support": place and place.support}
            row["beaten_by"] = ", ".join(place.beaten_by) if place else ""
            row["failures"] = failures(whole[name])
            rows.append(row)
    return _frame(rows, found, metric)


def df_pressure(
    found: Counted, metric: str = THROUGHPUT, *, axis: str = "pressure", baseline: str = ""
) -> pd.DataFrame:
    """Each choice along a numeric factor: median, interval, ratio to the baseline; a row a level and choice.

    Errors: `InvalidInput` where the factor is not there or its levels are no numbers.
    """
    what, first = measure(metric), baseline_of(found, baseline)
    rows = []
    for situation, part in strata(found, [axis]):
        places = _places(found, part, axis)
        for level in sorted(set(places.values())):
            here = part[[places[index] == level for index in part.index]]
            table = values(here, metric)
            for choice, mine in here.groupby("choice", sort=False):
                name = str(choice)
                pair = (table.get(first, {}), table.get(name, {}))
                said = beside(*pair, more_is_better=what.more_is_better)
                row = {"situation": situation, "axis": axis, "level": level, "choice": name, "baseline": first}
                row |= _summary(table.get(name, {}), mine)
                rows.append(row | {"ratio": said.ratio, "ratio_low": said.low, "ratio_high": said.high})
    return _frame(rows, found, metric)


def df_breakeven(
    found: Counted, metric: str = THROUGHPUT, *, axis: str = "pressure", pairs: Sequence[tuple[str, str]] = ()
) -> pd.DataFrame:
    """Where two choices change places along a numeric factor, or one stops ending well; a row a point, in words too.

    `pairs` of choices; by default each kind of swap beside the disk, and zram beside zswap of the same compressor.
    """
    what = measure(metric)
    rows = []
    for situation, part in strata(found, [axis]):
        places = _places(found, part, axis)
        levels = sorted(set(places.values()))
        tables = {level: values(part[[places[index] == level for index in part.index]], metric) for level in levels}
        names = list(dict.fromkeys(part["choice"]))
        logarithmic = axis == "disk_latency" and levels[0] > 0
        for first, second in pairs or _pairs(names):
            one, two = ({level: table[name] for level, table in tables.items() if name in table}
                        for name in (first, second))  # fmt: skip
            for point in breakeven.break_evens(one, two, logarithmic=logarithmic):
                row = {"situation": situation, "axis": axis, "first": first, "second": second, **vars(point)}
                row["kind"] = str(point.kind)
                row["sentence"] = _point_words(first, second, point, axis, what.more_is_better, situation)
                rows.append(row)
    columns = ["situation", "axis", "first", "second", *breakeven.BreakEven.__dataclass_fields__, "sentence"]
    return _frame(rows, found, metric, columns)


def df_best(
    found: Counted, metric: str = THROUGHPUT, *, down: str = "data", across: str = "pressure", alpha: float = ALPHA,
    minimum_effect: float = MINIMUM_EFFECT,
) -> pd.DataFrame:  # fmt: skip
    """The best choice for each level of two factors; those that cannot be told from it stand beside it.

    A row a pair of levels (and a combination of the situation's other factors). A factor that does not vary has one
    level.
    """
    what = measure(metric)
    rows = []
    for situation, part in strata(found, [down, across]):
        texts = {name: _level_texts(found, part, name) for name in (down, across)}
        for low in sorted(set(texts[down].values()), key=sorting_key):
            for high in sorted(set(texts[across].values()), key=sorting_key):
                keep = [texts[down][index] == low and texts[across][index] == high for index in part.index]
                here = part[keep]
                if here.empty:
                    continue
                table: dict[str, Mapping[int, float | None]] = {str(choice): {} for choice in here["choice"]}
                table |= values(here, metric)
                best = best_of(table, more_is_better=what.more_is_better, clock=found.clock, alpha=alpha,
                               minimum_effect=minimum_effect)  # fmt: skip
                died = {name: failures(here[here["choice"] == name]) for name in best.died}
                rows.append(
                    {
                        "situation": situation, "down": down, "across": across, "down_level": low, "across_level": high,
                        "best": " | ".join(best.names), "tied": max(0, len(best.names) - 1), "value": best.value,
                        "seeds": best.seeds, "sure": str(best.sure), "behind": best.behind,
                        "gap": best.gap.ratio if best.gap else None, "why": best.why,
                        "died": "; ".join(f"{name}: {text}" for name, text in died.items()),
                        "choices": len(table),
                    }
                )  # fmt: skip
    return _frame(rows, found, metric)


def df_effects(
    found: Counted, metric: str = THROUGHPUT, *, alpha: float = ALPHA, minimum_effect: float = MINIMUM_EFFECT
) -> pd.DataFrame:
    """What each factor does with all else equal: a row a level, ending in a sentence."""
    rows = []
    for one in effects(found, metric, alpha=alpha, minimum_effect=minimum_effect):
        said = one.said
        row = {"factor": one.factor, "level": one.level, "beside": one.baseline, "ratio": said.ratio}
        row |= {"low": said.low, "high": said.high, "seeds": said.n, "cliffs_delta": said.delta}
        row |= {"p_holm": said.p_holm, "method": said.method, "sure": str(said.sure), "settings": one.settings}
        row |= {"used": one.used, "up": one.up, "down": one.down, "turns": one.turns, "why": one.why}
        rows.append(row | {"sentence": one.sentence})
    columns = ["factor", "level", "beside", "ratio", "low", "high", "sentence"]
    return _frame(rows, found, metric, columns if not rows else None)


def df_outcomes(found: Counted) -> pd.DataFrame:
    """How the guests ended: a row a situation and choice with any that ended badly, its ends counted."""
    rows = [
        {"situation": situation, "choice": str(choice), "runs": len(part), "ended badly": failures(part),
         "errors": "; ".join(sorted({str(text) for text in part.get("error", []) if text and text == text}))}
        for (situation, choice), part in found.frame.groupby(["situation", "choice"], sort=False)
        if failures(part)
    ]  # fmt: skip
    return _frame(rows, found, "", ["situation", "choice", "runs", "ended badly", "errors"] if not rows else None)


def _summary(seeds: Mapping[int, float | None], part: pd.DataFrame) -> dict[str, Any]:
    numbers = [value for value in seeds.values() if value is not None]
    summary = stats.summarise(numbers) if numbers else None
    ends = {"n": len(numbers), "runs": len(part), "failures": failures(part)}
    if summary is None:
        return {"median": None, "low": None, "high": None, **ends}
    return {"median": summary.median, "low": summary.low, "high": summary.high, **ends}


def _points(part: pd.DataFrame, metric: str, saved: str) -> dict[int, tuple[float, float]]:
    """Memory saved and throughput of each seed that ended well; several runs of a seed count once, the first."""
    found: dict[int, tuple[float, float]] = {}
    columns = [name for name in ("choice", "pair", "result", metric, saved) if name in part]
    for row in part[columns].to_dict("records"):
        speed, bytes_saved = result_value(row, metric), result_value(row, saved)
        if bytes_saved != bytes_saved and str(row["choice"]).split(" ")[0] in _NO_POOL:
            bytes_saved = 0.0
        if row["result"] == Result.WELL and all(math.isfinite(number) for number in (speed, bytes_saved)):
            found.setdefault(int(row["pair"]), (bytes_saved, speed))
    return found


def _places(found: Counted, part: pd.DataFrame, axis: str) -> dict[Any, float]:
    """The place of each row on a numeric axis."""
    places = {index: number_of(text) for index, text in _level_texts(found, part, axis).items()}
    bad = [index for index, number in places.items() if number != number]
    if bad:
        level = part.loc[bad[0], f"factor_{axis}"]
        raise InvalidInput("axis", axis, f"has a level that is no number: {level!r}", hint="such as pressure")
    return places


def _level_texts(found: Counted, part: pd.DataFrame, factor: str) -> dict[Any, str]:
    """The level of a factor in each row, in words, whether it varies or not."""
    column = factor_of(found, factor)
    return {index: str(level) for index, level in column.loc[part.index].items()}


def _pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Each choice beside the disk, and zram beside zswap where the rest of the label is the same."""
    disks = [name for name in names if name.split(" ")[0] == "disk"][:1]
    found = [(disk, name) for disk in disks for name in names if name.split(" ")[0] not in _NO_POOL]
    for name in names:
        kind, _, rest = name.partition(" ")
        if kind == "zram" and f"zswap {rest}" in names:
            found.append((name, f"zswap {rest}"))
    return found


def _point_words(
    first: str, second: str, point: breakeven.BreakEven, axis: str, more_is_better: bool, situation: str
) -> str:
    """A break-even in a sentence."""
    where = f" ({situation})" if situation else ""
    between = f"{axis} {level_words(axis, point.below)} and {level_words(axis, point.above)}"
    if point.kind is breakeven.Kind.LIMIT:
        dying, living = (first, second) if point.failing == 1 else (second, first)
        return f"{dying} stops ending well between {between}{where}; {living} goes on."
    better_below = second if bool(point.ahead_below) == more_is_better else first
    better_above = first if better_below == second else second
    at = level_words(axis, point.at or 0.0)
    text = f"{better_below} is ahead below {axis} {at}, {better_above} above{where}"
    if point.low is None or point.high is None:
        return f"{text}: measured between {between}, n={point.n}; no interval from so few seeds."
    support = f", seen in {100 * (point.support or 0):.0f} % of redrawn studies" if (point.support or 0) < 0.995 else ""
    span = f"[{level_words(axis, point.low)}, {level_words(axis, point.high)}]"
    doubt = "" if (point.support or 0) >= 0.95 else ": not sure"
    return f"{text}: {span}, n={point.n}{support}{doubt}."


def level_words(axis: str, level: float) -> str:
    """A place on an axis for people: "1.43", "80 µs"."""
    if axis == "disk_latency":
        return f"{level / 1e3:.3g} µs" if level < 1e6 else f"{level / 1e6:.3g} ms"
    return f"{level:.3g}"


def _frame(
    rows: Sequence[Mapping[str, Any]], found: Counted, metric: str, columns: list[str] | None = None
) -> pd.DataFrame:
    import pandas as pd

    table = pd.DataFrame([dict(row) for row in rows], columns=None if rows else columns)
    return table.assign(clock=found.clock, **({"metric": metric} if metric else {}))
