"""Which factors of a swap study apply to a cell: those that its swap, its disk and its workload have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from acon_nb.swap import limits, setups
from acon_nb.swap.factor_checks import DEFAULTS, DISK_SPEED, OWNED, PROGRAM_ONLY
from acon_nb.swap.levels import PLAIN

_Levels = Mapping[str, Any]


def applies(factor: str, levels: _Levels) -> bool:
    """Whether a factor applies to a cell of these levels; what the plan does not give is as by default.

    `factor_checks` refuses by name what does not apply and is given all the same.
    """
    condition = _CONDITIONS.get(factor)
    if condition is None:
        return True
    known = {**DEFAULTS, **setups.decided_by(str(levels.get("setup", ""))), **levels}
    known["swap"] = str(known["swap"]).partition(":")[0]
    return condition(known)


def _of_swap(*kinds: str) -> Callable[[_Levels], bool]:
    return lambda known: known["swap"] in kinds


def _has_disk(known: _Levels) -> bool:
    return known["swap"] in ("disk", "zswap") or (known["swap"] == "zram" and bool(known["zram_writeback"]))


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
    "file_share": lambda known: known["workload"] == "file",
    "locality": lambda known: known["pattern"] == "zipf",
    **{name: lambda known: known["workload"] == "program" for name in PROGRAM_ONLY},
    **{name: lambda known: known["disk"] != "virtio" for name in DISK_SPEED},
    **{name: lambda known: bool(known["reclaim_interval"]) for name in limits.RECLAIM},
    "cgroup_swap_max": _of_swap("disk", "zram", "zswap"),
    "threads": lambda known: known["workload"] in limits.THREADED,
}
