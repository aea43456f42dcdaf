"""A swap study in words: for my data, my pressure and my device, which swap, and what does it cost?

`explain` gives the answer first, then how sure it is, where it flips, what was left out, and what the clock cannot
say. Every sentence is a view of a table of the analysis (docs/swap-answers.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from acon_nb.stats.intervals import Interval, count_text
from acon_nb.stats.seeds import LEAST_SEEDS
from acon_nb.swap.analysis.answers import Answer
from acon_nb.swap.analysis.choices import facts
from acon_nb.swap.analysis.inert import inert_lines
from acon_nb.swap.analysis.measures import level_text
from acon_nb.swap.analysis.rows import Counted
from acon_nb.swap.data import ALGORITHMS
from acon_nb.swap.tables import calibration_lines, determinism_lines, reclaim_lines, steadiness_lines
from acon_nb.vm import Clock

if TYPE_CHECKING:
    import pandas as pd

_MOST_SITUATIONS = 8
_CLOCKS = {"instructions": "Instruction clock", "wall": "Wall clock"}


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """A study in sentences, of one clock.

    `answer` has the answers and what they cost, `turns` the break-evens, `effects` a sentence a factor and level,
    `evidence` what the study says of itself (left out, calibration, whether it repeats), `limits` what it cannot say,
    `both_clocks` what both clocks say of the order, where the study has both.
    """

    clock: str
    scope: str
    answer: tuple[str, ...]
    turns: tuple[str, ...]
    effects: tuple[str, ...]
    evidence: tuple[str, ...]
    limits: tuple[str, ...]
    both_clocks: tuple[str, ...] = ()

    @property
    def lines(self) -> list[str]:
        """All sentences, the answer first."""
        first = (*self.answer, self.scope, *self.both_clocks, *self.turns, *self.effects, *self.evidence)
        return [*first, *(f"It cannot say: {text}" for text in self.limits)]


def explain(
    rows: Counted, answers: Sequence[Answer], *, nearest: Sequence[str], effects: pd.DataFrame, outcomes: pd.DataFrame,
    break_evens: Sequence[pd.DataFrame], both_clocks: Sequence[str],
) -> Explanation:  # fmt: skip
    """The sentences of one clock's rows, from the tables of their analysis.

    `nearest` says which levels stand for those that were asked for, `both_clocks` what both clocks say of the order.
    """
    return Explanation(
        clock=rows.clock,
        scope=f"{_CLOCKS.get(rows.clock, rows.clock)}, {_seeds(rows)}.",
        answer=(*nearest, *_answer(answers)),
        turns=tuple(text for table in break_evens for text in table["sentence"]),
        effects=tuple(effects["sentence"]),
        evidence=(
            *rows.notes,
            *_left_out(rows, outcomes),
            *_checks(rows),
            *inert_lines(rows.frame),
            *_pool(rows),
            *_ratios(rows.frame),
        ),
        limits=limits(rows),
        both_clocks=tuple(both_clocks),
    )


def limits(rows: Counted) -> tuple[str, ...]:
    """What the numbers cannot say, by their clock, their accelerator and what they are (answers.toml)."""
    accelerators = set(rows.frame["accelerator"].dropna()) if "accelerator" in rows.frame else set()
    return tuple(
        str(limit["text"])
        for limit in facts()["limit"]
        if limit["clock"] in ("", rows.clock)
        and (not limit["accelerator"] or limit["accelerator"] in accelerators)
        and _concerns(limit, rows.frame)
    )


def _answer(answers: Sequence[Answer]) -> tuple[str, ...]:
    """The answers of the situations in which most was compared."""
    cases = sorted(answers, key=lambda one: -len(one.table))
    lines = [line for case in cases[:_MOST_SITUATIONS] for line in case.words]
    more = len(cases) - _MOST_SITUATIONS
    return (*lines, f"{more} more situations are in the table of the best choices.") if more > 0 else tuple(lines)


def _concerns(limit: Mapping[str, Any], frame: pd.DataFrame) -> bool:
    """Whether a limit's column, if it has one, has its level in some row."""
    column = limit.get("column")
    return column is None or (column in frame and bool((frame[column] == limit["level"]).any()))


def _left_out(rows: Counted, outcomes: pd.DataFrame) -> list[str]:
    lines = [f"Left out: {rows.left_out}."] if rows.left_out else []
    if len(outcomes):
        cells = "1 cell" if len(outcomes) == 1 else f"{len(outcomes)} cells"
        lines.append(f"{cells} had guests that ended badly: these are results, shown and never dropped.")
    sizes = rows.frame.groupby(["situation", "choice"], sort=False)["pair"].nunique()
    if sizes.nunique() > 1:
        lines.append(f"The study is not complete: cells have {sizes.min()} to {sizes.max()} seeds.")
    return lines


def _checks(rows: Counted) -> list[str]:
    """Calibration and determinism, or that the study has none; whether rates and reclaim were steady."""
    import pandas as pd

    all_rows = pd.concat([rows.frame, rows.calibration])
    repeats = determinism_lines(all_rows) if rows.clock == Clock.INSTRUCTIONS else []
    if rows.clock == Clock.INSTRUCTIONS and not repeats:
        repeats = ["No guest was run twice: nothing shows that this study repeats."]
    measured = calibration_lines(all_rows) if "factor_workload" in all_rows else []
    if not any(text.startswith("Calibration") for text in measured):
        measured.insert(0, "No dilation was measured: how the disk's latency compares with hardware is not known.")
    return [*measured, *repeats, *steadiness_lines(all_rows), *reclaim_lines(all_rows)]


def _pool(rows: Counted) -> list[str]:
    """The share of memory that zswap's pool may take, where all cells have the same: another gives other answers."""
    column = "factor_pool_percent"
    if column not in rows.frame or "pool_percent" in rows.levels:
        return []
    shares = set(rows.frame.loc[rows.frame["factor_swap"] == "zswap", column].map(level_text))
    if len(shares) != 1:
        return []
    return [
        f"zswap's pool may take {shares.pop()} % of memory in every cell: with another share it holds more or less."
    ]


def _ratios(frame: pd.DataFrame) -> list[str]:
    """What each algorithm makes of the data, page by page, on the host."""
    names = {f"data_ratio_{algorithm}": algorithm for algorithm in ALGORITHMS}
    columns = [name for name in names if name in frame and frame[name].notna().any()]
    if not columns or "factor_data" not in frame:
        return []
    texts = []
    for data, part in frame.groupby("factor_data", sort=False):
        numbers = [f"{names[column]} {part[column].astype(float).median():.2f}" for column in columns]
        texts.append(f"{data}: {', '.join(numbers)}")
    return [f"Data, compression ratio page by page: {'; '.join(texts)}."]


def _seeds(rows: Counted) -> str:
    seeds = rows.frame["pair"].nunique()
    runs = f"{len(rows.frame)} guests, {rows.frame['choice'].nunique()} choices"
    text = f"{count_text(seeds)} ({runs})"
    if seeds < LEAST_SEEDS:
        text += ": exploratory, no ranking is supported"
    intervals = {
        Interval.NONE: "there are no intervals",
        Interval.RANGE: "intervals are the range of the seeds",
        Interval.BOOTSTRAP: "intervals are bootstrap 95 % of the median, of ratios that are paired by seed",
        Interval.ORDER_STATISTICS: "intervals are 95 % of the median by order statistics, of ratios paired by seed",
    }
    return f"{text}; {intervals[Interval.of(seeds)]}"
