"""Rows of a swap study as answers need them: the choice, the situation, the seed, and how the guest ended.

Nothing is dropped but warm-ups and runs that the host spoilt: a guest that ran out of memory, hung, or gave back a
wrong page is an outcome. `answers.toml` says which factors are a choice of the reader and which a situation.
"""

from __future__ import annotations

import functools
import math
import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acon_nb.bench.metrics import metric
from acon_nb.bench.rows import FACTS, LeftOut, changed, one_of
from acon_nb.errors import InvalidInput
from acon_nb.vm import Clock, End

if TYPE_CHECKING:
    import pandas as pd

_TABLE = Path(__file__).with_name("answers.toml")
_PREFIX = "factor_"
THROUGHPUT = "access_ops_per_s"
_FIRST = ("", "none", "off", "disk")
_RATES = {THROUGHPUT: "accesses / s", "fill_pages_per_s": "4 KiB pages / s"}
_LATENCIES = ("access_", "hit_", "fault_", "fill_")
_NUMBER = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ns|us|µs|ms|s|x|%|[KMGT]?)")
_UNITS = {
    "": 1.0, "x": 1.0, "%": 1.0, "ns": 1.0, "us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9,
    "K": 2.0**10, "M": 2.0**20, "G": 2.0**30, "T": 2.0**40,
}  # fmt: skip


class Result(StrEnum):
    """How a guest of a swap study ended, for people."""

    WELL = "ended well"
    OUT_OF_MEMORY = "out of memory"
    HANG = "hang"
    CORRUPT = "wrong pages"
    OTHER = "failed"


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A measure of a swap run: `scale` of its values give `unit`; `words` are those for more and for less of it."""

    name: str
    label: str
    unit: str
    scale: float
    more_is_better: bool
    words: tuple[str, str]

    def text(self, value: float) -> str:
        """A value for people: "13,162 accesses / s"."""
        scaled = value / self.scale
        digits = 0 if abs(scaled) >= 100 else 1 if abs(scaled) >= 10 else 2
        return f"{scaled:,.{digits}f} {self.unit}".rstrip()


@dataclass(frozen=True, kw_only=True)
class Counted:
    """The rows that count, of one clock.

    `frame` has beside the study's columns `choice` and `situation` (labels), `pair` (the seed) and `result`.
    `calibration` are the rows set apart: codec cells, and copies of a cell that only show that it repeats.
    `levels` has a column for each factor that varies, replicates aside: its levels as words, "" where it means nothing
    (the compressor of a disk). `situations` names those that are no choice. `left_out` and `notes` are for people.
    """

    frame: pd.DataFrame
    levels: pd.DataFrame
    calibration: pd.DataFrame
    clock: str
    situations: tuple[str, ...]
    left_out: str
    notes: tuple[str, ...]


def counted(rows: pd.DataFrame, clock: str = "") -> Counted:
    """Read the rows of a swap study. `clock` picks those of one clock where the study has both.

    Errors: `InvalidInput` for no rows, for rows of both clocks or (on the wall clock) of several classes of hosts, and
    for rows without the factor `swap`.
    """
    import pandas as pd

    if clock and "clock" in rows:
        rows = rows[rows["clock"] == clock]
    if rows.empty:
        where = f" on the clock {clock!r}" if clock else ""
        raise InvalidInput("rows", 0, f"there are no rows{where}", hint="run the study first: acon-nb bench swap")
    found = one_of(rows, "clock") or Clock.INSTRUCTIONS.value
    if found == Clock.WALL:
        one_of(rows, "host_class")
    if f"{_PREFIX}swap" not in rows:
        raise InvalidInput("rows", len(rows), "have no factor swap", hint="take rows of a swap study")
    frame, left = _without_spoilt(rows)
    if frame.empty:
        raise InvalidInput("rows", len(rows), "none counts", hint=left.text())
    apart = _apart(frame)
    calibration, frame = frame[apart], _sorted(frame[~apart])
    if frame.empty:
        raise InvalidInput("rows", len(rows), "are calibrations alone", hint="take rows of cells that swap")
    levels = _varying(frame)
    names = [str(name) for name in levels]
    situations = tuple(name for name in names if _factor(name)["role"] == "situation")
    choices = [name for name in names if name not in situations]
    records = _narrow(frame).to_dict("records")
    frame = frame.assign(
        choice=[choice_of(row, choices) for row in records],
        situation=[_words(situations, row) for row in zip(*(levels[n] for n in situations), strict=True)] or "",
        pair=pd.Series(_pairs(frame), index=frame.index, dtype="int64"),
        result=[str(result_of(row)) for row in records],
    )
    return Counted(
        frame=frame,
        levels=levels,
        calibration=calibration,
        clock=found,
        situations=situations,
        left_out=left.text(),
        notes=tuple(_notes(frame, found)),
    )


def without_calibrations(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of a swap study without those of codec cells and of copies, which are no measurements of a choice."""
    return rows[~_apart(rows)]


