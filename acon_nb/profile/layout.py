"""Recognises changes between two builds that the compiler and linker make, and no instruction of the source.

* Names that the compiler makes (.isra.0, .constprop.1, .part.0, .cold) come and go: functions are compared without.
* A function that is inlined vanishes, and callers in its file grow by nearly as much: they save calls and returns. One
  that is no longer inlined appears, and callers shrink.
* An image of other bytes takes other instructions to load and unpack.
* While the kernel starts, the unwinder looks up blocks of its code by binary search, whose steps depend on addresses.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from acon_nb.profile.model import BEFORE_KERNEL, Region

# GCC's names of clones; Clang's for link-time optimization
_SUFFIX = re.compile(r"(?:\.(?:isra|constprop|part|cold|lto_priv|llvm|localalias|llvmorg|\d+)(?:\.\d+)*)+$")
# What callers gain of an inlined function: the rest was calls, returns and saved registers, or their growth around it
_ABSORBED = (0.5, 1.05)
_MOST_SAVED = 100_000  # instructions; what costs or saves more counts as a change, whoever made it
_MOST_CALLERS = 3
_MOST_CANDIDATES = 12
_IMAGE_SHARE = 0.02  # of what loading and unpacking took; more is another compression or a real change of size
# unwind_init and what it calls, inlined or not: arch/x86/kernel/unwind_orc.c
_LOOKUPS = frozenset(("__orc_find", "unwind_init"))
_LOOKUP_SHARE = 0.005  # of what the lookups took; a driver more in the guide's kernel changed them by 0.07 %
_IMAGE_REGIONS = (Region.FIRMWARE, Region.UNPACKING)


class Layout(StrEnum):
    """Why a change is one of layout."""

    NAME = "compiler-made name"
    RENAMED = "renamed"
    MOVED = "moved to another file"
    INLINED = "inlined or no longer inlined"
    IMAGE = "bytes of the image"
    ADDRESSES = "addresses of the code"


@dataclass(kw_only=True, eq=False)
class FunctionPair:
    """One function in two profiles: its names, its file and its counts by phase on either side.

    `layout` and `timing` are why its counts differ. `same_code`: whether its instructions are the same (None:
    not known).
    """

    name: str
    region: Region
    file: str
    before_names: set[str] = field(default_factory=set)
    after_names: set[str] = field(default_factory=set)
    before: Counter[str] = field(default_factory=Counter)
    after: Counter[str] = field(default_factory=Counter)
    layout: Layout | None = None
    timing: str = ""
    same_code: bool | None = None

    @property
    def change(self) -> int:
        """Instructions more in the second profile, over all phases."""
        return self.after.total() - self.before.total()

    @property
    def equal(self) -> bool:
        """Whether both profiles count the same in every phase."""
        return self.before == self.after


def canonical(name: str) -> str:
    """A function's name without what the compiler added, and without the number of one among several of a name."""
    base = name.partition("#")[0]
    return (_SUFFIX.sub("", base) or base) if not base.startswith("(") else base


def joined(pairs: Iterable[FunctionPair]) -> list[FunctionPair]:
    """Join functions of one profile with those of the other that are the same under another name or in another file."""
    left = list(pairs)
    both = [pair for pair in left if pair.before_names and pair.after_names]
    for pair in both:
        if pair.before_names != pair.after_names and pair.equal:
            pair.layout = Layout.NAME
    single = [pair for pair in left if not (pair.before_names and pair.after_names)]
    moved, single = _matched(single, Layout.MOVED)
    renamed, single = _matched(single, Layout.RENAMED)
    return [*both, *moved, *renamed, *single]


def _matched(single: Sequence[FunctionPair], why: Layout) -> tuple[list[FunctionPair], list[FunctionPair]]:
    """Join functions of which each side has exactly one of a key; those that remain come second."""
    sides: dict[object, tuple[list[FunctionPair], list[FunctionPair]]] = {}
    for pair in single:
        key = _key(pair, why)
        if key is not None:
            sides.setdefault(key, ([], []))[not pair.before_names].append(pair)
    matched, taken = [], set()
    for gone, new in sides.values():
        if len(gone) == len(new) == 1:
            one, other = gone[0], new[0]
            taken |= {one, other}
            one.after, one.after_names = other.after, other.after_names
            one.name, one.file = other.name, other.file
            one.layout = why if one.equal else None
            matched.append(one)
    return matched, [pair for pair in single if pair not in taken]


def _key(pair: FunctionPair, why: Layout) -> object | None:
    if pair.region is not Region.KERNEL:
        return None
    if why is Layout.MOVED:
        return pair.name
    counts: Mapping[str, int] = pair.before if pair.before_names else pair.after
    return (pair.file, tuple(sorted(counts.items()))) if pair.file else None


def mark(pairs: Sequence[FunctionPair]) -> None:
    """Mark the changes that are of layout."""
    for pair in pairs:
        of_image = pair.region in _IMAGE_REGIONS or pair.name == BEFORE_KERNEL
        if of_image and 0 < abs(pair.change) <= _IMAGE_SHARE * pair.before.total():
            pair.layout = Layout.IMAGE
        if (
            pair.name in _LOOKUPS
            and pair.same_code is not False
            and 0 < abs(pair.change) <= _LOOKUP_SHARE * pair.before.total()
        ):
            pair.layout = Layout.ADDRESSES
    by_file: dict[str, list[FunctionPair]] = {}
    for pair in pairs:
        if pair.file and pair.region is Region.KERNEL and pair.change:
            by_file.setdefault(pair.file, []).append(pair)
    for changed in by_file.values():
        _mark_inlined(changed)


def _mark_inlined(changed: Sequence[FunctionPair]) -> None:
    """Mark functions of one file that vanished or appeared together with the callers that make up for them."""
    odd = [pair for pair in changed if pair.before_names != pair.after_names]
    steady = [pair for pair in changed if pair.before_names == pair.after_names]
    for pair in sorted(odd, key=lambda one: -abs(one.change)):
        callers = _callers([pair], [one for one in steady if one.layout is None])
        for one in (pair, *callers) if callers else ():
            one.layout = Layout.INLINED
    rest = [pair for pair in odd if pair.layout is None]
    for sign in (1, -1):
        several = [pair for pair in rest if pair.change * sign > 0]
        callers = _callers(several, [one for one in steady if one.layout is None]) if len(several) > 1 else ()
        for one in (*several, *callers) if callers else ():
            one.layout = Layout.INLINED


def _callers(gone: Sequence[FunctionPair], others: Sequence[FunctionPair]) -> tuple[FunctionPair, ...]:
    """The fewest functions whose change makes up for that of `gone`, those that fit best; () if none do."""
    moved = sum(pair.change for pair in gone)
    candidates = sorted((one for one in others if one.change * moved < 0), key=lambda one: -abs(one.change))
    for number in range(1, _MOST_CALLERS + 1):
        fits = {
            some: abs(1 - share)
            for some in itertools.combinations(candidates[:_MOST_CANDIDATES], number)
            if _ABSORBED[0] <= (share := -sum(one.change for one in some) / moved) <= _ABSORBED[1]
            and abs(moved) * abs(1 - share) <= _MOST_SAVED
        }
        if fits:
            return min(fits, key=lambda some: fits[some])
    return ()
