"""Single guests of a swap study: latencies as a distribution, and memory, pool and faults over time.

Histograms and samples are JSON in the rows, written by guests: what is not of their form is refused by name, a row
without any is passed over.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from acon_nb.errors import InvalidInput, ResultsError
from acon_nb.swap.analysis.choices import Choice
from acon_nb.swap.analysis.outcomes import GuestResult
from acon_nb.swap.analysis.rows import Counted, by_choice, strata

if TYPE_CHECKING:
    import pandas as pd

KINDS = ("access", "hit", "fault", "fill")
_COUNTERS = ("memavailable_bytes", "pool_bytes", "swap_used_bytes", "major_faults")
_MOST_BUCKETS = 100_000
_MOST_SAMPLES = 100_000


def histogram_of(row: Mapping[Any, Any], kind: str = "access") -> list[tuple[float, int]]:
    """The latencies of a run: (start of the bucket in ns, count), sorted; empty where the row has none.

    Errors: `InvalidInput` for another kind than access, hit, fault or fill; `ResultsError` for no histogram.
    """
    if kind not in KINDS:
        raise InvalidInput("kind", kind, "is not a kind of access", hint=f"one of {', '.join(KINDS)}")
    buckets = []
    for pair in _list_of(row, f"{kind}_histogram", _MOST_BUCKETS):
        if not isinstance(pair, list) or len(pair) != 2 or not all(_is_count(number) for number in pair):
            raise _bad(row, f"{kind}_histogram", pair)
        if pair[1]:
            buckets.append((float(pair[0]), int(pair[1])))
    return sorted(buckets)


def samples_of(row: Mapping[Any, Any]) -> pd.DataFrame:
    """The samples of a run over time, a row each: `t_ns` since the fill began, `phase`, sizes and counters.

    Columns that a guest did not give are nan. Errors: `ResultsError` for anything but samples.
    """
    import pandas as pd

    samples = _list_of(row, "samples", _MOST_SAMPLES)
    for sample in samples:
        if not isinstance(sample, dict) or not _is_count(sample.get("t_ns")):
            raise _bad(row, "samples", sample)
        if not all(sample.get(name) is None or _is_count(sample[name]) for name in _COUNTERS):
            raise _bad(row, "samples", sample)
    table = pd.DataFrame(samples)
    for name in ("t_ns", *_COUNTERS):
        table[name] = pd.to_numeric(table[name]) if name in table else math.nan
    if "phase" not in table:
        table["phase"] = ""
    return table.sort_values("t_ns", kind="stable", ignore_index=True)


def df_latency(counted: Counted, kind: str = "access") -> pd.DataFrame:
    """The distribution of latencies: for each situation and choice the share of accesses up to each latency.

    The counts of all seeds that ended well are added up; `low` and `high` are the least and the greatest share among
    the seeds. The latency is the start of its bucket, so at most 3 % too small.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for situation, part in strata(counted):
        for choice, mine in by_choice(part[part["result"] == GuestResult.WELL]):
            tables = [table for row in mine.to_dict("records") if (table := histogram_of(row, kind))]
            rows += [{"situation": situation, **choice.columns(), **one} for one in _shares(tables)]
    columns = ["situation", *Choice("").columns(), "latency_ns", "share", "low", "high", "n", "accesses"]
    return pd.DataFrame(rows, columns=columns).assign(clock=counted.clock, kind=kind)


def df_guest(row: Mapping[Any, Any]) -> pd.DataFrame:
    """Memory, pool and faults of one guest over time: the samples, with `faults_per_s` and the row's own words.

    A rate is that since the sample before, or the one before that where two are nearer than half a per cent of the
    whole; where the counter fell (the guest's program started again) it is nan.
    """
    table = samples_of(row)
    label = row.get("choice") or row.get("configuration") or row.get("cell") or ""
    return table.assign(
        faults_per_s=_rates(list(table["t_ns"]), list(table["major_faults"])),
        choice=str(label),
        clock=str(row.get("clock") or ""),
        end=str(row.get("end") or ""),
        memory_bytes=row.get("memory_bytes"),
    )


def _rates(times_ns: list[float], counts: list[float]) -> list[float]:
    """Growth a second at each sample, nan where there is none."""
    least = (times_ns[-1] - times_ns[0]) / 200 if times_ns else 0.0
    rates = [math.nan] * len(times_ns)
    before = 0
    for number in range(1, len(times_ns)):
        elapsed, growth = times_ns[number] - times_ns[before], counts[number] - counts[before]
        if elapsed <= least:
            continue
        if growth >= 0:
            rates[number] = growth * 1e9 / elapsed
        before = number
    return rates


def _shares(tables: list[list[tuple[float, int]]]) -> list[dict[str, Any]]:
    """Cumulated shares over the buckets of all seeds."""
    starts = sorted({start for table in tables for start, _ in table})
    totals = [sum(count for _, count in table) for table in tables]
    counts = [dict(table) for table in tables]
    sums = [0] * len(tables)
    rows = []
    for start in starts:
        sums = [total + table.get(start, 0) for total, table in zip(sums, counts, strict=True)]
        shares = [part / total for part, total in zip(sums, totals, strict=True)]
        rows.append(
            {
                "latency_ns": start,
                "share": sum(sums) / sum(totals),
                "low": min(shares),
                "high": max(shares),
                "n": len(tables),
                "accesses": sum(totals),
            }
        )
    return rows


def _list_of(row: Mapping[Any, Any], name: str, most: int) -> list[Any]:
    """A JSON list of a row, or of it parsed already; empty where there is none."""
    value = row.get(name)
    if value is None or (isinstance(value, float) and value != value) or value == "":
        return []
    try:
        parsed = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError) as error:
        raise _bad(row, name, value) from error
    if not isinstance(parsed, list) or len(parsed) > most:
        raise _bad(row, name, value)
    return parsed


def _is_count(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2.0**63


def _bad(row: Mapping[Any, Any], name: str, value: object) -> ResultsError:
    text = repr(value)
    shown = text if len(text) <= 80 else text[:79] + "…"
    which = row.get("run_id") or row.get("cell") or "a row"
    return ResultsError(f"{which}: {name} is not of its form: {shown}", hint="leave the row out, or measure it again")