def result_of(row: Mapping[Any, Any]) -> Result:
    """How a run ended. A wrong page is worse than any speed is good, so it comes first."""
    end, error = str(_value(row, "end") or End.POWERED_OFF), str(_value(row, "error") or "")
    if result_value(row, "corrupt_pages") > 0:
        return Result.CORRUPT
    if end == End.OUT_OF_MEMORY or result_value(row, "oom_kills") > 0:
        return Result.OUT_OF_MEMORY
    if end == End.HANG:
        return Result.HANG
    return Result.WELL if end == End.POWERED_OFF and not error else Result.OTHER


def choice_of(row: Mapping[Any, Any], varying: Sequence[str]) -> str:
    """The label of a choice: the swap, its compressor, and whatever else of the choice is in `varying`."""
    words = [_level(row.get(f"{_PREFIX}swap")) or "none"]
    for name in sorted({*varying, "compressor"} - {"swap"}, key=_place):
        level = _level_of(name, row)
        if level:
            words.append(str(_factor(name).get("words", f"{name} {{}}")).replace("{}", level))
    return " ".join(words)


def values(part: pd.DataFrame, measure: str) -> dict[str, dict[int, float | None]]:
    """The value of each choice and seed: the median of its runs, None where any of them ended badly.

    A value that is not above 0, or not known, of a run that ended well is left out: a ratio cannot have it.
    """
    table: dict[str, dict[int, list[float | None]]] = {}
    for row in part[[name for name in ("choice", "pair", "result", measure) if name in part]].to_dict("records"):
        number = result_value(row, measure) if row["result"] == Result.WELL else None
        if number is not None and not 0 < number < math.inf:
            continue
        table.setdefault(str(row["choice"]), {}).setdefault(int(row["pair"]), []).append(number)
    return {
        choice: {seed: _median(numbers) for seed, numbers in sorted(seeds.items())} for choice, seeds in table.items()
    }


def failures(part: pd.DataFrame) -> str:
    """The runs that ended badly, in words ("out of memory in 3 of 3"), or ""."""
    bad = Counter(str(result) for result in part["result"] if result != Result.WELL)
    return ", ".join(f"{result} in {count} of {len(part)}" for result, count in sorted(bad.items()))


def strata(found: Counted, without: Sequence[str] = ()) -> list[tuple[str, pd.DataFrame]]:
    """The rows by their situation, the factors in `without` aside: the situation in words, and its rows."""
    names = [name for name in found.situations if name not in without]
    if not names:
        return [("", found.frame)]
    return [(_words(names, key), found.frame.loc[index]) for key, index in grouped(found.levels, names)]


def grouped(levels: pd.DataFrame, names: Sequence[str]) -> list[tuple[tuple[str, ...], list[Any]]]:
    """The rows of a table of levels by the levels of some columns, in the order in which they first come."""
    groups: dict[tuple[str, ...], list[Any]] = {}
    keys = zip(*(levels[name] for name in names), strict=True) if names else ((),) * len(levels)
    for index, key in zip(levels.index, keys, strict=True):
        groups.setdefault(key, []).append(index)
    return list(groups.items())


def factor_of(found: Counted, factor: str) -> pd.Series[str]:
    """The levels of a factor as words, a row each, also of one that does not vary.

    Errors: `InvalidInput` that names the factors there are.
    """
    if factor in found.levels:
        return found.levels[factor]
    if _PREFIX + factor not in found.frame:
        known = sorted(str(name).removeprefix(_PREFIX) for name in found.frame if str(name).startswith(_PREFIX))
        raise InvalidInput("factor", factor, "is no factor of these rows", hint=f"one of {', '.join(known)}")
    return found.frame[_PREFIX + factor].map(_level)


