"""The knobs of a cell: what a cell sets, under the names that its guest uses, and the table of where each knob is."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from acon_nb.swap import reclaim
from acon_nb.swap.factors import SwapFactors
from acon_nb.swap.levels import whole_mib

_TABLE = Path(__file__).with_name("knobs.toml")
# The pages that the fill copies, locked, and the programs of the cell in the initrd
INSTRUMENT_BYTES = 16 << 20
REDIS_BYTES = 36 << 20  # redis' libraries lie in the initrd too
FILE_BYTES = 8 << 20  # mkfs.ext4 and its libraries
_PAGE_TABLE_SHARE = 64  # the kernel keeps 64 bytes (struct page) for each 4 KiB, the simulated disk's too
_PAGE_DOCUMENTS = 8  # guest/src/stores.h
_STORES = ("tmpfs", "anon", "redis", "file")
DICTIONARY = "/acon/dictionary"  # in the initrd; the level's knob of knobs.toml has the name, too
DEVICE = "DEVICE"  # the guest puts the name of its disk, encrypted or not, in its place


@functools.cache
def table() -> Sequence[Mapping[str, Any]]:
    """The knobs in the order in which a guest sets them: name, factor, path, read, field, write, source."""
    rows = [one for row in tomllib.loads(_TABLE.read_text())["knob"] for one in _each(row)]
    return tuple({"factor": row["name"], "read": row["path"], "field": 0, "write": "%s", **row} for row in rows)


def _each(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A knob, or one for each of its sizes."""
    if "per" not in row:
        return [row]
    return [{**row, "name": f"{row['name']}_{one}", "path": row["path"].format(one)} for one in row["per"]]


@functools.cache
def compressors() -> Mapping[str, Mapping[str, str]]:
    """The kernel options that bring a compressor to zram and to the crypto API (zswap), by its name."""
    return {row["name"]: row for row in tomllib.loads(_TABLE.read_text())["compressor"]}


@functools.cache
def allocators() -> Mapping[str, Mapping[str, Any]]:
    """The kernel options that bring an allocator of zswap, by its name."""
    return {row["name"]: row for row in tomllib.loads(_TABLE.read_text())["allocator"]}


def guest_table() -> str:
    """The table as the guest's script reads it."""
    columns = ("name", "path", "read", "field", "write", "factor")
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
        **reclaim.knobs_of(factors),
    }
    if factors.swap == "zswap":
        values |= {
            "zswap_compressor": factors.compressor,
            "zpool": factors.zpool or None,
            "zswap_max": factors.zswap_max_bytes or None,
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
            "zram_recompressor_level": factors.zram_recompressor_level or None,
            **_parameters(factors),
            "zram_backing": DEVICE if factors.zram_writeback else None,
            "zram_writeback_compressed": "1" if factors.zram_writeback_compressed else None,
            "zram_size": factors.swap_bytes,
            "zram_limit": factors.zram_limit_bytes or None,
        }
    names = [str(row["name"]) for row in table()]
    return {name: str(values[name]) for name in names if values.get(name) is not None}


def _parameters(factors: SwapFactors) -> dict[str, object]:
    """zram's algorithm_params, whose level and dictionary are written at once: each write forgets the one before."""
    if factors.zram_dictionary and factors.compressor_level:
        return {"zram_level_dictionary": factors.compressor_level}
    if factors.zram_dictionary:
        return {"zram_dictionary": DICTIONARY}
    return {"zram_level": factors.compressor_level or None}


def pool_percent(factors: SwapFactors) -> int:
    """zswap's max_pool_percent of the guest's whole RAM, so that it is `pool_percent` of `memory`."""
    return max(1, round(factors.pool_percent * factors.memory_bytes / guest_bytes(factors)))


def guest_bytes(factors: SwapFactors) -> int:
    """The guest's whole RAM: `memory`, what the instrument itself takes, and the simulated disk's, used or not."""
    own = {"redis": REDIS_BYTES, "file": INSTRUMENT_BYTES + FILE_BYTES}.get(factors.workload, INSTRUMENT_BYTES)
    ram = factors.memory_bytes + own + table_bytes(factors) + factors.boot_room_bytes
    if factors.disk == "delay":
        ram += factors.disk_bytes + whole_mib(factors.disk_bytes // _PAGE_TABLE_SHARE)
    return ram


def table_bytes(factors: SwapFactors) -> int:
    """The workload's locked tables in whole MiB: 4 bytes a page for how often it was written; for Zipf's law 4 for its
    sums and 4 for the order of the ranks. Of redis, as many documents as may fit are counted in place of pages."""
    things = factors.pages * (_PAGE_DOCUMENTS if factors.workload == "redis" else 1)
    return whole_mib(things * (12 if factors.pattern == "zipf" else 4)) if factors.workload in _STORES else 0


def settle_of(factors: SwapFactors) -> str:
    """What is written after the fill, or every `zram_interval`: "PATH=VALUE;PATH=VALUE" (zram.rst).

    By age, or once, pages are marked idle and then dealt with. At intervals without an age those are dealt with that
    are still idle since the last time, then all are marked for the next.
    """
    zram = "/sys/block/zram0"
    steps = []
    if factors.zram_recompressor:
        steps.append(f"{zram}/recompress=type=idle")
    if factors.zram_writeback:
        steps.append(f"{zram}/writeback={factors.zram_writeback}")
    if not steps:
        return ""
    mark = f"{zram}/idle={factors.zram_idle_age_s or 'all'}"
    later = factors.zram_interval and not factors.zram_idle_age
    return ";".join([*steps, mark] if later else [mark, *steps])
