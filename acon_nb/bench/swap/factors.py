"""The factors of a swap study, as a plan, a notebook or TOML gives them, checked before anything starts.

What cannot be is refused by name; what a kernel lacks is found out in its guest, which names the knob.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from acon_nb.bench.swap.data import Mix, parse_mix
from acon_nb.errors import InvalidInput
from acon_nb.initrd import fstab
from acon_nb.kernel import BuildSpec
from acon_nb.units import parse_bytes
from acon_nb.vm import Clock

SWAPS = ("none", "disk", "zram", "zswap")
COMPRESSORS = ("lzo", "lzo-rle", "lz4", "lz4hc", "zstd", "deflate", "842")
WORKLOADS = ("tmpfs", "anon", "redis", "program", "codec")
PATTERNS = ("random", "sequential", "zipf")
DISKS = ("delay", "virtio")
WRITEBACK = ("", "huge", "idle", "huge_idle")
TAGS = ("ram", "zram", "disk")
WRITERS = ("writer", "workers")
PLAIN = "none"
PAGE_BYTES = 4096
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(ns|us|µs|ms|s)")
_NS = {"ns": 1, "us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9}
_MARGIN_BYTES = 16 << 20


@dataclass(frozen=True, kw_only=True)
class SwapFactors:
    """One cell of a swap study.

    **The guest.** `clock` is instructions or wall. `kernel` is "build" (of `source` with `profile`, names with commas,
    and `settings`, OPT=VAL with commas) or a bzImage's path. `memory` is what the guest is said to have; the RAM of a
    simulated disk comes on top, in every cell alike. `machine` is q35 or microvm.

    **The swap.** `swap` is none, disk, zram or zswap; `zram:lz4` names the compressor too. `disk_latency` is that of
    the disk on hardware ("80us"); on `disk=delay` (scsi_debug) the guest's is `dilation` times that (0: as the
    calibration measures). `disk=virtio` is the host's disk and page cache, on the wall clock only. `disk_size` is the
    swap's ("": as much as the workload needs). zram: `zram_size` ("": as much as needed), `zram_limit` (of RAM; "":
    none), `zram_recompressor` (all pages again after the fill), `zram_writeback` (which pages go to the disk after the
    fill: huge, idle, huge_idle), `zram_streams` (0: the kernel's). zswap: `pool_percent` of `memory`,
    `accept_percent`, `shrinker`, `zswap_writeback`.

    **Encryption** of the disk: none, or what follows the disk's name in the guide's fstab (@, @xts+cmac, @+ae);
    `tags` lie in ram, zram or disk; `crypt_writes` is writer (as /init does it) or workers (dm-crypt's default).

    **The work.** `workload` tmpfs (files written and read), anon (memory), redis (documents), program (`program`, a
    command of Debian's `packages`, in which {bytes} stands for the working set; timed as a whole) or codec (the
    calibration). `pressure` times `memory` is filled with `data` (`bench.swap.data`), then `accesses` are done in
    `pattern`, of which the first half warms up and does not count; `write_share` of them write (anon).
    `zipf_exponent` shapes pattern=zipf.

    **The rest.** `swappiness`, `page_cluster`, `min_free` (""; as the kernel computes for `memory`), `lru_gen`,
    `swap_bios` (dm_mod's, 0: the kernel's). `samples` over the run. `seed` 0: the plan's block gives it, which makes
    replicates; `copy` means nothing: two copies of a cell in one block must be equal. `stall_s` without progress in
    the guest's time, or `timeout_s` on the wall, and the cell counts as hung.
    Errors: `InvalidInput` at construction.
    """

    clock: str = "instructions"
    kernel: str = "build"
    profile: str = "guide,delay-disk,study"
    source: str = "debian:6.12"
    settings: str = ""
    machine: str = "q35"
    memory: str = "128M"
    swap: str = "disk"
    compressor: str = ""
    disk: str = "delay"
    disk_latency: str = "80us"
    disk_size: str = ""
    dilation: float = 0.0
    zram_size: str = ""
    zram_limit: str = ""
    zram_recompressor: str = ""
    zram_writeback: str = ""
    zram_streams: int = 0
    pool_percent: int = 20
    accept_percent: int = 90
    shrinker: bool = False
    zswap_writeback: bool = True
    encryption: str = PLAIN
    tags: str = "ram"
    crypt_writes: str = "writer"
    workload: str = "tmpfs"
    pattern: str = "random"
    pressure: float = 1.5
    accesses: int = 20_000
    write_share: float = 0.0
    zipf_exponent: float = 0.9
    program: str = ""
    packages: str = ""
    data: str = "like-redis+like-python+like-compiler"
    swappiness: int = 60
    page_cluster: int = 3
    min_free: str = ""
    lru_gen: bool = False
    swap_bios: int = 0
    samples: int = 40
    seed: int = 0
    copy: str = ""
    stall_s: float = 10.0
    timeout_s: float = 900.0

    def __post_init__(self) -> None:
        _types(self)
        self._split_swap()
        for name, known in _CHOICES.items():
            _one_of(name, getattr(self, name), known)
        self._check_numbers()
        self._check_swap()
        self._check_encryption()
        self._check_work()
        self._check_clock()
        _ = self.mix, self.disk_latency_hardware_ns, self.swap_bytes, self.zram_limit_bytes, self.min_free_bytes

    @classmethod
    def of(cls, levels: Mapping[str, Any]) -> SwapFactors:
        """The factors of a cell of a plan. Errors: `InvalidInput` that names what is none, and the nearest that is."""
        known = [item.name for item in fields(cls)]
        for name in levels:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(known)}"
                raise InvalidInput(name, levels[name], "is no factor of a swap study", hint=hint)
        return cls(**levels)

    @property
    def configuration(self) -> str:
        """The swap for people: "disk", "zram lz4", "zswap zstd, @+ae"."""
        name = " ".join(filter(None, (self.swap, self.compressor)))
        return name if self.encryption == PLAIN else f"{name}, {self.encryption}"

    @property
    def memory_bytes(self) -> int:
        """The guest's memory without the simulated disk's."""
        return parse_bytes(self.memory, field="memory", bare="M")

    @property
    def pages(self) -> int:
        """How many 4 KiB pages are filled."""
        return 0 if self.workload == "codec" else int(self.memory_bytes * self.pressure) // PAGE_BYTES

    @property
    def swap_bytes(self) -> int:
        """The size of the disk (or of zram, which is as large): a whole number of MiB."""
        text = self.zram_size if self.swap == "zram" and self.zram_size else self.disk_size
        if text:
            size = parse_bytes(text, field="disk_size", bare="M")
            if size < 1 << 20 or size % (1 << 20):
                raise InvalidInput("disk_size", text, "is no whole number of MiB", hint="such as 256M")
            return size
        # tags of up to 80 bytes a block may lie on the disk, and redis keeps more than its documents
        share = 1.5 if self.workload == "redis" else 1.05
        return -(-(int(self.pages * PAGE_BYTES * share) + _MARGIN_BYTES) // (1 << 20)) << 20

    @property
    def zram_limit_bytes(self) -> int:
        """The RAM that zram may take (0: as much as it needs)."""
        return parse_bytes(self.zram_limit, field="zram_limit", bare="M") if self.zram_limit else 0

    @property
    def min_free_bytes(self) -> int:
        """vm.min_free_kbytes in bytes: what the kernel computes for a guest of `memory` (mm/page_alloc.c)."""
        if self.min_free:
            return parse_bytes(self.min_free, field="min_free", bare="M")
        return 1024 * max(128, math.isqrt(16 * self.memory_bytes // 1024))

    @property
    def disk_latency_hardware_ns(self) -> int:
        """The disk's latency on hardware."""
        match = _TIME.fullmatch(self.disk_latency.strip())
        if match is None:
            raise InvalidInput("disk_latency", self.disk_latency, "is no time", hint="such as 80us, 0.5ms or 5ms")
        return round(float(match[1]) * _NS[match[2]])

    @property
    def uses_disk(self) -> bool:
        """Whether pages can get to a disk."""
        return self.swap in ("disk", "zswap") or bool(self.zram_writeback)

    @property
    def mix(self) -> Mix:
        """The data's parts and shares."""
        return parse_mix(self.data)

    def build_spec(self) -> BuildSpec:
        """The kernel to build."""
        return BuildSpec(profiles=_words(self.profile), source=self.source, settings=_words(self.settings))

    def levels(self) -> dict[str, Any]:
        """All factors with their levels, for a row."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def _split_swap(self) -> None:
        swap, colon, compressor = self.swap.partition(":")
        if colon:
            if self.compressor not in ("", compressor):
                hint = "name it once: swap=zram:lz4, or swap=zram and compressor=lz4"
                raise InvalidInput("compressor", self.compressor, f"is not that of swap={self.swap}", hint=hint)
            object.__setattr__(self, "swap", swap)
            object.__setattr__(self, "compressor", compressor)
        if not self.compressor and self.swap in ("zram", "zswap"):
            object.__setattr__(self, "compressor", "lz4")

    def _check_numbers(self) -> None:
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if not math.isfinite(value) or not least <= value <= most:
                raise InvalidInput(name, value, "is out of range", hint=f"{least:g} to {most:g}")
        if self.memory_bytes % (1 << 20) or self.memory_bytes < 64 << 20:
            raise InvalidInput("memory", self.memory, "is no memory of such a guest", hint="whole MiB, 64M or more")

    def _check_swap(self) -> None:
        if self.compressor and self.swap not in ("zram", "zswap"):
            hint = "leave compressor away, or use swap=zram or swap=zswap"
            raise InvalidInput("compressor", self.compressor, f"is for zram and zswap, not for {self.swap}", hint=hint)
        for owner, names in _OWNED.items():
            for name in names:
                if self.swap != owner and getattr(self, name) != _DEFAULTS[name]:
                    hint = f"use swap={owner}, or leave {name} away"
                    raise InvalidInput(name, getattr(self, name), f"is {owner}'s, not {self.swap}'s", hint=hint)
        if self.zram_limit and self.zram_limit_bytes > self.memory_bytes:
            hint = f"at most {self.memory}"
            raise InvalidInput("zram_limit", self.zram_limit, "is more than the guest's memory", hint=hint)
        if self.zram_recompressor:
            _one_of("zram_recompressor", self.zram_recompressor, COMPRESSORS)

    def _check_encryption(self) -> None:
        if self.encryption == PLAIN:
            for name in ("tags", "crypt_writes"):
                if getattr(self, name) != _DEFAULTS[name]:
                    hint = "give encryption too, such as @+ae"
                    raise InvalidInput(name, getattr(self, name), "is for encrypted swap", hint=hint)
            return
        if not self.encryption.startswith("@"):
            hint = "none, or what follows the disk's name in the guide's fstab: @, @xts+cmac, @+ae"
            raise InvalidInput("encryption", self.encryption, "is not known", hint=hint)
        if not self.uses_disk:
            hint = "use swap=disk, swap=zswap, or zram_writeback"
            raise InvalidInput("encryption", self.encryption, "needs a disk to encrypt", hint=hint)
        fstab.CipherSpec.parse(self.encryption[1:])

    def _check_work(self) -> None:
        if self.workload == "tmpfs" and self.write_share:
            hint = "use workload=anon, or leave write_share away"
            raise InvalidInput("write_share", self.write_share, "is for anonymous memory", hint=hint)
        for name in PROGRAM_ONLY:
            if bool(getattr(self, name)) != (self.workload == "program"):
                hint = "workload=program wants a program and the Debian packages that it is in; others want neither"
                raise InvalidInput(name, getattr(self, name), f"does not go with workload={self.workload}", hint=hint)
        if set(self.program) & set(",;+\"'\\\n"):
            hint = "words parted by blanks, without , ; + quotes and backslashes"
            raise InvalidInput("program", self.program, "has characters that do not get to a guest", hint=hint)
        if self.workload == "redis" and self.pattern == "sequential":
            raise InvalidInput("pattern", self.pattern, "is none of redis", hint="zipf or random")

    def _check_clock(self) -> None:
        if self.clock == Clock.INSTRUCTIONS and self.disk == "virtio":
            hint = "use disk=delay, whose latency is in the guest's own time, or clock=wall"
            raise InvalidInput("disk", self.disk, "answers on the host's time, which this clock cannot see", hint=hint)
        if self.disk == "virtio" and self.disk_latency != _DEFAULTS["disk_latency"]:
            hint = "use disk=delay, or leave disk_latency away"
            raise InvalidInput("disk_latency", self.disk_latency, "cannot be set on disk=virtio", hint=hint)


_DEFAULTS = {item.name: item.default for item in fields(SwapFactors)}
_CHOICES: dict[str, tuple[str, ...]] = {
    "clock": tuple(Clock),
    "machine": ("q35", "microvm"),
    "swap": SWAPS,
    "compressor": ("", *COMPRESSORS),
    "disk": DISKS,
    "zram_writeback": WRITEBACK,
    "tags": TAGS,
    "crypt_writes": WRITERS,
    "workload": WORKLOADS,
    "pattern": PATTERNS,
}
_RANGES: dict[str, tuple[float, float]] = {
    "dilation": (0, 1000),
    "pool_percent": (1, 100),
    "accept_percent": (0, 100),
    "pressure": (0.01, 8),
    "accesses": (2, 1 << 31),
    "write_share": (0, 1),
    "zipf_exponent": (0.1, 3),
    "swappiness": (0, 200),
    "page_cluster": (0, 10),
    "zram_streams": (0, 512),
    "swap_bios": (0, 1 << 20),
    "samples": (2, 2000),
    "seed": (0, (1 << 31) - 1),
    "stall_s": (0.1, 3600),
    "timeout_s": (1, 86400),
}
_OWNED = {
    "zram": ("zram_size", "zram_limit", "zram_recompressor", "zram_writeback", "zram_streams"),
    "zswap": ("pool_percent", "accept_percent", "shrinker", "zswap_writeback"),
}

PROGRAM_ONLY = ("program", "packages")  # factors of workload=program alone
# Factors that only some swap has, and no guest without one
SWAP_ONLY = (*(name for names in _OWNED.values() for name in names), "compressor", "encryption", "tags", "crypt_writes")


def _types(factors: SwapFactors) -> None:
    """Errors: `InvalidInput` for a level of another type than its factor's (a whole number is good as a share)."""
    names = {str: "text", int: "whole number", float: "number", bool: "truth value"}
    for item in dataclasses.fields(factors):
        value, kind = getattr(factors, item.name), type(item.default)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            object.__setattr__(factors, item.name, float(value))
        elif type(value) is not kind:
            raise InvalidInput(item.name, value, f"is no {names[kind]}", hint=f"such as {item.default!r}")


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _one_of(field: str, value: str, known: Iterable[str]) -> None:
    if value not in tuple(known):
        hint = f"one of {', '.join(word or 'nothing' for word in known)}"
        raise InvalidInput(field, value, "is not known", hint=hint)
