"""Which functions changed between two kernels: what each executed on the instruction clock, before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from acon_nb.changes.plain_text import table_row
from acon_nb.errors import AconError
from acon_nb.host import probe_qemu
from acon_nb.profile import code, data, diff
from acon_nb.profile.diff import Difference
from acon_nb.profile.layout import canonical
from acon_nb.profile.model import FunctionCount, Region, load
from acon_nb.profile.phases import until
from acon_nb.results import Store
from acon_nb.study import kinds
from acon_nb.vm import counting

MOST = 10
_NAME_WIDTH = 27


@dataclass(frozen=True, kw_only=True)
class CountChange:
    """Instructions of one function before and after a change (None: it is not there)."""

    name: str
    before: int | None
    after: int | None

    @property
    def difference(self) -> int:
        """Instructions more than before."""
        return (self.after or 0) - (self.before or 0)


@dataclass(frozen=True, kw_only=True)
class KernelChange:
    """What differs: `change` instructions in all, the functions that differ most, and `others` by all other functions.

    `layout` and `timing` are instructions more that the source does not ask for; the four parts add up to `change`.
    `is_layout`: no function executed other instructions but for what the compiler, the linker and the image's bytes do,
    and for what came earlier or later. `same_code`: all that ran has the same instructions. `other_code` are the
    functions that ran with either kernel and have other instructions (None: not known), `same_data`: the kernels' data
    are the same.
    """

    functions: tuple[CountChange, ...] = ()
    layout: int = 0
    timing: int = 0
    others: int = 0
    change: int = 0
    is_layout: bool = False
    same_code: bool = False
    other_code: tuple[str, ...] | None = None
    same_data: bool = False

    @property
    def is_same(self) -> bool:
        """Whether the kernels do the same: what differs comes of where things lie, of free memory and of ticks."""
        return self.other_code == () and self.same_data


def are_profiled(study: str) -> bool:
    """Whether the rows of a kind of study can have profiles here: its guests, and a QEMU with plugins."""
    if not kinds.kind(study).profiles:
        return False
    try:
        counting.plugin(probe_qemu().path)
    except AconError:
        return False
    return True


def with_path(row: Mapping[Any, Any], out: Store) -> dict[str, Any]:
    """A row of a store with the whole path of its profile, if it has one."""
    values = {str(name): value for name, value in row.items()}
    if isinstance(values.get("profile"), str):
        values["profile"] = str(out.folder / values["profile"])
    return values


def of_rows(
    before: Mapping[str, Any], after: Mapping[str, Any], *, last_phase: str = "", most: int = MOST
) -> KernelChange:
    """How two rows differ by function: by their profiles, else of the functions with the most instructions in both.

    Profiles are compared up to the end of `last_phase` ("": as far as they go).
    """
    paths = [row.get("profile") for row in (before, after)]
    if all(isinstance(path, str) for path in paths):
        profiles = [load(Path(str(path))) for path in paths]
        before_profile, after_profile = (until(one, last_phase) if last_phase else one for one in profiles)
        change = of_difference(diff.difference(before_profile, after_profile), most=most)
        kernels = [Path(str(row.get("factor_kernel"))) for row in (before, after)]
        if not all(path.is_file() for path in kernels):
            return change
        names = {
            canonical(one.name) for made in (before_profile, after_profile) for one in made.functions if _is_code(one)
        }
        return replace(change, other_code=code.other_code(kernels, names), same_data=data.are_equal(*kernels))
    old, new = _counts(before), _counts(after)
    changes = [CountChange(name=name, before=old[name], after=new[name]) for name in old if name in new]
    return KernelChange(functions=_largest(changes, most))


def of_difference(compared: Difference, *, most: int = MOST) -> KernelChange:
    """The largest changes of two profiles, each function's phases added up; layout and timing are one number each."""
    sums: dict[tuple[str, str], list[int]] = {}
    for row in compared.changes:
        counts = sums.setdefault((row.name, row.file), [0, 0])
        counts[0] += row.before
        counts[1] += row.after
    kinds_of = {(row.name, row.file): row.kind for row in compared.changes}
    changes = [
        CountChange(
            name=one[0],
            before=None if kinds_of[one] is diff.ChangeKind.ADDED else old,
            after=None if kinds_of[one] is diff.ChangeKind.REMOVED else new,
        )
        for one, (old, new) in sums.items()
    ]
    largest = _largest(changes, most)
    by_functions = sum(row.change for row in compared.changes) + compared.unattributed_change
    return KernelChange(
        functions=largest,
        others=by_functions - sum(one.difference for one in largest),
        change=compared.change,
        layout=compared.layout_change,
        timing=compared.timing_change,
        same_code=compared.same_code,
        is_layout=compared.verdict is not diff.DifferenceVerdict.DIFFERENT,
    )


def table(changes: Sequence[CountChange]) -> list[str]:
    """The lines of a table of at most 72 columns; none without a change."""
    if not changes:
        return []
    lines = table_row("function", ("before", "after", "difference"), name_width=_NAME_WIDTH)
    for one in changes:
        numbers = ["-" if value is None else f"{value:,}" for value in (one.before, one.after)]
        lines += table_row(one.name, (*numbers, f"{one.difference:+,}"), name_width=_NAME_WIDTH)
    return lines


def _is_code(one: FunctionCount) -> bool:
    return one.region is Region.KERNEL and not one.name.startswith("(")


def _largest(changes: Sequence[CountChange], most: int) -> tuple[CountChange, ...]:
    different = [one for one in changes if one.difference]
    return tuple(sorted(different, key=lambda one: (-abs(one.difference), one.name))[:most])


def _counts(row: Mapping[str, Any]) -> dict[str, int]:
    """The functions of a row, "NAME COUNT" per line."""
    text = row.get("functions")
    if not isinstance(text, str):
        return {}
    pairs = (line.rpartition(" ") for line in text.splitlines())
    return {name: int(count) for name, _, count in pairs if count.isdecimal()}
