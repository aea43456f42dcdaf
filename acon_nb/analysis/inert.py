"""Factors that did nothing: neither a counter nor the speed differs between guests that differ in such a factor alone.

A study that varies a factor which cannot act in it says nothing about that factor, however often it was run.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

_PREFIX = "factor_"
_SAME_SPEED = 0.001  # writing another value into a knob takes some instructions more or less


@dataclass(frozen=True, kw_only=True)
class InertFactor:
    """A factor that changed no counter: its `levels`, and the `guests` that differ in it alone, in groups."""

    factor: str
    levels: tuple[str, ...]
    groups: int
    guests: int

    def sentence(self) -> str:
        """What it did not do, in words."""
        levels = ", ".join(level or "none" for level in self.levels)
        where = "group" if self.groups == 1 else "groups"
        return (
            f"{self.factor} changed nothing in this study: no counter differs between the levels {levels}"
            f" ({self.guests} guests, in {self.groups} {where} that are otherwise equal)."
        )


def inert_factors(
    rows: pd.DataFrame, counters: Sequence[str], *, speeds: Sequence[str] = (), replicates: Collection[str] = ()
) -> list[InertFactor]:  # fmt: skip
    """The factors of `rows` that changed none of `counters` in any guests that are otherwise equal, their seed too.

    Nor may any of `speeds` differ by 0.1 % or more: a disk's latency changes how long the same faults take. Factors in
    `replicates` are not looked at, and may differ. A factor without any guests to compare is not inert: its effect is
    not known.
    """
    known = [name for name in counters if name in rows and rows[name].notna().any()]
    names = [name for name in map(str, rows) if name.startswith(_PREFIX) and rows[name].nunique(dropna=False) > 1]
    factors = [name for name in names if name.removeprefix(_PREFIX) not in replicates]
    equal = [name for name in ("clock", "seed", "host_class") if name in rows]
    if not known:
        return []
    inert = []
    for factor in factors:
        held = [*equal, *(name for name in factors if name != factor)]
        groups = [part for _, part in rows.groupby(held, dropna=False, sort=False)] if held else [rows]
        compared = [part for part in groups if part[factor].nunique() > 1]
        if compared and not any(_differs(part, known, speeds) for part in compared):
            levels = dict.fromkeys(str(level) for part in compared for level in part[factor])
            inert.append(
                InertFactor(
                    factor=factor.removeprefix(_PREFIX), levels=tuple(levels), groups=len(compared),
                    guests=sum(map(len, compared)),
                )
            )  # fmt: skip
    return inert


def _differs(part: pd.DataFrame, counters: Sequence[str], speeds: Sequence[str]) -> bool:
    """Whether any counter or speed differs between some guests; one that only some have differs."""
    if any(part[name].nunique(dropna=False) > 1 for name in counters):
        return True
    known = [part[name].astype(float) for name in speeds if name in part]
    return any(one.isna().nunique() > 1 or one.max() > one.min() * (1 + _SAME_SPEED) for one in known)
