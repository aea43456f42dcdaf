"""The factors of a swap study, as a plan, a notebook or TOML gives them, checked before anything starts.

What cannot be is refused by name; what a kernel lacks is found out in its guest, which names the knob.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from acon_nb.errors import InvalidInput
from acon_nb.study.plan import LISTS, joined_words
from acon_nb.swap import factor_checks, reclaim, setups, workloads
from acon_nb.swap.levels import Levels
from acon_nb.validation import build, check_fields


@dataclass(frozen=True, kw_only=True)
class SwapFactors(Levels):
    """One cell of a swap study.

    **The guest.** `clock` is instructions or wall. `kernel` is "build" (of `source` with `profile`, names with commas,
    and `settings`, OPT=VAL with commas), debian:SERIES (the same of that source), a name of the plan's table
    `kernels`, or a bzImage's path. `memory` is what the guest has; the RAM of a
    simulated disk comes on top, in every cell alike. `machine` is q35 or microvm. `tools` are
    Debian packages in every guest's initrd: encryption needs dmsetup, and cells with and without must have the same.

    **The swap.** `setup` is a named set-up (`acon-nb bench setups`), which gives levels of the factors below. Otherwise
    `swap` is none, disk, zram or zswap; `zram:lz4` names the compressor too. Sizes may be shares of `memory`: "50%",
    "min(50%,4G)". `disk=delay` is a simulated disk: the device that `disk_preset` names (`disks.toml`), but for what
    `disk_latency` ("80us"), `disk_iops`, `disk_bandwidth` (bytes a second, "125M") and `disk_queue` give (0, "": as the
    preset). All are those of hardware; in the guest times are `dilation` times as long, rates as much lower (0: as the
    calibration measures). `disk=virtio` is the host's disk and page cache, on the wall clock only. `disk_size` is the
    swap's ("": as much as the workload needs).

    **zram**: `zram_size` ("": as much as needed), `zram_limit` (of RAM; "": none), `zram_recompressor` (idle pages
    again), `zram_writeback` (which pages go to the disk: huge, idle, huge_idle; `zram_writeback_compressed`: as they
    are, where the kernel can). Both are done once, after the fill, on all pages, or every `zram_interval` of the
    guest's time, as a timer does it: on the pages that were not accessed for `zram_idle_age` (whole seconds; "": since
    the last time). `zram_streams` (0: the kernel's). With `zram_fallback` a disk of a lower priority takes what zram,
    of `zram_size`, has no room for. `zram:zstd:15` has the level of the compressor, `compressor_level` (of lz4 its
    acceleration; 0: the default; `zram_recompressor_level` likewise), `zram_dictionary` the data that the compressor's
    dictionary is made of (parts as of `data`, but other ones).

    **zswap**: `pool_percent` of `memory`, `accept_percent`, `shrinker`, `zswap_writeback`; `zswap_max` is what the
    workload's cgroup may have of the pool ("": as the pool), `zpool` its allocator (zsmalloc, zbud, z3fold; "": the
    kernel's).

    **Encryption** of the disk: none, or what follows the disk's name in the guide's fstab (@, @xts+cmac, @+ae);
    `tags` lie in ram, zram or disk; `crypt_writes` is writer (as /init does it) or workers (dm-crypt's default).

    **The work.** `workload` tmpfs (files written and read), anon (memory), redis (documents), file (`file_share` of the
    pages are those of a file on ext4 on the disk, read through the page cache, the others anonymous memory:
    `swappiness` weighs the two), program (below) or codec (the calibration). `pressure` times `memory` is filled with
    `data` (`swap.data`), then `accesses` are done in `pattern`, of which the first half warms up and does not count;
    `write_share` of them write (anon, redis, and the memory of file). With `until_steady` windows of half the accesses
    follow each other until their rate is steady (docs/swap.md), as long as no more than so many accesses were done;
    the last window counts. `zipf_exponent` shapes pattern=zipf, and `locality` says where its hot pages lie: uniform
    (anywhere, drawn anew for each seed: the one order without a structure that read-ahead or the order of the fill
    could meet by chance), clustered (64 neighbours in rank are neighbours in memory), or strided (a step apart that
    is drawn for each seed).

    **A program.** With workload=program `program` is run and timed as a whole: a list of arguments, or one text with
    the quotes of a shell; any characters, {bytes} stands for the working set. `packages` are Debian's that it needs.
    `environment` is a list of NAME=VALUE, `files` one of HOST:GUEST paths, `stdin` a file of the host that it reads,
    `program_folder` where it starts (""; /), `program_user` who runs it ("": root; USER or USER:GROUP). After
    `program_time` of the guest's time it is stopped ("": never). What it reports of its own: docs/workloads.md.
    `workload_name` stands for a program, its packages and user (`acon-nb bench workloads`).

    `image` is an image, as of `acon-nb initrd from`, whose tree is the root of `program`: it starts in the image's
    folder, as its user, with its environment. With `driver`, a second command of the image, the program is a server:
    the driver starts when it is `ready` (port:N, or a text that it writes), and the run ends with it. `available` is
    the memory that is left to the program as it starts, the rest of the guest's being locked ("": all); `boot_room` is
    RAM that only unpacking the image needs, on top of `memory` in every cell.

    **Control groups.** `cgroup_max`, `cgroup_high`, `cgroup_low` and `cgroup_swap_max` limit the workload within the
    guest: sizes, or multiples of the working set ("0.5x"). `groups` workers share the working set and the accesses,
    each in a group of its own with these limits. With `reclaim_interval` a controller reclaims of each group in the
    manner of Senpai (docs/swap.md): up to `reclaim_step` of its memory, less the nearer its PSI is to `reclaim_target`
    (both shares), down to `reclaim_floor`. `threads` of each worker do its accesses, on `vcpus` (wall clock) of the
    `accelerator` auto, tcg or kvm.

    **Reclaim.** `lru_gen` is the multi-generational LRU, `lru_min_ttl_ms` its protection from thrashing (0: none).
    `watermark_scale_factor` (0), `watermark_boost_factor` and `vfs_cache_pressure` (-1) are the kernel's by default.
    Huge pages: `thp`, `thp_defrag`, `thp_shmem` (tmpfs, too) and `mthp`, `mthp_shmem` (sizes that are always used,
    "16K+64K", the others never); "": as the kernel has it. `damon_reclaim` reclaims beforehand what was not accessed
    for `damon_min_age`, at most `damon_quota` (bytes a second), where the free memory, looked at every
    `damon_interval`, is within `damon_watermarks` ("500+400+200", thousandths: high, mid, low). "": DAMON's defaults,
    which are for machines that run for hours.

    **The rest.** `swappiness`, `page_cluster`, `min_free` (""; as the kernel computes for `memory`),
    `swap_bios` (dm_mod's, 0: the kernel's). `samples` over the run. `seed` 0: the plan's block gives it, which makes
    replicates; `copy` means nothing: two copies of a cell in one block must be equal. `stall_s` without progress in
    the guest's time, or `timeout_s` on the wall, and the cell counts as hung.
    Errors: `InvalidInput` at construction.
    """

    def __post_init__(self) -> None:
        self._expand_setup()
        self._split_swap()
        self._name_workload()
        for name in LISTS:
            object.__setattr__(self, name, joined_words(getattr(self, name)))
        check_fields(self)
        factor_checks.check(self)
        _ = self.mix, self.disk_speed, self.swap_bytes, self.zram_limit_bytes, self.min_free_bytes
        _ = self.zram_interval_ns, self.zram_idle_age_s, self.available_bytes, self.boot_room_bytes
        _ = self.zswap_max_bytes
        reclaim.check(self)

    @classmethod
    def of(cls, levels: Mapping[str, Any]) -> SwapFactors:
        """The factors of a cell of a plan. Errors: `InvalidInput` that names what is none, and the nearest that is."""
        setups.check_given(levels)
        return build(cls, levels, what="a swap study")

    def _expand_setup(self) -> None:
        """Take the levels of the set-up; `check_given` has refused those that a plan gives, too."""
        for name, level in setups.decided_by(self.setup).items():
            given = getattr(self, name)
            if given not in (factor_checks.DEFAULTS[name], level):
                hint = f"omit {name}, or omit setup"
                raise InvalidInput(name, given, f"is given by setup={self.setup}, too ({level})", hint=hint)
            object.__setattr__(self, name, level)

    def _name_workload(self) -> None:
        if not self.workload_name:
            return
        for name, value in workloads.named(str(self.workload_name)).factors().items():
            if getattr(self, name) not in (factor_checks.DEFAULTS[name], value):
                hint = "omit it, or give program and packages in place of workload_name"
                raise InvalidInput(name, getattr(self, name), f"is not that of {self.workload_name}", hint=hint)
            object.__setattr__(self, name, value)

    def _split_swap(self) -> None:
        """Take the compressor and its level out of swap=zram:zstd:15, compressor=zstd:15, zram_recompressor=zstd:15."""
        swap, colon, compressor = str(self.swap).partition(":")
        if colon:
            if self.compressor not in ("", compressor):
                hint = "name it once: swap=zram:lz4, or swap=zram and compressor=lz4"
                raise InvalidInput("compressor", self.compressor, f"is not that of swap={self.swap}", hint=hint)
            object.__setattr__(self, "swap", swap)
            object.__setattr__(self, "compressor", compressor)
        for name, level in (("compressor", "compressor_level"), ("zram_recompressor", "zram_recompressor_level")):
            self._split_level(name, level)
        if not self.compressor and self.swap in ("zram", "zswap"):
            object.__setattr__(self, "compressor", "lz4")

    def _split_level(self, name: str, level_name: str) -> None:
        compressor, colon, text = str(getattr(self, name)).partition(":")
        if not colon:
            return
        try:
            level = int(text)
        except ValueError:
            hint = "such as zstd:15, lz4:8 (acceleration)"
            raise InvalidInput(name, f"{compressor}:{text}", "has no whole number as its level", hint=hint) from None
        if getattr(self, level_name) not in (0, level):
            reason = f"is not that of {name}={compressor}:{text}"
            raise InvalidInput(level_name, getattr(self, level_name), reason, hint="give the level once")
        object.__setattr__(self, name, compressor)
        object.__setattr__(self, level_name, level)
