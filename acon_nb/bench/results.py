"""Results as data: one row a run, a Parquet file a row, each written whole and at once as its run ends.

The dataset is `FOLDER/KIND/date=YYYY-MM-DD/study=NAME/RUN_ID.parquet`; the logs of a study's runs are beside it under
`FOLDER/logs`. Any number of writers may add rows at the same time. `columns.toml` documents the schema, which is
checked on reading; a file that cannot be read is set aside (renamed to `*.torn`) and named, and breaks nothing.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acon_nb.bench import parquet
from acon_nb.bench.parquet import SCHEMA, SINGLE
from acon_nb.cache import atomic_file
from acon_nb.errors import InvalidInput
from acon_nb.host import environment, probe_qemu
from acon_nb.host.facts import Environment

if TYPE_CHECKING:
    import pandas as pd

NO_COLUMN = {"column": False}  # metadata of a dataclass's field that is no column


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
        return self.add_all(kind, [row])[0]

    def add_all(self, kind: str, rows: Sequence[Mapping[str, Any]]) -> list[Path]:
        """Write rows that came together, a file a day and study (and set of types); returns the files."""
        folders: dict[Path, list[Mapping[str, Any]]] = {}
        for row in rows:
            values = {"kind": kind, "study": SINGLE, **row}
            folders.setdefault(self._partition(kind, values), []).append(values)
        return [path for folder, found in folders.items() for path in parquet.write_alike(folder, found)]

    def log_path(self, row: Mapping[str, Any]) -> Path:
        """Where the log of a row belongs, relative to the folder."""
        return Path("logs", _part(row.get("study", SINGLE)), f"{row['run_id']}.log")

    def keep_logs(self, row: Mapping[str, Any], console: bytes, kernel_log: str) -> dict[str, str]:
        """Write a run's logs where they belong; returns the columns `log` and `kernel_log` ("": none)."""
        place = self.log_path(row)
        columns = {}
        for name, path, data in (
            ("log", place, console),
            ("kernel_log", place.with_suffix(".kmsg"), kernel_log.encode()),
        ):
            columns[name] = str(path) if data else ""
            if data:
                with atomic_file(self.folder / path) as temporary:
                    temporary.write_bytes(data)
        return columns

    def load(self, kind: str, study: str | None = None, *, only: Sequence[str] | None = None) -> pd.DataFrame:
        """All rows of a kind (and of a study), oldest first; `attrs["set_aside"]` names files that were damaged.

        `only` reads these columns alone (and those that reading needs), which is faster.
        Errors: `ResultsError` for a file of a newer schema or with a column of another type than its own.
        """
        wanted = None if only is None else tuple(dict.fromkeys(["run_id", "timestamp", "study", *only]))
        table, torn = parquet.read_all(lambda: self._files(kind, study), only=wanted)
        if not table.empty:
            table = table if study is None else table[table["study"] == study]
            table = table.sort_values("timestamp", kind="stable", ignore_index=True)
        table.attrs["set_aside"] = torn
        return table

    def studies(self, kind: str) -> list[str]:
        """The names of the studies that have rows of a kind."""
        names = (path.name.removeprefix("study=") for path in (self.folder / kind).glob("date=*/study=*"))
        return sorted(set(names))

    def compact(self, kind: str, *, before: dt.date | None = None) -> int:
        """Gather the rows of each past day and study in one file; returns how many files went."""
        limit = (before or dt.datetime.now(dt.UTC).date()).isoformat()
        return sum(
            parquet.gather(sorted(folder.glob("*.parquet")))
            for folder in sorted((self.folder / kind).glob("date=*/study=*"))
            if folder.parent.name.removeprefix("date=") < limit
        )

    def gather(self, paths: Iterable[Path]) -> None:
        """Gather rows that `add` wrote, a file each, in one file a day and study; for writers of many rows."""
        folders: dict[Path, list[Path]] = {}
        for path in paths:
            folders.setdefault(path.parent, []).append(path)
        for found in folders.values():
            parquet.gather(found)

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


def _text(path: Path, text: str) -> None:
    path.write_text(text)


def _part(text: object) -> str:
    """A text as one part of a path."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", str(text)) or "-"
