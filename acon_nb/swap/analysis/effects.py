"""What each factor of a swap study does: its effect with all else equal, its interval, and where its sign flips.

Two levels of a factor are compared in every combination of the other factors that has both. A seed's effect is the
geometric mean of its ratios over these combinations; the seeds are the replicates. A combination in which a guest ended
badly has no ratio: it is counted and reported.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from acon_nb.stats.comparison import Comparison
from acon_nb.stats.inference import ALPHA
from acon_nb.stats.seeds import Seeds, compare_seeds, interval_text, judge_seeds, verdict_text
from acon_nb.swap.analysis.best import EFFECTS_PART, MINIMUM_EFFECT
from acon_nb.swap.analysis.choices import unranked_levels
from acon_nb.swap.analysis.measures import SwapMeasure, measure, pressure_text, sorting_key
from acon_nb.swap.analysis.rows import Counted, grouped, pressure_of, seeds_of

Held = tuple[tuple[str, str], ...]  # the levels of the other factors
Combinations = Mapping[str, Mapping[Held, Seeds]]  # of one factor: level -> the other factors' levels -> seeds


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """Two levels of a factor compared in one combination of the other factors, whose levels are `held`."""

    held: Mapping[str, str]
    first: Seeds
    second: Seeds
    result: Comparison

    @property
    def is_whole(self) -> bool:
        """Whether every guest of it ended well."""
        return not any(value is None for side in (self.first, self.second) for value in side.values())


@dataclass(frozen=True, kw_only=True)
class Effect:
    """A level of a factor compared with another one, all else equal.

    `contrasts` are the combinations compared, `used` of them entered the ratio of `result`. `turns` says where the
    level has more and where less, if it has both. `why` is set when the two levels must not be ranked. `shown` are the
    level and the baseline for people, where these are more than their names.
    """

    factor: str
    baseline: str
    level: str
    measure: SwapMeasure
    result: Comparison
    contrasts: tuple[Contrast, ...]
    used: int
    turns: str
    why: str
    shown: tuple[str, str] = ("", "")

    @property
    def up(self) -> int:
        """The combinations in which the level surely has the larger values."""
        return sum(one.result.is_larger for one in _ranked(self.contrasts))

    @property
    def down(self) -> int:
        """The combinations in which the level surely has the smaller values."""
        return len(_ranked(self.contrasts)) - self.up

    def sentence(self) -> str:
        """Effect, interval, how sure, where the sign flips, what has no ratio."""
        level, baseline = self.shown[0] or self.level, self.shown[1] or self.baseline
        head = f"{self.factor} {level} compared with {baseline}, {self.measure.label}"
        count = len(self.contrasts)
        number = "one combination" if count == 1 else f"{count} combinations"
        number = f"{self.used} of {number}" if self.used < count else number
        interval = interval_text(self.result)
        if self.result.ratio is None:
            text = f"{head}: no combination in which both ended well."
        elif self.why:
            text = f"{head}: {interval}, {number}; not ranked: {self.why}."
        elif self.turns:
            text = f"{head}: {self.turns}. The average, {interval}, {number}, means little."
        else:
            words = self.measure.words
            way = f"{words[0] if self.result.is_larger else words[1]}: " if self.result.verdict.ranks else ""
            text = f"{head}: {way}{interval}, {number}; {verdict_text(self.result)}."
        return text + self._died()

    def _died(self) -> str:
        """The combinations with a guest that ended badly, by level."""
        texts = []
        for side, name in (("first", self.baseline), ("second", self.level)):
            count = sum(any(value is None for value in getattr(one, side).values()) for one in self.contrasts)
            if count:
                texts.append(f"{name} ended badly in {count} of {len(self.contrasts)} combinations")
        return f" {'; '.join(texts)}: no ratio there." if texts else ""


def effects(
    rows: Counted, metric: str, *, alpha: float = ALPHA, minimum_effect: float = MINIMUM_EFFECT
) -> list[Effect]:
    """The effect of every factor that varies, level by level (`effects_of`)."""
    tables = {factor: combinations(rows, factor, metric) for factor in map(str, rows.levels)}
    computed = effects_of(tables, measure(metric), rows.clock, alpha=alpha, minimum_effect=minimum_effect)
    return [replace(one, shown=_shown(rows, one)) for one in computed]


def effects_of(
    tables: Mapping[str, Combinations], what: SwapMeasure, clock: str, *, alpha: float = ALPHA,
    minimum_effect: float = MINIMUM_EFFECT,
) -> list[Effect]:  # fmt: skip
    """The effect of each factor, by the seeds of its levels.

    Effects and the contrasts that they are the mean of are judged together, with their part of the study's `alpha`.
    """
    cases = [(factor, *case) for factor in tables for case in _contrasts(tables[factor], what, minimum_effect)]
    means = [_mean(contrasts, what, minimum_effect) for *_, contrasts in cases]
    reasons = [unranked_levels(first, second, clock) for _, first, second, _ in cases]
    results = [mean for mean, _ in means]
    for case, why in zip(cases, reasons, strict=True):
        results += [] if why else [one.result for one in case[3]]
    judged = judge_seeds(results, alpha=alpha, part=EFFECTS_PART)
    rest = iter(judged[len(cases) :])
    all_effects = []
    for (factor, first, second, contrasts), result, (_, used), why in zip(
        cases, judged, means, reasons, strict=False
    ):  # fmt: skip
        sure = contrasts if why else [replace(one, result=next(rest)) for one in contrasts]
        all_effects.append(
            Effect(
                factor=factor, baseline=first or "none", level=second or "none", measure=what, result=result,
                contrasts=tuple(sure), used=used, turns="" if why else turning(sure, what), why=why,
            )
        )  # fmt: skip
    return all_effects


def _shown(rows: Counted, effect: Effect) -> tuple[str, str]:
    """Nominal pressures with what they were in the median; nothing for other factors."""
    if effect.factor != "pressure":
        return "", ""
    texts = rows.levels["pressure"]
    level, baseline = (
        pressure_text(name, pressure_of(rows.frame[texts == name])) for name in (effect.level, effect.baseline)
    )
    return level, baseline


def turning(contrasts: Sequence[Contrast], what: SwapMeasure) -> str:
    """Where the level has more and where less, in words, by one or two factors that part them, or "": no flip."""
    sure = _ranked(contrasts)
    up = [one for one in sure if one.result.is_larger]
    down = [one for one in sure if not one.result.is_larger]
    if not up or not down:
        return ""
    names = [name for name in up[0].held if len({one.held[name] for one in sure}) > 1]
    for name in names:
        words = _parted(up, down, name, what)
        if words:
            return f"the sign flips with {name}: {words}"
    for outer, inner in itertools.permutations(names, 2):
        parts = []
        for level in sorted({one.held[outer] for one in sure}, key=sorting_key):
            more, less = ([one for one in side if one.held[outer] == level] for side in (up, down))
            parts.append((level, _parted(more, less, inner, what)))
        if all(words for _, words in parts):
            text = "; ".join(f"at {outer} {level or 'none'} {words}" for level, words in parts)
            return f"the sign flips with {outer} and {inner}: {text}"
    return (
        f"the sign flips, and no two factors explain where: {what.words[0]} in {len(up)} combinations (such as"
        f" {_words(up[0])}), {what.words[1]} in {len(down)} (such as {_words(down[0])})"
    )


def _ranked(contrasts: Sequence[Contrast]) -> list[Contrast]:
    """The contrasts that show a difference."""
    return [one for one in contrasts if one.result.verdict.ranks and one.result.ratio is not None]


def _parted(up: Sequence[Contrast], down: Sequence[Contrast], name: str, what: SwapMeasure) -> str:
    """Which levels of a factor have more and which less, in words; "" if some level has both."""
    sides = [{one.held[name] for one in side} for side in (up, down)]
    if sides[0] & sides[1]:
        return ""
    if not sides[0] or not sides[1]:
        return f"{what.words[0 if sides[0] else 1]} at every {name}"
    return ", ".join(f"{word} at {_levels(side)}" for word, side in zip(what.words, sides, strict=True))


def _contrasts(
    tables: Combinations, what: SwapMeasure, minimum_effect: float
) -> list[tuple[str, str, list[Contrast]]]:  # fmt: skip
    """Each level compared with the first one before it with which it shares a combination."""
    cases = []
    for number, level in enumerate(tables):
        for baseline in list(tables)[:number]:
            contrasts = []
            for key in (key for key in tables[baseline] if key in tables[level]):
                a, b = tables[baseline][key], tables[level][key]
                result = compare_seeds(a, b, more_is_better=what.more_is_better, minimum_effect=minimum_effect)
                contrasts.append(Contrast(held=dict(key), first=a, second=b, result=result))
            if contrasts:
                cases.append((baseline, level, contrasts))
                break
    return cases


def combinations(rows: Counted, factor: str, metric: str) -> dict[str, dict[Held, Seeds]]:
    """The seeds' values by level, and by the levels of all other factors; a level that means nothing is none."""
    others = [name for name in map(str, rows.levels) if name != factor]
    frame = rows.frame[[name for name in ("pair", "result", metric) if name in rows.frame]]
    tables: dict[str, dict[Held, Seeds]] = {}
    for level in sorted(set(rows.levels[factor]), key=sorting_key):
        here = rows.levels[factor] == level
        if not level:
            continue
        tables[level] = {}
        for key, index in grouped(rows.levels[here], others):
            if seeds := seeds_of(frame.loc[index], metric):
                tables[level][tuple(zip(others, key, strict=True))] = seeds
    return tables


def _mean(contrasts: Sequence[Contrast], what: SwapMeasure, minimum_effect: float) -> tuple[Comparison, int]:
    """The effect over the combinations that ended well, each with the seeds of all, and how many those are."""
    whole = [one for one in contrasts if one.is_whole]
    seeds = {seed for one in whole for seed in set(one.first) & set(one.second)}
    full = [one for one in whole if seeds <= set(one.first) & set(one.second)]
    used = full or whole
    common = set.intersection(*(set(one.first) & set(one.second) for one in used)) if used else set()
    sides: list[Seeds] = [
        {seed: _geometric([getattr(one, side)[seed] for one in used]) for seed in sorted(common)}
        for side in ("first", "second")
    ]
    compared = compare_seeds(*sides, more_is_better=what.more_is_better, minimum_effect=minimum_effect)
    return compared, len(used) if common else 0


def _geometric(numbers: Sequence[float]) -> float:
    return math.exp(sum(math.log(number) for number in numbers) / len(numbers))


def _levels(levels: set[str]) -> str:
    return ", ".join(sorted(levels, key=sorting_key)) or "none"


def _words(contrast: Contrast) -> str:
    return ", ".join(f"{name}={level or 'none'}" for name, level in contrast.held.items())
