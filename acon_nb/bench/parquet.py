"""Parquet files of rows: written whole, checked on reading, gathered into fewer (docs/results.md).

A file that cannot be read as Parquet is set aside (renamed to `*.torn`) and named; one that the system refuses (rights,
a folder of that name) is an error, since its rows may be whole.
"""

from __future__ import annotations

import fnmatch
import functools
import logging
import tomllib
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acon_nb.cache import atomic_file
from acon_nb.errors import ResultsError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_log = logging.getLogger(__name__)
SCHEMA = 2
SINGLE = "single"
_COLUMNS = Path(__file__).with_name("columns.toml")
_LISTINGS = 20  # a reader lists the folder again while others gather its files


@functools.cache
def columns() -> Sequence[Mapping[str, str]]:
    """The documented columns: `name` (a pattern), `type`, `meaning`."""
    return tuple(tomllib.loads(_COLUMNS.read_text())["column"])


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as one file, whole or not at all; rows of other columns have nothing there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = dict.fromkeys(name for row in rows for name in row)
    table = pa.Table.from_pylist([{name: row.get(name) for name in names} for row in rows])
    with atomic_file(path) as temporary:
        pq.write_table(table, temporary)


def write_alike(folder: Path, rows: Sequence[Mapping[str, Any]]) -> list[Path]:
    """Write rows into a folder, each file with those whose columns have the same types, called by its first run."""
    groups: dict[tuple[tuple[str, type], ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple((name, type(value)) for name, value in row.items()), []).append(row)
    paths = [folder / f"{found[0]['run_id']}.parquet" for found in groups.values()]
    for path, found in zip(paths, groups.values(), strict=True):
        write(path, found)
    return paths


def read_all(
    files: Callable[[], Iterable[Path]], *, only: Sequence[str] | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """The rows of all files as a table, each `run_id` once, and the names of the files that were set aside.

    `files` lists them; it is asked again when one of them has gone meanwhile, since its rows are then in another.
    `only` names the columns that are wanted. Errors: `ResultsError`.
    """
    tables: dict[Path, pa.Table] = {}
    torn: list[str] = []
    for _ in range(_LISTINGS):
        gone = False
        for path in files():
            if path in tables:
                continue
            found = _read(path, torn, only)
            gone = gone or found is None
            if found is not None:
                tables[path] = found
        if not gone:
            break
    whole = [table for table in tables.values() if table.num_rows]
    return _once(_joined(whole)), torn


def gather(paths: Sequence[Path]) -> int:
    """Put the rows of files of one folder in as few files as their types allow; returns how many files went.

    A row is first in the new file and then taken from the old ones, so that a reader and a kill lose nothing.
    """
    torn: list[str] = []
    tables = [(path, table) for path in paths if (table := _read(path, torn)) is not None]
    if len(tables) < 2:
        return 0
    for number, group in enumerate(_alike([table for _, table in tables])):
        rows = {row["run_id"]: row for table in group for row in table.to_pylist()}
        write(tables[0][0].parent / f"all-{uuid.uuid4().hex}-{number}.parquet", list(rows.values()))
    for path, _ in tables:
        path.unlink(missing_ok=True)
    return len(tables)


def _read(path: Path, torn: list[str], only: Sequence[str] | None = None) -> pa.Table | None:
    """The table of a file, of this schema; None if it has gone; without rows if it is damaged, which `torn` names."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    nothing = pa.table({})
    try:
        with path.open("rb") as file:  # not read_table: that would take columns from the folders' names
            parquet = pq.ParquetFile(file)
            wanted = (
                None if only is None else [name for name in ("schema", *only) if name in parquet.schema_arrow.names]
            )
            table = parquet.read(columns=wanted, use_threads=False)
    except FileNotFoundError:
        return None
    except (OSError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise ResultsError(f"{path} cannot be read: {error.strerror}", hint="give yourself the right") from error
        _set_aside(path, torn, error)
        return nothing
    return _checked(path, table) if table.num_rows else nothing


def _set_aside(path: Path, torn: list[str], error: Exception) -> None:
    aside = path.with_suffix(".torn")
    try:
        path.replace(aside)
    except FileNotFoundError:
        return  # another reader was faster
    except OSError:
        aside = path  # a folder that is not ours to change
    torn.append(str(aside))
    _log.warning("%s is damaged and was set aside as %s: %s", path, aside.name, error)


def _checked(path: Path, table: pa.Table) -> pa.Table:
    """A table as of this schema. Errors: `ResultsError`."""
    import pyarrow as pa

    found = set(table["schema"].to_pylist()) if "schema" in table.column_names else {None}
    if found == {1}:  # schema 1 knew no studies
        table = table.set_column(table.column_names.index("schema"), "schema", pa.array([SCHEMA] * table.num_rows))
        table = table if "study" in table.column_names else table.append_column(
            "study", pa.array([SINGLE] * table.num_rows)
        )  # fmt: skip
    elif found != {SCHEMA}:
        other = ", ".join(str(value) for value in sorted(found - {SCHEMA}, key=str))
        hint = "read it with the version that wrote it"
        raise ResultsError(f"{path} has another schema than {SCHEMA}: {other}", hint=hint)
    if missing := {"run_id", "timestamp"} - set(table.column_names):
        raise ResultsError(f"{path} has no {', '.join(sorted(missing))}", hint="move the file away")
    for field in table.schema:
        kind = type_of(field.name)
        if not _fits(field.type, kind):
            value = next((value for value in table[field.name].to_pylist() if value is not None), None)
            raise ResultsError(f"{path}: {field.name}={value!r} is no {kind}", hint="move the file away, or mend it")
    return table


def _fits(arrow: pa.DataType, kind: str) -> bool:
    """Whether values of an Arrow type are of a documented one; a column of nothing is of any."""
    from pyarrow import types

    if kind == "any" or types.is_null(arrow):
        return True
    if kind == "text":
        return bool(types.is_string(arrow) or types.is_large_string(arrow))
    if kind == "boolean":
        return bool(types.is_boolean(arrow))
    return bool(types.is_integer(arrow) or (kind == "number" and types.is_floating(arrow)))


@functools.cache
def type_of(column: str) -> str:
    """The documented type of a column; "any" for one that is not documented."""
    return next((row["type"] for row in columns() if fnmatch.fnmatchcase(column, row["name"])), "any")


def _joined(tables: Sequence[pa.Table]) -> pd.DataFrame:
    """All tables as one DataFrame; a column may be text in some and a number in others."""
    import pandas as pd
    import pyarrow as pa

    parts = [pa.concat_tables(group, promote_options="permissive").to_pandas() for group in _alike(tables)]
    if len(parts) < 2:
        return parts[0] if parts else pd.DataFrame()
    mixed = [part.astype(object).where(part.notna(), None) for part in parts]
    joined: pd.DataFrame = pd.concat(mixed, ignore_index=True).infer_objects()
    return joined


def _alike(tables: Sequence[pa.Table]) -> list[list[pa.Table]]:
    """Tables in groups whose columns have one type each (nothing goes with any, whole numbers with others)."""
    groups: list[tuple[dict[str, str], list[pa.Table]]] = []
    for table in tables:
        kinds = {field.name: word for field in table.schema if (word := _family(field.type))}
        for known, members in groups:
            if all(known.get(name, word) == word for name, word in kinds.items()):
                known |= kinds
                members.append(table)
                break
        else:
            groups.append((dict(kinds), [table]))
    return [members for _, members in groups]


def _family(arrow: pa.DataType) -> str:
    from pyarrow import types

    if types.is_null(arrow):
        return ""
    if types.is_integer(arrow) or types.is_floating(arrow):
        return "number"
    return "text" if types.is_string(arrow) or types.is_large_string(arrow) else str(arrow)


def _once(table: pd.DataFrame) -> pd.DataFrame:
    """Each row once: one that is being gathered is there twice for a moment."""
    if table.empty:
        return table
    kept: pd.DataFrame = table.drop_duplicates("run_id", keep="last", ignore_index=True)
    return kept
