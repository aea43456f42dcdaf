"""How two profiles differ: by function and phase, by file and folder; the changes sum exactly to that of the totals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

from acon_nb.profile import layout, sources, timing
from acon_nb.profile.layout import FunctionPair, Layout
from acon_nb.profile.model import EARLY_KERNEL, FunctionCount, Profile, Region
from acon_nb.profile.phases import alike

_NO_CODE = (EARLY_KERNEL, "(kernel)")


class ChangeKind(StrEnum):
    """What happened to a function between two profiles."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"
    EQUAL = "equal"


class DifferenceVerdict(StrEnum):
    """What a difference amounts to; `LAYOUT`: equal, but for instructions of layout and timing."""

    EQUAL = "equal"
    LAYOUT = "layout"
    DIFFERENT = "different"


@dataclass(frozen=True, kw_only=True)
class FunctionChange:
    """What a function executed in one phase of two profiles, and why a change is one of layout (None: it is not).

    `timing` is why it is one of timing ("": it is not). `name` is without what the compiler adds; `before_name` is the
    name of the first profile where it differs.
    """

    name: str
    phase: str
    before: int
    after: int
    kind: ChangeKind
    file: str = ""
    region: Region = Region.KERNEL
    layout: Layout | None = None
    timing: str = ""
    before_name: str = ""

    @property
    def change(self) -> int:
        """Instructions more in the second profile."""
        return self.after - self.before


@dataclass(frozen=True, kw_only=True)
class PartChange:
    """What a file, a folder or a phase executed in two profiles, and how much of the change is of layout."""

    part: str
    before: int
    after: int
    layout: int

    @property
    def change(self) -> int:
        """Instructions more in the second profile."""
        return self.after - self.before


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Two profiles compared: all functions by phase, equal ones too, those that changed most first.

    `unattributed` is what either profile's functions do not explain of its total; `by_file` is false where functions
    were compared by name alone. `same_code`: the functions that ran have the same instructions in both kernels.
    """

    before: int
    after: int
    functions: tuple[FunctionChange, ...]
    unattributed: tuple[int, int]
    by_file: bool = True
    same_code: bool = False

    @property
    def change(self) -> int:
        """Instructions more in the second profile: the sum of all changes, the unattributed one included."""
        return self.after - self.before

    @cached_property
    def changes(self) -> tuple[FunctionChange, ...]:
        """The functions that changed and neither by layout nor by timing, by phase."""
        return tuple(row for row in self.functions if row.change and row.layout is None and not row.timing)

    @cached_property
    def of_layout(self) -> tuple[FunctionChange, ...]:
        """The functions that layout changed, by phase; those too that have another name and the same counts."""
        return tuple(row for row in self.functions if row.layout is not None)

    @cached_property
    def of_timing(self) -> tuple[FunctionChange, ...]:
        """The functions that ran more or less because something came earlier or later, by phase."""
        return tuple(row for row in self.functions if row.change and row.timing)

    @property
    def timing_change(self) -> int:
        """Instructions more in the second profile that are of timing."""
        return sum(row.change for row in self.of_timing)

    @property
    def layout_change(self) -> int:
        """Instructions more in the second profile that are of layout."""
        return sum(row.change for row in self.of_layout)

    @property
    def unattributed_change(self) -> int:
        """Instructions more in the second profile that no function explains."""
        return self.unattributed[1] - self.unattributed[0]

    @property
    def verdict(self) -> DifferenceVerdict:
        """Whether the profiles are equal, equal but for layout and timing, or different.

        Timing does not excuse a difference where other code ran.
        """
        if self.changes or self.unattributed_change or (self.of_timing and not self.same_code):
            return DifferenceVerdict.DIFFERENT
        return DifferenceVerdict.LAYOUT if self.of_layout or self.of_timing else DifferenceVerdict.EQUAL

    def by(self, part: Callable[[FunctionChange], str]) -> tuple[PartChange, ...]:
        """Sum all functions by a part (`file_part`, `folder_part`, ...), those that changed most first."""
        sums: dict[str, list[int]] = {}
        for row in self.functions:
            counts = sums.setdefault(part(row), [0, 0, 0])
            counts[0] += row.before
            counts[1] += row.after
            counts[2] += row.change if row.layout else 0
        parts = [PartChange(part=name, before=b, after=a, layout=moved) for name, (b, a, moved) in sums.items()]
        return tuple(sorted(parts, key=lambda one: (-abs(one.change), one.part)))

    def layout_groups(self) -> dict[Layout, tuple[int, int]]:
        """For each kind of layout change: how many functions it concerns, and instructions more."""
        groups: dict[Layout, tuple[set[tuple[str, str]], int]] = {}
        for row in self.of_layout:
            if row.layout is not None:
                names, change = groups.get(row.layout, (set(), 0))
                groups[row.layout] = ({*names, (row.name, row.file)}, change + row.change)
        return {kind: (len(names), change) for kind, (names, change) in groups.items()}


def difference(before: Profile, after: Profile) -> Difference:
    """Compare two profiles, of one kernel or two.

    Functions are the same if they have the same name and file, names without what the compiler adds to them. Where only
    one profile knows files, or none, names alone count.
    """
    before, after = alike(before, after)
    codes = tuple(map(_codes, (before, after)))
    by_file = all(
        any(one.file for one in profile.functions if one.region is Region.KERNEL) for profile in (before, after)
    )
    pairs = layout.joined(_paired(before, after, by_file=by_file))
    for pair in pairs:
        pair.same_code = _same(pair, *codes)
    layout.mark(pairs)
    timing.mark(pairs)
    phases = tuple(dict.fromkeys((*before.phases, *after.phases)))
    rows = [row for pair in pairs for row in _rows(pair, phases)]
    return Difference(
        before=before.total,
        after=after.total,
        functions=tuple(sorted(rows, key=lambda row: (-abs(row.change), row.name, row.file, row.phase))),
        unattributed=(before.unattributed, after.unattributed),
        by_file=by_file,
        same_code=all(pair.same_code for pair in pairs if pair.region is Region.KERNEL and pair.name not in _NO_CODE),
    )


def file_part(row: FunctionChange) -> str:
    """The source file of a row, or what takes its place."""
    return sources.file_of(_counted(row))


def folder_part(row: FunctionChange) -> str:
    """The folder of a row's source file, or what takes its place."""
    return sources.folder_of(_counted(row))


