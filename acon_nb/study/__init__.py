"""Studies: a plan of factors, cells and runs, run on this host or on many, resumed and watched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acon_nb.lazy import submodules

if not TYPE_CHECKING:
    __getattr__ = submodules(__name__)
