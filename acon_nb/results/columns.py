"""Describes the columns of results: their types, their meanings, and a measure's label, unit, scale and direction.

`columns.toml` next to this module describes those that any study may have; each kind of study describes its own in a
file of that name (`registry`). A column is described by the row with its name, else by the longest pattern that
matches.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from acon_nb import registry
from acon_nb.errors import InvalidInput
from acon_nb.validation import Meta, OneOf, build, check_fields
from acon_nb.vm import Clock

_FILE = Path(__file__).with_name("columns.toml")
_TYPES = ("text", "integer", "number", "boolean", "any")


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column, or a family of columns.

    `name` may hold one `*`, which stands for any text. `type` is checked on reading (except "any"). A column with a
    `unit` ("" for a plain number) is a measure: one unit is `scale` of its values, and `label` names it. `{}` in the
    label is the text in `words` for what `*` stands for (else that part, with blanks for underscores; with `closed`, a
    column whose part is not in `words` is not of the family). `clock` is the only clock on which it exists ("": both);
    `exact`: on the instruction clock equal guests give equal numbers, and `counted`: it counts instructions there.
    Errors: `InvalidInput` at construction.
    """

    name: Annotated[str, Meta(pattern=r"^[^*]*\*?[^*]*\Z", description="give a name with at most one *")]
    type: Annotated[str, OneOf(_TYPES)]
    meaning: str
    label: str = ""
    unit: str | None = None
    scale: Annotated[float, Meta(gt=0)] = 1.0
    more_is_better: bool = False
    exact: bool = False
    counted: bool = False
    clock: Annotated[str, OneOf(("", *Clock))] = ""
    words: Mapping[str, str] = field(default_factory=dict)
    closed: bool = False

    def __post_init__(self) -> None:
        check_fields(self)

    def part(self, name: str) -> str | None:
        """Return what `*` stands for in a column's name ("" without a `*`), or None for another column."""
        before, star, after = self.name.partition("*")
        if not star:
            return "" if name == self.name else None
        if len(name) < len(before) + len(after) or not name.startswith(before) or not name.endswith(after):
            return None
        part = name[len(before) : len(name) - len(after)]
        return None if self.closed and part not in self.words else part

    def label_of(self, name: str) -> str:
        """Return the label of a column of this family."""
        part = self.part(name) or ""
        return self.label.replace("{}", self.words.get(part, part.replace("_", " ")))


@dataclass(frozen=True, kw_only=True)
class ColumnFile:
    """A file of columns. `owner` is the kind of study that it belongs to ("": any).

    `factor_words` are the beginnings of words of a guest's command line that only give the level of a factor, which has
    a column of its own.
    """

    owner: str
    columns: tuple[Column, ...]
    factor_words: tuple[str, ...] = ()


def columns() -> Sequence[Column]:
    """Return all described columns: those of any study, then those of each kind."""
    return tuple(column for file in files() for column in file.columns)


@registry.cached
def files() -> tuple[ColumnFile, ...]:
    """Read the files of columns. Errors: `InvalidInput` for an invalid file, or a column that two files describe."""
    described = [_read(_FILE, "")]
    for kind in registry.registrations():
        path = kind.folder / "columns.toml" if kind.folder is not None else None
        if path is not None and path.is_file():
            described.append(_read(path, kind.name))
    owners: dict[str, str] = {}
    for file in described:
        for column in file.columns:
            if owners.setdefault(column.name, file.owner) is not file.owner:
                both = " and ".join(
                    f"{name} studies" if name else "any study" for name in (owners[column.name], file.owner)
                )
                raise InvalidInput("column", column.name, f"is described for {both}", hint="describe it once")
    return tuple(described)


@registry.cached
def column_of(name: str) -> Column | None:
    """Return the description of a column; None if it has none."""
    exact, patterns = _index()
    return exact.get(name) or next((column for column in patterns if column.part(name) is not None), None)


def type_of(name: str) -> str:
    """Return the type of a column; "any" if it has no description."""
    column = column_of(name)
    return "any" if column is None else column.type


@registry.cached
def factor_words() -> tuple[str, ...]:
    """Return the beginnings of words of a command line that only give the level of a factor, of all kinds of study."""
    return tuple(word for file in files() for word in file.factor_words)


@registry.cached
def _index() -> tuple[Mapping[str, Column], Sequence[Column]]:
    """Return the columns by name, and the families, the longest pattern first."""
    families = [column for column in columns() if "*" in column.name]
    families.sort(key=lambda column: (-len(column.name), column.name.startswith("*"), column.name))
    return {column.name: column for column in columns() if "*" not in column.name}, families


def _read(path: Path, owner: str) -> ColumnFile:
    try:
        data = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput("columns", path, f"cannot be read: {error}", hint="see docs/study.md") from error
    words: Mapping[str, Mapping[str, str]] = data.pop("words", {})
    columns = [_column(row, words, path) for row in data.pop("column", [])]
    factor_words = tuple(data.pop("factor_words", ()))
    if data:
        raise InvalidInput(
            "columns", path, f"has an unknown table {next(iter(data))!r}", hint="[[column]] or [words.NAME]"
        )
    return ColumnFile(owner=owner, columns=tuple(columns), factor_words=factor_words)


def _column(row: Mapping[str, Any], words: Mapping[str, Mapping[str, str]], path: Path) -> Column:
    table = row.get("words")
    if table is not None and table not in words:
        raise InvalidInput("words", table, f"are not in {path}", hint=f"one of {', '.join(words) or 'none yet'}")
    return build(Column, {**row, "words": words[table]} if table is not None else row, what=f"a column of {path}")
