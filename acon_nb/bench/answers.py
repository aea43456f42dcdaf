"""The answer of a swap study in words: for my data, my pressure and my device, which swap, and what does it cost?

`explain` says the answer first, then how sure it is, where it turns round, what was left out, and what the clock cannot
say. Every sentence is made from a table of `acon_nb.bench.swap_tables` (docs/swap-answers.md).
"""

from __future__ import annotations

import functools
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acon_nb.bench import stats
from acon_nb.bench.best import Best, best_of
from acon_nb.bench.paired import Sure, beside, interval_text, judge, sure_text
from acon_nb.bench.swap.data import ALGORITHMS
from acon_nb.bench.swap.tables import calibration_lines, determinism_lines
from acon_nb.bench.swap_rows import (
    THROUGHPUT,
    Counted,
    Measure,
    Result,
    counted,
    factor_of,
    failures,
    measure,
    number_of,
    result_value,
    strata,
    unranked,
    values,
)
from acon_nb.bench.swap_tables import baseline_of, df_breakeven, df_effects, df_outcomes
from acon_nb.errors import InvalidInput
from acon_nb.units import format_bytes
from acon_nb.vm import Clock

if TYPE_CHECKING:
    import pandas as pd

_TABLE = Path(__file__).with_name("answers.toml")
_MOST_SITUATIONS = 8
_CLOCKS = {"instructions": "Instruction clock", "wall": "Wall clock"}
_COSTS = ("access_p99_ns", "system_cpu_ns", "disk_written_bytes")


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of a study: the situation one is in. What is empty (0, "") is not asked.

    `data`, `workload` and `pattern` are levels of the plan; `pressure` is the working set over RAM and `disk_latency`
    the device as on hardware ("80us"): of these the nearest that was measured answers, and is named. `metric` is what
    counts, `clock` whose rows (needed where the study has both).
    Errors: `InvalidInput` at construction.
    """

    data: str = ""
    workload: str = ""
    pattern: str = ""
    pressure: float = 0.0
    disk_latency: str = ""
    metric: str = THROUGHPUT
    clock: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.pressure, bool) or not isinstance(self.pressure, int | float):
            raise InvalidInput("pressure", self.pressure, "is no number", hint="working set over RAM, such as 1.5")
        if not 0 <= self.pressure < math.inf:
            raise InvalidInput("pressure", self.pressure, "is no multiple of RAM", hint="such as 1.5; 0: not asked")
        if self.disk_latency and math.isnan(number_of(self.disk_latency)):
            raise InvalidInput("disk_latency", self.disk_latency, "is no time", hint="such as 80us or 0.5ms")
        measure(self.metric)

    def asked(self) -> dict[str, str]:
        """The factors asked for, and their levels."""
        named = {name: getattr(self, name) for name in ("data", "workload", "pattern", "disk_latency")}
        pressure = {"pressure": f"{self.pressure:g}"} if self.pressure else {}
        return {name: level for name, level in named.items() if level} | pressure


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer in one situation: the `best` choice, every choice beside it (`table`), and both in `words`."""

    situation: str
    best: Best
    table: pd.DataFrame
    words: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """A study in sentences, of one clock.

    `answer` has the answers and what they cost, `turns` the break-evens, `effects` a sentence a factor and level,
    `evidence` what the study says of itself (left out, calibration, whether it repeats), `limits` what it cannot say,
    `both_clocks` what the other clock says of the order, where the study has both.
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
        told = (*self.answer, self.scope, *self.both_clocks, *self.turns, *self.effects, *self.evidence)
        return [*told, *(f"It cannot say: {text}" for text in self.limits)]


def answers(found: Counted, question: Question) -> list[Answer]:
    """The answer in each situation that fits the question; those not asked about are each answered.

    Errors: `InvalidInput` for a level of data, workload or pattern that the study does not have.
    """
    rows, taken, _ = _narrowed(found, question)
    return [
        _answer(rows, part, _where(situation, taken), question, baseline_of(found)) for situation, part in strata(rows)
    ]


def explain(rows: pd.DataFrame, question: Question | None = None, *, baseline: str = "") -> list[Explanation]:
    """A study in sentences, the answer first: one `Explanation` a clock, never of both together.

    Errors: those of `counted` and `answers`.
    """
    asked = question or Question()
    clocks = [asked.clock] if asked.clock else sorted(set(rows["clock"])) if "clock" in rows else [""]
    flips = clock_flips(rows, asked.metric) if len(clocks) > 1 else []
    return [replace(_explained(counted(rows, clock), asked, baseline), both_clocks=tuple(flips)) for clock in clocks]


def clock_flips(rows: pd.DataFrame, metric: str = THROUGHPUT) -> list[str]:
    """The pairs of choices whose order the two clocks tell the other way round, in sentences."""
    what = measure(metric)
    orders: dict[tuple[str, str, str], dict[str, bool]] = {}
    for clock in sorted(set(rows["clock"])):
        found = counted(rows, clock)
        for situation, part in strata(found):
            table = values(part, metric)
            names = sorted(table)
            pairs = [(a, b) for number, a in enumerate(names) for b in names[number + 1 :]]
            saids = [beside(table[a], table[b], more_is_better=what.more_is_better, tests=len(pairs)) for a, b in pairs]
            for (a, b), said in zip(pairs, judge(saids), strict=True):
                if said.sure.ranks and said.ratio is not None:
                    orders.setdefault((situation, a, b), {})[clock] = said.larger
    turned = [key for key, told in orders.items() if len(told) > 1 and len(set(told.values())) > 1]
    compared = sum(len(told) > 1 for told in orders.values())
    if not turned:
        text = f"Both clocks agree on the order of {compared} pairs of choices."
        return [text if compared else "No pair of choices is ranked on both clocks."]
    told = [f"{a} and {b}" + (f" ({situation})" if situation else "") for situation, a, b in turned]
    return [f"Not to be ranked, since the two clocks give another order: {'; '.join(told)}."]


def limits(found: Counted) -> list[str]:
    """What the numbers cannot say, by their clock, their accelerator and what they are."""
    accelerators = set(found.frame["accelerator"].dropna()) if "accelerator" in found.frame else set()
    return [
        str(row["text"])
        for row in _limits()
        if row["clock"] in ("", found.clock)
        and (not row["accelerator"] or row["accelerator"] in accelerators)
        and _concerns(row, found.frame)
    ]


def _concerns(row: Mapping[str, Any], frame: pd.DataFrame) -> bool:
    """Whether a limit's column, if it has one, has its level or is within its range in some row."""
    column = row.get("column")
    if column is None:
        return True
    if column not in frame:
        return False
    if "level" in row:
        return bool((frame[column] == row["level"]).any())
    numbers = [result_value({column: value}, column) for value in frame[column]]
    return any(row["least"] <= number <= row["most"] for number in numbers)


