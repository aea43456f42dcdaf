"""Is B slower than A? Cells compared with a baseline, one measure on one clock, with a verdict in words.

On the wall clock: a permutation test, the ratio of medians with its interval, and a smallest effect that matters, set
beforehand; an alarm needs both. On the instruction clock equal guests give equal counts, so any difference is real and
no test is asked (docs/statistics.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from acon_nb.bench import stats
from acon_nb.bench.metrics import Metric, metric_on
from acon_nb.bench.rows import changed, one_of, usable
from acon_nb.errors import InvalidInput
from acon_nb.units import format_share
from acon_nb.vm import Clock

if TYPE_CHECKING:
    import pandas as pd

ALPHA = 0.01
UNSET = "(not set)"  # the level of a factor that a cell of a list does not name
MINIMUM_EFFECT = {Clock.WALL: 0.01, Clock.INSTRUCTIONS: 0.0}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One cell beside its baseline.

    `verdict`: equal, differs (exact); worse, better (an alarm), below the minimum (real, too small to matter), no
    change (any is smaller than the minimum effect), cannot tell, no runs. Medians and `difference` are in the measure's
    unit (ns, bytes). `p` and its companions are None where no test is asked; `p_holm` is adjusted for all comparisons
    of one call. `needed` is the number of runs a side (or blocks) that would find the minimum effect.
    """

    metric: str
    clock: str
    host_class: str
    stratum: str
    baseline: str
    cell: str
    n_baseline: int
    n: int
    verdict: str
    minimum_effect: float
    baseline_median: float | None = None
    median: float | None = None
    difference: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    cliffs_delta: float | None = None
    p: float | None = None
    p_holm: float | None = None
    smallest_p: float | None = None
    method: str = ""
    needed: int | None = None
    alarm: bool = False
    left_out: str = ""
    note: str = ""


def compare(
    frame: pd.DataFrame,
    metric: str,
    *,
    factor: str = "cell",
    baseline: Any = None,
    minimum_effect: float | None = None,
    alpha: float = ALPHA,
) -> pd.DataFrame:
    """Every level of a factor (or every cell) beside the baseline: a row a comparison, columns as `Comparison`.

    `frame` has a row a run, of one clock and one host class. With a factor's name the other factors are held: levels
    are compared within each of their combinations. `baseline` is a level (default: that of the plan's baseline, else
    the first in the frame). `minimum_effect` is a share (default: on the wall clock the plan's, else 0.01; on the
    instruction clock 0). Errors: `InvalidInput` for mixed clocks or host classes, a measure that the clock does not
    have, no such factor or baseline.
    """
    clock = one_of(frame, "clock") or Clock.WALL.value
    host_class = one_of(frame, "host_class")
    measure = metric_on(metric, clock)
    column = factor if factor in frame else f"factor_{factor}"
    if column not in frame:
        known = [name.removeprefix("factor_") for name in map(str, frame) if name.startswith("factor_")]
        raise InvalidInput("factor", factor, "is no factor of these rows", hint=f"cell, or one of {', '.join(known)}")
    if metric not in frame or not frame[metric].notna().any():
        raise InvalidInput("metric", metric, "has no value in these rows", hint="see docs/results.md")
    frame = frame.assign(**{column: [UNSET if level is None or level != level else level for level in frame[column]]})
    levels = list(dict.fromkeys(frame[column]))
    first = _baseline(frame, column, factor, levels, baseline)
    effect = _minimum_effect(frame, clock) if minimum_effect is None else minimum_effect
    if not 0 <= effect < 1:
        raise InvalidInput("minimum_effect", effect, "is no share", hint="such as 0.01 for 1 %")
    asked: list[tuple[Comparison, pd.DataFrame, pd.DataFrame]] = []
    for stratum, part in _strata(frame, column):
        sides = {level: part[part[column] == level] for level in levels}
        for level in levels:
            if level != first and len(sides[level]) and len(sides[first]):
                empty = Comparison(
                    metric=metric, clock=clock, host_class=host_class, stratum=stratum, baseline=str(first),
                    cell=str(level), n_baseline=0, n=0, verdict="no runs", minimum_effect=effect,
                )  # fmt: skip
                asked.append((empty, sides[first], sides[level]))
    # Of several comparisons the best must reach its part of alpha (Holm), which decides what so many runs can tell.
    part_of_alpha = alpha / max(1, len(asked))
    found = [_beside(empty, measure, a, b, [column], part_of_alpha) for empty, a, b in asked]
    return _table(_judged(found, alpha))


def sentence(row: Mapping[str, Any]) -> str:
    """A comparison in one or two sentences for people, from a row of `compare`."""
    said = Comparison(**{key: _none(row[key]) for key in Comparison.__dataclass_fields__})
    measure = metric_on(said.metric, said.clock)
    where = f" ({said.stratum})" if said.stratum else ""
    text = f"{said.cell} beside {said.baseline}{where}, {measure.label}: {_verdict_words(said, measure)}"
    if said.left_out:
        text += f" Left out: {said.left_out}."
    return f"{text} {said.note}" if said.note else text


