"""The answers to a question about an image, from the rows of its study: how each set-up ended, what it saves and costs.

Which set-up is better than another one is decided where every swap study decides it (`swap.analysis.best`).
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from acon_nb.stats import inference
from acon_nb.stats.intervals import interval_words
from acon_nb.stats.seeds import Seeds
from acon_nb.swap.analysis.best import Best, Ranking
from acon_nb.swap.analysis.choices import Choice
from acon_nb.swap.analysis.measures import value_in
from acon_nb.swap.analysis.outcomes import GuestResult, result_of
from acon_nb.swap.image.plan import UNLIMITED, Place

if TYPE_CHECKING:
    import pandas as pd

DRIVER = "image-run"  # the name under which image_run reports the time of a driver


@dataclass(frozen=True, kw_only=True)
class SetupAnswer:
    """A set-up at a share of the peak.

    `end` is how its guests ended (of those that ended badly, if any did), `ended_well` how many of `runs` ended well.
    `ratio_to_unlimited` is the median of the ratios, seed by seed, of its time and that without a limit (1.2: 20 %
    longer); of a server that runs for a time, that of the operations that it reports, turned over. `ratio_low` and
    `ratio_high` are its interval over `ratio_seeds` of them, of the kind `interval`. `saved_bytes` is
    what the guest needs less than for the whole peak, `pool_saved_bytes` the most that the pool of compressed pages
    saved while it ran (looked at every 0.25 s). Costs are medians: `elapsed_ns` and CPU of the guest's clock, faults
    that had to read, `p99_ns` of the latencies that the program reports. What is not known is None.
    """

    at: str
    setup: str
    available_bytes: int
    memory_bytes: int
    end: str
    ended_well: int
    runs: int
    ratio_to_unlimited: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    ratio_seeds: int = 0
    saved_bytes: int | None = None
    pool_saved_bytes: float | None = None
    elapsed_ns: float | None = None
    user_cpu_ns: float | None = None
    system_cpu_ns: float | None = None
    major_faults: float | None = None
    disk_read_bytes: float | None = None
    disk_written_bytes: float | None = None
    operations_per_s: float | None = None
    p99_ns: float | None = None

    @property
    def interval(self) -> str:
        """What the interval of the ratio is: "range of 3 seeds", "bootstrap 95 %, 5 seeds"; "" without a ratio."""
        return interval_words(self.ratio_seeds) if self.ratio_seeds else ""


@dataclass(frozen=True, kw_only=True)
class BestAt:
    """The best set-up at a share: `setups` are it and all that do not differ surely from it; none where all died.

    `verdict` is better, or the code of why none is the best.
    """

    at: str
    setups: tuple[str, ...]
    verdict: str
    why: str
    died: tuple[str, ...]
    ratio_to_unlimited: float | None
    saved_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class Answers:
    """All answers, and the best at each share, the smallest share first; `unlimited` is how it does without a limit,
    with which each is compared (None: no such run counts)."""

    answers: tuple[SetupAnswer, ...]
    best: tuple[BestAt, ...]
    counted: str
    unlimited: SetupAnswer | None

    def data(self) -> dict[str, Any]:
        """As JSON has it: `best` is that of the smallest share at which some set-up ended well in every seed, with
        all of them in `by_at`."""
        by_at = [asdict(one) for one in self.best]
        first = next((one for one in by_at if one["setups"]), {"at": None, "setups": (), "verdict": "no_values"})
        answers = [{**asdict(one), "interval": one.interval} for one in self.answers]
        unlimited = asdict(self.unlimited) if self.unlimited else None
        return {"answers": answers, "best": {**first, "by_at": by_at}, "unlimited": unlimited}


@dataclass(frozen=True)
class _Counted:
    """What counts of a run: its name, how to read it, and whether more of it is better."""

    name: str
    read: Callable[[Mapping[Any, Any]], float]
    more_is_better: bool


def answers_of(rows: pd.DataFrame, places: Sequence[Place], peak_bytes: int, *, clock: str) -> Answers:
    """The answers of the rows of a question's study at some places, the one without a limit among them."""
    measured = rows[(rows["factor_workload"] == "program") & (rows["factor_copy"] == "")]
    measured = measured[~measured["warmup"].astype(bool) & (measured["host_fault"].fillna("") == "")]
    counted = _counted(measured)
    parts = {place: _at(measured, place) for place in places}
    base: dict[int, float | None] = {}
    unlimited = None
    made, order = [], []
    for place, part in parts.items():
        if place.at == UNLIMITED and len(part):
            base = _values(part, counted)
            unlimited = _answer(place, "none", part, counted, base, peak_bytes)
    for place, part in sorted(parts.items(), key=lambda item: item[0].available_bytes):
        if place.at == UNLIMITED:
            continue
        names: dict[Choice, str] = {}
        values: dict[Choice, Seeds] = {}
        for name, some in part.groupby("factor_setup", sort=False):
            choice = Choice.of(some.iloc[0].to_dict(), ())
            names[choice] = str(name)
            values[choice] = _values(some, counted)
            made.append(_answer(place, str(name), some, counted, base, peak_bytes))
        order.append((place, names, values))
    ranking = Ranking(
        {place.at: values for place, _, values in order}, more_is_better=counted.more_is_better, clock=clock
    )
    best = tuple(_best(place, names, ranking.best(place.at), made) for place, names, _ in order)
    return Answers(answers=tuple(made), best=best, counted=counted.name, unlimited=unlimited)


