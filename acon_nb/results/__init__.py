"""Results as data: one row per run, in Parquet files; what their columns mean, and which rows count."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acon_nb.lazy import submodules
from acon_nb.results.export import export
from acon_nb.results.store import NO_COLUMN, Store, flat, frame, load, stamp

__all__ = ["NO_COLUMN", "Store", "export", "flat", "frame", "load", "stamp"]

if not TYPE_CHECKING:
    __getattr__ = submodules(__name__)