def subsystem_part(row: FunctionChange) -> str:
    """The subsystem of a row, or what takes its place."""
    return sources.subsystem_of(_counted(row))


def phase_part(row: FunctionChange) -> str:
    """The phase of a row."""
    return row.phase


def json_values(compared: Difference) -> dict[str, Any]:
    """A difference as values for JSON, its equal functions omitted."""
    rows = [row for row in compared.functions if row.change or row.layout]
    return {
        "before": compared.before,
        "after": compared.after,
        "change": compared.change,
        "verdict": compared.verdict.value,
        "unattributed": list(compared.unattributed),
        "layout": {
            "change": compared.layout_change,
            "groups": [
                {"kind": kind.value, "functions": number, "change": change}
                for kind, (number, change) in compared.layout_groups().items()
            ],
        },
        "timing": compared.timing_change,
        "same_code": compared.same_code,
        "functions": [{**asdict(row), "change": row.change} for row in rows],
        **{
            name: [{**asdict(one), "change": one.change} for one in compared.by(part) if one.change or one.layout]
            for name, part in (("files", file_part), ("folders", folder_part), ("phases", phase_part))
        },
    }


def _paired(before: Profile, after: Profile, *, by_file: bool) -> Iterable[FunctionPair]:
    pairs: dict[tuple[Region, str, str], FunctionPair] = {}
    for profile, second in ((before, False), (after, True)):
        for one in profile.functions:
            name = layout.canonical(one.name)
            key = (one.region, one.file if by_file or one.region.in_files else "", name)
            pair = pairs.setdefault(key, FunctionPair(name=name, region=one.region, file=one.file))
            pair.file = pair.file or one.file
            (pair.after if second else pair.before)[one.phase] += one.self_count
            (pair.after_names if second else pair.before_names).add(one.name.partition("#")[0])
    return pairs.values()


def _codes(profile: Profile) -> Mapping[str, frozenset[str]]:
    """The digests of the functions of each name."""
    digests: dict[str, set[str]] = {}
    for name, digest in profile.code.items():
        digests.setdefault(layout.canonical(name), set()).add(digest)
    return {name: frozenset(some) for name, some in digests.items()}


def _same(pair: FunctionPair, before: Mapping[str, frozenset[str]], after: Mapping[str, frozenset[str]]) -> bool | None:
    """Whether the functions of a name have the same instructions in both kernels; None where that is not known."""
    if not before or not after or (pair.name not in before and pair.name not in after):
        return None
    return before.get(pair.name) == after.get(pair.name)


def _rows(pair: FunctionPair, phases: Iterable[str]) -> Iterable[FunctionChange]:
    """The rows of one function; those of one function have one name."""
    old, new = sorted(pair.before_names), sorted(pair.after_names)
    for phase in phases:
        if phase not in pair.before and phase not in pair.after:
            continue
        before, after = pair.before[phase], pair.after[phase]
        kind = ChangeKind.CHANGED if before != after else ChangeKind.EQUAL
        if not (old and new):
            kind = ChangeKind.REMOVED if old else ChangeKind.ADDED
        yield FunctionChange(
            name=(new or old)[0] if len(new or old) == 1 else pair.name,
            phase=phase,
            before=before,
            after=after,
            kind=kind,
            file=pair.file,
            region=pair.region,
            layout=pair.layout,
            timing=pair.timing,
            before_name="+".join(old) if old and new and old != new else "",
        )


def _counted(row: FunctionChange) -> FunctionCount:
    return FunctionCount(name=row.name, phase=row.phase, self_count=row.after, file=row.file, region=row.region)
