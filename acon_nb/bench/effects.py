"""What each factor of a swap study does: its effect with all else equal, its interval, and where it turns round.

Two levels of a factor are compared in every setting of the other factors that has both. A seed's effect is the
geometric mean of its ratios over these settings; the seeds are the replicates. A setting in which a guest ended badly
has no ratio: it is counted and told.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from acon_nb.bench.paired import ALPHA, MINIMUM_EFFECT, Beside, beside, interval_text, judge, sure_text
from acon_nb.bench.swap_rows import Counted, Measure, grouped, measure, sorting_key, unranked, values

Seeds = Mapping[int, float | None]
_Key = tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One combination of the other factors, with the two levels beside each other in it."""

    levels: Mapping[str, str]
    first: Seeds
    second: Seeds
    said: Beside

    @property
    def whole(self) -> bool:
        """Whether every guest of it ended well."""
        return not any(value is None for side in (self.first, self.second) for value in side.values())


@dataclass(frozen=True, kw_only=True)
class Effect:
    """A level of a factor beside another one, all else equal.

    `settings` are the combinations compared, `used` of them entered the ratio of `said`; in `up` of them the level has
    surely the larger values, in `down` the smaller. `turns` says where each is so, if both are. `why` is set when the
    order of the two must not be told. `sentence` has it all.
    """

    factor: str
    baseline: str
    level: str
    metric: str
    said: Beside
    settings: int
    used: int
    up: int
    down: int
    turns: str
    why: str
    sentence: str


def effects(
    found: Counted, metric: str, *, alpha: float = ALPHA, minimum_effect: float = MINIMUM_EFFECT
) -> list[Effect]:
    """The effect of every factor that varies, level by level; p are adjusted for all of them together (Holm)."""
    what = measure(metric)
    raw = [
        (factor, first, second, settings)
        for factor in map(str, found.levels)
        for first, second, settings in _comparisons(found, factor, metric, what, alpha, minimum_effect)
    ]
    means = [_mean(settings, what, alpha, len(raw)) for *_, settings in raw]
    judged = judge([said for said, _ in means], alpha=alpha, minimum_effect=minimum_effect)
    return [
        _effect(found.clock, what, *case, said, used) for case, said, (_, used) in zip(raw, judged, means, strict=True)
    ]


def turning(settings: Sequence[Setting], what: Measure) -> str:
    """Where the level has more and where less, in words, by one or two factors that part them, or "": no turn."""
    sure = [setting for setting in settings if setting.said.sure.ranks and setting.said.ratio is not None]
    up = [setting for setting in sure if setting.said.larger]
    down = [setting for setting in sure if not setting.said.larger]
    if not up or not down:
        return ""
    names = [name for name in up[0].levels if len({setting.levels[name] for setting in sure}) > 1]
    for name in names:
        words = _parted(up, down, name, what)
        if words:
            return f"the sign flips with {name}: {words}"
    for outer, inner in itertools.permutations(names, 2):
        parts = []
        for level in sorted({setting.levels[outer] for setting in sure}, key=sorting_key):
            more, less = ([setting for setting in side if setting.levels[outer] == level] for side in (up, down))
            parts.append((level, _parted(more, less, inner, what)))
        if all(words for _, words in parts):
            told = "; ".join(f"at {outer} {level or 'none'} {words}" for level, words in parts)
            return f"the sign flips with {outer} and {inner}: {told}"
    return (
        f"the sign flips, and no two factors say where: {what.words[0]} in {len(up)} settings (such as"
        f" {_words(up[0])}), {what.words[1]} in {len(down)} (such as {_words(down[0])})"
    )


def _parted(up: Sequence[Setting], down: Sequence[Setting], name: str, what: Measure) -> str:
    """Which levels of a factor have more and which less, in words; "" if some level has both."""
    sides = [{setting.levels[name] for setting in side} for side in (up, down)]
    if sides[0] & sides[1]:
        return ""
    if not sides[0] or not sides[1]:
        return f"{what.words[0 if sides[0] else 1]} at every {name}"
    return ", ".join(f"{word} at {_levels(side)}" for word, side in zip(what.words, sides, strict=True))


def _comparisons(
    found: Counted, factor: str, metric: str, what: Measure, alpha: float, minimum_effect: float
) -> list[tuple[str, str, list[Setting]]]:
    """Each level beside the first one before it with which it shares a setting."""
    tables = _settings(found, factor, metric)
    cases = []
    for number, level in enumerate(tables):
        for baseline in list(tables)[:number]:
            common = [key for key in tables[baseline] if key in tables[level]]
            if not common:
                continue
            pairs = [(tables[baseline][key], tables[level][key]) for key in common]
            tests = len(pairs)
            raw = [beside(a, b, more_is_better=what.more_is_better, alpha=alpha, tests=tests) for a, b in pairs]
            judged = judge(raw, alpha=alpha, minimum_effect=minimum_effect)
            settings = [
                Setting(levels=dict(key), first=a, second=b, said=said)
                for key, (a, b), said in zip(common, pairs, judged, strict=True)
            ]
            cases.append((baseline, level, settings))
            break
    return cases


