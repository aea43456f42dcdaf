"""Keep the rows of swap studies in docs/rows, and what was measured of an image in docs/case-studies.

    python tests/unit/data/keep_rows.py RESULTS [NAME ANSWER.json]

ANSWER.json is what the command of docs/case-studies.md prints with --json. What names the host is omitted.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

DOCS = Path(__file__).parents[3] / "docs"
OMITTED = {"host", "log", "kernel_log", "packages", "functions"}


def keep_rows(folder: Path) -> None:
    for study in sorted(folder.glob("swap/date=*/study=*")):
        tables = [pq.read_table(path, partitioning=None) for path in sorted(study.glob("*.parquet"))]
        table = pa.concat_tables(tables, promote_options="permissive")
        table = table.drop_columns([column for column in table.column_names if column in OMITTED])
        target = DOCS / "rows" / study.relative_to(folder) / "all-0.parquet"
        target.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, target, compression="zstd")


def keep_answer(name: str, answer: Path) -> None:
    data = json.loads(answer.read_text())
    data["corpus"].pop("path", None)
    kept = {field: data[field] for field in ("image", "command", "measured", "working_set", "corpus")}
    (DOCS / "case-studies" / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    keep_rows(Path(sys.argv[1]))
    if sys.argv[2:]:
        keep_answer(sys.argv[2], Path(sys.argv[3]))
