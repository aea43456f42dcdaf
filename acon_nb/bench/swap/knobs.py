"""The knobs of a cell: what a cell sets, in the words of its guest, and the table of where each knob is."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from acon_nb.bench.swap.factors import SwapFactors

_TABLE = Path(__file__).with_name("knobs.toml")
# The pages that the fill copies, locked, and the programs of the cell in the initrd
INSTRUMENT_BYTES = 16 << 20
REDIS_BYTES = 36 << 20  # redis' libraries lie in the initrd too
_PAGE_TABLE_SHARE = 64  # the kernel keeps 64 bytes (struct page) for each 4 KiB, the simulated disk's too
DEVICE = "DEVICE"  # the guest puts the name of its disk, encrypted or not, in its place


@functools.cache
def table() -> Sequence[Mapping[str, Any]]:
    """The knobs in the order in which a guest sets them: name, path, read, field, write, source."""
    rows = tomllib.loads(_TABLE.read_text())["knob"]
    return tuple({"read": row["path"], "field": 0, "write": "%s", **row} for row in rows)


def guest_table() -> str:
    """The table as the guest's script reads it."""
    columns = ("name", "path", "read", "field", "write")
    return "".join("|".join(str(row[name]) for name in columns) + "\n" for row in table())


def knobs_of(factors: SwapFactors) -> dict[str, str]:
    """The knobs that a cell sets, with their values, in the table's order."""
    values: dict[str, object] = {
        "swappiness": factors.swappiness,
        "page_cluster": factors.page_cluster,
        "min_free": factors.min_free_bytes >> 10,
        "lru_gen": "0x0007" if factors.lru_gen else None,
        "swap_bios": factors.swap_bios or None,
        "zswap": "Y" if factors.swap == "zswap" else "N",
    }
    if factors.swap == "zswap":
        values |= {
            "zswap_compressor": factors.compressor,
            "pool_percent": pool_percent(factors),
            "accept_percent": factors.accept_percent,
            "shrinker": "Y" if factors.shrinker else "N",
            "zswap_writeback": None if factors.zswap_writeback else "0",
        }
    if factors.swap == "zram":
        values |= {
            "zram_streams": factors.zram_streams or None,
            "zram_compressor": factors.compressor,
            "zram_recompressor": factors.zram_recompressor or None,
            "zram_backing": DEVICE if factors.zram_writeback else None,
            "zram_size": factors.swap_bytes,
            "zram_limit": factors.zram_limit_bytes or None,
        }
    names = [str(row["name"]) for row in table()]
    return {name: str(values[name]) for name in names if values.get(name) is not None}


def pool_percent(factors: SwapFactors) -> int:
    """zswap's max_pool_percent of the guest's whole RAM, so that it is `pool_percent` of `memory`."""
    return max(1, round(factors.pool_percent * factors.memory_bytes / guest_bytes(factors)))


def guest_bytes(factors: SwapFactors) -> int:
    """The guest's whole RAM: `memory`, what the instrument itself takes, and the simulated disk's, used or not."""
    ram = factors.memory_bytes + (REDIS_BYTES if factors.workload == "redis" else INSTRUMENT_BYTES)
    if factors.disk == "delay":
        ram += factors.swap_bytes + (-(-factors.swap_bytes // _PAGE_TABLE_SHARE >> 20) << 20)
    return ram


def settle_of(factors: SwapFactors) -> str:
    """What is written between fill and accesses: "PATH=VALUE;PATH=VALUE" (zram.rst: idle, recompress, writeback)."""
    zram = "/sys/block/zram0"
    steps = []
    if factors.zram_recompressor or factors.zram_writeback:
        steps.append(f"{zram}/idle=all")
    if factors.zram_recompressor:
        steps.append(f"{zram}/recompress=type=idle")
    if factors.zram_writeback:
        steps.append(f"{zram}/writeback={factors.zram_writeback}")
    return ";".join(steps)
