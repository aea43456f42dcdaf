"""Why each MiB goes where it goes: a guest's RAM down to MemAvailable, in parts that add up to the byte.

The report carries what the kernel tells (/proc/meminfo, zoneinfo, vmstat, iomem, its log); `parts` sorts it out.
`memory.toml` has the parts in order, each with its reason and its source. What no counter has is a part of its own,
named as the rest that it is. Source: Documentation/filesystems/proc.rst, mm/show_mem.c, mm/page_alloc.c.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acon_nb import results
from acon_nb.errors import InvalidInput
from acon_nb.guest.kernel_log import Record
from acon_nb.results.metrics import metric
from acon_nb.units import format_bytes

if TYPE_CHECKING:
    import pandas as pd

_FACTS = Path(__file__).with_name("memory.toml")
_LOG_INDEX_BYTES = 24 + 88  # struct prb_desc, struct printk_info
_SECTION_BYTES = 128 << 20  # SECTION_SIZE_BITS of x86-64
_MEMMAP_OF_SECTION_BYTES = 2 << 20
_IOMEM = re.compile(r" *([0-9a-f]{1,16})-([0-9a-f]{1,16}) : (.+)")
_ZONE_NUMBERS = ("present", "managed", "low", "high", "spanned")
_HASH = re.compile(r".* hash table entries: \d+ \(order:? ?-?\d+, (\d+) bytes(?:, (\w+))?\)")
_PERCPU = re.compile(r"percpu: Embedded (\d+) pages/cpu")
_CPUS = re.compile(r"setup_percpu: .*nr_cpu_ids:(\d+)")
_INITRD = re.compile(r"RAMDISK: \[mem 0x([0-9a-f]{1,16})-0x([0-9a-f]{1,16})\]")
_SWIOTLB = re.compile(r"software IO TLB: mapped \[mem 0x([0-9a-f]{1,16})-0x([0-9a-f]{1,16})\]")
_LOG = re.compile(r"printk: log_buf_len: (\d+) bytes")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of the table: its name (column `mem_NAME_bytes`), its group, why, and from where."""

    name: str
    group: str
    why: str
    source: str

    @property
    def column(self) -> str:
        """The column of a row of results."""
        return f"mem_{self.name}_bytes"

    @property
    def label(self) -> str:
        """Its words for people, which `columns.toml` has."""
        return metric(self.column).label


@dataclass(frozen=True, kw_only=True)
class Zones:
    """The sums over the zones of /proc/zoneinfo, in pages; `reserve` is what the kernel keeps for itself."""

    present: int
    managed: int
    low: int
    reserve: int
    pcp: int


@functools.cache
def all_parts() -> Sequence[Part]:
    """The parts, from the RAM down to MemAvailable."""
    return tuple(Part(**row) for row in tomllib.loads(_FACTS.read_text())["part"])


def parts(report: Mapping[str, Any], log: Sequence[Record], ram_bytes: int) -> dict[str, int]:
    """The bytes of each part, by name; with MemAvailable they add up to `ram_bytes`.

    `report` is the guest's "ready" message, `log` its kernel's records. A report that lacks what is needed (an older
    one, or a hostile guest's) gives an empty dict.
    """
    page = _number(report.get("page_bytes"))
    info = {name: 1024 * _number(value) for name, value in _table(report.get("meminfo_kib")).items()}
    zones = read_zones(str(report.get("zoneinfo", "")))
    if not page or zones is None or not {"MemTotal", "MemFree", "MemAvailable"} <= info.keys():
        return {}
    vmstat = _table(report.get("vmstat"))
    reserved = _reserved(str(report.get("iomem", "")), log, _number(vmstat.get("nr_memmap_boot_pages")) * page)
    used = _used(info, log, _table(report.get("vmalloc")), reserved["percpu_first"], zones.pcp * page)
    total = info["MemTotal"]
    sizes = {
        "firmware": ram_bytes - zones.present * page,
        **reserved,
        "reserved_rest": zones.present * page - total - sum(reserved.values()),
        **used,
        **_kept(info, zones, page, _number(vmstat.get("nr_kernel_misc_reclaimable")) * page),
    }
    reclaimable = info.get("KReclaimable", info.get("SReclaimable", 0)) + _file_lru(info)
    sizes["used_rest"] = total - info["MemFree"] - sum(used.values()) - reclaimable
    sizes["unsettled"] = ram_bytes - info["MemAvailable"] - sum(sizes.values())
    return {part.name: sizes[part.name] for part in all_parts()}


