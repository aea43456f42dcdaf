"""What a swap study says of itself: dilation, the disk it stands for, its data's ratios, whether it repeats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from acon_nb.bench.swap_rows import Counted
from acon_nb.units import format_seconds
from acon_nb.vm import Clock

if TYPE_CHECKING:
    import pandas as pd

_ALGORITHMS = ("lzo", "lz4", "zstd")
_HASH = "counters_sha256"
# Columns that two copies of a cell do not share, or that are of the run and not of what was asked.
_OWN = ("factor_copy", "factor_timeout_s", "factor_stall_s")


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """How many guests were run a second time with everything equal, and in how many all counters were equal."""

    repeated: int
    equal: int

    def text(self) -> str:
        """In a sentence."""
        if not self.repeated:
            return "No guest was run twice: nothing shows that this study repeats."
        if self.equal == self.repeated:
            return f"Repeated {_guests(self.repeated)} with the same seed: every counter and every latency was equal."
        bad = self.repeated - self.equal
        return (
            f"DETERMINISM IS BROKEN: {bad} of {_guests(self.repeated)}, repeated with the same seed, counted otherwise."
        )


def repeats(found: Counted) -> Repeats:
    """Compare each copy of a cell with its original of the same seed (the hash of all that the guest counted)."""
    rows = found.calibration
    if _HASH not in rows or _HASH not in found.frame:
        return Repeats(repeated=0, equal=0)
    factors = [str(name) for name in found.frame if str(name).startswith("factor_") and name not in _OWN]
    originals: dict[tuple[str, ...], set[str]] = {}
    for row in found.frame.to_dict("records"):
        if isinstance(row[_HASH], str):
            originals.setdefault(_key(row, factors), set()).add(row[_HASH])
    repeated = equal = 0
    for row in rows.to_dict("records"):
        other = originals.get(_key(row, factors))
        if other and isinstance(row[_HASH], str):
            repeated += 1
            equal += other == {row[_HASH]}
    return Repeats(repeated=repeated, equal=equal)


def calibration_words(found: Counted) -> list[str]:
    """Dilation, the disk's latency as on hardware, the data's ratios, whether the study repeats: a sentence each."""
    words = []
    if found.clock == Clock.INSTRUCTIONS:
        words += [_dilation(found.frame), repeats(found).text()]
    words += [_disk(found.frame, found.clock), *_ratios(found.frame)]
    return [text for text in words if text]


def _dilation(frame: pd.DataFrame) -> str:
    values = _known(frame, "dilation")
    if not values:
        return "No dilation was measured: how a disk's latency here compares with hardware is not known."
    low, high = min(values), max(values)
    span = f"{low:.1f}" if high / low < 1.01 else f"{low:.1f} to {high:.1f}"
    parts = [
        f"{name} {sum(known) / len(known):.1f}" for name in _ALGORITHMS if (known := _known(frame, f"dilation_{name}"))
    ]
    more = f" ({', '.join(parts)})" if parts else ""
    return f"Dilation: this clock spends {span} times the host's nanoseconds on the same codec{more}."


def _disk(frame: pd.DataFrame, clock: str) -> str:
    here, hardware = _known(frame, "disk_latency_ns"), _known(frame, "disk_latency_hardware_ns")
    if not here or not hardware:
        return ""
    pairs = sorted(
        {
            (float(row["disk_latency_hardware_ns"]), float(row["disk_latency_ns"]))
            for row in frame.to_dict("records")
            if _is_number(row.get("disk_latency_ns")) and _is_number(row.get("disk_latency_hardware_ns"))
        }
    )
    if clock != Clock.INSTRUCTIONS:
        return f"Disk: declared latency {', '.join(format_seconds(here / 1e9) for _, here in pairs)}."
    told = ", ".join(f"{format_seconds(there / 1e9)} (here {format_seconds(here / 1e9)})" for there, here in pairs[:6])
    return f"Disk: latency as on hardware {told}: scaled by the dilation, so that codec and disk keep their proportion."


def _ratios(frame: pd.DataFrame) -> list[str]:
    """What each algorithm makes of the data, page by page, on the host."""
    columns = [f"data_ratio_{name}" for name in _ALGORITHMS if _known(frame, f"data_ratio_{name}")]
    if not columns:
        return []
    data = "factor_data"
    groups = frame.groupby(data, sort=False) if data in frame else [("the data", frame)]
    told = []
    for name, part in groups:
        numbers = [
            f"{column.rpartition('_')[2]} {part[column].dropna().astype(float).median():.2f}" for column in columns
        ]
        told.append(f"{name}: {', '.join(numbers)}")
    return [f"Data, compression ratio page by page: {'; '.join(told)}."]


def _known(frame: pd.DataFrame, name: str) -> list[float]:
    return [float(value) for value in frame[name] if _is_number(value) and value > 0] if name in frame else []


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _key(row: Any, factors: Sequence[str]) -> tuple[str, ...]:
    return (str(row["pair"]) if "pair" in row else str(row.get("seed")), *(str(row.get(name)) for name in factors))


def _guests(count: int) -> str:
    return "1 guest" if count == 1 else f"{count} guests"
