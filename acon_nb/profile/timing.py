"""Functions whose counts depend on when something happens: `timing.toml` lists them, with a reason and a bound each."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from acon_nb.profile.layout import FunctionPair
from acon_nb.profile.model import Region

_FILE = Path(__file__).with_name("timing.toml")


@dataclass(frozen=True, kw_only=True)
class TimedFunction:
    """Why a function's count depends on timing, and the instructions by which one moment more or less changes it.

    `beside` is the function whose count then differs, too ("": none).
    """

    most: int
    why: str
    beside: str = ""


@functools.cache
def timing() -> Mapping[str, TimedFunction]:
    """The functions by name, without what the compiler adds."""
    rows = tomllib.loads(_FILE.read_text())["timing"]
    return {
        name: TimedFunction(most=row["most"], why=row["why"], beside=row.get("beside", ""))
        for row in rows
        for name in row["functions"]
    }


def mark(pairs: Sequence[FunctionPair]) -> None:
    """Mark the changes that are of timing: of a function of the list, with the same code, by no more than its bound."""
    changed = {pair.name for pair in pairs if pair.change and pair.same_code}
    for pair in pairs:
        timed = timing().get(pair.name)
        if timed is None or pair.layout is not None or (timed.beside and timed.beside not in changed):
            continue
        is_code = pair.region is Region.KERNEL and pair.same_code
        if (is_code or pair.region is Region.OTHER) and 0 < abs(pair.change) <= timed.most:
            pair.timing = timed.why
