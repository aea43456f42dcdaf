"""The profiles that a person looks at: one, or two to compare; from files, or from the rows of a study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acon_nb import results
from acon_nb.errors import InvalidInput
from acon_nb.profile import diff_text, flame, sources, stored, tables
from acon_nb.profile.diff import Difference, difference, folder_part
from acon_nb.profile.model import Profile, load

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class ChosenProfiles:
    """One profile, or two to compare in this order, with names for people. Errors: `InvalidInput` for other numbers."""

    profiles: tuple[Profile, ...]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.profiles) not in (1, 2) or len(self.names) != len(self.profiles):
            hint = "give one, or two to compare, and a name for each"
            raise InvalidInput("profiles", len(self.profiles), "is not one profile, or two", hint=hint)

    @cached_property
    def difference(self) -> Difference | None:
        """The difference of the two; None for one."""
        return difference(*self.profiles) if len(self.profiles) == 2 else None

    @property
    def pair(self) -> tuple[str, str]:
        """The names of the two."""
        return self.names[0], self.names[-1]

    def page(self, shown: int | None = None) -> str:
        """The flame graph of one profile by its number; None: of the difference, or of the only one."""
        if shown is None and self.difference is not None:
            return flame.difference(self.profiles[0], self.profiles[1], names=self.pair)
        return flame.flame(self.profiles[shown or 0], title=f"Instructions of {self.names[shown or 0]}")

    def sentences(self) -> list[str]:
        """What the profiles and their difference amount to."""
        lines = [
            f"{name}: {tables.sentences(profile)[0]}" for name, profile in zip(self.names, self.profiles, strict=True)
        ]
        return lines if self.difference is None else [*lines, diff_text.sentence(self.difference)]

    def table(self, most: int | None = None) -> pd.DataFrame:
        """The functions that differ most, or of one profile those that executed most; counts as text, exact."""
        if self.difference is None:
            table = tables.ranked(self.profiles[0], most)
            for name in [column for column in ("self", *self.profiles[0].phases) if column in table]:
                table[name] = [f"{count:,}" for count in table[name]]
            if "share" in table:
                table["share"] = [f"{share:.2%}" for share in table["share"]]
            return table.drop(columns="region", errors="ignore")
        first, second = self.pair
        rows = [row for row in self.difference.functions if row.change]
        return results.frame(
            {
                "function": row.name,
                "file": row.file,
                "phase": row.phase,
                first: f"{row.before:,}",
                second: f"{row.after:,}",
                "difference": f"{row.change:+,}",
                "": row.layout.value if row.layout else row.kind.value,
            }
            for row in rows[:most]
        )

    def folder_table(self) -> pd.DataFrame:
        """The folders of source files with their instructions, the most (or what differs most) first."""
        if self.difference is None:
            sums = sources.counts_by(self.profiles[0], sources.folder_of)
            total = max(self.profiles[0].total, 1)
            return results.frame(
                {"folder": folder, "instructions": f"{count:,}", "share": f"{count / total:.2%}"}
                for folder, count in sums.items()
            )
        first, second = self.pair
        return results.frame(
            {
                "folder": one.part,
                first: f"{one.before:,}",
                second: f"{one.after:,}",
                "difference": f"{one.change:+,}",
                "of it layout": f"{one.layout:+,}",
            }
            for one in self.difference.by(folder_part)
        )


def of_files(paths: Sequence[str | Path]) -> ChosenProfiles:
    """Load stored profiles, which are named by their files. Errors: `InvalidInput`."""
    files = [Path(path) for path in paths]
    names = [file.stem for file in files]
    if len(set(names)) != len(names):
        names = [f"{number}: {file}" for number, file in enumerate(files, 1)]
    return ChosenProfiles(profiles=tuple(map(load, files)), names=tuple(names))


def of_rows(rows: pd.DataFrame, folder: Path, cells: Sequence[str] = ()) -> ChosenProfiles:
    """Load the profiles of a study's cells (part of a label is enough; default: the first and the last cell).

    Errors: `InvalidInput` where a cell has no profile.
    """
    kept: list[dict[str, Any]] = rows.to_dict("records")  # type: ignore[assignment]
    labels = list(stored.paths_of(kept, folder))
    asked = list(cells) or list(dict.fromkeys([*labels[:1], *labels[-1:]])) or [""]
    named = [stored.profile_of(kept, folder, cell) for cell in asked]
    return ChosenProfiles(profiles=tuple(one for _, one in named), names=tuple(name for name, _ in named))