def sorting_key(level: str) -> tuple[float, str]:
    """Levels in the order that people expect: none first, numbers and sizes ("256M") by their size, then texts."""
    if level in _FIRST:
        return (float(_FIRST.index(level)) - len(_FIRST), level)
    number = number_of(level)
    return (number if number == number else math.inf, level)


def number_of(level: Any) -> float:
    """The number that a level says ("1.5", "80us" as ns, "256M" as bytes), nan for none."""
    if isinstance(level, bool) or level is None:
        return math.nan
    match = _NUMBER.fullmatch(str(level).strip())
    if match is None:
        return math.nan
    return float(match.group(1)) * _UNITS[match.group(2)]


@functools.cache
def measure(name: str) -> Measure:
    """A measure by its column, in the units in which swap is told. Errors: `InvalidInput` for a column that is none."""
    found = metric(name)
    unit, scale = found.unit, float(found.scale)
    if unit == "1/s":
        unit = _RATES.get(name, "1 / s")
    elif unit == "s" and name.startswith(_LATENCIES):
        unit, scale = "µs", 1e3
    words = (
        ("longer", "shorter") if unit in ("s", "µs") else ("faster", "slower") if "/ s" in unit else ("more", "less")
    )
    label = "access throughput" if name == THROUGHPUT else found.label
    more = found.more_is_better
    return Measure(name=name, label=label, unit=unit, scale=scale, more_is_better=more, words=words)


def unranked(first: str, second: str, clock: str) -> str:
    """Why the order of two choices must not be told, or "": they differ in two compressors of a table alone."""
    for row in _facts()["unranked"]:
        if row["clock"] not in ("", clock):
            continue
        known = row["compressors"]
        one, two = (tuple("*" if word in known else word for word in label.split(" ")) for label in (first, second))
        if one == two and "*" in one:
            return str(row["why"])
    return ""


def _narrow(frame: pd.DataFrame) -> pd.DataFrame:
    """The factors and the ends alone: a row has some hundred other columns, histograms among them."""
    ends = ("end", "error", "corrupt_pages", "oom_kills")
    return frame[[name for name in frame if str(name).startswith(_PREFIX) or name in ends]]


def _without_spoilt(rows: pd.DataFrame) -> tuple[pd.DataFrame, LeftOut]:
    import pandas as pd

    none = pd.Series(False, index=rows.index)
    warmup = rows["warmup"].fillna(False).astype(bool) if "warmup" in rows else none
    fault = (rows["host_fault"].fillna("") != "") & ~warmup if "host_fault" in rows else none
    return rows[~warmup & ~fault], LeftOut(warmups=int(warmup.sum()), host_faults=int(fault.sum()))


def _apart(frame: pd.DataFrame) -> pd.Series[bool]:
    """Which rows are calibrations: the codec's, and copies."""
    import pandas as pd

    apart = pd.Series(False, index=frame.index)
    if f"{_PREFIX}workload" in frame:
        apart |= frame[f"{_PREFIX}workload"] == "codec"
    if f"{_PREFIX}copy" in frame:
        apart |= frame[f"{_PREFIX}copy"].fillna("").astype(str) != ""
    return apart


def _pairs(frame: pd.DataFrame) -> list[int]:
    """The seed of each row: of the guest, else of the plan, else the number of the run."""
    for name in ("seed", "replicate", "block"):
        if name in frame and frame[name].notna().all():
            return [int(value) for value in frame[name]]
    return [0] * len(frame)