def read_zones(text: str) -> Zones | None:
    """The sums of /proc/zoneinfo, or None where there is no zone. Zones with no page count nothing."""
    zones: list[dict[str, int]] = []
    protection: list[int] = []
    pcp = 0
    for line in text.splitlines():
        words = line.replace(":", " ").split()
        if re.match(r"Node \d+, zone +\w+", line):
            zones.append({})
            protection.append(0)
        elif not zones or len(words) < 2:
            continue
        elif words[0] in _ZONE_NUMBERS and words[0] not in zones[-1] and words[1].isdecimal():
            zones[-1][words[0]] = int(words[1])
        elif words[0] == "protection":
            protection[-1] = max([int(number) for number in re.findall(r"\d+", line)], default=0)
        elif words[0] == "count" and words[1].isdecimal():
            pcp += int(words[1])
    if not any(zone.get("managed") for zone in zones):
        return None
    sums = {name: sum(zone.get(name, 0) for zone in zones) for name in ("present", "managed", "low")}
    # calculate_totalreserve_pages: the largest lowmem reserve and the high watermark, at most all of the zone
    kept = (
        min(most + zone.get("high", 0), zone.get("managed", 0)) for zone, most in zip(zones, protection, strict=True)
    )
    return Zones(**sums, reserve=sum(kept), pcp=pcp)


def read_iomem(text: str) -> list[tuple[str, int, int]]:
    """The resources of /proc/iomem: name, first and last byte. Other lines are skipped."""
    regions = []
    for line in text.splitlines():
        match = _IOMEM.fullmatch(line)
        if match and int(match[2], 16) >= int(match[1], 16):
            regions.append((match[3], int(match[1], 16), int(match[2], 16)))
    return regions


def kernel_start(report: Mapping[str, Any]) -> int | None:
    """The physical address of the kernel's first byte, as the guest's /proc/iomem has it (root sees it)."""
    starts = [first for name, first, _ in read_iomem(str(report.get("iomem", ""))) if name == "Kernel code"]
    return starts[0] if starts and starts[0] else None


def initrd_bytes(log: Sequence[Record]) -> tuple[int, bool]:
    """The size of the initrd as the kernel found it in memory, and whether the kernel has freed it."""
    spans = [match for record in log if (match := _INITRD.match(record.text))]
    freed = any(record.text.startswith("Freeing initrd memory") for record in log)
    return (int(spans[0][2], 16) - int(spans[0][1], 16) + 1 if spans else 0), freed


def is_known(row: Mapping[str, Any]) -> bool:
    """Whether a row of results has the parts: its guest reported them."""
    values = [row.get(part.column) for part in all_parts()]
    return all(value is not None and value == value for value in values)  # NaN is not equal to itself


def memory_table(row: Mapping[str, Any]) -> pd.DataFrame:
    """The table of a row of results: RAM, each part (0 left out) with its reason, MemTotal on the way, MemAvailable.

    Columns: `group`, `part`, `bytes`, `MiB`, `why`. Errors: `InvalidInput` for a row without the parts.
    """
    sizes = _of_row(row)
    lines = [("", "RAM of the guest", int(row["memory_bytes"]), "-m of QEMU")]
    before = True
    for part in all_parts():
        if before and part.group.startswith("in use"):
            lines.append(("", "MemTotal", int(row["memtotal_bytes"]), "RAM less all above"))
            before = False
        if sizes[part.name]:
            lines.append((part.group, part.label, -sizes[part.name], part.why))
    lines.append(("", "MemAvailable", int(row["memavailable_bytes"]), "MemTotal less all below it"))
    return results.frame(
        {"group": group, "part": label, "bytes": size, "MiB": f"{size / (1 << 20):.2f}", "why": why}
        for group, label, size, why in lines
    )


def sentences(row: Mapping[str, Any], *, most: int = 3) -> list[str]:
    """What takes most, in words, of a row of results."""
    sizes = _of_row(row)
    ram, available = int(row["memory_bytes"]), int(row["memavailable_bytes"])
    groups: dict[str, int] = {}
    for part in all_parts():
        groups[part.group] = groups.get(part.group, 0) + sizes[part.name]
    largest = sorted(all_parts(), key=lambda part: -sizes[part.name])[:most]
    return [
        f"{format_bytes(available)} of {format_bytes(ram)} are available; "
        + ", ".join(f"{name}: {format_bytes(size)}" for name, size in groups.items()),
        "most goes to " + ", ".join(f"{part.label} ({format_bytes(sizes[part.name])})" for part in largest),
    ]


def _of_row(row: Mapping[str, Any]) -> dict[str, int]:
    if not is_known(row):
        hint = "take a whole run of a kernel with a virtio console, through which the guest reports"
        raise InvalidInput("row", row.get("name", ""), "does not know where its memory went", hint=hint)
    return {part.name: int(row[part.column]) for part in all_parts()}


def _reserved(iomem: str, log: Sequence[Record], memmap: int) -> dict[str, int]:
    """What the kernel took before the page allocator had it."""
    resources = read_iomem(iomem)
    size_of = dict.fromkeys(("Kernel code", "Kernel rodata", "Kernel data", "Kernel bss", "Crash kernel"), 0)
    sections: set[int] = set()
    for name, first, last in resources:
        if name in size_of:
            size_of[name] += last - first + 1
        elif name == "System RAM" and last - first < 1 << 46:
            sections.update(range(first // _SECTION_BYTES, last // _SECTION_BYTES + 1))
    initrd, freed = initrd_bytes(log)
    return {
        "text": size_of["Kernel code"],
        "rodata": size_of["Kernel rodata"],
        "data": size_of["Kernel data"],
        "bss": size_of["Kernel bss"],
        "memmap": memmap or _MEMMAP_OF_SECTION_BYTES * len(sections),
        "percpu_first": 4096 * _first(_PERCPU, log) * max(1, _first(_CPUS, log)),
        "swiotlb": _span(_SWIOTLB, log),
        "log": _with_index(_first(_LOG, log)),
        "early_hashes": sum(_hashes(log, early=True)),
        "crash": size_of["Crash kernel"],
        "initrd": 0 if freed else initrd,
    }


def _used(
    info: Mapping[str, int], log: Sequence[Record], vmalloc: Mapping[str, Any], percpu_first: int, pcp: int
) -> dict[str, int]:
    """What is in use of MemTotal and cannot be reclaimed, but for the rest."""
    stacks = info.get("KernelStack", 0)
    # 4 pages and a guard page each: with VMAP_STACK the kernel counts them as vmalloc too
    counted_twice = bool(stacks) and _number(vmalloc.get("stack_areas")) * (16 << 10) >= stacks
    cached = info.get("Cached", 0) + info.get("Buffers", 0)
    return {
        "slab_unreclaimable": info.get("SUnreclaim", 0),
        "stacks": stacks,
        "page_tables": info.get("PageTables", 0) + info.get("SecPageTables", 0),
        "percpu": max(0, info.get("Percpu", 0) - percpu_first),
        "vmalloc": max(0, info.get("VmallocUsed", 0) - (stacks if counted_twice else 0)),
        "hashes": sum(_hashes(log, early=False)),
        "tmpfs": info.get("Shmem", 0),
        "ramfs": max(0, cached - info.get("Shmem", 0) - _file_lru(info)),
        "anon": info.get("AnonPages", 0) + info.get("SwapCached", 0),
        "hugetlb": info.get("Hugetlb", 0),
        "pcp": pcp,
    }


def _kept(info: Mapping[str, int], zones: Zones, page: int, misc: int) -> dict[str, int]:
    """What is free or reclaimable and still not available (si_mem_available)."""
    low = zones.low * page
    half = {
        "cache_kept": _file_lru(info) // page // 2 * page,
        "slab_kept": (info.get("SReclaimable", 0) + misc) // page // 2 * page,
    }
    return {"reserve": zones.reserve * page, **{name: min(size, low) for name, size in half.items()}}


def _file_lru(info: Mapping[str, int]) -> int:
    return info.get("Active(file)", 0) + info.get("Inactive(file)", 0)


def _hashes(log: Sequence[Record], *, early: bool) -> list[int]:
    """The hash tables that the log names before (or after) its line of the memory, those of whole pages."""
    tables, before = [], True
    for record in log:
        before = before and not record.text.startswith("Memory: ")
        match = _HASH.fullmatch(record.text)
        if match and before == early and (match[2] or "linear") == "linear":
            tables.append(int(match[1]))
    return tables


def _first(pattern: re.Pattern[str], log: Sequence[Record]) -> int:
    return next((int(match[1]) for record in log if (match := pattern.match(record.text))), 0)


def _span(pattern: re.Pattern[str], log: Sequence[Record]) -> int:
    """The bytes from a first address to the one behind the last, as swiotlb prints them."""
    spans = (match for record in log if (match := pattern.match(record.text)))
    return next((max(0, int(match[2], 16) - int(match[1], 16)) for match in spans), 0)


def _with_index(log_bytes: int) -> int:
    """A log buffer with its index: a descriptor and an info for each 32 bytes (kernel/printk/printk.c, PRB_AVGBITS)."""
    return log_bytes + log_bytes // 32 * _LOG_INDEX_BYTES


def _table(value: object) -> dict[str, Any]:
    return {str(key): item for key, item in value.items()} if isinstance(value, dict) else {}


def _number(value: object) -> int:
    """Return a whole number of 0 or more, else 0."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
