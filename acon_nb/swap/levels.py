"""The levels of a swap cell's factors with their defaults, and what follows from them: sizes, times, the kernel."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Annotated, Any

from acon_nb.errors import InvalidInput
from acon_nb.kernel import BuildSpec
from acon_nb.swap import setups, sizes
from acon_nb.swap.data import Mix, parse_mix
from acon_nb.swap.disk import PRESETS, DiskSpeed, speed_of
from acon_nb.units import parse_bytes, parse_ns
from acon_nb.validation import Meta, OneOf, words
from acon_nb.vm import Clock

SWAPS = ("none", "disk", "zram", "zswap")
COMPRESSORS = ("lzo", "lzo-rle", "lz4", "lz4hc", "zstd", "deflate", "842")
WORKLOADS = ("tmpfs", "anon", "redis", "file", "program", "codec")
PATTERNS = ("random", "sequential", "zipf")
LOCALITIES = ("uniform", "clustered", "strided")
DISKS = ("delay", "virtio")
WRITEBACK = ("", "huge", "idle", "huge_idle")
TAGS = ("ram", "zram", "disk")
WRITERS = ("writer", "workers")
ZPOOLS = ("zsmalloc", "zbud", "z3fold")
THP = ("always", "madvise", "never")
THP_DEFRAG = ("always", "defer", "defer+madvise", "madvise", "never")
THP_SHMEM = ("always", "within_size", "advise", "never")
PLAIN = "none"
PAGE_BYTES = 4096
_MARGIN_BYTES = 16 << 20
_FILE_SYSTEM_BYTES = 4 << 20


@dataclass(frozen=True, kw_only=True)
class Levels:
    """The factors as `SwapFactors` documents and checks them."""

    clock: Annotated[str, OneOf(tuple(Clock))] = "instructions"
    kernel: str = "build"
    profile: str = "guide,delay-disk,study"
    source: str = "debian:6.12"
    settings: str = ""
    machine: Annotated[str, OneOf(("q35", "microvm"))] = "q35"
    tools: str = "dmsetup"
    memory: str = "128M"
    setup: Annotated[str, OneOf(("", *setups.NAMES))] = ""
    swap: Annotated[str, OneOf(SWAPS)] = "disk"
    compressor: Annotated[str, OneOf(("", *COMPRESSORS))] = ""
    disk: Annotated[str, OneOf(DISKS)] = "delay"
    disk_preset: Annotated[str, OneOf(PRESETS)] = "nvme"
    disk_latency: str = ""
    disk_iops: Annotated[int, Meta(ge=0, le=100_000_000)] = 0
    disk_bandwidth: str = ""
    disk_queue: Annotated[int, Meta(ge=0, le=10_240)] = 0
    disk_size: str = ""
    dilation: Annotated[float, Meta(ge=0, le=1000)] = 0.0
    zram_size: str = ""
    zram_limit: str = ""
    zram_recompressor: Annotated[str, OneOf(("", *COMPRESSORS))] = ""
    zram_writeback: Annotated[str, OneOf(WRITEBACK)] = ""
    zram_writeback_compressed: bool = False
    zram_interval: str = ""
    zram_idle_age: str = ""
    zram_streams: Annotated[int, Meta(ge=0, le=512)] = 0
    pool_percent: Annotated[int, Meta(ge=1, le=100)] = 20
    accept_percent: Annotated[int, Meta(ge=0, le=100)] = 90
    shrinker: bool = False
    zswap_writeback: bool = True
    zswap_max: str = ""
    zpool: Annotated[str, OneOf(("", *ZPOOLS))] = ""
    zram_fallback: bool = False
    compressor_level: Annotated[int, Meta(ge=-100, le=100)] = 0
    zram_recompressor_level: Annotated[int, Meta(ge=-100, le=100)] = 0
    zram_dictionary: str = ""
    encryption: str = PLAIN
    tags: Annotated[str, OneOf(TAGS)] = "ram"
    crypt_writes: Annotated[str, OneOf(WRITERS)] = "writer"
    workload: Annotated[str, OneOf(WORKLOADS)] = "tmpfs"
    pattern: Annotated[str, OneOf(PATTERNS)] = "random"
    locality: Annotated[str, OneOf(LOCALITIES)] = "uniform"
    pressure: Annotated[float, Meta(ge=0.01, le=8)] = 1.5
    accesses: Annotated[int, Meta(ge=2, le=1 << 31)] = 20_000
    until_steady: Annotated[int, Meta(ge=0, le=1 << 31)] = 0
    file_share: Annotated[float, Meta(ge=0, le=1)] = 0.5
    write_share: Annotated[float, Meta(ge=0, le=1)] = 0.0
    zipf_exponent: Annotated[float, Meta(ge=0.1, le=3)] = 0.9
    workload_name: str = ""
    program: str = ""
    packages: str = ""
    environment: str = ""
    files: str = ""
    stdin: str = ""
    program_folder: str = ""
    program_user: str = ""
    program_time: str = ""
    image: str = ""
    driver: str = ""
    ready: str = ""
    available: str = ""
    boot_room: str = ""
    data: str = "like-redis+like-python+like-compiler"
    swappiness: Annotated[int, Meta(ge=0, le=200)] = 60
    page_cluster: Annotated[int, Meta(ge=0, le=10)] = 3
    min_free: str = ""
    lru_gen: bool = False
    lru_min_ttl_ms: Annotated[int, Meta(ge=0, le=3_600_000)] = 0
    watermark_scale_factor: Annotated[int, Meta(ge=0, le=3000)] = 0
    watermark_boost_factor: Annotated[int, Meta(ge=-1, le=1_000_000)] = -1
    vfs_cache_pressure: Annotated[int, Meta(ge=-1, le=1_000_000)] = -1
    thp: Annotated[str, OneOf(("", *THP))] = ""
    thp_defrag: Annotated[str, OneOf(("", *THP_DEFRAG))] = ""
    thp_shmem: Annotated[str, OneOf(("", *THP_SHMEM))] = ""
    mthp: str = ""
    mthp_shmem: str = ""
    damon_reclaim: bool = False
    damon_min_age: str = ""
    damon_quota: str = ""
    damon_interval: str = ""
    damon_watermarks: str = ""
    swap_bios: Annotated[int, Meta(ge=0, le=1 << 20)] = 0
    # Control groups (swap.limits), threads and vCPUs
    groups: Annotated[int, Meta(ge=1, le=64)] = 1
    cgroup_high: str = ""
    cgroup_max: str = ""
    cgroup_swap_max: str = ""
    cgroup_low: str = ""
    reclaim_interval: str = ""
    reclaim_target: Annotated[float, Meta(ge=0.000_001, le=1)] = 0.001
    reclaim_step: Annotated[float, Meta(ge=0.000_001, le=1)] = 0.0005
    reclaim_floor: str = ""
    threads: Annotated[int, Meta(ge=1, le=256)] = 1
    vcpus: Annotated[int, Meta(ge=1, le=256)] = 1
    accelerator: Annotated[str, OneOf(("auto", "tcg", "kvm"))] = "auto"
    samples: Annotated[int, Meta(ge=2, le=2000)] = 40
    seed: Annotated[int, Meta(ge=0, le=(1 << 31) - 1)] = 0
    copy: str = ""
    stall_s: Annotated[float, Meta(ge=0.1, le=3600)] = 10.0
    timeout_s: Annotated[float, Meta(ge=1, le=86400)] = 900.0

    @property
    def configuration(self) -> str:
        """The swap for people: "disk", "zram lz4", "zswap zstd, @+ae", or the name of its set-up."""
        name = self.setup or " ".join(filter(None, (self.swap, self.compressor_text)))
        is_said = self.encryption == setups.decided_by(self.setup).get("encryption", PLAIN)
        return name if is_said else f"{name}, {self.encryption}"

    @property
    def compressor_text(self) -> str:
        """The compressor with its level: "zstd:15"; "zstd" at its default."""
        return f"{self.compressor}:{self.compressor_level}" if self.compressor_level else self.compressor

    @property
    def memory_bytes(self) -> int:
        """The guest's memory without the simulated disk's."""
        return parse_bytes(self.memory, field="memory", bare="M")

    @property
    def pages(self) -> int:
        """How many 4 KiB pages are filled."""
        return 0 if self.workload == "codec" else int(self.memory_bytes * self.pressure) // PAGE_BYTES

    @property
    def file_pages(self) -> int:
        """How many of them are those of a file on the disk."""
        return round(self.pages * self.file_share) if self.workload == "file" else 0

    @property
    def file_system_bytes(self) -> int:
        """The size of the file system that has the file (0: none), in whole MiB: ext4 takes some for itself."""
        return whole_mib(int(self.file_pages * PAGE_BYTES * 1.02) + _FILE_SYSTEM_BYTES) if self.file_pages else 0

    @property
    def disk_bytes(self) -> int:
        """The size of the disk: the swap's, and before it the file system's."""
        return self.disk_swap_bytes + self.file_system_bytes

    @property
    def disk_swap_bytes(self) -> int:
        """The size of the disk without the file system.

        A zram of a share of the memory, or with the disk behind it, leaves it as large as in other cells.
        """
        if self.swap == "zram" and (self.zram_fallback or sizes.is_share(self.zram_size)):
            return self._disk_or_needed_bytes
        return self.swap_bytes

    @property
    def swap_bytes(self) -> int:
        """The size of the swap on the disk (or of zram, which is as large): a whole number of MiB."""
        if self.swap == "zram" and self.zram_size:
            return sizes.size_of(self.zram_size, self.memory_bytes, field="zram_size")
        return self._disk_or_needed_bytes

    @property
    def _disk_or_needed_bytes(self) -> int:
        """`disk_size`, or as much as the workload needs."""
        if self.disk_size:
            return sizes.size_of(self.disk_size, self.memory_bytes, field="disk_size")
        # tags of up to 80 bytes a block may lie on the disk, and redis keeps more than its documents
        share = 1.5 if self.workload == "redis" else 1.05
        return whole_mib(int((self.pages - self.file_pages) * PAGE_BYTES * share) + _MARGIN_BYTES)

    @property
    def available_bytes(self) -> int:
        """The memory that is available to an image's program as it starts (0: all that there is)."""
        return parse_bytes(self.available, field="available") if self.available else 0

    @property
    def boot_room_bytes(self) -> int:
        """The RAM that unpacking an image takes while the guest boots, on top of `memory`: whole MiB."""
        return whole_mib(parse_bytes(self.boot_room, field="boot_room")) if self.boot_room else 0

    @property
    def zram_limit_bytes(self) -> int:
        """The RAM that zram may take (0: as much as it needs)."""
        return sizes.limit_of(self.zram_limit, self.memory_bytes, field="zram_limit")

    @property
    def zswap_max_bytes(self) -> int:
        """What the workload's cgroup may have in zswap's pool (0: no limit of its own)."""
        return sizes.limit_of(self.zswap_max, self.memory_bytes, field="zswap_max")

    @property
    def min_free_bytes(self) -> int:
        """vm.min_free_kbytes in bytes: as given, or what the kernel computes for a guest of `memory`."""
        if self.min_free:
            return parse_bytes(self.min_free, field="min_free", bare="M")
        return kernel_min_free(self.memory_bytes)

    @property
    def disk_speed(self) -> DiskSpeed:
        """The simulated disk's speed on hardware: the preset's, but for what other factors give."""
        return speed_of(
            self.disk_preset,
            latency=self.disk_latency,
            iops=self.disk_iops,
            bandwidth=self.disk_bandwidth,
            queue=self.disk_queue,
        )

    @property
    def zram_interval_ns(self) -> int:
        """How often zram's pages are marked, recompressed and written back (0: once, after the fill)."""
        return parse_ns(self.zram_interval, field="zram_interval") if self.zram_interval else 0

    @property
    def zram_idle_age_s(self) -> int:
        """The age in seconds from which a page of zram is idle (0: every page that is not accessed in an interval)."""
        if not self.zram_idle_age:
            return 0
        ns = parse_ns(self.zram_idle_age, field="zram_idle_age")
        if not ns or ns % 1_000_000_000:
            hint = "such as 1s or 5s: the kernel counts ages in seconds"
            raise InvalidInput("zram_idle_age", self.zram_idle_age, "is not a whole number of seconds", hint=hint)
        return ns // 1_000_000_000

    @property
    def uses_disk(self) -> bool:
        """Whether there is anything on a disk: swap, pages that zram writes back, or the workload's file."""
        return self.swap_on_disk or bool(self.file_pages)

    @property
    def swap_on_disk(self) -> bool:
        """Whether pages of memory can get to a disk."""
        return self.swap in ("disk", "zswap") or bool(self.zram_writeback) or self.zram_fallback

    @property
    def mix(self) -> Mix:
        """The data's parts and shares."""
        return parse_mix(self.data)

    def build_spec(self) -> BuildSpec:
        """The kernel to build."""
        return BuildSpec(profiles=words(self.profile), source=self.source, settings=words(self.settings))

    def levels(self) -> dict[str, Any]:
        """All factors with their levels, for a row."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


def kernel_min_free(memory_bytes: int) -> int:
    """vm.min_free_kbytes in bytes, as the kernel computes it for a guest of so much memory (mm/page_alloc.c)."""
    return 1024 * max(128, math.isqrt(16 * memory_bytes // 1024))


def whole_mib(size: int) -> int:
    """A size rounded up to whole MiB, in bytes."""
    return -(-size // (1 << 20)) << 20
