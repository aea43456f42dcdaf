"""Measuring guests: boot times and memory, swap, and the rows that come of them."""

from acon_nb.bench.boot import BootCell, BootRun, boot_initrd
from acon_nb.bench.results import Store
from acon_nb.bench.stats import Summary, summarise
from acon_nb.bench.swap import SwapCell, SwapRun, swap_initrd

__all__ = [
    "BootCell",
    "BootRun",
    "Store",
    "Summary",
    "SwapCell",
    "SwapRun",
    "boot_initrd",
    "summarise",
    "swap_initrd",
]
