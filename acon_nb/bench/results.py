"""Results as data: one row a run, a Parquet file a row, each written whole and at once as its run ends.

The dataset is `FOLDER/KIND/date=YYYY-MM-DD/study=NAME/RUN_ID.parquet`; the logs of a study's runs are beside it under
`FOLDER/logs`. Any number of writers may add rows at the same time. `columns.toml` documents the schema, which is
checked on reading; a file that cannot be read is set aside (renamed to `*.torn`) and named, and breaks nothing.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import fnmatch
import functools
import logging
import os
import re
import tomllib
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acon_nb.cache import atomic_file
from acon_nb.errors import InvalidInput, ResultsError
from acon_nb.host import environment, probe_qemu
from acon_nb.host.facts import Environment

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger(__name__)
SCHEMA = 2
SINGLE = "single"
NO_COLUMN = {"column": False}  # metadata of a dataclass's field that is no column
_COLUMNS = Path(__file__).with_name("columns.toml")
_TYPES: dict[str, tuple[type, ...]] = {
    "text": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "any": (object,),
}


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """A dataclass (nested ones too) as one flat dict: `outer_inner` names, paths and enums as text.

    Fields with `metadata=NO_COLUMN` are left out.
    """
    row: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        if field.metadata == NO_COLUMN:
            continue
        item, name = getattr(value, field.name), prefix + field.name
        if dataclasses.is_dataclass(item) and not isinstance(item, type):
            row |= flat(item, name + "_")
        elif isinstance(item, Mapping):
            row |= {f"{name}_{key}": number for key, number in item.items()}
        elif isinstance(item, Path):
            row[name] = str(item)
        elif isinstance(item, Enum):
            row[name] = item.value
        elif isinstance(item, tuple):
            row[name] = "\n".join(map(str, item))
        else:
            row[name] = item
    return row


def stamp(host: Environment | None = None) -> dict[str, Any]:
    """What is recorded with every run: schema, id, time (UTC), the host and its QEMU."""
    qemu = probe_qemu()
    found = host or environment()
    return {
        "schema": SCHEMA,
        "run_id": uuid.uuid4().hex,
        "timestamp": dt.datetime.now(dt.UTC).isoformat(timespec="microseconds"),  # rows of one second keep their order
        "qemu_version": qemu.version_text,
        "qemu_package": qemu.package,
        **flat(found),
        "host_class": found.host_class,
    }


class Store:
    """A folder of results (see the module's text for its layout)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidInput(
                "out", folder, error.strerror or "cannot be made", hint="choose another folder"
            ) from error
        if not os.access(folder, os.W_OK):
            raise InvalidInput("out", folder, "cannot be written to", hint="choose another folder")

    def add(self, kind: str, row: Mapping[str, Any]) -> Path:
        """Write one row (`study` says of which study it is); returns its file."""
        values = {"kind": kind, "study": SINGLE, **row}
        path = self._partition(kind, values) / f"{values['run_id']}.parquet"
        _write(path, [values])
        return path

    def log_path(self, row: Mapping[str, Any]) -> Path:
        """Where the log of a row belongs, relative to the folder."""
        return Path("logs", _part(row.get("study", SINGLE)), f"{row['run_id']}.log")

    def load(self, kind: str, study: str | None = None) -> pd.DataFrame:
        """All rows of a kind (and of a study), oldest first; `attrs["set_aside"]` names files that were damaged.

        Errors: `ResultsError` for a file of a newer schema or with a column of another type than its own.
        """
        rows: dict[str, dict[str, Any]] = {}
        torn: list[str] = []
        for path in self._files(kind, study):
            for row in _read(path, torn):
                rows[row["run_id"]] = row  # a row that is being compacted is there twice for a moment
        table = frame(row for row in rows.values() if study is None or row["study"] == study)
        if not table.empty:
            table = table.sort_values("timestamp", kind="stable", ignore_index=True)
        table.attrs["set_aside"] = torn
        return table

    def studies(self, kind: str) -> list[str]:
        """The names of the studies that have rows of a kind."""
        names = (path.name.removeprefix("study=") for path in (self.folder / kind).glob("date=*/study=*"))
        return sorted(set(names))

    def compact(self, kind: str, *, before: dt.date | None = None) -> int:
        """Gather the rows of each past day and study in one file; returns how many files went.

        A row is first in the new file and then taken from the old ones, so that a reader and a kill lose nothing.
        """
        limit = (before or dt.datetime.now(dt.UTC).date()).isoformat()
        gone = 0
        for folder in sorted((self.folder / kind).glob("date=*/study=*")):
            files = sorted(folder.glob("*.parquet"))
            if folder.parent.name.removeprefix("date=") >= limit or len(files) < 2:
                continue
            torn: list[str] = []
            rows = {row["run_id"]: row for path in files for row in _read(path, torn)}
            _write(folder / f"all-{uuid.uuid4().hex}.parquet", list(rows.values()))
            for path in files:
                path.unlink(missing_ok=True)
            gone += len(files)
        return gone

    def _partition(self, kind: str, row: Mapping[str, Any]) -> Path:
        date = str(row["timestamp"])[:10]
        return self.folder / kind / f"date={_part(date)}" / f"study={_part(row['study'])}"

    def _files(self, kind: str, study: str | None) -> list[Path]:
        name = "**/*.parquet" if study is None else f"date=*/study={_part(study)}/*.parquet"
        return sorted((self.folder / kind).glob(name))


