"""Parquet files of rows: written atomically, checked on reading, gathered into fewer (docs/results.md).

A file that is not valid Parquet is set aside (renamed to `*.torn`) and named; one that cannot be opened (permissions, a
folder of that name) is an error, since its rows may be intact.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acon_nb.cache import atomic_file
from acon_nb.errors import ResultsError
from acon_nb.results.columns import type_of
from acon_nb.results.older import READABLE, RENAMED, SCHEMA, upgraded

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_log = logging.getLogger(__name__)
_MOST_TABLES = 1_000  # tables in memory before they are merged
_LISTINGS = 20  # a reader lists the folder again while others gather its files


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as one file, atomically; a row without one of the columns has null there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = dict.fromkeys(name for row in rows for name in row)
    table = pa.Table.from_pylist([{name: row.get(name) for name in names} for row in rows])
    with atomic_file(path) as temporary:
        pq.write_table(table, temporary)


def write_alike(folder: Path, rows: Sequence[Mapping[str, Any]]) -> list[Path]:
    """Write rows into a folder, one file for each set of column types, named after its first run."""
    groups: dict[tuple[tuple[str, type], ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple((name, type(value)) for name, value in row.items()), []).append(row)
    paths = [folder / f"{group[0]['run_id']}.parquet" for group in groups.values()]
    for path, group in zip(paths, groups.values(), strict=True):
        write(path, group)
    return paths


def read_all(
    files: Callable[[], Iterable[Path]], *, only: Sequence[str] | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """Read the rows of all files as a table, each `run_id` once; return it with the names of files that were set aside.

    `files` lists them; it is called again if one of them has disappeared, since its rows are then in another file.
    `only` names the columns to read. Errors: `ResultsError`.
    """
    tables: list[pa.Table] = []
    read: set[Path] = set()
    torn: list[str] = []
    for _ in range(_LISTINGS):
        gone = False
        for path in files():
            if path in read:
                continue
            table = _read(path, torn, only)
            if table is None:
                gone = True
                continue
            read.add(path)
            if table.num_rows:
                tables.append(table)
            if len(tables) >= _MOST_TABLES:
                tables = _merged(tables)
        if not gone:
            break
    return _once(_joined(tables)), torn


def gather(paths: Sequence[Path]) -> int:
    """Merge the files of one folder into as few files as their types allow; return how many files were removed.

    The new file is written before the old ones are removed, so that neither a reader nor a kill loses rows.
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
    """Read a file as a table of this schema; None if it is gone; without rows if damaged: `torn` then gets its name."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    nothing = pa.table({})
    try:
        with path.open("rb") as file:  # not read_table, which would take columns from the folders' names
            parquet = pq.ParquetFile(file)
            names = parquet.schema_arrow.names
            wanted = None
            if only is not None:
                possible = {"schema", *only, *(RENAMED[name] for name in only if name in RENAMED)}
                wanted = [name for name in names if name in possible]
            table = parquet.read(columns=wanted, use_threads=False)
    except FileNotFoundError:
        return None
    except (OSError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise ResultsError(f"{path} cannot be read: {error.strerror}", hint="make it readable") from error
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
        aside = path  # a folder that this user cannot change
    torn.append(str(aside))
    _log.warning("%s is damaged and was set aside as %s: %s", path, aside.name, error)


def _checked(path: Path, table: pa.Table) -> pa.Table:
    """Convert a table to this schema, and check it. Errors: `ResultsError`."""
    schemas = set(table["schema"].to_pylist()) if "schema" in table.column_names else {None}
    if not schemas <= READABLE:
        other = ", ".join(str(value) for value in sorted(schemas - READABLE, key=str))
        hint = "read it with the version that wrote it"
        raise ResultsError(f"{path} has another schema than {SCHEMA}: {other}", hint=hint)
    if schemas != {SCHEMA}:
        table = upgraded(table)
    if missing := {"run_id", "timestamp"} - set(table.column_names):
        raise ResultsError(f"{path} has no {', '.join(sorted(missing))}", hint="move the file away")
    for field in table.schema:
        kind = type_of(field.name)
        if not _fits(field.type, kind):
            value = next((value for value in table[field.name].to_pylist() if value is not None), None)
            raise ResultsError(
                f"{path}: {field.name}={value!r} is not {kind}", hint="move the file away, or correct it"
            )
    return table


def _fits(arrow: pa.DataType, kind: str) -> bool:
    """Whether values of an Arrow type are of a documented type; a column of nulls is of any type."""
    from pyarrow import types

    if kind == "any" or types.is_null(arrow):
        return True
    if kind == "text":
        return bool(types.is_string(arrow) or types.is_large_string(arrow))
    if kind == "boolean":
        return bool(types.is_boolean(arrow))
    return bool(types.is_integer(arrow) or (kind == "number" and types.is_floating(arrow)))


def _joined(tables: Sequence[pa.Table]) -> pd.DataFrame:
    """Join all tables into one DataFrame; a column may be text in some and a number in others."""
    import pandas as pd
    import pyarrow as pa

    parts = [pa.concat_tables(group, promote_options="permissive").to_pandas() for group in _alike(tables)]
    if len(parts) < 2:
        return parts[0] if parts else pd.DataFrame()
    mixed = [part.astype(object).where(part.notna(), None) for part in parts]
    joined: pd.DataFrame = pd.concat(mixed, ignore_index=True).infer_objects()
    return joined


def _merged(tables: Sequence[pa.Table]) -> list[pa.Table]:
    """Merge tables into as few as their types allow: a table of a single row takes some 30 KiB of memory."""
    import pyarrow as pa

    return [pa.concat_tables(group, promote_options="permissive").combine_chunks() for group in _alike(tables)]


def _alike(tables: Sequence[pa.Table]) -> list[list[pa.Table]]:
    """Group tables so that a column has one type in a group (null goes with any type, integers with other numbers)."""
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
    """Return each row once: while files are being gathered, a row can be in two of them."""
    if table.empty:
        return table
    unique: pd.DataFrame = table.drop_duplicates("run_id", keep="last", ignore_index=True)
    return unique
