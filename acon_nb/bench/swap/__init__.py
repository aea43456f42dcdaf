"""Swap: the tour's question, and the study of zswap against zram (docs/swap.md)."""

from acon_nb.bench.swap.factors import SwapFactors
from acon_nb.bench.swap.question import KINDS, SwapCell, SwapRun, data_ratio, run, run_many, swap_initrd

__all__ = ["KINDS", "SwapCell", "SwapFactors", "SwapRun", "data_ratio", "run", "run_many", "swap_initrd"]
