"""The control groups of a cell: limits in bytes, proactive reclaim, and the parameters that its guest gets.

A limit is a size ("64M") or a multiple of the part of the working set that one group has ("0.5x").
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from acon_nb.errors import InvalidInput
from acon_nb.progress import OnProgress, Progress
from acon_nb.units import parse_bytes, parse_ns
from acon_nb.vm import Capabilities, Clock

if TYPE_CHECKING:
    from acon_nb.swap.levels import Levels

PAGE_BYTES = 4096
MOST_GROUPS = 64
# factor -> file of the group; in the order in which they are set: what is protected before what is limited
LIMITS = {
    "cgroup_low": "memory.low",
    "cgroup_swap_max": "memory.swap.max",
    "cgroup_high": "memory.high",
    "cgroup_max": "memory.max",
}
RECLAIM = ("reclaim_target", "reclaim_step", "reclaim_floor")  # of the controller that reclaim_interval starts
WORKLOAD_ONLY = ("groups", *LIMITS, "reclaim_interval", *RECLAIM, "threads")  # what a calibration's guest does not have
THREADED = ("tmpfs", "anon", "file")  # the workloads whose accesses several threads can do
_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,4})?)x")
_LEAST_BYTES = 1 << 20


def has_groups(levels: Levels) -> bool:
    """Whether the workload has control groups of its own, in the place of one that it shares with the instrument."""
    return levels.groups > 1 or bool(levels.reclaim_interval) or any(getattr(levels, name) for name in LIMITS)


def bytes_of(levels: Levels, name: str) -> int | None:
    """A limit of each group in bytes, whole pages; None where it is not set. Errors: `InvalidInput`."""
    text = str(getattr(levels, name))
    if not text:
        return None
    match = _SHARE.fullmatch(text)
    hint = "a size such as 64M, or a multiple of the group's working set such as 0.5x"
    if match:
        size = int(float(match[1]) * levels.pages / levels.groups) * PAGE_BYTES
    else:
        try:
            size = parse_bytes(text, field=name, bare="M") // PAGE_BYTES * PAGE_BYTES
        except InvalidInput as error:
            raise InvalidInput(name, text, error.reason, hint=hint) from error
    if name in ("cgroup_max", "cgroup_high") and size < _LEAST_BYTES:
        raise InvalidInput(name, text, f"is {size} bytes a group: less than 1 MiB", hint=hint)
    return size


def limit_bytes(levels: Levels) -> int | None:
    """The memory that the groups may have together: the lesser of memory.high and memory.max; None without a limit."""
    known = [size for name in ("cgroup_high", "cgroup_max") if (size := bytes_of(levels, name)) is not None]
    return levels.groups * min(known) if known else None


def cell_words(levels: Levels) -> dict[str, str | int]:
    """What the guest's script and workload need to know; nothing for a cell without groups."""
    if not has_groups(levels):
        return {}
    limits = ((file, bytes_of(levels, name)) for name, file in LIMITS.items())
    words: dict[str, str | int] = {
        "groups": levels.groups,
        "limits": ";".join(f"{file}:{size}" for file, size in limits if size is not None),
    }
    if levels.reclaim_interval:
        words |= {
            "reclaim_ns": parse_ns(levels.reclaim_interval, field="reclaim_interval"),
            "reclaim_target": round(levels.reclaim_target * 1e6),
            "reclaim_step": round(levels.reclaim_step * 1e6),
            "reclaim_floor": bytes_of(levels, "reclaim_floor") or 0,
        }
    return words


def columns(levels: Levels) -> dict[str, int]:
    """The limits of each group in bytes, and what they may have together, for a row."""
    sizes = ((f"{name}_bytes", bytes_of(levels, name)) for name in LIMITS)
    row = {name: size for name, size in sizes if size is not None}
    limit = limit_bytes(levels)
    return row | ({} if limit is None else {"limit_bytes": limit})


def check(levels: Levels, defaults: Mapping[str, object]) -> None:
    """Check groups, limits, threads and vCPUs against the other factors. Errors: `InvalidInput`."""
    _check_cpus(levels)
    if levels.groups > 1:
        _check_several(levels)
    sizes = {name: bytes_of(levels, name) for name in (*LIMITS, "reclaim_floor")}
    if not levels.reclaim_interval:
        for name in RECLAIM:
            if getattr(levels, name) != defaults[name]:
                hint = "give reclaim_interval too, such as 1s"
                raise InvalidInput(name, getattr(levels, name), "is of proactive reclaim", hint=hint)
    elif parse_ns(levels.reclaim_interval, field="reclaim_interval") < 1_000_000:
        hint = "1ms or more, such as 1s; TMO has 6s"
        raise InvalidInput("reclaim_interval", levels.reclaim_interval, "is too short to read a pressure", hint=hint)
    low, most = sizes["cgroup_low"], limit_bytes(levels)
    if low is not None and most is not None and low * levels.groups > most:
        hint = "at most memory.high and memory.max"
        raise InvalidInput("cgroup_low", levels.cgroup_low, "protects more than the group may have", hint=hint)
    if sizes["cgroup_swap_max"] is not None and levels.swap == "none":
        raise InvalidInput("cgroup_swap_max", levels.cgroup_swap_max, "limits a swap that is not there", hint="omit it")


def check_host(levels: Levels, host: Capabilities, on_progress: OnProgress) -> None:
    """Check a cell against the host: KVM where a plan requires it; a warning where a vCPU has no CPU of its own.

    Errors: `InvalidInput`.
    """
    if levels.accelerator == "kvm" and not host.kvm:
        raise InvalidInput("accelerator", "kvm", host.kvm_why, hint="use accelerator=auto or tcg; see acon-nb doctor")
    cpus = len(os.sched_getaffinity(0))
    if levels.vcpus > cpus:
        text = f"{levels.vcpus} vCPUs share {cpus} CPUs of this host: their wall times are also its scheduler's"
        on_progress(Progress("warning, vcpus", None, text))


def _check_cpus(levels: Levels) -> None:
    if levels.clock == Clock.INSTRUCTIONS and levels.vcpus > 1:
        hint = "clock=wall, or vcpus=1; threads may be more than one on either clock"
        reason = "is more than the instruction clock has: QEMU runs all vCPUs in one thread there, one after another"
        raise InvalidInput("vcpus", levels.vcpus, reason, hint=hint)
    if levels.threads > 1 and levels.workload not in THREADED:
        hint = "workload tmpfs, anon or file; redis has one thread, a program has its own"
        raise InvalidInput("threads", levels.threads, f"cannot be set of workload={levels.workload}", hint=hint)
    if levels.threads > levels.accesses // 2:
        raise InvalidInput("threads", levels.threads, "is more than the accesses that count", hint="give more accesses")


def _check_several(levels: Levels) -> None:
    """Check what several workers cannot have."""
    if levels.workload not in ("tmpfs", "anon"):
        hint = "workload=tmpfs or anon"
        raise InvalidInput("groups", levels.groups, f"is not known of workload={levels.workload}", hint=hint)
    if levels.until_steady:
        hint = "omit it: each group would be steady at another time"
        raise InvalidInput("until_steady", levels.until_steady, "does not go with several groups", hint=hint)
    if levels.pages // levels.groups < 256 or levels.accesses // levels.groups < 2 * levels.threads:
        hint = "a larger working set and more accesses, or fewer groups"
        raise InvalidInput("groups", levels.groups, "leaves each group less than 1 MiB or two accesses", hint=hint)
