"""The answers of a swap study: in each situation the best choice, every choice compared, and both in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from acon_nb.stats import inference
from acon_nb.stats.comparison import Comparison
from acon_nb.stats.intervals import count_text, interval_words
from acon_nb.stats.seeds import Seeds, interval_text, verdict_text
from acon_nb.swap.analysis.best import Best, Ranking
from acon_nb.swap.analysis.choices import Choice, unranked
from acon_nb.swap.analysis.measures import SwapMeasure, available_text, measure, value_in
from acon_nb.swap.analysis.outcomes import GuestResult, failures, failures_text
from acon_nb.swap.analysis.question import Narrowed, Question
from acon_nb.swap.analysis.rows import by_choice, pressure_of, situation_of, strata, values_of_all
from acon_nb.units import format_bytes

if TYPE_CHECKING:
    import pandas as pd

_COSTS = ("access_p99_ns", "system_cpu_ns", "disk_written_bytes")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer in one situation: the `best` choice, a row a choice (`table`, for people), and both in `words`."""

    situation: str
    best: Best
    table: pd.DataFrame
    words: tuple[str, ...]


def answers(narrowed: Narrowed, order: Ranking, question: Question, baseline: Choice) -> list[Answer]:
    """The answer in each situation of the rows that fit a question, by the order of the whole study."""
    return [
        _Situation(part, narrowed.where(name), order, question.metric, baseline).answer()
        for name, part in strata(narrowed.rows)
    ]


class _Situation:
    """The choices of one situation and the numbers that its answer is made of."""

    def __init__(self, rows: pd.DataFrame, name: str, order: Ranking, metric: str, baseline: Choice) -> None:
        self.name, self.order, self.baseline, self.measure = name, order, baseline, measure(metric)
        self.situation = situation_of(rows)
        self.pressure = available_text(pressure_of(rows))
        self.values: Mapping[Choice, Seeds] = values_of_all(rows, metric)
        self.parts: dict[Choice, pd.DataFrame] = dict(by_choice(rows))
        self.best = order.best(self.situation)

    def answer(self) -> Answer:
        import pandas as pd

        table = pd.DataFrame([self._record(choice) for choice in self.values])
        return Answer(situation=self.name, best=self.best, table=table, words=tuple(self._words()))

    def _record(self, choice: Choice) -> dict[str, str]:
        """A choice as a row for people."""
        known = [value for value in self.values[choice].values() if value is not None]
        rows = self.parts[choice]
        return {
            "choice": str(choice),
            self.measure.label: _summary_words(self.measure, inference.summarise(known)) if known else "",
            f"compared with {self.baseline}": interval_text(self._compared(choice)) if choice != self.baseline else "",
            **{measure(cost).label: _cost(rows, cost) for cost in _COSTS},
            "memory saved": _saved(rows),
            "ended badly": _failures(rows),
            "best": self.best.place_of(choice),
        }

    def _compared(self, choice: Choice) -> Comparison:
        return self.order.compared(self.situation, self.baseline, choice)

    def _words(self) -> list[str]:
        """The best choice, compared with the next and with the baseline, what it costs, and who died."""
        where = f"For {self.name}" if self.name else "Here"
        where += f" ({self.pressure})" if self.pressure else ""
        died = [
            f"{choice}: {_failures(self.parts[choice])}: not a choice here, whatever its speed."
            for choice in self.best.died
        ]
        if not self.best.choices:
            return [f"{where}: no choice ended well in every seed.", *died]
        choice = self.best.choices[0]
        lines = [f"{where}: {_best_words(self.best, self.measure)}."]
        if choice != self.baseline and self.values.get(self.baseline):
            compared = self._compared(choice)
            why = unranked(self.baseline, choice, self.order.clock)
            order = f"not ranked: {why}" if why else verdict_text(compared)
            lines.append(f"{choice} compared with {self.baseline}: {interval_text(compared)}; {order}.")
            lines += [f"What {choice} costs: {costs}." for costs in [self._costs(choice)] if costs]
        return [*lines, *died]

    def _costs(self, choice: Choice) -> str:
        """What a choice costs compared with the baseline, in medians."""
        texts = []
        for cost in _COSTS:
            mine, theirs = (_cost(self.parts[who], cost) for who in (choice, self.baseline))
            if mine and theirs:
                texts.append(f"{measure(cost).label} {mine} against {theirs}")
        saved = _saved(self.parts[choice])
        return "; ".join([*texts, *([f"its pool holds {saved}"] if saved else [])])


def _best_words(best: Best, what: SwapMeasure) -> str:
    """The best choice and how sure it is."""
    choice, value = best.choices[0], what.text(best.value or 0)
    if not best.is_ranked:
        seeds = count_text(best.seeds)
        return f"{choice} comes first with {value}, {what.label}, in {seeds}: an order to look at, not a ranking"
    text = f"{choice}, {what.label} {value}"
    if len(best.choices) > 1:
        why = f" ({best.why})" if best.why else ""
        labels = " or ".join(map(str, best.choices))
        text = f"{labels}, which cannot be distinguished{why}; {choice} has {what.label} {value}"
    if best.gap is None:
        return text
    return f"{text}; the next is {best.next} at {interval_text(best.gap)}: {verdict_text(best.gap)}"


def _summary_words(what: SwapMeasure, summary: inference.Summary) -> str:
    """A median with its interval, and what that is: "16,828 [16,229, 17,112] accesses / s (range of 3 seeds)"."""
    words = interval_words(summary.n)
    if summary.n < 2:
        return f"{what.text(summary.median)} ({words})"
    value, low, high = (what.number_text(number) for number in (summary.median, summary.low, summary.high))
    return f"{value} [{low}, {high}] {what.unit} ({words})"


def _cost(rows: pd.DataFrame, name: str) -> str:
    """The median of a measure over the guests that ended well, with its unit; "" if it is not known."""
    if name not in rows:
        return ""
    numbers = [value_in({name: value}, name) for value in rows.loc[rows["result"] == GuestResult.WELL, name]]
    known = [number for number in numbers if math.isfinite(number) and number >= 0]
    return measure(name).text(inference.median(known)) if known else ""


def _saved(rows: pd.DataFrame) -> str:
    """What the pool holds and takes, in medians."""
    if not {"pool_bytes", "pool_stored_bytes"} <= set(rows):
        return ""
    pools = rows[(rows["result"] == GuestResult.WELL) & (rows["pool_bytes"].fillna(0).astype(float) > 0)]
    if pools.empty:
        return ""
    takes, holds = (float(pools[name].astype(float).median()) for name in ("pool_bytes", "pool_stored_bytes"))
    return f"{format_bytes(holds)} in {format_bytes(takes)} of RAM, {format_bytes(holds - takes)} saved"


def _failures(rows: pd.DataFrame) -> str:
    return failures_text(failures(rows["result"]), len(rows))
