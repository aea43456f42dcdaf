"""Which factors of a swap study apply to a cell: those that its swap, its disk and its workload have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from acon_nb.swap import limits, setups
from acon_nb.swap.factor_checks import DEFAULTS, DISK_SPEED, OWNED, PROGRAM_ONLY, WITH_DICTIONARY, WITH_LEVELS
from acon_nb.swap.levels import PLAIN
from acon_nb.swap.reclaim import DAMON

_Levels = Mapping[str, Any]


def applies(factor: str, levels: _Levels) -> bool:
    """Whether a factor applies to a cell of these levels; what the plan does not give is as by default.

    `factor_checks` refuses by name what does not apply and is given all the same.
    """
    condition = _CONDITIONS.get(factor)
    if condition is None:
        return True
    known = {**DEFAULTS, **setups.decided_by(str(levels.get("setup", ""))), **levels}
    swap, _, compressor = str(known["swap"]).partition(":")
    known["swap"], known["compressor"] = swap, compressor or known["compressor"] or "lz4"
    return condition(known)


def _of_swap(*kinds: str) -> Callable[[_Levels], bool]:
    return lambda known: known["swap"] in kinds


def _of_compressor(kinds: Sequence[str]) -> Callable[[_Levels], bool]:
    return lambda known: known["swap"] == "zram" and str(known["compressor"]).partition(":")[0] in kinds


def _has_disk(known: _Levels) -> bool:
    behind = known["swap"] == "zram" and bool(known["zram_writeback"] or known["zram_fallback"])
    return known["swap"] in ("disk", "zswap") or behind


def _is_encrypted(known: _Levels) -> bool:
    return _has_disk(known) and known["encryption"] != PLAIN


def _writes_back(known: _Levels) -> bool:
    return known["swap"] == "zram" and bool(known["zram_writeback"])


def _has_rounds(known: _Levels) -> bool:
    return _writes_back(known) or (known["swap"] == "zram" and bool(known["zram_recompressor"]))


_CONDITIONS: Mapping[str, Callable[[_Levels], bool]] = {
    **{name: _of_swap(owner) for owner, names in OWNED.items() for name in names},
    "compressor": _of_swap("zram", "zswap"),
    "encryption": _has_disk,
    "tags": _is_encrypted,
    "crypt_writes": _is_encrypted,
    "zram_writeback_compressed": _writes_back,
    "zram_interval": _has_rounds,
    "zram_idle_age": _has_rounds,
    "zram_recompressor_level": lambda known: known["swap"] == "zram" and bool(known["zram_recompressor"]),
    "compressor_level": _of_compressor(WITH_LEVELS),
    "zram_dictionary": _of_compressor(WITH_DICTIONARY),
    "lru_min_ttl_ms": lambda known: bool(known["lru_gen"]),
    **{name: lambda known: bool(known["damon_reclaim"]) for name in DAMON},
    "file_share": lambda known: known["workload"] == "file",
    "locality": lambda known: known["pattern"] == "zipf",
    **{name: lambda known: known["workload"] == "program" for name in PROGRAM_ONLY},
    **{name: lambda known: known["disk"] != "virtio" for name in DISK_SPEED},
    **{name: lambda known: bool(known["reclaim_interval"]) for name in limits.RECLAIM},
    "cgroup_swap_max": _of_swap("disk", "zram", "zswap"),
    "threads": lambda known: known["workload"] in limits.THREADED,
}
