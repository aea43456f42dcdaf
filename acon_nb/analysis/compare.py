"""Compares cells with a baseline, one measure on one clock, and gives a verdict in words.

On the wall clock: a test, the ratio of medians with its interval, and the smallest effect that matters, set beforehand;
an alarm needs both. On the instruction clock equal guests give equal counts, so any difference is real and no test is
needed (docs/statistics.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from acon_nb.errors import InvalidInput
from acon_nb.results.metrics import Metric, metric_on
from acon_nb.results.select import changed, having, one_of, usable
from acon_nb.stats import inference
from acon_nb.stats.comparison import (
    Comparison,
    Evidence,
    Method,
    Replicate,
    Verdict,
    compare_counts,
    compare_runs,
    judge,
)
from acon_nb.stats.inference import ALPHA
from acon_nb.stats.intervals import Interval
from acon_nb.units import format_share
from acon_nb.vm import Clock

if TYPE_CHECKING:
    import pandas as pd

UNSET = "(not set)"  # the level of a factor that a cell of a list does not name
MINIMUM_EFFECT = {Clock.WALL: 0.01, Clock.INSTRUCTIONS: 0.0}


@dataclass(frozen=True, kw_only=True)
class CellComparison:
    """A cell (or a level of a factor) compared with its baseline: what was compared, and how it turned out.

    `stratum` are the levels of the other factors. `needed` is the number of runs per side (or blocks) that would find
    the minimum effect. `left_out` and `note` are sentences for people.
    """

    metric: str
    clock: str
    host_class: str
    stratum: str
    baseline: str
    cell: str
    result: Comparison
    needed: int | None = None
    left_out: str = ""
    note: str = ""

    @property
    def difference(self) -> float | None:
        """The difference of the medians, in the measure's unit (ns, bytes)."""
        medians = self.result.median, self.result.baseline_median
        return None if medians[0] is None or medians[1] is None else medians[0] - medians[1]

    def row(self) -> dict[str, Any]:
        """Return the comparison as a flat row, with codes for verdict and method."""
        labels = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "result"}
        numbers = {name: value for name, value in asdict(self.result).items() if name not in _NOT_IN_ROWS}
        codes = {name: str(numbers[name]) for name in ("verdict", "evidence", "method")}
        return {**labels, **numbers, **codes, "difference": self.difference, "alarm": self.result.verdict.ranks}

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> CellComparison:
        """Build the comparison from a row."""
        values: dict[str, Any] = {name: None if value != value else value for name, value in row.items()}
        numbers: dict[str, Any] = {
            field.name: values[field.name] for field in fields(Comparison) if field.name in values
        }
        types = {"verdict": Verdict, "evidence": Evidence, "method": Method}
        numbers |= {name: make(numbers[name]) for name, make in types.items()}
        labels = {field.name: values[field.name] for field in fields(cls) if field.name != "result"}
        more = metric_on(labels["metric"], labels["clock"]).more_is_better
        return cls(**labels, result=Comparison(**_WITHOUT_FAILURES, more_is_better=more, **numbers))


_NOT_IN_ROWS = ("replicate", "more_is_better", "failed", "failed_baseline")  # the same for all runs, or the measure's
_WITHOUT_FAILURES: dict[str, Any] = {"replicate": Replicate.RUN}
_COLUMNS = (
    "metric", "clock", "host_class", "stratum", "baseline", "cell", "n_baseline", "n", "verdict", "evidence",
    "minimum_effect", "baseline_median", "median", "difference", "ratio", "ratio_low", "ratio_high", "cliffs_delta",
    "p", "p_holm", "smallest_p", "method", "pairs", "needed", "alarm", "left_out", "note",
)  # fmt: skip


