"""A profile as tables: functions ranked by what they executed, and phases."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from acon_nb import results
from acon_nb.profile.model import Profile

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
    count = counts.total()
    return {
        "function": name,
        "file": file,
        "region": region,
        "self": count,
        "share": count / profile.total if profile.total else 0.0,
        **{phase: counts[phase] for phase in profile.phases},
    }


def phase_counts(profile: Profile) -> dict[str, int]:
    """The instructions of all functions in each phase, in order."""
    counts = dict.fromkeys(profile.phases, 0)
    for one in profile.functions:
        counts[one.phase] += one.self_count
    return counts


def ranked_text(profile: Profile, most: int | None = None) -> str:
    """The ranked functions for people; files only where one is known."""
    table = ranked(profile, most)
    if table.empty:
        return "nothing was counted"
    shown = {
        "function": table["function"],
        "self": [f"{count:,}" for count in table["self"]],
        "share": [f"{100 * share:.2f} %" for share in table["share"]],
        **{phase: [f"{count:,}" if count else "" for count in table[phase]] for phase in profile.phases},
    }
    if table["file"].any():
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
