"""Measures and levels of swap studies as people read them: units, words for more and less, the order of levels."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from acon_nb.results.metrics import metric

THROUGHPUT = "access_ops_per_s"
_FIRST = ("", "none", "off", "disk")
_NUMBER = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ns|us|µs|ms|s|x|%|[KMGT]?)")
_UNITS = {
    "": 1.0, "x": 1.0, "%": 1.0, "ns": 1.0, "us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9,
    "K": 2.0**10, "M": 2.0**20, "G": 2.0**30, "T": 2.0**40,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SwapMeasure:
    """A measure of a swap run: `scale` of its values give `unit`; `words` are those for more and for less of it."""

    name: str
    label: str
    unit: str
    scale: float
    more_is_better: bool
    words: tuple[str, str]

    def text(self, value: float) -> str:
        """A value for people: "13,162 accesses / s"."""
        return f"{self.number_text(value)} {self.unit}".rstrip()

    def number_text(self, value: float) -> str:
        """A value for people without its unit: "13,162"."""
        scaled = value / self.scale
        digits = 0 if abs(scaled) >= 100 else 1 if abs(scaled) >= 10 else 2
        return f"{scaled:,.{digits}f}"


@functools.cache
def measure(name: str) -> SwapMeasure:
    """A measure by its column, as its description has it. Errors: `InvalidInput` for an unknown column."""
    known = metric(name)
    words = (
        ("longer", "shorter")
        if known.unit in ("s", "µs")
        else ("faster", "slower")
        if known.unit.endswith("/ s")
        else ("more", "less")
    )
    return SwapMeasure(
        name=name,
        label=known.label,
        unit=known.unit,
        scale=known.scale,
        more_is_better=known.more_is_better,
        words=words,
    )


def number_of(level: Any) -> float:
    """The number that a level stands for ("1.5", "80us" as ns, "256M" as bytes); nan for any other level."""
    if isinstance(level, bool) or level is None:
        return math.nan
    match = _NUMBER.fullmatch(str(level).strip())
    if match is None:
        return math.nan
    return float(match.group(1)) * _UNITS[match.group(2)]


def sorting_key(level: str) -> tuple[float, str]:
    """Levels in the order that people expect: none first, numbers and sizes ("256M") by their size, then texts."""
    if level in _FIRST:
        return (float(_FIRST.index(level)) - len(_FIRST), level)
    number = number_of(level)
    return (number if number == number else math.inf, level)


def level_text(level: Any) -> str:
    """A level in words; "" for none."""
    if level is None or level != level:
        return ""
    if isinstance(level, bool):
        return "on" if level else "off"
    return f"{level:g}" if isinstance(level, float) else str(level)


def place_text(axis: str, level: float) -> str:
    """A place on a numeric axis for people: "1.43", "80 µs"."""
    if axis == "disk_latency":
        return f"{level / 1e3:.3g} µs" if level < 1e6 else f"{level / 1e6:.3g} ms"
    return f"{level:.3g}"


def available_text(pressure: float) -> str:
    """How hard memory was pressed, for people: "2.00 times the available memory"; "" where it is not known."""
    return f"{pressure:.2f} times the available memory" if math.isfinite(pressure) else ""


def pressure_text(nominal: str, pressure: float) -> str:
    """A nominal pressure with what it was: "1.5 (2.00 times the available memory)"; "1.5 (nominal)"."""
    return f"{nominal} ({available_text(pressure) or 'nominal'})"


def value_in(row: Mapping[Any, Any], name: str) -> float:
    """A number of a row; nan for a missing value."""
    try:
        return float(row.get(name))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan
