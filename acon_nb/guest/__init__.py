"""Programs that run inside guests, and how their kernels' logs and addresses are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acon_nb.lazy import submodules

if not TYPE_CHECKING:
    __getattr__ = submodules(__name__)