def _at(rows: pd.DataFrame, place: Place) -> pd.DataFrame:
    """The rows of a place; without a limit and a share may have the same memory, but never the same available."""
    return rows[rows["factor_available"].astype(str) == str(place.available_bytes)]


def _counted(rows: pd.DataFrame) -> _Counted:
    """What counts: the driver's time, the operations of a server that runs for a time, or the program's time."""
    if rows["factor_driver"].astype(str).str.len().gt(0).any():
        return _Counted("the driver's time", lambda row: _reported(row, DRIVER, "max_ns"), False)
    if rows["factor_program_time"].astype(str).str.len().gt(0).any():
        return _Counted("operations that it reports", lambda row: value_in(row, "reported_ops_per_s"), True)
    return _Counted("its time", lambda row: value_in(row, "program_elapsed_ns"), False)


def _reported(row: Mapping[Any, Any], name: str, key: str) -> float:
    """A number of what a program reported under a name; nan where there is none."""
    text = row.get("reported")
    if not isinstance(text, str) or not text:
        return math.nan
    value = json.loads(text).get(name, {}).get(key)
    return math.nan if value is None else float(value)


def _values(rows: pd.DataFrame, counted: _Counted) -> dict[int, float | None]:
    """What counts by seed; None for a guest that ended badly. A run that reports nothing has no value at all."""
    values: dict[int, float | None] = {}
    for row in rows.to_dict("records"):
        value = counted.read(row)
        if result_of(row) is not GuestResult.WELL:
            values[int(row["seed"])] = None
        elif 0 < value < math.inf:
            values[int(row["seed"])] = value
    return values


def _answer(
    place: Place,
    setup: str,
    rows: pd.DataFrame,
    counted: _Counted,
    base: Mapping[int, float | None],
    peak_bytes: int,
) -> SetupAnswer:
    records = rows.to_dict("records")
    ends = [result_of(row) for row in records]
    good = [row for row, end in zip(records, ends, strict=True) if end is GuestResult.WELL]
    bad = [end for end in ends if end is not GuestResult.WELL]
    end = Counter(bad).most_common(1)[0][0] if bad else GuestResult.WELL
    ratios = _ratios(_values(rows, counted), base, counted)
    ratio = inference.ratio_of_pairs(ratios) if ratios else None
    return SetupAnswer(
        at=place.at, setup=setup, available_bytes=place.available_bytes, memory_bytes=place.memory_bytes,
        end=str(end), ended_well=len(good), runs=len(records),
        ratio_to_unlimited=ratio.ratio if ratio else None, ratio_low=ratio.low if ratio else None,
        ratio_high=ratio.high if ratio else None, ratio_seeds=len(ratios),
        saved_bytes=max(0, peak_bytes - place.available_bytes) if records and not bad else None,
        pool_saved_bytes=_pool_saved(good), elapsed_ns=_median(good, "program_elapsed_ns"),
        user_cpu_ns=_median(good, "user_cpu_ns"), system_cpu_ns=_median(good, "system_cpu_ns"),
        major_faults=_median(good, "major_faults"), disk_read_bytes=_median(good, "disk_read_bytes"),
        disk_written_bytes=_median(good, "disk_written_bytes"), operations_per_s=_median(good, "reported_ops_per_s"),
        p99_ns=_p99(good),
    )  # fmt: skip


def _ratios(values: Mapping[int, float | None], base: Mapping[int, float | None], counted: _Counted) -> list[float]:
    """How many times as long as without a limit, for each seed in which both ended well."""
    pairs = [(value, base.get(seed)) for seed, value in sorted(values.items())]
    ratios = [one / other for one, other in pairs if one is not None and other is not None]
    return [1 / ratio for ratio in ratios] if counted.more_is_better else ratios


def _pool_saved(records: Sequence[Mapping[Any, Any]]) -> float | None:
    """The most that the pool saved; the state at the end is that without the program, whose pages are free by then."""
    values = []
    for row in records:
        text = row.get("samples")
        samples = json.loads(text) if isinstance(text, str) and text else []
        saved = [one["pool_stored_bytes"] - one["pool_bytes"] for one in samples if "pool_stored_bytes" in one]
        values += [max(saved)] if saved else []
    return inference.median(values) if values else None


def _p99(records: Sequence[Mapping[Any, Any]]) -> float | None:
    """The p99 of the latencies that the program reports (without those of a driver as a whole)."""
    values = []
    for row in records:
        text = row.get("reported")
        by_name = json.loads(text) if isinstance(text, str) and text else {}
        own = [one["p99_ns"] for name, one in by_name.items() if name != DRIVER and one.get("p99_ns") is not None]
        values += [max(own)] if own else []
    return inference.median(values) if values else None


def _median(records: Sequence[Mapping[Any, Any]], column: str) -> float | None:
    values = [value for row in records if not math.isnan(value := value_in(row, column))]
    return inference.median(values) if values else None


def _best(place: Place, names: Mapping[Choice, str], best: Best, made: Sequence[SetupAnswer]) -> BestAt:
    setups = tuple(names[choice] for choice in best.choices)
    first = next((one for one in made if setups and one.at == place.at and one.setup == setups[0]), None)
    return BestAt(
        at=place.at, setups=setups, verdict=str(best.verdict), why=best.why,
        died=tuple(names[choice] for choice in best.died),
        ratio_to_unlimited=first.ratio_to_unlimited if first else None,
        saved_bytes=first.saved_bytes if first else None,
    )  # fmt: skip
