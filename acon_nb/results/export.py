"""Writes tables for other programs: CSV, JSON, Markdown, LaTeX, Parquet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from acon_nb.cache import atomic_file
from acon_nb.errors import InvalidInput

if TYPE_CHECKING:
    import pandas as pd


def export(table: pd.DataFrame, path: Path) -> Path:
    """Write a table as .csv, .json, .md, .tex or .parquet, by the suffix. Errors: `InvalidInput` for another suffix."""
    writers: dict[str, Callable[[Path], None]] = {
        ".csv": lambda out: table.to_csv(out, index=False),
        ".json": lambda out: table.to_json(out, orient="records", indent=1),
        ".md": lambda out: _text(out, table.to_markdown(index=False) + "\n"),
        ".tex": lambda out: _text(out, table.to_latex(index=False, escape=True)),
        ".parquet": lambda out: table.to_parquet(out, index=False),
    }
    if path.suffix not in writers:
        raise InvalidInput("output", path, "has no suffix of a known format", hint=f"one of {', '.join(writers)}")
    with atomic_file(path) as temporary:
        writers[path.suffix](temporary)
    return path


def _text(path: Path, text: str) -> None:
    path.write_text(text)