def _baseline(frame: pd.DataFrame, column: str, factor: str, levels: Sequence[Any], wanted: Any) -> Any:
    """The level to compare with; one given as a text is found by its text, as a command line gives it."""
    if wanted is None:
        said = frame["cell"].isin(frame["baseline"].dropna()) if "baseline" in frame and "cell" in frame else None
        return levels[0] if said is None or not said.any() else frame.loc[said, column].iloc[0]
    found = [level for level in levels if level == wanted or str(level) == str(wanted)]
    if not found:
        hint = f"one of {', '.join(map(str, levels))}"
        raise InvalidInput("baseline", wanted, f"is no level of {factor}", hint=hint)
    return found[0]


def _minimum_effect(frame: pd.DataFrame, clock: str) -> float:
    """What the plan said beforehand, on the wall clock; where its rows do not agree, the default."""
    said = set(frame["minimum_effect"].dropna()) if "minimum_effect" in frame and clock == Clock.WALL else set()
    return float(said.pop()) if len(said) == 1 else MINIMUM_EFFECT[Clock(clock)]


def _strata(frame: pd.DataFrame, column: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """The rows by the other factors that vary, with their levels in words."""
    others = [
        name
        for name in map(str, frame)
        if column != "cell" and name.startswith("factor_") and name != column and frame[name].nunique(dropna=False) > 1
    ]
    if not others:
        yield "", frame
        return
    for levels, part in frame.groupby(others, dropna=False, sort=False):
        pairs = zip(others, levels if isinstance(levels, tuple) else (levels,), strict=True)
        yield ", ".join(f"{name.removeprefix('factor_')}={_level(level)}" for name, level in pairs), part


def _beside(
    empty: Comparison, measure: Metric, first: pd.DataFrame, second: pd.DataFrame, without: Sequence[str], alpha: float
) -> Comparison:
    """All numbers of a comparison but the adjusted p and the verdict that needs it."""
    import pandas as pd

    kept = [usable(rows) for rows in (first, second)]
    left = [f"of {name} {out.text()}" for name, (_, out) in zip((empty.baseline, empty.cell), kept, strict=True)
            if out.text()]  # fmt: skip
    rows = [part[part[measure.name].notna()] for part, _ in kept]
    a, b = ([float(value) for value in part[measure.name]] for part in rows)
    said = replace(empty, n_baseline=len(a), n=len(b), left_out="; ".join(left))
    if not a or not b:
        return said
    if min(*a, *b) <= 0:
        raise InvalidInput("metric", measure.name, "has values that are not above 0", hint="ratios need positive ones")
    medians = [float(pd.Series(values).median()) for values in (a, b)]
    ratio = stats.ratio_of_medians(a, b)
    said = replace(
        said, baseline_median=medians[0], median=medians[1], difference=medians[1] - medians[0], ratio=ratio.ratio,
        ratio_low=ratio.low, ratio_high=ratio.high, cliffs_delta=stats.cliffs_delta(a, b),
    )  # fmt: skip
    notes = [f"Also differs: {'; '.join(also)}." for also in [changed(*rows, without=without)] if also]
    if measure.is_exact(said.clock):
        broken = [name for name, values in ((said.baseline, a), (said.cell, b)) if len(set(values)) > 1]
        mixed = [name for name, part in zip((said.baseline, said.cell), rows, strict=True) if _contents(part) > 1]
        if broken and mixed:
            hint = "take the newest rows of each cell: bench.rows.newest(frame)"
            raise InvalidInput("rows", ", ".join(mixed), "are of several kernels, initrds or QEMUs", hint=hint)
        if not broken:
            if min(len(a), len(b)) < 2:
                notes.append("One run of a cell does not show that it repeats.")
            verdict = "equal" if a[0] == b[0] else "differs"
            beyond = abs(said.ratio - 1) > 0 and abs(said.ratio - 1) >= said.minimum_effect  # type: ignore[operator]
            return replace(said, verdict=verdict, method="exact", alarm=beyond, note=" ".join(notes))
        notes.insert(0, f"DETERMINISM IS BROKEN: equal runs of {' and of '.join(broken)} gave different counts;"
                        " they are judged as noisy.")  # fmt: skip
    return _tested(replace(said, note=" ".join(notes)), rows[0], rows[1], measure.name, alpha)


def _contents(part: pd.DataFrame) -> int:
    """How many different things the rows of a cell booted."""
    names = [name for name in ("spec_sha256", "qemu_version") if name in part]
    return len(part[names].drop_duplicates()) if names else 1


def _tested(said: Comparison, first: pd.DataFrame, second: pd.DataFrame, metric: str, alpha: float) -> Comparison:
    """The test: paired by block where there are blocks enough to be significant, else unpaired."""
    import numpy as np

    pairs = _pairs(first, second, metric)
    if len(pairs) > 1 and stats.smallest_paired_p(len(pairs)) <= alpha:
        test = stats.paired_test([float(value) for value in np.log(pairs)])
        ratio = stats.ratio_of_pairs(pairs)
        said = replace(said, ratio=ratio.ratio, ratio_low=ratio.low, ratio_high=ratio.high, method="paired by block")
        needed = _needed(stats.spread(pairs), said.minimum_effect, alpha, paired=True)
    else:
        test = stats.permutation_test(list(first[metric]), list(second[metric]))
        said = replace(said, method="unpaired")
        cv = max(stats.spread(list(first[metric])), stats.spread(list(second[metric])))
        needed = _needed(cv, said.minimum_effect, alpha, paired=False)
    return replace(said, p=test.p, smallest_p=test.smallest_p, needed=needed)


def _pairs(first: pd.DataFrame, second: pd.DataFrame, metric: str) -> list[float]:
    """The ratio of each block that both sides have (medians where a side has several runs in it)."""
    if "block" not in first or "block" not in second:
        return []
    # Blocks of several sessions are not the same block.
    keys = [name for name in ("session", "block") if name in first and name in second]
    sides = [part.groupby(keys)[metric].median() for part in (first, second)]
    both = (sides[1] / sides[0]).dropna()
    return [float(value) for value in both]


def _needed(cv: float, effect: float, alpha: float, *, paired: bool) -> int | None:
    return stats.required_runs(cv, effect, alpha=alpha, paired=paired) if effect > 0 and math.isfinite(cv) else None


def _judged(found: list[Comparison], alpha: float) -> list[Comparison]:
    """The verdicts: the p of all tests of this call are adjusted together."""
    tests = [number for number, said in enumerate(found) if said.p is not None]
    for number, p in zip(tests, stats.holm([float(found[n].p or 0) for n in tests]), strict=True):
        said = found[number]
        ratio, low, high = (float(number or 0) for number in (said.ratio, said.ratio_low, said.ratio_high))
        beyond = abs(ratio - 1) >= said.minimum_effect
        within = max(high - 1, 1 - low) < said.minimum_effect
        if p <= alpha:
            worse = metric_on(said.metric, said.clock).is_worse(ratio)
            verdict = ("worse" if worse else "better") if beyond else "below the minimum"
        else:
            verdict = "no change" if within else "cannot tell"
        note = said.note
        if verdict == "cannot tell" and said.smallest_p is not None and said.smallest_p * len(tests) > alpha:
            note = f"{note} So few runs cannot give a p of {alpha:g} at all.".strip()
        found[number] = replace(said, p_holm=p, verdict=verdict, alarm=p <= alpha and beyond, note=note)
    return found


def _table(found: Sequence[Comparison]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame([asdict(said) for said in found], columns=list(Comparison.__dataclass_fields__))


def _verdict_words(said: Comparison, measure: Metric) -> str:
    runs = f"{said.n_baseline}+{said.n} runs"
    if said.verdict == "no runs" or said.ratio is None or said.difference is None:
        return f"cannot tell: no run of {'both' if said.n == said.n_baseline else 'one of them'} counts."
    if said.verdict == "equal":
        what = "to the nanosecond" if measure.unit == "s" else "to the byte"
        return f"equal, {what}, in all {runs}."
    share = format_share(abs(said.ratio - 1))
    if said.verdict == "differs":
        word = measure.change(said.difference, said.clock)
        text = f"{word} by {measure.difference_text(said.difference, said.clock)} ({share}): exact, no test needed."
        return text if said.alarm else f"{text} It is below the minimum effect of {format_share(said.minimum_effect)}."
    interval = f"[{_ratio(said.ratio_low, said.ratio)}, {_ratio(said.ratio_high, said.ratio)}]"
    smallest = f"the minimum effect of {format_share(said.minimum_effect)}"
    numbers = f"ratio {_ratio(said.ratio, said.ratio)} {interval}, n={said.n_baseline}+{said.n}, {said.method}"
    if said.verdict in ("worse", "better"):
        return f"{measure.change(said.ratio - 1, said.clock)} by {share}, p={said.p_holm:.2g} ({numbers})."
    if said.verdict == "below the minimum":
        return f"a real difference (p={said.p_holm:.2g}) that is smaller than {smallest} ({numbers})."
    if said.verdict == "no change":
        return f"no change found ({numbers}): any is smaller than {smallest}."
    needs = f" {smallest[0].upper()}{smallest[1:]} needs some {said.needed} {_unit(said)}." if said.needed else ""
    return f"cannot tell ({numbers}, p={said.p_holm:.2g}).{needs}"


def _unit(said: Comparison) -> str:
    return "blocks" if said.method == "paired by block" else "runs of each"


def _ratio(value: float | None, ratio: float) -> str:
    """A ratio with digits enough to see what it differs from 1 by."""
    digits = 3 if ratio == 1 else min(9, max(3, 1 - math.floor(math.log10(abs(ratio - 1)))))
    return f"{value:.{digits}f}"


def _level(level: Any) -> str:
    return "none" if level is None or level != level or level == "" else str(level)


def _none(value: Any) -> Any:
    """None for pandas' nothing."""
    return None if isinstance(value, float) and value != value else value
