"""Results as data: one row per run, Parquet, each file written whole and at once as its run ends."""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
import uuid
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acon_nb.cache import atomic_file
from acon_nb.errors import InvalidInput, ResultsError
from acon_nb.host import environment, probe_qemu
from acon_nb.host.facts import Environment

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """A dataclass (nested ones too) as one flat dict: `outer_inner` names, paths and enums as text."""
    row: dict[str, Any] = {}
    for field in dataclasses.fields(value):
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
    return {
        "schema": SCHEMA,
        "run_id": uuid.uuid4().hex,
        "timestamp": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "qemu_version": qemu.version_text,
        "qemu_package": qemu.package,
        **flat(host or environment()),
    }


class Store:
    """A folder of results: `FOLDER/KIND/RUN_ID.parquet`, one row a file, appended to by writing another file."""

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
        """Write one row; returns its file."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self.folder / kind / f"{row['run_id']}.parquet"
        with atomic_file(path) as temporary:
            pq.write_table(pa.Table.from_pylist([dict(row)]), temporary)
        return path

    def load(self, kind: str) -> pd.DataFrame:
        """All rows of a kind, oldest first. Errors: `ResultsError` for a file that is damaged or of another schema."""
        import pandas as pd

        rows = [self._read(path) for path in sorted((self.folder / kind).glob("*.parquet"))]
        if not rows:
            return pd.DataFrame()
        return pd.DataFrame([row for part in rows for row in part]).sort_values("timestamp", ignore_index=True)

    @staticmethod
    def _read(path: Path) -> list[dict[str, Any]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise ResultsError(f"{path} is damaged: {error}", hint="move it away; the other files are whole") from error
        if any(row.get("schema") != SCHEMA for row in rows):
            raise ResultsError(
                f"{path} has another schema than {SCHEMA}", hint="read it with the version that wrote it"
            )
        return rows


def frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as a DataFrame."""
    import pandas as pd

    return pd.DataFrame([dict(row) for row in rows])