def _settings(found: Counted, factor: str, metric: str) -> dict[str, dict[_Key, Seeds]]:
    """The seeds' values by level, and by the levels of all other factors; a level that means nothing is none."""
    others = [name for name in map(str, found.levels) if name != factor]
    rows = found.frame[[name for name in ("pair", "result", metric) if name in found.frame]].assign(choice="")
    tables: dict[str, dict[_Key, Seeds]] = {}
    for level in sorted(set(found.levels[factor]), key=sorting_key):
        here = found.levels[factor] == level
        if not level:
            continue
        tables[level] = {}
        for key, index in grouped(found.levels[here], others):
            merged = values(rows.loc[index], metric)
            if merged:
                tables[level][tuple(zip(others, key, strict=True))] = merged[""]
    return tables


def _mean(settings: Sequence[Setting], what: Measure, alpha: float, tests: int) -> tuple[Beside, int]:
    """The effect over the settings that ended well, each with all the seeds that any has; and how many those are."""
    whole = [setting for setting in settings if setting.whole]
    seeds = {seed for setting in whole for seed in set(setting.first) & set(setting.second)}
    full = [setting for setting in whole if seeds <= set(setting.first) & set(setting.second)]
    used = full or whole
    common = set.intersection(*(set(one.first) & set(one.second) for one in used)) if used else set()
    sides: list[Seeds] = [
        {seed: _geometric([getattr(setting, side)[seed] for setting in used]) for seed in sorted(common)}
        for side in ("first", "second")
    ]
    said = beside(*sides, more_is_better=what.more_is_better, alpha=alpha, tests=tests)
    return said, len(used) if common else 0


def _geometric(numbers: Sequence[float]) -> float:
    return math.exp(sum(math.log(number) for number in numbers) / len(numbers))


def _effect(
    clock: str,
    what: Measure,
    factor: str,
    baseline: str,
    level: str,
    settings: Sequence[Setting],
    said: Beside,
    used: int,
) -> Effect:
    ranked = [setting.said for setting in settings if setting.said.sure.ranks and setting.said.ratio is not None]
    up = sum(one.larger for one in ranked)
    why = unranked(baseline, level, clock)
    turns = "" if why else turning(settings, what)
    effect = Effect(
        factor=factor,
        baseline=baseline or "none",
        level=level or "none",
        metric=what.name,
        said=said,
        settings=len(settings),
        used=used,
        up=up,
        down=len(ranked) - up,
        turns=turns,
        why=why,
        sentence="",
    )
    return replace(effect, sentence=_sentence(effect, settings, what))


def _sentence(effect: Effect, settings: Sequence[Setting], what: Measure) -> str:
    """Effect, interval, how sure, where it turns, what has no ratio."""
    said = effect.said
    head = f"{effect.factor} {effect.level} beside {effect.baseline}, {what.label}"
    held = (
        f"{effect.used} of {effect.settings} settings"
        if effect.used < effect.settings
        else ("one setting" if effect.settings == 1 else f"{effect.settings} settings")
    )
    if said.ratio is None:
        text = f"{head}: no setting in which both ended well."
    elif effect.why:
        text = f"{head}: {interval_text(said)}, {held}; no order is told: {effect.why}."
    else:
        text = f"{head}: {_way(said, what)}{interval_text(said)}, {held}; {sure_text(said)}."
        if effect.turns:
            text = f"{head}: {effect.turns}. The average, {interval_text(said)}, {held}, says little."
    return text + _died(settings, effect)


def _way(said: Beside, what: Measure) -> str:
    if not said.sure.ranks or said.ratio is None:
        return ""
    return f"{what.words[0] if said.ratio > 1 else what.words[1]}: "


def _died(settings: Sequence[Setting], effect: Effect) -> str:
    """The settings with a guest that ended badly, by level."""
    texts = []
    for side, name in (("first", effect.baseline), ("second", effect.level)):
        count = sum(any(value is None for value in getattr(setting, side).values()) for setting in settings)
        if count:
            texts.append(f"{name} ended badly in {count} of {len(settings)} settings")
    return f" {'; '.join(texts)}: no ratio there." if texts else ""


def _levels(levels: set[str]) -> str:
    return ", ".join(sorted(levels, key=sorting_key)) or "none"


def _words(setting: Setting) -> str:
    return ", ".join(f"{name}={level or 'none'}" for name, level in setting.levels.items())