def _explained(found: Counted, asked: Question, baseline: str) -> Explanation:
    """The sentences of one clock's rows."""
    narrowed, taken, near = _narrowed(found, asked)
    first = baseline_of(found, baseline)
    parts = sorted(strata(narrowed), key=lambda one: -one[1]["choice"].nunique())  # where most was compared
    cases = [_answer(narrowed, part, _where(name, taken), asked, first) for name, part in parts[:_MOST_SITUATIONS]]
    told = [*near, *(line for case in cases for line in case.words)]
    if len(parts) > _MOST_SITUATIONS:
        told.append(f"{len(parts) - _MOST_SITUATIONS} more situations are in the table of the best choices.")
    axes = [axis for axis in ("pressure", "disk_latency") if axis in found.situations]
    effects = df_effects(found, asked.metric)
    return Explanation(
        clock=found.clock,
        scope=f"{_CLOCKS.get(found.clock, found.clock)}, {_seeds(found)}.",
        answer=tuple(told),
        turns=tuple(text for axis in axes for text in df_breakeven(found, asked.metric, axis=axis)["sentence"]),
        effects=tuple(effects["sentence"]) if len(effects) else (),
        evidence=(*found.notes, *_left_out(found), *_checks(found), *_ratios(found.frame)),
        limits=tuple(limits(found)),
    )


def _narrowed(found: Counted, question: Question) -> tuple[Counted, dict[str, str], list[str]]:
    """The rows that fit the question, the levels that they have, and in words what was taken for what was asked."""
    frame, near = found.frame, []
    taken: dict[str, str] = {}
    for name, level in question.asked().items():
        texts = factor_of(found, name).loc[frame.index]
        known = list(dict.fromkeys(texts))
        chosen = _nearest(level, known) if name in ("pressure", "disk_latency") else level
        if chosen not in known:
            raise InvalidInput(name, level, "was not measured", hint=f"one of {', '.join(map(str, known))}")
        if number_of(chosen) != number_of(level) and chosen != level:
            near.append(f"{name} {level} was not measured: {chosen} is the nearest.")
        frame = frame[texts == chosen]
        taken[name] = chosen
    kept = tuple(name for name in found.situations if found.levels.loc[frame.index, name].nunique() > 1)
    return replace(found, frame=frame, levels=found.levels.loc[frame.index], situations=kept), taken, near


