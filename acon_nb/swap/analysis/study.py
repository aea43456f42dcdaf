"""One analysis of a swap study: each table is computed once; sentences, figures and files are views of it.

analysis = SwapAnalysis(rows, Question(data="redis", pressure=1.5))
for clock in analysis.clocks:
    print("\\n".join(clock.explanation.lines))
    clock.effects, clock.best, clock.tables
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from acon_nb.swap.analysis import tables
from acon_nb.swap.analysis.answers import Answer, answers
from acon_nb.swap.analysis.best import Ranking, ranking
from acon_nb.swap.analysis.choices import Choice
from acon_nb.swap.analysis.explanation import Explanation, explain
from acon_nb.swap.analysis.guests import df_latency
from acon_nb.swap.analysis.question import Narrowed, Question, narrowed
from acon_nb.swap.analysis.rows import Counted, counted
from acon_nb.swap.classes import df_classes
from acon_nb.swap.derived import FREED
from acon_nb.validation import words

if TYPE_CHECKING:
    import pandas as pd

AXES = ("pressure", "disk_latency")
LATENCIES = ("access", "fault")


@dataclass(frozen=True)
class SwapAnalysis:
    """The rows of a swap study and what is asked of them: an analysis a clock, and what both clocks say together.

    `baseline` is the label of the choice to compare with (default: plain disk, else the first).
    Errors: those of `counted`, and `InvalidInput` for a level or baseline that the study does not have, when the parts
    that need it are first used.
    """

    rows: pd.DataFrame
    question: Question = field(default_factory=Question)
    baseline: str = ""

    @cached_property
    def clocks(self) -> tuple[ClockAnalysis, ...]:
        """An analysis for each clock of the rows (or the one that was asked for): clocks are never mixed."""
        asked, known = self.question.clock, "clock" in self.rows
        names = [asked] if asked else sorted(set(self.rows["clock"])) if known else [""]
        decide = words(self.question.decide)
        return tuple(ClockAnalysis(counted(self.rows, name, decide), self) for name in names)

    @cached_property
    def explanations(self) -> tuple[Explanation, ...]:
        """The study in sentences, the answer first: one `Explanation` a clock."""
        return tuple(clock.explanation for clock in self.clocks)

    @cached_property
    def both_clocks(self) -> tuple[str, ...]:
        """What both clocks say of the order of the choices, in sentences; nothing for a study of one clock."""
        return tuple(_clock_flips(self.clocks)) if len(self.clocks) > 1 else ()


@dataclass(frozen=True)
class ClockAnalysis:
    """The tables of one clock's rows, each computed when it is first used and then kept."""

    rows: Counted
    study: SwapAnalysis

    @property
    def clock(self) -> str:
        """The clock of the rows."""
        return self.rows.clock

    @property
    def metric(self) -> str:
        """The measure that the question is about."""
        return self.study.question.metric

    @cached_property
    def baseline(self) -> Choice:
        """The choice that the others are compared with."""
        return tables.baseline_of(self.rows, self.study.baseline)

    @cached_property
    def order(self) -> Ranking:
        """All pairs of choices, judged together: what every table and sentence takes an order from."""
        return ranking(self.rows, self.metric)

    @cached_property
    def choices(self) -> pd.DataFrame:
        """Every choice in every situation (`df_choices`)."""
        return tables.df_choices(self.rows, self.metric, baseline=str(self.baseline), order=self.order)

    @cached_property
    def effects(self) -> pd.DataFrame:
        """What each factor does with all else equal (`df_effects`)."""
        return tables.df_effects(self.rows, self.metric)

    @cached_property
    def outcomes(self) -> pd.DataFrame:
        """The guests that ended badly (`df_outcomes`)."""
        return tables.df_outcomes(self.rows)

    @cached_property
    def best(self) -> pd.DataFrame | None:
        """The best choice by data and pressure (`df_best`); None for rows without these factors."""
        has_both = {"factor_data", "factor_pressure"} <= set(self.rows.frame)
        return tables.df_best(self.rows, self.metric, order=self.order) if has_both else None

    @cached_property
    def pareto(self) -> pd.DataFrame | None:
        """The measure against the RAM freed (`df_pareto`); None for rows that do not say how much swap was used."""
        return tables.df_pareto(self.rows, self.metric) if FREED in self.rows.frame else None

    @cached_property
    def along(self) -> Mapping[str, pd.DataFrame]:
        """Each choice along pressure and disk latency (`df_pressure`), where they vary."""
        return {
            axis: tables.df_pressure(self.rows, self.metric, axis=axis, baseline=str(self.baseline), order=self.order)
            for axis in AXES
            if axis in self.rows.situations
        }

    @cached_property
    def break_evens(self) -> Mapping[str, pd.DataFrame]:
        """Where choices break even along pressure and disk latency (`df_breakeven`), where they vary."""
        return {axis: tables.df_breakeven(self.rows, self.metric, axis=axis, order=self.order) for axis in self.along}

    @cached_property
    def latencies(self) -> Mapping[str, pd.DataFrame]:
        """The distributions of latencies (`df_latency`) of all accesses and of faults, where there are histograms."""
        shares = {kind: df_latency(self.rows, kind) for kind in LATENCIES}
        return {kind: table for kind, table in shares.items() if len(table)}

    @cached_property
    def narrowed(self) -> Narrowed:
        """The rows that fit the question."""
        return narrowed(self.rows, self.study.question)

    @cached_property
    def answers(self) -> tuple[Answer, ...]:
        """The answer in each situation that fits the question; those not asked about are each answered."""
        return tuple(answers(self.narrowed, self.order, self.study.question, self.baseline))

    @cached_property
    def classes(self) -> pd.DataFrame:
        """The classes of work that the codec cells timed (`df_classes`); empty for a study without such cells."""
        return df_classes(self.rows.calibration)

    @cached_property
    def explanation(self) -> Explanation:
        """The study in sentences, the answer first."""
        return explain(
            self.rows,
            self.answers,
            nearest=self.narrowed.nearest,
            effects=self.effects,
            outcomes=self.outcomes,
            break_evens=tuple(self.break_evens.values()),
            both_clocks=self.study.both_clocks,
        )

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables behind the figures and sentences, by name; those without a row are omitted."""
        made = {"choices": self.choices, "effects": self.effects, "outcomes": self.outcomes, "classes": self.classes}
        made |= {name: table for name, table in (("best", self.best), ("pareto", self.pareto)) if table is not None}
        made |= self.along
        made |= {f"breakeven-{axis}": table for axis, table in self.break_evens.items()}
        return {name: table for name, table in made.items() if len(table)}


def _clock_flips(clocks: tuple[ClockAnalysis, ...]) -> list[str]:
    """The pairs of choices that the clocks order differently, in sentences."""
    orders: dict[tuple[str, Choice, Choice], set[bool]] = {}
    counts: dict[tuple[str, Choice, Choice], int] = {}
    for clock in clocks:
        for key, is_larger in _orders(clock):
            orders.setdefault(key, set()).add(is_larger)
            counts[key] = counts.get(key, 0) + 1
    turned = [key for key, ways in orders.items() if len(ways) > 1]
    compared = sum(count > 1 for count in counts.values())
    if not turned:
        text = f"Both clocks agree on the order of {compared} pairs of choices."
        return [text if compared else "No pair of choices is ranked on both clocks."]
    pairs = [f"{a} and {b}" + (f" ({situation})" if situation else "") for situation, a, b in turned]
    return [f"Not to be ranked, since the two clocks give different orders: {'; '.join(pairs)}."]


def _orders(clock: ClockAnalysis) -> list[tuple[tuple[str, Choice, Choice], bool]]:
    """The pairs of choices of each situation that differ surely, and whether the second has the larger values."""
    orders = []
    for (situation, first, second), result in clock.order.pairs.items():
        if result.verdict.ranks and result.ratio is not None:
            if str(first) <= str(second):
                orders.append(((situation, first, second), result.is_larger))
            else:
                orders.append(((situation, second, first), not result.is_larger))
    return orders
