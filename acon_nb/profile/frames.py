"""Frames of a profile for graphs and exports: call stacks where they are known, else source folders; all counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from acon_nb.profile.layout import canonical
from acon_nb.profile.model import FunctionCount, Profile, Region
from acon_nb.profile.phases import alike

UNATTRIBUTED = "[unattributed]"


class Frame(NamedTuple):
    """A box of a flame graph: a function with its file, a folder or file, or a phase.

    `region` is the value of a function's `Region`, "" for others. All are texts: stacks are hashed often.
    """

    name: str
    file: str = ""
    region: str = ""


Stacks = dict[tuple[Frame, ...], int]


def stacks_of(profile: Profile) -> Stacks:
    """Return instructions by stack, the phase first, in the order of the phases.

    A function whose call stacks are known is below its callers. The rest of it, in a flat profile all, is below its
    region and the folders of its file. What no function explains is one stack, "[unattributed]"; the stacks then add
    up to the profile's total. Entries below 0, for instructions that faulted and were begun again, have no stack: the
    stacks add up to so much more.
    """
    stacks: Stacks = Counter()
    in_stacks: Counter[tuple[str, str]] = Counter()
    frames = _frames(profile)
    for (phase, *names), count in profile.stacks.items():
        stacks[Frame(phase), *(frames.get((phase, name), _any(frames, name)) for name in names)] += count
        if names:
            in_stacks[phase, names[-1]] += count
    for function in profile.functions:
        key = (function.phase, function.name)
        known = min(in_stacks[key], function.self_count)
        in_stacks[key] -= known
        if function.self_count > known:
            stacks[Frame(function.phase), *_parts(function), _frame(function)] += function.self_count - known
    if (rest := profile.total - sum(stacks.values())) > 0:
        stacks[Frame(UNATTRIBUTED),] += rest
    order = {phase: number for number, phase in enumerate(profile.phases)}

    def place(item: tuple[tuple[Frame, ...], int]) -> tuple[int, list[tuple[str, str]]]:
        return order.get(item[0][0].name, len(order)), [(frame.name, frame.file) for frame in item[0]]

    return dict(sorted(stacks.items(), key=place))


def function_stacks_of(profile: Profile) -> Stacks:
    """Return `stacks_of` without folders and regions: the phase, then functions only, for formats that know files."""
    stacks: Stacks = Counter()
    for (phase, *frames), count in stacks_of(profile).items():
        stacks[phase, *(frame for frame in frames if frame.region or len(frames) == 1)] += count
    return dict(stacks)


def comparable(before: Profile, after: Profile) -> tuple[Profile, Profile]:
    """Return two profiles whose equal functions have equal frames.

    Names are without what the compiler adds to them; source files are left out where one profile does not know them.
    """
    before, after = alike(before, after)
    has_files = all(
        any(one.file for one in profile.functions if one.region is Region.KERNEL) for profile in (before, after)
    )
    return _plain(before, has_files=has_files), _plain(after, has_files=has_files)


def _plain(profile: Profile, *, has_files: bool) -> Profile:
    functions = (
        replace(one, name=canonical(one.name), file=one.file if has_files or one.region.in_files else "")
        for one in profile.functions
    )
    stacks: Counter[tuple[str, ...]] = Counter()
    for (phase, *names), count in profile.stacks.items():
        stacks[phase, *map(canonical, names)] += count
    return replace(profile, functions=tuple(functions), stacks=stacks)


def _frame(function: FunctionCount) -> Frame:
    return Frame(function.name, function.file, function.region.value)


def _frames(profile: Profile) -> dict[tuple[str, str], Frame]:
    """Return the frame of each phase and name; of several functions of one name, that with the highest count.

    The phase "" has the names of all phases.
    """
    frames: dict[tuple[str, str], Frame] = {}
    for function in sorted(profile.functions, key=lambda one: one.self_count):
        frames[function.phase, function.name] = frames["", function.name] = _frame(function)
    return frames


def _any(frames: Mapping[tuple[str, str], Frame], name: str) -> Frame:
    return frames.get(("", name), Frame(name, region=Region.OTHER.value))


def _parts(function: FunctionCount) -> Iterator[Frame]:
    """Yield a function's region, the folders of its file, and its file."""
    if function.name[:1] in "([" and not function.file:  # a region as a whole
        return
    yield Frame(f"[{function.region.value}]")
    if function.region.in_files:
        if function.file:
            yield Frame(function.file, function.file)
        return
    *folders, file = function.file.split("/")
    path = ""
    for folder in folders:
        path += f"{folder}/"
        if folder:
            yield Frame(f"{folder}/", path)
    if file:
        yield Frame(file, function.file)
