"""What changed by function in a night: each cell's profile compared with that of the night before, as a flame graph."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from acon_nb import results
from acon_nb.profile import diff_text, flame, stored
from acon_nb.profile.diff import difference
from acon_nb.profile.model import load

if TYPE_CHECKING:
    import pandas as pd


def write_differences(tonight: pd.DataFrame, history: Path, folder: Path) -> list[str]:
    """Write a flame graph for each cell whose profile is not that of the night before; return a sentence for each.

    `tonight` are the night's rows, of one study; cells without profiles, or without one before, are skipped. Files are
    named by the two profiles. Errors: `InvalidInput` for a damaged profile.
    """
    if "profile" not in tonight:
        return []
    kept: list[dict[str, Any]] = tonight.to_dict("records")  # type: ignore[assignment]
    rows = results.load(history, study=str(kept[-1]["study"]))
    earlier = rows[rows["timestamp"] < tonight["timestamp"].min()]
    known = stored.paths_of(earlier.sort_values("timestamp").to_dict("records"), history)
    return [
        _write(cell, known[cell], path, folder)
        for cell, path in stored.paths_of(kept, history).items()
        if cell in known and known[cell] != path
    ]


def _write(cell: str, old: Path, new: Path, folder: Path) -> str:
    before, after = load(old), load(new)
    page = flame.difference(before, after, names=("the night before", "this night"), title=f"What changed in {cell}")
    path = flame.save(page, folder / stored.page_name(old, new))
    return f"{cell}: {diff_text.sentence(difference(before, after))}; by function: {path}"
