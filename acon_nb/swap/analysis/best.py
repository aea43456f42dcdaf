"""Which choices are better than others: all pairs of a study, judged together, and the best of each situation.

Whatever a study says of the order of two choices comes from here: tables, sentences, figures, break-evens.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from acon_nb.stats import inference
from acon_nb.stats.comparison import Comparison, Evidence, Verdict
from acon_nb.stats.inference import ALPHA
from acon_nb.stats.seeds import LEAST_SEEDS, Seeds, compare_seeds, judge_seeds
from acon_nb.swap.analysis.choices import Choice, unranked
from acon_nb.swap.analysis.measures import measure
from acon_nb.swap.analysis.rows import Counted, situation_parts, values_of_all

MINIMUM_EFFECT = 0.05  # a ratio of two choices that is nearer to 1 does not matter
# Of the 5 % of studies that may make any false statement: the order of choices has four, the effects of factors one.
ORDER_PART, EFFECTS_PART = 0.8, 0.2
_Pair = tuple[str, Choice, Choice]


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best choice.

    `choices` are the one with the best median and all that do not differ surely from it; none where no choice ended
    well in every seed. `value` is the best median. `evidence` is the weakest on which the others are worse; `verdict`
    is better, or why none is (the weakest comparison, when all of them are in `choices`). `next` is the best of the
    others and `gap` that choice compared with the best. `why` says why an order is not given that the numbers would
    give. `died` are the choices that ended badly in some seed: they are never the best.
    """

    choices: tuple[Choice, ...]
    verdict: Verdict
    evidence: Evidence
    seeds: int
    value: float | None = None
    next: Choice | None = None
    gap: Comparison | None = None
    why: str = ""
    died: tuple[Choice, ...] = ()

    @property
    def is_ranked(self) -> bool:
        """Whether there are seeds enough to call a choice the best."""
        return self.verdict is not Verdict.TOO_FEW_SEEDS

    def place_of(self, choice: Choice) -> str:
        """The place of a choice in words, "" for those that are behind."""
        if choice not in self.choices:
            return ""
        if not self.is_ranked:
            return "comes first, not ranked" if self.choices[0] == choice else "not ranked"
        return "best" if self.choices[0] == choice else "cannot be distinguished from it"