def compare(
    frame: pd.DataFrame,
    metric: str,
    *,
    factor: str = "cell",
    baseline: Any = None,
    minimum_effect: float | None = None,
    alpha: float = ALPHA,
) -> pd.DataFrame:
    """Compare every level of a factor (or every cell) with the baseline; return one row per comparison.

    The columns are those of `CellComparison` and its `Comparison`; `alarm` is whether the verdict is better or worse.

    `frame` has one row per run, of one clock and one host class. With a factor's name the other factors are held fixed:
    levels are compared within each of their combinations. `baseline` is a level (default: that of the plan's baseline,
    else the first in the frame). `minimum_effect` is a share (default: on the wall clock the plan's, else 0.01; on the
    instruction clock 0). Errors: `InvalidInput` for mixed clocks or host classes, a measure that the clock does not
    have, an unknown factor or baseline.
    """
    clock = one_of(frame, "clock") or Clock.WALL.value
    host_class = one_of(frame, "host_class")
    measure = metric_on(metric, clock)
    column = factor if factor in frame else f"factor_{factor}"
    if column not in frame:
        known = [name.removeprefix("factor_") for name in map(str, frame) if name.startswith("factor_")]
        raise InvalidInput(
            "factor", factor, "is not a factor of these rows", hint=f"cell, or one of {', '.join(known)}"
        )
    if metric not in frame or not frame[metric].notna().any():
        raise InvalidInput("metric", metric, "has no value in these rows", hint="see docs/results.md")
    frame = having(frame, factor)
    if frame.empty:
        raise InvalidInput("factor", factor, "applies to none of these rows", hint="compare another one")
    frame = frame.assign(**{column: [UNSET if level is None or level != level else level for level in frame[column]]})
    levels = list(dict.fromkeys(frame[column]))
    first = _baseline(frame, column, factor, levels, baseline)
    effect = _minimum_effect(frame, clock) if minimum_effect is None else minimum_effect
    if not 0 <= effect < 1:
        raise InvalidInput("minimum_effect", effect, "is not a share", hint="such as 0.01 for 1 %")
    pending: list[tuple[CellComparison, pd.DataFrame, pd.DataFrame]] = []
    for stratum, part in _strata(frame, column):
        sides = dict(iter(part.groupby(column, sort=False)))
        for level in levels:
            if level != first and level in sides and first in sides:
                nothing = Comparison(
                    replicate=Replicate.RUN, n_baseline=0, n=0, more_is_better=measure.more_is_better,
                    minimum_effect=effect,
                )  # fmt: skip
                empty = CellComparison(
                    metric=metric, clock=clock, host_class=host_class, stratum=stratum, baseline=str(first),
                    cell=str(level), result=nothing,
                )  # fmt: skip
                pending.append((empty, sides[first], sides[level]))
    tests = max(1, len(pending))
    compared = [_compared(empty, measure, a, b, [column], alpha, tests) for empty, a, b in pending]
    judged = judge([one.result for one in compared], alpha=alpha)
    return _table(
        [_noted(replace(one, result=result), alpha, judged) for one, result in zip(compared, judged, strict=True)]
    )


def sentence(row: Mapping[str, Any]) -> str:
    """Describe a comparison in one or two sentences, from a row of `compare`."""
    compared = CellComparison.of(row)
    measure = metric_on(compared.metric, compared.clock)
    where = f" ({compared.stratum})" if compared.stratum else ""
    head = f"{compared.cell} compared with {compared.baseline}{where}, {measure.label}"
    text = f"{head}: {_verdict_words(compared, measure)}"
    if compared.left_out:
        text += f" Left out: {compared.left_out}."
    return f"{text} {compared.note}" if compared.note else text


def _baseline(frame: pd.DataFrame, column: str, factor: str, levels: Sequence[Any], wanted: Any) -> Any:
    """Return the level to compare with; a string, as from a command line, is compared with the levels' texts."""
    if wanted is None:
        if "baseline" not in frame or "cell" not in frame:
            return levels[0]
        of_baseline = frame.loc[frame["cell"].isin(frame["baseline"].dropna()), column]
        return levels[0] if of_baseline.empty else of_baseline.iloc[0]
    matching = [level for level in levels if level == wanted or str(level) == str(wanted)]
    if not matching:
        hint = f"one of {', '.join(map(str, levels))}"
        raise InvalidInput("baseline", wanted, f"is not a level of {factor}", hint=hint)
    return matching[0]


