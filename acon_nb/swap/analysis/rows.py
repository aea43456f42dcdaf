"""Rows of a swap study as answers need them: the choice, the situation, the seed, and how the guest ended.

Nothing is dropped but warm-ups and runs that the host spoilt: a guest that ran out of memory, hung, or gave back a
wrong page is an outcome. `answers.toml` says which factors are a choice of the reader and which a situation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from acon_nb.errors import InvalidInput
from acon_nb.results.select import FACTS, NOT_APPLICABLE, LeftOut, changed, host_notes, one_of, without
from acon_nb.stats import inference
from acon_nb.swap.analysis.choices import (
    FACTOR_PREFIX,
    Choice,
    applies,
    is_given_by_setup,
    level_of,
    order_of,
    role_of,
)
from acon_nb.swap.analysis.measures import THROUGHPUT, level_text, sorting_key, value_in
from acon_nb.swap.analysis.outcomes import GuestResult, result_of
from acon_nb.swap.derived import AVAILABLE, FREED, LIMIT, freed_bytes, pressure_available
from acon_nb.swap.factor_checks import DEFAULTS
from acon_nb.vm import Clock

if TYPE_CHECKING:
    import pandas as pd

# The factors that an initrd is made from: with other levels of these it is another one, and should be.
_IN_INITRD = ("factor_data", "factor_workload", "factor_packages", "factor_tools")
_OF_KERNEL = ("factor_kernel", "factor_source", "factor_profile", "factor_settings")  # and what the kernel is made of
_DERIVED_FROM = (LIMIT, "held_bytes", "working_set_bytes", "memavailable_start_bytes", "swap_used_bytes", "pool_bytes")
Values = dict[Choice, dict[int, float | None]]  # by choice and seed; None where the guest ended badly


@dataclass(frozen=True, kw_only=True)
class Counted:
    """The rows that count, of one clock.

    `frame` has, besides the study's columns, `choice` (a `Choice`), `situation` (its label), `pair` (the seed) and
    `result` (a code of `GuestResult`). `calibration` are the rows set apart: codec cells, and copies of a cell that
    only show that it repeats. `levels` has a column for each factor that varies, replicates aside: its levels as
    words, "" where it means nothing (the compressor of a disk). `situations` names those that are not choices.
    `left_out` and `notes` are for people.
    """

    frame: pd.DataFrame
    levels: pd.DataFrame
    calibration: pd.DataFrame
    clock: str
    situations: tuple[str, ...]
    left_out: str
    notes: tuple[str, ...]

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The choices, in the order of the rows."""
        return tuple(dict.fromkeys(self.frame["choice"]))


def counted(rows: pd.DataFrame, clock: str = "", decide: Sequence[str] = ()) -> Counted:
    """Read the rows of a swap study. `clock` picks those of one clock where the study has both.

    `decide` names factors that are a part of the choice here, though answers.toml has them as situations (kernel).
    Errors: `InvalidInput` for no rows, for rows of both clocks or (on the wall clock) of several classes of hosts, and
    for rows without the factor `swap`.
    """
    if clock and "clock" in rows:
        rows = rows[rows["clock"] == clock]
    if rows.empty:
        where = f" on the clock {clock!r}" if clock else ""
        raise InvalidInput("rows", 0, f"there are no rows{where}", hint="run the study first: acon-nb bench swap")
    one_clock = one_of(rows, "clock") or Clock.INSTRUCTIONS.value
    if one_clock == Clock.WALL:
        one_of(rows, "host_class")
    if f"{FACTOR_PREFIX}swap" not in rows:
        raise InvalidInput("rows", len(rows), "have no factor swap", hint="take rows of a swap study")
    frame, left = _without_spoilt(_with_latencies(_with_defaults(rows)))
    if frame.empty:
        raise InvalidInput("rows", len(rows), "none counts", hint=left.text())
    apart = _apart(frame)
    calibration, frame = frame[apart], _sorted(frame[~apart])
    if frame.empty:
        raise InvalidInput("rows", len(rows), "are calibrations alone", hint="take rows of cells that swap")
    frame, levels, situations = _labelled(frame, decide)
    return Counted(
        frame=frame,
        levels=levels,
        calibration=calibration,
        clock=one_clock,
        situations=situations,
        left_out=left.text(),
        notes=tuple(_notes(frame, one_clock)),
    )