def _nearest(level: str, known: Sequence[str]) -> str:
    """The level that is nearest in proportion; of two as near the harder (larger) one."""
    wanted = number_of(level)
    numbers = {text: number_of(text) for text in known}
    usable = [text for text, number in numbers.items() if number > 0]
    if not usable or not wanted > 0:
        return level
    return min(usable, key=lambda text: (abs(math.log(numbers[text] / wanted)), -numbers[text]))


def _where(situation: str, taken: Mapping[str, str]) -> str:
    """A situation in words, with the levels that were asked for."""
    return ", ".join(filter(None, [*(f"{name}={level}" for name, level in taken.items()), situation]))


def _answer(found: Counted, part: pd.DataFrame, situation: str, asked: Question, first: str) -> Answer:
    import pandas as pd

    what = measure(asked.metric)
    table: dict[str, dict[int, float | None]] = {str(choice): {} for choice in part["choice"]}
    table |= values(part, asked.metric)
    best = best_of(table, more_is_better=what.more_is_better, clock=found.clock)
    rows = []
    for name, seeds in table.items():
        known = [value for value in seeds.values() if value is not None]
        summary = stats.summarise(known) if known else None
        mine = part[part["choice"] == name]
        said = beside(table.get(first, {}), seeds, more_is_better=what.more_is_better, tests=max(1, len(table) - 1))
        rows.append(
            {
                "choice": name,
                what.label: _summary_words(what, summary) if summary else "",
                f"beside {first}": interval_text(said) if name != first else "",
                **{measure(cost).label: _cost(mine, cost) for cost in _COSTS},
                "memory saved": _saved(mine),
                "ended badly": failures(mine),
                "best": "best" if best.names[:1] == (name,) else "not told from it" if name in best.names else "",
            }
        )
    words = _answer_words(found, part, f"For {situation}" if situation else "Here", asked, best, first, table)
    return Answer(situation=situation, best=best, table=pd.DataFrame(rows), words=tuple(words))


def _answer_words(
    found: Counted, part: pd.DataFrame, where: str, asked: Question, best: Best, first: str, table: dict[str, Any]
) -> list[str]:
    """The best choice, beside the next and beside the baseline, what it costs, and who died."""
    what = measure(asked.metric)
    died = [f"{name}: {failures(part[part['choice'] == name])}: no choice here, whatever its speed."
            for name in best.died]  # fmt: skip
    if not best.names:
        return [f"{where}: no choice ended well in every seed.", *died]
    name = best.names[0]
    lines = [f"{where}: {_best_words(best, what)}."]
    if name != first and table.get(first):
        said = judge([beside(table[first], table[name], more_is_better=what.more_is_better)])[0]
        order = unranked(first, name, found.clock)
        lines.append(f"{name} beside {first}: {interval_text(said)}; {order or sure_text(said)}.")
        lines += [f"What {name} costs: {costs}." for costs in [_costs(part, name, first)] if costs]
    return [*lines, *died]


def _best_words(best: Best, what: Measure) -> str:
    """The best choice and how sure it is."""
    name, value = best.names[0], what.text(best.value or 0)
    if best.sure is Sure.FEW_SEEDS:
        seeds = "one seed" if best.seeds == 1 else f"{best.seeds} seeds"
        return f"{name} comes first with {value}, {what.label}, in {seeds}: no ranking, only an order to look at"
    why = f" ({best.why})" if best.why else ""
    text = f"{name}, {what.label} {value}"
    if len(best.names) > 1:
        text = f"{' or '.join(best.names)}, which cannot be told apart{why}; {name} has {what.label} {value}"
    if best.gap is None:
        return text
    return f"{text}; the next is {best.behind} at {interval_text(best.gap)}: {sure_text(best.gap)}"