def _notes(frame: pd.DataFrame, clock: str) -> list[str]:
    """What a reader must know about the rows as a whole."""
    found = []
    well = frame[frame["result"] == Result.WELL]
    if clock == Clock.INSTRUCTIONS and THROUGHPUT in well:
        spread = well.groupby(["choice", "situation", "pair"])[THROUGHPUT].nunique()
        broken = [" ".join(map(str, key)) for key, count in spread.items() if count > 1]  # type: ignore[call-overload]
        if broken:
            found.append(f"DETERMINISM IS BROKEN: equal guests gave different counts: {'; '.join(broken[:5])}.")
    wrong = frame[frame["result"] == Result.CORRUPT]
    if len(wrong):
        cells = ", ".join(sorted(set(wrong["choice"])))
        found.append(f"WRONG PAGES came back in {len(wrong)} runs: {cells}.")
    first = frame[frame["choice"] == frame["choice"].iloc[0]]
    for name in ("kernel_sha256", "initrd_sha256", "qemu_version"):
        if name in first and first[name].nunique() > 1:
            also = changed(first.iloc[[0]], first.iloc[[-1]])
            what = "; ".join(also) or f"{FACTS.get(name, name)}: {first[name].nunique()} of them"
            found.append(f"Rows of different guests stand side by side: {what}.")
            break
    return found


@functools.cache
def _facts() -> Mapping[str, Any]:
    return tomllib.loads(_TABLE.read_text())


def _sorted(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows in an order for people: by the situation's levels, then by the kind of swap and the rest of the choice.

    A store gives them in the order in which the guests happened to end.
    """
    names = [str(name).removeprefix(_PREFIX) for name in frame if str(name).startswith(_PREFIX)]
    names = [name for name in names if _factor(name)["role"] != "replicate"]
    names.sort(key=lambda name: (_factor(name)["role"] == "choice", _place(name)))
    records = _narrow(frame).to_dict("records")
    keys = [tuple(sorting_key(_level_of(name, row)) for name in names) for row in records]
    order = sorted(range(len(records)), key=lambda number: keys[number])
    return frame.iloc[order].reset_index(drop=True)


def _varying(frame: pd.DataFrame) -> pd.DataFrame:
    """The levels, as words, of the factors that vary; replicates are none."""
    import pandas as pd

    records = _narrow(frame).to_dict("records")
    found: dict[str, list[str]] = {}
    for column in (str(name) for name in frame if str(name).startswith(_PREFIX)):
        name = column.removeprefix(_PREFIX)
        levels = [(_level(row[column]) or "none") if _applies(name, row) else "" for row in records]
        if _factor(name)["role"] != "replicate" and len(set(levels) - {""}) > 1:
            found[name] = levels
    return pd.DataFrame(found, index=frame.index)


def _level_of(factor: str, row: Mapping[Any, Any]) -> str:
    """The level of a factor in a row, in words; "" where there is none or it means nothing."""
    level = _level(row.get(_PREFIX + factor))
    return level if _applies(factor, row) and level != _factor(factor).get("nothing", "") else ""


def _applies(factor: str, row: Mapping[Any, Any]) -> bool:
    """Whether a factor means something for the swap of a row."""
    kinds = _factor(factor).get("applies_to", [])
    return not kinds or _level(row.get(f"{_PREFIX}swap")) in kinds


def _factor(name: str) -> Mapping[str, Any]:
    return next((row for row in _facts()["factor"] if row["name"] == name), {"name": name, "role": "situation"})


def _place(name: str) -> int:
    names = [row["name"] for row in _facts()["factor"]]
    return names.index(name) if name in names else len(names)


def _words(names: Sequence[str], levels: Sequence[Any]) -> str:
    return ", ".join(f"{name}={level or 'none'}" for name, level in zip(names, levels, strict=True))


def _level(level: Any) -> str:
    """A level in words; "" for none."""
    if level is None or level != level:
        return ""
    if isinstance(level, bool):
        return "on" if level else "off"
    if isinstance(level, float):
        return f"{level:g}"
    return str(level)


def _value(row: Mapping[Any, Any], name: str) -> Any:
    value = row.get(name)
    return None if value is None or value != value else value


def result_value(row: Mapping[Any, Any], name: str) -> float:
    """A number of a row; nan for what is none."""
    try:
        return float(_value(row, name))
    except (TypeError, ValueError):
        return math.nan


def _median(numbers: Sequence[float | None]) -> float | None:
    known = sorted(number for number in numbers if number is not None)
    if len(known) < len(numbers):
        return None
    middle = len(known) // 2
    return known[middle] if len(known) % 2 else (known[middle - 1] + known[middle]) / 2
