"""A profile as tables: functions ranked by what they executed, and phases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from acon_nb import results
from acon_nb.profile import sources
from acon_nb.profile.model import FunctionCount, Profile
from acon_nb.validation import one_of

if TYPE_CHECKING:
    import pandas as pd


def ranked(profile: Profile, most: int | None = None) -> pd.DataFrame:
    """Functions by instructions executed in all phases, the most first.

    Columns: function, file, region, self, share (of the total), and the instructions in each phase by its name.
    """
    rows: dict[tuple[str, str, str], Counter[str]] = {}
    for one in profile.functions:
        rows.setdefault((one.name, one.file, one.region.value), Counter())[one.phase] += one.self_count
    order = sorted(rows, key=lambda entry: (-rows[entry].total(), entry))
    return results.frame(_row(profile, entry, rows[entry]) for entry in order[:most])


def _row(profile: Profile, entry: tuple[str, str, str], counts: Counter[str]) -> dict[str, Any]:
    name, file, region = entry
    return {"function": name, "file": file, "region": region, **_counts(profile, counts)}


def _counts(profile: Profile, counts: Counter[str]) -> dict[str, Any]:
    count = counts.total()
    return {
        "self": count,
        "share": count / profile.total if profile.total else 0.0,
        **{phase: counts[phase] for phase in profile.phases},
    }


PARTS: Mapping[str, Callable[[FunctionCount], str]] = {
    "file": sources.file_of,
    "folder": sources.folder_of,
    "subsystem": sources.subsystem_of,
}


def grouped(profile: Profile, by: str) -> pd.DataFrame:
    """Instructions by source file, folder or subsystem (of `PARTS`), the most first.

    Columns: the part by its name, self, share (of the total), and the instructions in each phase by its name.
    Errors: `InvalidInput` for another part.
    """
    one_of("by", by, PARTS)
    rows: dict[str, Counter[str]] = {}
    for one in profile.functions:
        rows.setdefault(PARTS[by](one), Counter())[one.phase] += one.self_count
    order = sorted(rows, key=lambda part: (-rows[part].total(), part))
    return results.frame({by: part, **_counts(profile, rows[part])} for part in order)


def inclusive(profile: Profile) -> dict[tuple[str, str], int]:
    """Instructions by phase and function with all that it called, the most first; empty without call stacks.

    A function that is in a stack twice counts once.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for (phase, *names), count in profile.stacks.items():
        for name in set(names):
            counts[phase, name] += count
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def callees(profile: Profile, function: str) -> dict[str, int]:
    """Instructions by what a function called, each with all that it called itself, the most first.

    Of `do_one_initcall` these are the initcalls. Where the function is in a stack twice, its first place counts.
    """
    counts: Counter[str] = Counter()
    for (_, *names), count in profile.stacks.items():
        if function in names[:-1]:
            counts[names[names.index(function) + 1]] += count
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def inclusive_text(profile: Profile, most: int | None = None) -> str:
    """The functions that executed most with all that they called, over all phases, for people; and the initcalls."""
    counts: Counter[str] = Counter()
    for (_, name), count in inclusive(profile).items():
        counts[name] += count
    top = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    parts = [_counts_text("with all it calls", top[:most], profile.total)]
    if initcalls := callees(profile, "do_one_initcall"):
        parts += ["", _counts_text("initcall", [*initcalls.items()][:most], profile.total)]
    return "\n".join(parts)


def _counts_text(title: str, counts: Sequence[tuple[str, int]], total: int) -> str:
    rows = [
        {title: name, "instructions": f"{count:,}", "share": f"{100 * count / max(1, total):.2f} %"}
        for name, count in counts
    ]
    return results.frame(rows).to_string(index=False)


def phase_counts(profile: Profile) -> dict[str, int]:
    """The instructions of all functions in each phase, in order."""
    counts = dict.fromkeys(profile.phases, 0)
    for one in profile.functions:
        counts[one.phase] += one.self_count
    return counts


def ranked_text(profile: Profile, most: int | None = None) -> str:
    """The ranked functions for people; files only where one is known."""
    return _text(profile, ranked(profile, most), "function")


def grouped_text(profile: Profile, by: str, most: int | None = None) -> str:
    """The files, folders or subsystems for people, as of `grouped`."""
    return _text(profile, grouped(profile, by).head(most or len(profile.functions)), by)


def _text(profile: Profile, table: pd.DataFrame, part: str) -> str:
    if table.empty:
        return "nothing was counted"
    shown = {
        part: table[part],
        "self": [f"{count:,}" for count in table["self"]],
        "share": [f"{100 * share:.2f} %" for share in table["share"]],
        **{phase: [f"{count:,}" if count else "" for count in table[phase]] for phase in profile.phases},
    }
    if part == "function" and table["file"].any():
        shown["file"] = table["file"]
    return results.frame([dict(zip(shown, row, strict=True)) for row in zip(*shown.values(), strict=True)]).to_string(
        index=False
    )


def sentences(profile: Profile) -> list[str]:
    """What the whole profile says, for people."""
    functions = len({(one.name, one.file) for one in profile.functions})
    return [
        f"{profile.total:,} instructions by {functions:,} functions and parts, {profile.unattributed:,} unattributed",
        f"profile {profile.sha256}",
    ]
