"""Functions whose counts depend on when something happens: `timing.toml` lists them, with a reason and a bound each."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from acon_nb.profile.layout import FunctionPair
from acon_nb.profile.model import Region

_FILE = Path(__file__).with_name("timing.toml")


@dataclass(frozen=True, kw_only=True)
class TimedFunction:
    """Why a function's count depends on timing, and the instructions by which one moment more or less changes it."""

    most: int
    why: str


@functools.cache
def timing() -> Mapping[str, TimedFunction]:
    """The functions by name, without what the compiler adds."""
    rows = tomllib.loads(_FILE.read_text())["timing"]
    return {name: TimedFunction(most=row["most"], why=row["why"]) for row in rows for name in row["functions"]}


def mark(pairs: Iterable[FunctionPair]) -> None:
    """Mark the changes that are of timing: of a function of the list, with the same code, by no more than its bound."""
    for pair in pairs:
        timed = timing().get(pair.name)
        in_kernel = pair.region is Region.KERNEL and pair.layout is None
        if timed and in_kernel and pair.same_code and 0 < abs(pair.change) <= timed.most:
            pair.timing = timed.why
