"""Which functions changed between two kernels: what each executed on the instruction clock, before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MOST = 10


@dataclass(frozen=True, kw_only=True)
class CountChange:
    """Instructions of one function before and after a change (None: not among the functions that are known)."""

    name: str
    before: int | None
    after: int | None

    @property
    def difference(self) -> int:
        """Instructions more than before."""
        return (self.after or 0) - (self.before or 0)


def of_rows(before: Mapping[str, Any], after: Mapping[str, Any], *, most: int = MOST) -> tuple[CountChange, ...]:
    """The functions that differ most between two rows, of those that both rows have.

    A row has the functions with the most instructions (the column `functions`).
    """
    old, new = _counts(before), _counts(after)
    changes = [
        CountChange(name=name, before=old[name], after=new[name])
        for name in old
        if name in new and old[name] != new[name]
    ]
    return tuple(sorted(changes, key=lambda one: (-abs(one.difference), one.name))[:most])


def table(changes: Sequence[CountChange]) -> list[str]:
    """The lines of a table of at most 72 columns; none without a change."""
    if not changes:
        return []
    rows = [f"{'function':<29} {'before':>13} {'after':>13} {'difference':>14}"]
    for one in changes:
        name = one.name if len(one.name) <= 29 else f"{one.name[:28]}~"
        numbers = ["-" if value is None else f"{value:,}" for value in (one.before, one.after)]
        rows.append(f"{name:<29} {numbers[0]:>13} {numbers[1]:>13} {one.difference:>+14,}")
    return rows


def _counts(row: Mapping[str, Any]) -> dict[str, int]:
    """The functions of a row, "NAME COUNT" per line."""
    text = row.get("functions")
    if not isinstance(text, str):
        return {}
    pairs = (line.rpartition(" ") for line in text.splitlines())
    return {name: int(count) for name, _, count in pairs if count.isdecimal()}
