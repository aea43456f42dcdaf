"""Gives two profiles the same phases: one whose end was not found joins the next, as in "unpacking + kernel"."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from acon_nb.profile.model import BEFORE_KERNEL, EARLY_KERNEL, FunctionCount, Profile, Region

_AND = " + "
_EARLY_REGIONS = (Region.FIRMWARE, Region.UNPACKING)


def alike(before: Profile, after: Profile) -> tuple[Profile, Profile]:
    """Two profiles, in which the phases are joined that are joined in one of them.

    What ran in a joined phase before the kernel is one entry, as in a profile that was made so. Counts add up as they
    did.
    """
    if before.phases == after.phases:
        return before, after
    joined = _joined(before, after)
    return _with_phases(before, joined), _with_phases(after, joined)


def until(profile: Profile, last: str) -> Profile:
    """The profile up to the end of a phase, or of the one that it is joined to; the whole where there is no such phase.

    What no function explains stays in it, since it is not known when that ran.
    """
    ends = [number for number, name in enumerate(profile.phases) if last in name.split(_AND)]
    if not ends:
        return profile
    kept = profile.phases[: ends[0] + 1]
    functions = tuple(one for one in profile.functions if one.phase in kept)
    return replace(
        profile,
        total=profile.unattributed + sum(one.self_count for one in functions),
        phases=kept,
        functions=functions,
        stacks={stack: count for stack, count in profile.stacks.items() if stack[0] in kept},
    )


def _joined(*profiles: Profile) -> dict[str, str]:
    """The name of the joined phase for each phase that is one of several in any of the profiles."""
    groups: list[set[str]] = []
    for name in (name for profile in profiles for name in profile.phases if _AND in name):
        parts = set(name.split(_AND))
        apart = [group for group in groups if not group & parts]
        groups = [*apart, parts.union(*(group for group in groups if group & parts))]
    order = dict.fromkeys(part for profile in profiles for name in profile.phases for part in name.split(_AND))
    return {part: _AND.join(one for one in order if one in group) for group in groups for part in group}


def _with_phases(profile: Profile, joined: Mapping[str, str]) -> Profile:
    phases = {name: joined.get(name.split(_AND)[0], name) for name in profile.phases}
    counts: Counter[tuple[str, str, str, Region]] = Counter()
    early = set()
    for one in profile.functions:
        name, file, region = one.name, one.file, one.region
        if phases[one.phase] != one.phase and (region in _EARLY_REGIONS or name == EARLY_KERNEL):
            early.add((one.phase, name))
            name, file, region = BEFORE_KERNEL, "", Region.OTHER
        counts[name, phases[one.phase], file, region] += one.self_count
    stacks: Counter[tuple[str, ...]] = Counter()
    for (phase, *frames), count in profile.stacks.items():
        shown = (BEFORE_KERNEL if (phase, frame) in early else frame for frame in frames)
        stacks[(phases[phase], *shown)] += count
    return replace(
        profile,
        phases=tuple(dict.fromkeys(phases.values())),
        functions=tuple(
            FunctionCount(name=name, phase=phase, self_count=count, file=file, region=region)
            for (name, phase, file, region), count in counts.items()
        ),
        stacks=dict(stacks),
    )