def without_calibrations(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of a swap study without those of codec cells and of copies, which do not measure a choice."""
    return rows[~_apart(rows)]


def by_choice(part: pd.DataFrame) -> list[tuple[Choice, pd.DataFrame]]:
    """The rows of each choice, in the order in which choices first come."""
    groups: Any = part.groupby("choice", sort=False)
    return list(groups)


def values(part: pd.DataFrame, metric: str) -> Values:
    """The value of each choice and seed (`seeds_of`); a choice without any is omitted."""
    return {choice: seeds for choice, mine in by_choice(part) if (seeds := seeds_of(mine, metric))}


def seeds_of(part: pd.DataFrame, metric: str) -> dict[int, float | None]:
    """The value of each seed of one choice: the median of its runs, None where any of them ended badly.

    A value that is not above 0, or not known, of a run that ended well is omitted: a ratio cannot have it.
    """
    runs: dict[int, list[float | None]] = {}
    numbers = part[metric] if metric in part else [None] * len(part)
    for seed, result, value in zip(part["pair"], part["result"], numbers, strict=True):
        number = value_in({metric: value}, metric) if result == GuestResult.WELL else None
        if number is None or 0 < number < math.inf:
            runs.setdefault(int(seed), []).append(number)
    return {seed: _median(runs[seed]) for seed in sorted(runs)}


def values_of_all(part: pd.DataFrame, metric: str) -> Values:
    """`values`, with an empty entry for a choice that has none."""
    return {choice: seeds_of(mine, metric) for choice, mine in by_choice(part)}


def strata(rows: Counted, without: Sequence[str] = ()) -> list[tuple[str, pd.DataFrame]]:
    """The rows by their situation, the factors in `without` aside: the situation in words, and its rows."""
    names = [name for name in rows.situations if name not in without]
    if not names:
        return [("", rows.frame)]
    return [(_words(names, key), rows.frame.loc[index]) for key, index in grouped(rows.levels, names)]


def pressure_of(part: pd.DataFrame) -> float:
    """The working set over the memory that was available, the median of some rows; nan where a row does not say."""
    if AVAILABLE not in part or part[AVAILABLE].isna().any() or part.empty:
        return math.nan
    return inference.median([float(value) for value in part[AVAILABLE]])


def situation_parts(rows: Counted) -> list[tuple[str, pd.DataFrame]]:
    """The rows by their whole situation, whatever part of a study they are."""
    groups: Any = rows.frame.groupby("situation", sort=False)
    return [(str(name), part) for name, part in groups]


def situation_of(part: pd.DataFrame) -> str:
    """The whole situation of rows that share it; "" for no rows."""
    return str(part["situation"].iloc[0]) if len(part) else ""


def grouped(levels: pd.DataFrame, names: Sequence[str]) -> list[tuple[tuple[str, ...], list[Any]]]:
    """The rows of a table of levels by the levels of some columns, in the order in which they first come."""
    groups: dict[tuple[str, ...], list[Any]] = {}
    keys = zip(*(levels[name] for name in names), strict=True) if names else ((),) * len(levels)
    for index, key in zip(levels.index, keys, strict=True):
        groups.setdefault(key, []).append(index)
    return list(groups.items())


def factor_of(rows: Counted, factor: str) -> pd.Series[str]:
    """The levels of a factor as words, a row each, also of one that does not vary.

    Errors: `InvalidInput` that names the factors there are.
    """
    if factor in rows.levels:
        return rows.levels[factor]
    if FACTOR_PREFIX + factor not in rows.frame:
        hint = f"one of {', '.join(sorted(_factors(rows.frame)))}"
        raise InvalidInput("factor", factor, "is not a factor of these rows", hint=hint)
    return rows.frame[FACTOR_PREFIX + factor].map(level_text)


def _labelled(frame: pd.DataFrame, decide: Sequence[str] = ()) -> tuple[pd.DataFrame, pd.DataFrame, tuple[str, ...]]:
    """The rows with choice, situation, seed and result; the levels that vary; the factors that are a situation.

    Errors: `InvalidInput` for a factor of `decide` that does not vary.
    """
    import pandas as pd

    levels = _varying(frame)
    names = [str(name) for name in levels]
    for name in decide:
        if name not in names:
            hint = f"one of {', '.join(names) or 'none: the study has one cell'}"
            raise InvalidInput("decide", name, "does not vary in this study", hint=hint)
    situations = tuple(name for name in names if role_of(name) == "situation" and name not in decide)
    choices = [name for name in names if name not in situations]
    ends = frame[[name for name in ("end", "error", "corrupt_pages", "oom_kills") if name in frame]]
    labelled = _with_derived(frame).assign(
        choice=_by_cell(frame, lambda row: Choice.of(row, choices)),
        situation=[_words(situations, row) for row in zip(*(levels[n] for n in situations), strict=True)] or "",
        pair=pd.Series(_pairs(frame), index=frame.index, dtype="int64"),
        result=[str(result_of(row)) for row in ends.to_dict("records")] if len(ends.columns) else str(GuestResult.WELL),
    )
    return labelled, levels, situations


def _with_derived(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with the columns that follow from others, which rows of earlier versions do not have."""
    of = {AVAILABLE: pressure_available, FREED: freed_bytes}
    missing = [name for name in of if name not in frame or frame[name].isna().any()]
    if not missing:
        return frame
    records = frame[[name for name in _DERIVED_FROM if name in frame]].to_dict("records")
    made = {name: [of[name](row) for row in records] for name in missing}
    known = {name: values for name, values in made.items() if any(map(math.isfinite, values))}
    return frame.assign(**known)


def _factors(frame: pd.DataFrame) -> list[str]:
    return [str(name).removeprefix(FACTOR_PREFIX) for name in frame if str(name).startswith(FACTOR_PREFIX)]


def _by_cell(frame: pd.DataFrame, of: Callable[[Mapping[Any, Any]], Any]) -> list[Any]:
    """What `of` makes of the factors of each row, computed once for rows that share them (replicates aside)."""
    names = [FACTOR_PREFIX + name for name in _factors(frame) if role_of(name) != "replicate"]
    names += [NOT_APPLICABLE] if NOT_APPLICABLE in frame else []
    numbers = frame.groupby(names, dropna=False, sort=False).ngroup()
    first = frame[names][~numbers.duplicated()]
    made = dict(zip(numbers[first.index], map(of, first.to_dict("records")), strict=True))
    return [made[number] for number in numbers]


def _with_defaults(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with the default of each factor that an earlier version did not have, where others of them have it."""
    import pandas as pd

    hidden = [without({NOT_APPLICABLE: text}) for text in rows[NOT_APPLICABLE]] if NOT_APPLICABLE in rows else None
    filled = {}
    for name in _factors(rows):
        column = rows[FACTOR_PREFIX + name]
        unknown = column.isna()
        if name not in DEFAULTS or not unknown.any() or unknown.all():
            continue
        if hidden is not None:
            unknown &= pd.Series([name not in names for names in hidden], index=rows.index)
        if unknown.any():
            filled[FACTOR_PREFIX + name] = column.astype(object).where(~unknown, DEFAULTS[name])
    return rows.assign(**filled) if filled else rows


def _with_latencies(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with the latency of a disk's preset as the factor's level, where the plan gives none."""
    column = f"{FACTOR_PREFIX}disk_latency"
    if column not in rows or "disk_latency_hardware_ns" not in rows:
        return rows
    latencies = rows["disk_latency_hardware_ns"]
    given = (rows[column].fillna("").astype(str) != "") | latencies.isna()
    return rows.assign(**{column: rows[column].where(given, latencies.map(lambda ns: f"{ns / 1e3:g}us"))})


def _without_spoilt(rows: pd.DataFrame) -> tuple[pd.DataFrame, LeftOut]:
    import pandas as pd

    none = pd.Series(False, index=rows.index)
    warmup = rows["warmup"].fillna(False).astype(bool) if "warmup" in rows else none
    fault = (rows["host_fault"].fillna("") != "") & ~warmup if "host_fault" in rows else none
    kept = rows[~warmup & ~fault].reset_index(drop=True)
    return kept, LeftOut(warmups=int(warmup.sum()), host_faults=int(fault.sum()))


def _apart(frame: pd.DataFrame) -> pd.Series[bool]:
    """Which rows are calibrations: the codec's, and copies."""
    import pandas as pd

    apart = pd.Series(False, index=frame.index)
    if f"{FACTOR_PREFIX}workload" in frame:
        apart |= frame[f"{FACTOR_PREFIX}workload"] == "codec"
    if f"{FACTOR_PREFIX}copy" in frame:
        apart |= frame[f"{FACTOR_PREFIX}copy"].fillna("").astype(str) != ""
    return apart


def _pairs(frame: pd.DataFrame) -> list[int]:
    """The seed of each row: of the guest, else of the plan, else the number of the run."""
    for name in ("seed", "replicate", "block"):
        if name in frame and frame[name].notna().all():
            return [int(value) for value in frame[name]]
    return [0] * len(frame)


def _notes(frame: pd.DataFrame, clock: str) -> list[str]:
    """What a reader must know about the rows as a whole."""
    notes = []
    well = frame[frame["result"] == GuestResult.WELL]
    if clock == Clock.INSTRUCTIONS and THROUGHPUT in well:
        spread = well.groupby(["choice", "situation", "pair"], sort=False)[THROUGHPUT].nunique()
        broken = [" ".join(map(str, key)) for key, count in spread.items() if count > 1]  # type: ignore[call-overload]
        if broken:
            guests = "; ".join(sorted(broken)[:5])
            notes.append(f"DETERMINISM IS BROKEN: equal guests gave different counts: {guests}.")
    if clock == Clock.WALL:
        notes += host_notes(frame)
    wrong = frame[frame["result"] == GuestResult.CORRUPT]
    if len(wrong):
        cells = ", ".join(sorted(map(str, set(wrong["choice"]))))
        notes.append(f"WRONG PAGES came back in {len(wrong)} runs: {cells}.")
    first = frame[frame["choice"] == frame["choice"].iloc[0]]
    made_from = first[[name for name in (*_IN_INITRD, *_OF_KERNEL) if name in first]].astype(str)
    first = first[(made_from == made_from.iloc[0]).all(axis=1)]
    for name in ("kernel_sha256", "initrd_sha256", "qemu_version"):
        if name in first and first[name].nunique() > 1:
            also = changed(first.iloc[[0]], first.iloc[[-1]])
            what = "; ".join(also) or f"{FACTS.get(name, name)}: {first[name].nunique()} of them"
            notes.append(f"The rows are of different guests: {what}.")
            break
    return notes


def _sorted(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows in an order for people: by the situation's levels, then by the kind of swap and the rest of the choice.

    A store gives them in the order in which the guests happened to end.
    """
    if frame.empty:
        return frame
    names = [name for name in _factors(frame) if role_of(name) != "replicate"]
    names.sort(key=lambda name: (role_of(name) == "choice", order_of(name)))
    keys = _by_cell(frame, lambda row: tuple(sorting_key(level_of(name, row)) for name in names))
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return frame.iloc[order].reset_index(drop=True)


def _varying(frame: pd.DataFrame) -> pd.DataFrame:
    """The levels, as words, of the factors that vary; replicates are none."""
    import pandas as pd

    names = [name for name in _factors(frame) if role_of(name) != "replicate"]

    def levels_of(row: Mapping[Any, Any]) -> tuple[str, ...]:
        return tuple((level_text(row[FACTOR_PREFIX + name]) or "none") if means(name, row) else "" for name in names)

    def means(name: str, row: Mapping[Any, Any]) -> bool:
        return name not in without(row) and applies(name, row) and not is_given_by_setup(name, row)

    columns = dict(zip(names, zip(*_by_cell(frame, levels_of), strict=True), strict=True))
    varying = {name: list(levels) for name, levels in columns.items() if len(set(levels) - {""}) > 1}
    latencies = set(zip(varying.get("disk_preset", ()), varying.get("disk_latency", ()), strict=False))
    if latencies and len(latencies) == len(set(varying["disk_preset"])):
        del varying["disk_latency"]  # each preset has one: it says nothing more
    return pd.DataFrame(varying, index=frame.index)


def _words(names: Sequence[str], levels: Sequence[Any]) -> str:
    return ", ".join(f"{name}={level or 'none'}" for name, level in zip(names, levels, strict=True))


def _median(numbers: Sequence[float | None]) -> float | None:
    """The median of the runs of a seed; None where one of them ended badly."""
    known = [number for number in numbers if number is not None]
    return inference.median(known) if len(known) == len(numbers) else None