def _minimum_effect(frame: pd.DataFrame, clock: str) -> float:
    """Return the minimum effect of the plan, on the wall clock; the default if its rows do not agree."""
    planned = set(frame["minimum_effect"].dropna()) if "minimum_effect" in frame and clock == Clock.WALL else set()
    return float(planned.pop()) if len(planned) == 1 else MINIMUM_EFFECT[Clock(clock)]


def _strata(frame: pd.DataFrame, column: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the rows by the levels of the other factors that vary, with a text of these levels."""
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


def _compared(
    empty: CellComparison, measure: Metric, first: pd.DataFrame, second: pd.DataFrame, without: Sequence[str],
    alpha: float, tests: int,
) -> CellComparison:  # fmt: skip
    """Compute a comparison except for the adjusted p and the verdict that needs it."""
    selected = [usable(rows) for rows in (first, second)]
    left = [f"of {name} {out.text()}" for name, (_, out) in zip((empty.baseline, empty.cell), selected, strict=True)
            if out.text()]  # fmt: skip
    rows = [part[part[measure.name].notna()] for part, _ in selected]
    a, b = ([float(value) for value in part[measure.name]] for part in rows)
    counted = replace(empty.result, n_baseline=len(a), n=len(b))
    compared = replace(empty, result=counted, left_out="; ".join(left))
    if not a or not b:
        return compared
    if min(*a, *b) <= 0:
        raise InvalidInput("metric", measure.name, "has values that are not above 0", hint="ratios need positive ones")
    notes = [f"Also differs: {'; '.join(also)}." for also in [changed(*rows, without=without)] if also]
    effect = empty.result.minimum_effect
    if measure.is_exact(compared.clock) and not any(_seeds(part) > 1 for part in rows):
        broken = [name for name, values in ((empty.baseline, a), (empty.cell, b)) if len(set(values)) > 1]
        mixed = [name for name, part in zip((empty.baseline, empty.cell), rows, strict=True) if _contents(part) > 1]
        if broken and mixed:
            hint = "take the newest rows of each cell: results.select.newest(frame)"
            raise InvalidInput("rows", ", ".join(mixed), "are of several kernels, initrds or QEMUs", hint=hint)
        if not broken:
            if min(len(a), len(b)) < 2:
                notes.append("One run of a cell does not show that it repeats.")
            result = compare_counts(a, b, more_is_better=measure.more_is_better, minimum_effect=effect)
            return replace(compared, result=result, note=" ".join(notes))
        notes.insert(0, f"DETERMINISM IS BROKEN: equal runs of {' and of '.join(broken)} gave different counts;"
                        " they are compared as noisy runs.")  # fmt: skip
    ratios = _block_ratios(rows[0], rows[1], measure.name)
    result = compare_runs(
        a, b, ratios, more_is_better=measure.more_is_better, minimum_effect=effect, alpha=alpha, tests=tests
    )
    return replace(compared, result=result, needed=_needed(result, a, b, ratios, alpha / tests), note=" ".join(notes))


def _seeds(rows: pd.DataFrame) -> int:
    """The number of seeds of a study whose replicates differ in them: such guests are not equal."""
    return int(rows["seed"].nunique()) if "seed" in rows else 0


def _contents(part: pd.DataFrame) -> int:
    """Return how many different contents the rows of a cell booted."""
    names = [name for name in ("spec_sha256", "qemu_version") if name in part]
    return len(part[names].drop_duplicates()) if names else 1


def _block_ratios(first: pd.DataFrame, second: pd.DataFrame, metric: str) -> list[float]:
    """Return the ratio of each block that both sides have (of medians if a side has several runs in it)."""
    if "block" not in first or "block" not in second:
        return []
    # Blocks of several sessions are not the same block.
    keys = [name for name in ("session", "block") if name in first and name in second]
    sides = [part.groupby(keys)[metric].median() for part in (first, second)]
    both = (sides[1] / sides[0]).dropna()
    return [float(value) for value in both]


def _needed(
    result: Comparison, first: Sequence[float], second: Sequence[float], ratios: Sequence[float], alpha: float
) -> int | None:
    """Return how many runs of each side (or blocks) would find the minimum effect."""
    is_paired = result.method is Method.PAIRED_BY_BLOCK
    spread = inference.spread(ratios) if is_paired else max(inference.spread(first), inference.spread(second))
    if result.minimum_effect <= 0 or not math.isfinite(spread):
        return None
    return inference.required_runs(spread, result.minimum_effect, alpha=alpha, paired=is_paired)


def _noted(compared: CellComparison, alpha: float, judged: Sequence[Comparison]) -> CellComparison:
    """Add a note if so few runs could not have been significant, whatever their values."""
    result, tests = compared.result, sum(one.p is not None for one in judged)
    if result.verdict is not Verdict.UNSURE or result.smallest_p is None or result.smallest_p * tests <= alpha:
        return compared
    return replace(compared, note=f"{compared.note} So few runs cannot reach a p of {alpha:g}.".strip())


def _table(compared: Sequence[CellComparison]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame([one.row() for one in compared], columns=list(_COLUMNS))


def _verdict_words(compared: CellComparison, measure: Metric) -> str:
    result, difference = compared.result, compared.difference
    if result.verdict is Verdict.NO_VALUES or result.ratio is None or difference is None:
        runs = "neither cell has a run" if result.n == result.n_baseline else "one cell has no run"
        return f"undecided: {runs} that counts."
    if result.verdict is Verdict.EQUAL:
        precision = "to the nanosecond" if measure.unit == "s" else "to the byte"
        return f"equal, {precision}, in all {result.n_baseline}+{result.n} runs."
    share, minimum = format_share(abs(result.ratio - 1)), format_share(result.minimum_effect)
    if result.evidence is Evidence.EXACT:
        word = measure.change(difference, compared.clock)
        text = f"{word} by {measure.difference_text(difference, compared.clock)} ({share}): exact, no test needed."
        return text if result.verdict.ranks else f"{text} It is below the minimum effect of {minimum}."
    kind = Interval.of(result.pairs or min(result.n, result.n_baseline))
    interval = f"[{_ratio(result.ratio_low, result.ratio)}, {_ratio(result.ratio_high, result.ratio)}] ({kind.text})"
    runs = f"n={result.n_baseline}+{result.n}, {result.method.text}"
    numbers = f"ratio {_ratio(result.ratio, result.ratio)} {interval}, {runs}"
    if result.verdict.ranks:
        return f"{measure.change(result.ratio - 1, compared.clock)} by {share}, p={result.p_holm:.2g} ({numbers})."
    if result.verdict is Verdict.BELOW_MINIMUM:
        return f"a real difference (p={result.p_holm:.2g}), smaller than the minimum effect of {minimum} ({numbers})."
    if result.verdict is Verdict.NO_CHANGE:
        return f"no change ({numbers}): any difference is smaller than the minimum effect of {minimum}."
    unit = "blocks" if result.method is Method.PAIRED_BY_BLOCK else "runs of each"
    needs = f" About {compared.needed} {unit} would find the minimum effect of {minimum}." if compared.needed else ""
    return f"undecided ({numbers}, p={result.p_holm:.2g}).{needs}"


def _ratio(value: float | None, ratio: float) -> str:
    """Format a ratio with enough digits to show its difference from 1."""
    digits = 3 if ratio == 1 else min(9, max(3, 1 - math.floor(math.log10(abs(ratio - 1)))))
    return f"{value:.{digits}f}"


def _level(level: Any) -> str:
    return "none" if level is None or level != level or level == "" else str(level)
