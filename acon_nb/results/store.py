"""Results as data: one row per run, each written atomically to a Parquet file of its own when its run ends.

The dataset is `FOLDER/KIND/date=YYYY-MM-DD/study=NAME/RUN_ID.parquet`; the logs of a study's runs are next to it under
`FOLDER/logs`, profiles under `FOLDER/profiles`. Any number of writers may add rows at the same time. `columns.toml`
documents the schema, which is checked on reading; a damaged file is set aside (renamed to `*.torn`) and named, and the
others are still read.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acon_nb.cache import atomic_file
from acon_nb.errors import InvalidInput
from acon_nb.host import environment, probe_qemu
from acon_nb.host.facts import Environment
from acon_nb.results import parquet
from acon_nb.results.older import SCHEMA, SINGLE

if TYPE_CHECKING:
    import pandas as pd

_LOGS, PROFILES = "logs", "profiles"
NO_COLUMN = {"column": False}  # metadata of a dataclass's field that is not a column


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Convert a dataclass (with nested ones) to one flat dict: `outer_inner` names, paths and enums as text.

    Fields with `metadata=NO_COLUMN` are omitted.
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
    """Return what is recorded with every run: schema, id, time (UTC), the host and its QEMU."""
    qemu = probe_qemu()
    host = host or environment()
    return {
        "schema": SCHEMA,
        "run_id": uuid.uuid4().hex,
        "timestamp": dt.datetime.now(dt.UTC).isoformat(timespec="microseconds"),  # rows of one second keep their order
        "qemu_version": qemu.version_text,
        "qemu_package": qemu.package,
        **flat(host),
        "host_class": host.host_class,
    }


class Store:
    """A folder of results (the module's docstring describes its layout)."""

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
        """Write one row (`study` is the name of its study); return its file."""
        return self.add_all(kind, [row])[0]

    def add_all(self, kind: str, rows: Sequence[Mapping[str, Any]]) -> list[Path]:
        """Write several rows, one file per day and study (and set of types); return the files."""
        folders: dict[Path, list[Mapping[str, Any]]] = {}
        for row in rows:
            values = {"kind": kind, "study": SINGLE, **row}
            folders.setdefault(self._partition(kind, values), []).append(values)
        return [path for folder, values in folders.items() for path in parquet.write_alike(folder, values)]

    def log_path(self, row: Mapping[str, Any]) -> Path:
        """Return the path of a row's log, relative to the folder."""
        return Path(_LOGS, _part(row.get("study", SINGLE)), f"{row['run_id']}.log")

    def keep_logs(self, row: Mapping[str, Any], console: bytes, kernel_log: str) -> dict[str, str]:
        """Write a run's logs; return the columns `log` and `kernel_log` ("": none)."""
        log = self.log_path(row)
        columns = {}
        for name, path, data in (
            ("log", log, console),
            ("kernel_log", log.with_suffix(".kmsg"), kernel_log.encode()),
        ):
            columns[name] = str(path) if data else ""
            if data:
                with atomic_file(self.folder / path) as temporary:
                    temporary.write_bytes(data)
        return columns

    def keep_profile(self, profile: bytes) -> dict[str, str]:
        """Write a run's profile, named by its content; return the columns `profile` and `profile_sha256` (b"": none).

        Runs that executed the same share one file.
        """
        if not profile:
            return {}
        digest = hashlib.sha256(profile).hexdigest()
        path = Path(PROFILES, f"{digest}.json")
        if not (self.folder / path).is_file():
            with atomic_file(self.folder / path) as temporary:
                temporary.write_bytes(profile)
        return {"profile": str(path), "profile_sha256": digest}

    def load(self, kind: str = "", study: str | None = None, *, only: Sequence[str] | None = None) -> pd.DataFrame:
        """Read all rows of a kind (and of a study), oldest first; `attrs["set_aside"]` names files that were damaged.

        `kind` may be omitted if the folder (or the study) has rows of one kind only. `only` limits reading to these
        columns (and those that reading needs), which is faster.
        Errors: `ResultsError` for a file of a newer schema or with a column of another type than its own;
        `InvalidInput` for rows of several kinds.
        """
        kind = kind or self._only_kind(study)
        wanted = None if only is None else tuple(dict.fromkeys(["run_id", "timestamp", "study", *only]))
        table, torn = parquet.read_all(lambda: sorted(self._files(kind, study)), only=wanted)
        if not table.empty:
            table = table if study is None else table[table["study"] == study]
            table = table.sort_values("timestamp", kind="stable", ignore_index=True)
        table.attrs["set_aside"] = torn
        return table

    def studies(self, kind: str) -> list[str]:
        """Return the names of the studies that have rows of a kind ("": of any)."""
        names = (path.name.removeprefix("study=") for path in self.folder.glob(f"{kind or '*'}/date=*/study=*"))
        return sorted(set(names))

    def kinds(self, study: str | None = None) -> list[str]:
        """Return the kinds that have rows (of a study)."""
        folders = (path.name for path in self.folder.iterdir() if path.is_dir() and path.name not in (_LOGS, PROFILES))
        return sorted(kind for kind in folders if next(self._files(kind, study), None) is not None)

    def compact(self, kind: str, *, before: dt.date | None = None) -> int:
        """Gather the rows of each past day and study in one file; return how many files were removed."""
        limit = (before or dt.datetime.now(dt.UTC).date()).isoformat()
        return sum(
            parquet.gather(sorted(folder.glob("*.parquet")))
            for folder in sorted((self.folder / kind).glob("date=*/study=*"))
            if folder.parent.name.removeprefix("date=") < limit
        )

    def gather(self, paths: Iterable[Path]) -> None:
        """Gather rows that `add` wrote one by one into one file per day and study; for writers of many rows."""
        folders: dict[Path, list[Path]] = {}
        for path in paths:
            folders.setdefault(path.parent, []).append(path)
        for files in folders.values():
            parquet.gather(files)

    def _partition(self, kind: str, row: Mapping[str, Any]) -> Path:
        date = str(row["timestamp"])[:10]
        return self.folder / kind / f"date={_part(date)}" / f"study={_part(row['study'])}"

    def _files(self, kind: str, study: str | None) -> Iterator[Path]:
        name = "**/*.parquet" if study is None else f"date=*/study={_part(study)}/*.parquet"
        return (self.folder / kind).glob(name) if kind else iter(())

    def _only_kind(self, study: str | None) -> str:
        kinds = self.kinds(study)
        if len(kinds) > 1:
            where = self.folder if study is None else f"the study {study}"
            raise InvalidInput(
                "kind", "", f"is missing: {where} has rows of {', '.join(kinds)}", hint="give one of them"
            )
        return kinds[0] if kinds else ""


def load(folder: str | Path, kind: str = "", study: str | None = None) -> pd.DataFrame:
    """Load the rows of a folder of results as a tidy table, one row per run (columns: docs/results.md).

    Parameters and errors: `Store.load`, and `InvalidInput` for a folder that does not exist.
    """
    if not Path(folder).is_dir():
        raise InvalidInput("results", folder, "is not a folder", hint="the folder given as --out")
    return Store(Path(folder)).load(kind, study)


def frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Convert rows to a DataFrame."""
    import pandas as pd

    return pd.DataFrame([dict(row) for row in rows])


def _part(text: object) -> str:
    """Convert a text to one part of a path."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", str(text)) or "-"