def _costs(part: pd.DataFrame, name: str, first: str) -> str:
    """What a choice costs beside the baseline, in medians."""
    parts = []
    for cost in _COSTS:
        mine, theirs = (_cost(part[part["choice"] == who], cost) for who in (name, first))
        if mine and theirs:
            parts.append(f"{measure(cost).label} {mine} against {theirs}")
    saved = _saved(part[part["choice"] == name])
    return "; ".join([*parts, *([f"its pool holds {saved}"] if saved else [])])


def _summary_words(what: Measure, summary: stats.Summary) -> str:
    """A median with its interval: "16,828 [16,229, 17,112] accesses / s, n=6"."""
    value, unit = what.text(summary.median).split(" ", 1)
    if summary.n < 2:
        return f"{value} {unit}, n=1"
    low, high = (what.text(number).split(" ", 1)[0] for number in (summary.low, summary.high))
    return f"{value} [{low}, {high}] {unit}, n={summary.n}"


def _cost(rows: pd.DataFrame, name: str) -> str:
    """The median of a measure over the guests that ended well, with its unit; "" if it is not known."""
    what = measure(name)
    if name not in rows:
        return ""
    known = [result_value({name: value}, name) for value in rows.loc[rows["result"] == Result.WELL, name]]
    known = sorted(value for value in known if math.isfinite(value) and value >= 0)
    return what.text(known[len(known) // 2]) if known else ""


def _saved(rows: pd.DataFrame) -> str:
    """What the pool holds and takes, in medians."""
    if not {"pool_bytes", "pool_stored_bytes"} <= set(rows):
        return ""
    pools = rows[(rows["result"] == Result.WELL) & (rows["pool_bytes"].fillna(0).astype(float) > 0)]
    if pools.empty:
        return ""
    takes, holds = (float(pools[name].astype(float).median()) for name in ("pool_bytes", "pool_stored_bytes"))
    return f"{format_bytes(holds)} in {format_bytes(takes)} of RAM, {format_bytes(holds - takes)} saved"


def _left_out(found: Counted) -> list[str]:
    lines = [f"Left out: {found.left_out}."] if found.left_out else []
    died = df_outcomes(found)
    if len(died):
        cells = "1 cell" if len(died) == 1 else f"{len(died)} cells"
        lines.append(f"{cells} had guests that ended badly: results, shown and never dropped.")
    sizes = found.frame.groupby(["situation", "choice"])["pair"].nunique()
    if sizes.nunique() > 1:
        lines.append(f"The study is not complete: cells have {sizes.min()} to {sizes.max()} seeds.")
    return lines


def _checks(found: Counted) -> list[str]:
    """Calibration and determinism, or that the study has none."""
    import pandas as pd

    rows = pd.concat([found.frame, found.calibration])
    repeats = determinism_lines(rows) if found.clock == Clock.INSTRUCTIONS else []
    if found.clock == Clock.INSTRUCTIONS and not repeats:
        repeats = ["No guest was run twice: nothing shows that this study repeats."]
    measured = calibration_lines(rows) if "factor_workload" in rows else []
    if not any(text.startswith("Calibration") for text in measured):
        measured.insert(0, "No dilation was measured: how the disk's latency compares with hardware is not known.")
    return [*measured, *repeats]


def _ratios(frame: pd.DataFrame) -> list[str]:
    """What each algorithm makes of the data, page by page, on the host."""
    columns = [
        name for name in (f"data_ratio_{one}" for one in ALGORITHMS) if name in frame and frame[name].notna().any()
    ]
    if not columns or "factor_data" not in frame:
        return []
    told = []
    for name, part in frame.groupby("factor_data", sort=False):
        numbers = [f"{column.rpartition('_')[2]} {part[column].astype(float).median():.2f}" for column in columns]
        told.append(f"{name}: {', '.join(numbers)}")
    return [f"Data, compression ratio page by page: {'; '.join(told)}."]


def _seeds(found: Counted) -> str:
    seeds = found.frame["pair"].nunique()
    runs = f"{len(found.frame)} guests, {found.frame['choice'].nunique()} choices"
    if seeds == 1:
        return f"1 seed ({runs}): exploratory, no ranking is supported"
    if seeds < 3:
        return f"{seeds} seeds ({runs}): exploratory, no ranking is supported; intervals are the range of the seeds"
    return f"{seeds} seeds ({runs}); intervals are 95 % bootstrap, paired by seed"


@functools.cache
def _limits() -> Sequence[dict[str, Any]]:
    return tuple(tomllib.loads(_TABLE.read_text())["limit"])
