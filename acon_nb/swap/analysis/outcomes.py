"""How the guests of a swap study ended: one that ran out of memory, hung or gave back a wrong page is an outcome."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

from acon_nb.swap.analysis.measures import value_in
from acon_nb.vm import End

Failures = tuple[tuple[str, int], ...]  # the codes of guests that ended badly, each with how many did


class GuestResult(StrEnum):
    """How a guest of a swap study ended: a code for files, with `text` for people."""

    WELL = "ended_well"
    OUT_OF_MEMORY = "out_of_memory"
    HANG = "hang"
    CORRUPT = "wrong_pages"
    OTHER = "failed"

    @property
    def text(self) -> str:
        """The result in words: "out of memory"."""
        return self.value.replace("_", " ")


def result_of(row: Mapping[Any, Any]) -> GuestResult:
    """How a run ended. A wrong page is worse than any speed is good, so it comes first."""
    end, error = (_text_in(row, name) for name in ("end", "error"))
    if value_in(row, "corrupt_pages") > 0:
        return GuestResult.CORRUPT
    if end == End.OUT_OF_MEMORY or value_in(row, "oom_kills") > 0:
        return GuestResult.OUT_OF_MEMORY
    if end == End.HANG:
        return GuestResult.HANG
    return GuestResult.WELL if end in ("", End.POWERED_OFF) and not error else GuestResult.OTHER


def failures(results: Iterable[str]) -> Failures:
    """The results of guests that ended badly, counted."""
    return tuple(sorted(Counter(str(result) for result in results if result != GuestResult.WELL).items()))


def failures_text(counts: Sequence[tuple[str, int]], runs: int) -> str:
    """The guests that ended badly, in words ("out of memory in 3 of 3"), or ""."""
    return ", ".join(f"{GuestResult(code).text} in {count} of {runs}" for code, count in counts)


def _text_in(row: Mapping[Any, Any], name: str) -> str:
    value = row.get(name)
    return "" if value is None or value != value else str(value)