class Ranking:
    """Every pair of choices of every situation, judged together: in 95 % of studies no order that it gives is false.

    `values` has each situation's choices and seeds, None for a guest that ended badly. Pairs that must not be ranked
    are not among those that are judged. `alpha` is that of the whole study; what it says of the effects of factors has
    a part of it (`EFFECTS_PART`).
    """

    def __init__(
        self,
        values: Mapping[str, Mapping[Choice, Seeds]],
        *,
        more_is_better: bool,
        clock: str,
        alpha: float = ALPHA,
        minimum_effect: float = MINIMUM_EFFECT,
    ) -> None:
        self.values, self.more_is_better, self.clock = values, more_is_better, clock
        self.minimum_effect = minimum_effect
        keys = [
            (situation, first, second)
            for situation, choices in values.items()
            for first, second in itertools.combinations(choices, 2)
            if not unranked(first, second, clock)
        ]
        judged = judge_seeds([self._compared(*key) for key in keys], alpha=alpha, part=ORDER_PART)
        self.pairs: Mapping[_Pair, Comparison] = dict(zip(keys, judged, strict=True))

    def compared(self, situation: str, baseline: Choice, other: Choice) -> Comparison:
        """A choice compared with another one: the ratio, and the verdict of the pair."""
        pair = self.pairs.get((situation, baseline, other))
        if pair is not None:
            return pair
        comparison, pair = self._compared(situation, baseline, other), self.pairs.get((situation, other, baseline))
        if pair is not None:
            comparison = replace(
                comparison, p=pair.p, p_holm=pair.p_holm, family=pair.family, verdict=_turned(pair.verdict),
                evidence=pair.evidence,
            )  # fmt: skip
        return comparison

    def is_better(self, situation: str, first: Choice, second: Choice) -> bool:
        """Whether the first choice is surely better than the second one."""
        pair = self.pairs.get((situation, second, first))
        if pair is not None:
            return pair.verdict is Verdict.BETTER
        pair = self.pairs.get((situation, first, second))
        return pair is not None and pair.verdict is Verdict.WORSE

    def best(self, situation: str, among: Collection[Choice] | None = None) -> Best:
        """The best choice of a situation (of those in `among`), and those that do not differ surely from it."""
        values = {
            choice: seeds
            for choice, seeds in self.values.get(situation, {}).items()
            if among is None or choice in among
        }
        died = sorted((one for one, seeds in values.items() if any(v is None for v in seeds.values())), key=str)
        medians = {
            choice: inference.median([value for value in seeds.values() if value is not None])
            for choice, seeds in values.items()
            if seeds and choice not in died
        }
        seeds = max((len(seeds) for seeds in values.values()), default=0)
        if not medians:
            return Best(choices=(), verdict=Verdict.NO_VALUES, evidence=Evidence.NONE, seeds=seeds, died=tuple(died))
        sign = -1 if self.more_is_better else 1
        first, *others = sorted(medians, key=lambda one: (sign * medians[one], str(one)))
        verdicts = {other: self._verdict(situation, first, other) for other in others}
        rest = [other for other in others if verdicts[other] is Verdict.WORSE]
        tied = [other for other in others if other not in rest]
        reasons = [reason for other in others if (reason := unranked(first, other, self.clock))]
        return Best(
            choices=(first, *tied),
            verdict=Verdict.BETTER if rest else _weakest([verdicts[other] for other in tied], seeds),
            evidence=Evidence.TESTED if rest else Evidence.NONE,
            seeds=seeds,
            value=medians[first],
            next=rest[0] if rest else None,
            gap=self.compared(situation, first, rest[0]) if rest else None,
            why=next(iter(reasons), ""),
            died=tuple(died),
        )

    def _verdict(self, situation: str, baseline: Choice, other: Choice) -> Verdict:
        """The verdict on a choice compared with another one."""
        pair = self.pairs.get((situation, baseline, other))
        if pair is not None:
            return pair.verdict
        pair = self.pairs.get((situation, other, baseline))
        return Verdict.UNSURE if pair is None else _turned(pair.verdict)

    def _compared(self, situation: str, baseline: Choice, other: Choice) -> Comparison:
        values = self.values.get(situation, {})
        return compare_seeds(
            values.get(baseline, {}), values.get(other, {}), more_is_better=self.more_is_better,
            minimum_effect=self.minimum_effect,
        )  # fmt: skip


def ranking(rows: Counted, metric: str, *, alpha: float = ALPHA, minimum_effect: float = MINIMUM_EFFECT) -> Ranking:
    """The order of the choices of a study's rows by a measure."""
    return Ranking(
        {situation: values_of_all(part, metric) for situation, part in situation_parts(rows)},
        more_is_better=measure(metric).more_is_better, clock=rows.clock, alpha=alpha, minimum_effect=minimum_effect,
    )  # fmt: skip


def best_of(
    values: Mapping[Choice, Seeds],
    *,
    more_is_better: bool,
    clock: str,
    alpha: float = ALPHA,
    minimum_effect: float = MINIMUM_EFFECT,
) -> Best:
    """The best of the choices of one situation that is a study of its own."""
    ranking = Ranking(
        {"": values}, more_is_better=more_is_better, clock=clock, alpha=alpha, minimum_effect=minimum_effect
    )
    return ranking.best("")


def _turned(verdict: Verdict) -> Verdict:
    """The verdict on the other one of a pair."""
    return {Verdict.BETTER: Verdict.WORSE, Verdict.WORSE: Verdict.BETTER}.get(verdict, verdict)


def _weakest(verdicts: list[Verdict], seeds: int) -> Verdict:
    """Why no choice is the best, by the least sure of the comparisons; a choice alone has none."""
    if not verdicts:
        return Verdict.TOO_FEW_SEEDS if seeds < LEAST_SEEDS else Verdict.NO_VALUES
    order = list(Verdict)
    return max((Verdict.BETTER if one.ranks else one for one in verdicts), key=order.index)
