"""Studies of swap: zswap, zram and disks compared (docs/swap.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acon_nb.lazy import submodules
from acon_nb.swap.factors import SwapFactors

__all__ = ["SwapFactors"]

if not TYPE_CHECKING:
    __getattr__ = submodules(__name__)
