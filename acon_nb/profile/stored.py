"""The profiles that a study's runs kept with their rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from acon_nb.errors import InvalidInput
from acon_nb.profile.model import Profile, load
from acon_nb.results.select import matching


def paths_of(rows: Iterable[Mapping[str, Any]], folder: Path) -> dict[str, Path]:
    """The file of the newest profile of each cell, by its label; `rows` are in the order of their runs."""
    return {str(row["cell"]): folder / row["profile"] for row in rows if isinstance(row.get("profile"), str)}


def profile_of(rows: Iterable[Mapping[str, Any]], folder: Path, cell: str = "") -> tuple[str, Profile]:
    """A cell's label and its profile; a part of the label is enough, and "" where the study has one cell.

    Errors: `InvalidInput` where no cell, or several, are meant, and for a file that is not a profile.
    """
    paths = paths_of(rows, folder)
    chosen = matching(paths, cell)
    if len(chosen) != 1:
        reason = "is several cells" if chosen else "has no profile"
        hint = f"one of: {'; '.join(chosen or paths)}" if paths else "run the plan with profile = true"
        raise InvalidInput("cell", cell, reason, hint=hint)
    return chosen[0], load(paths[chosen[0]])


def page_name(before: Path, after: Path) -> str:
    """The name of the page that shows how two stored profiles, whose files are named by their hashes, differ."""
    return f"profile-{before.stem[:8]}-{after.stem[:8]}.html"
