"""Profiles in the formats of other tools: folded stacks, speedscope, callgrind and pprof; and as a flame graph.

All counts are instructions, and all files are the same for the same profile. Names come from guests: what a format
gives a meaning to is replaced in them.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from acon_nb.cache import atomic_file
from acon_nb.profile import flame, pprof
from acon_nb.profile.frames import Frame, Stacks, function_stacks_of, stacks_of
from acon_nb.profile.model import Profile

_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]+")
_SPEEDSCOPE_SCHEMA = "https://www.speedscope.app/file-format-schema.json"
_UNKNOWN_FILE = "???"  # as callgrind writes it


def folded(profile: Profile) -> bytes:
    """Return folded stacks, one "PHASE;FRAME;FRAME COUNT" per line, as flamegraph.pl and inferno read them.

    Source: https://github.com/brendangregg/FlameGraph, stackcollapse.pl.
    """
    lines: Counter[str] = Counter()
    for stack, count in stacks_of(profile).items():
        lines[";".join(_CONTROL.sub(" ", frame.name).replace(";", ":") for frame in stack)] += count
    return "".join(f"{line} {count}\n" for line, count in lines.items()).encode()


def speedscope(profile: Profile) -> bytes:
    """Return a JSON file of speedscope: all phases one after the other, then each phase on its own.

    Source: https://github.com/jlfwong/speedscope/wiki/Importing-from-custom-sources.
    """
    stacks = stacks_of(profile)
    numbers: dict[Frame, int] = {}
    for stack in stacks:
        for frame in stack:
            numbers.setdefault(frame, len(numbers))
    frames = [{"name": frame.name, **({"file": frame.file} if frame.file else {})} for frame in numbers]
    by_phase: dict[str, Stacks] = {}
    for stack, count in stacks.items():
        by_phase.setdefault(stack[0].name, {})[stack] = count
    profiles = [_sampled("all phases", stacks, numbers)]
    profiles += [_sampled(phase, own, numbers) for phase, own in by_phase.items() if len(by_phase) > 1]
    values = {
        "$schema": _SPEEDSCOPE_SCHEMA,
        "exporter": "acon_nb",
        "name": _title(profile),
        "shared": {"frames": frames},
        "profiles": profiles,
    }
    return json.dumps(values, separators=(",", ":")).encode()


def _sampled(name: str, stacks: Stacks, numbers: Mapping[Frame, int]) -> dict[str, Any]:
    return {
        "type": "sampled",
        "name": f"{name} (instructions)",
        "unit": "none",
        "startValue": 0,
        "endValue": sum(stacks.values()),
        "samples": [[numbers[frame] for frame in stack] for stack in stacks],
        "weights": list(stacks.values()),
    }


def callgrind(profile: Profile) -> bytes:
    """Return a file for KCachegrind and callgrind_annotate: instructions in all and by phase, each an event.

    Calls have inclusive costs. They are not counted: each reads as one, the least that callgrind_annotate takes. A
    function that calls itself through others counts once for each stack and call. Where call stacks are known, phases
    are the outermost callers. Source: https://valgrind.org/docs/manual/cl-format.html.
    """
    stacks = function_stacks_of(profile)
    phases = list(dict.fromkeys(stack[0].name for stack in stacks))
    own: dict[Frame, Counter[str]] = {}
    calls: dict[Frame, dict[Frame, Counter[str]]] = {}
    for (phase, *frames), count in stacks.items():
        functions = [phase, *frames] if profile.stacks else frames or [phase]
        own.setdefault(functions[-1], Counter())[phase.name] += count
        for caller, callee in dict.fromkeys(itertools.pairwise(functions)):
            own.setdefault(caller, Counter())
            calls.setdefault(caller, {}).setdefault(callee, Counter())[phase.name] += count
    total = Counter(dict.fromkeys(phases, 0))
    for counts in own.values():
        total.update(counts)
    names = _Names()
    lines = [
        "# callgrind format",
        "version: 1",
        "creator: acon_nb",
        f"cmd: {_CONTROL.sub(' ', _title(profile))}",
        "positions: line",
        *(f"event: {event} : {name}" for event, name in _events(phases).items()),
        f"events: {' '.join(_events(phases))}",
        f"summary: {_costs(total, phases)}",
    ]
    for function, counts in own.items():
        lines += ["", *names.place("", function), f"0 {_costs(counts, phases)}"]
        for callee, inclusive in calls.get(function, {}).items():
            lines += [*names.place("c", callee), "calls=1 0", f"0 {_costs(inclusive, phases)}"]
    return "\n".join([*lines, ""]).encode()


class _Names:
    """The compressed names of a callgrind file: "(3) name" the first time, then "(3)"; numbered by kind."""

    def __init__(self) -> None:
        self._numbers: dict[str, dict[str, int]] = {"ob": {}, "fl": {}, "fn": {}}

    def place(self, prefix: str, frame: Frame) -> list[str]:
        """Return the lines that name a function's object (its region), file and name."""
        values = {"ob": frame.region or "phase", "fl": frame.file or _UNKNOWN_FILE, "fn": frame.name}
        return [f"{prefix}{kind}={self._of(kind, value)}" for kind, value in values.items()]

    def _of(self, kind: str, name: str) -> str:
        known = self._numbers[kind]
        if name in known:
            return f"({known[name]})"
        known[name] = len(known) + 1
        return f"({known[name]}) {_CONTROL.sub(' ', name)}"


def _events(phases: list[str]) -> dict[str, str]:
    """Return the events and what they mean: names of events are letters and digits."""
    events = {"Ir": "Instructions executed"}
    for phase in phases if len(phases) > 1 else []:
        short = re.sub("[^A-Za-z0-9]", "", phase.title()) or "Phase"
        name = f"Ir{short}"
        while name in events:
            name += "x"
        events[name] = f"Instructions, {_CONTROL.sub(' ', phase)}"
    return events


def _costs(counts: Mapping[str, int], phases: list[str]) -> str:
    columns = [sum(counts.values()), *((counts.get(phase, 0) for phase in phases) if len(phases) > 1 else ())]
    return " ".join(map(str, columns))


def _title(profile: Profile) -> str:
    kernel = profile.origin.get("kernel", "")
    return f"{kernel or 'guest'}, {profile.total:,} instructions"


WRITERS: Mapping[str, Callable[[Profile], bytes]] = {
    "folded": folded,
    "pprof": pprof.encode,
    "speedscope": speedscope,
    "callgrind": callgrind,
    "flame": lambda profile: flame.flame(profile).encode(),
}


def save(profile: Profile, paths: Mapping[str, Path]) -> list[Path]:
    """Write a profile to files, a format of `WRITERS` to each path, whole or not at all; returns the paths."""
    for name, path in paths.items():
        with atomic_file(path) as temporary:
            temporary.write_bytes(WRITERS[name](profile))
    return list(paths.values())