def load(folder: str | Path, kind: str = "boot", study: str | None = None) -> pd.DataFrame:
    """The rows of a folder of results as a tidy table: one row a run (columns: docs/results.md)."""
    if not Path(folder).is_dir():
        raise InvalidInput("results", folder, "is no folder", hint="the folder given as --out")
    return Store(Path(folder)).load(kind, study)


def frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as a DataFrame."""
    import pandas as pd

    return pd.DataFrame([dict(row) for row in rows])


def export(table: pd.DataFrame, path: Path) -> Path:
    """Write a table as .csv, .json, .md, .tex or .parquet, by the suffix. Errors: `InvalidInput` for another one."""
    writers: dict[str, Callable[[Path], None]] = {
        ".csv": lambda out: table.to_csv(out, index=False),
        ".json": lambda out: table.to_json(out, orient="records", indent=1),
        ".md": lambda out: _text(out, table.to_markdown(index=False) + "\n"),
        ".tex": lambda out: _text(out, table.to_latex(index=False, escape=True)),
        ".parquet": lambda out: table.to_parquet(out, index=False),
    }
    if path.suffix not in writers:
        raise InvalidInput("output", path, "has no suffix that says its format", hint=f"one of {', '.join(writers)}")
    with atomic_file(path) as temporary:
        writers[path.suffix](temporary)
    return path


@functools.cache
def columns() -> Sequence[Mapping[str, str]]:
    """The documented columns: `name` (a pattern), `type`, `meaning`."""
    return tuple(tomllib.loads(_COLUMNS.read_text())["column"])


def _text(path: Path, text: str) -> None:
    path.write_text(text)


def _part(text: object) -> str:
    """A text as one part of a path."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", str(text)) or "-"


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with atomic_file(path) as temporary:
        pq.write_table(pa.Table.from_pylist(_square(rows)), temporary)


def _square(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with the same keys: Arrow takes those of the first alone."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [{name: row.get(name) for name in names} for row in rows]


def _read(path: Path, torn: list[str]) -> list[dict[str, Any]]:
    """The rows of a file; one that is damaged is set aside and named in `torn`, one that has just gone has no rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as file:  # not read_table: that would take columns from the folders' names
            rows: list[dict[str, Any]] = pq.ParquetFile(file).read().to_pylist()
    except FileNotFoundError:
        return []
    except (OSError, pa.ArrowException) as error:
        aside = path.with_suffix(".torn")
        path.replace(aside)
        torn.append(str(aside))
        _log.warning("%s is damaged and was set aside as %s: %s", path, aside.name, error)
        return []
    return [_checked(path, row) for row in rows]


def _checked(path: Path, row: dict[str, Any]) -> dict[str, Any]:
    """A row as of this schema. Errors: `ResultsError`."""
    if row.get("schema") == 1:  # schema 1 knew no studies
        row = {**row, "schema": SCHEMA, "study": SINGLE}
    if row.get("schema") != SCHEMA:
        raise ResultsError(
            f"{path} has another schema than {SCHEMA}: {row.get('schema')}",
            hint="read it with the version that wrote it",
        )
    for name, value in row.items():
        kind = _type_of(name)
        if value is None or kind == "any":
            continue
        if not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"):
            raise ResultsError(f"{path}: {name}={value!r} is no {kind}", hint="move the file away, or mend it")
    return row


@functools.cache
def _type_of(column: str) -> str:
    return next((row["type"] for row in columns() if fnmatch.fnmatchcase(column, row["name"])), "any")
