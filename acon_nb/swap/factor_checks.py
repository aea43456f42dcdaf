"""Checks of a swap cell's factors against each other, before anything starts: what cannot be is refused by name."""

from __future__ import annotations

from dataclasses import fields

from acon_nb.errors import InvalidInput
from acon_nb.host.apt import PACKAGE_NAME
from acon_nb.initrd import fstab
from acon_nb.swap import limits
from acon_nb.swap.data import parse_mix
from acon_nb.swap.levels import PLAIN, Levels
from acon_nb.swap.program import program_of, words_of
from acon_nb.validation import words
from acon_nb.vm import Clock

DEFAULTS = {item.name: item.default for item in fields(Levels)}
OWNED = {
    "zram": (
        "zram_size", "zram_limit", "zram_recompressor", "zram_writeback", "zram_writeback_compressed", "zram_interval",
        "zram_idle_age", "zram_streams", "zram_fallback", "compressor_level", "zram_recompressor_level",
        "zram_dictionary",
    ),
    "zswap": ("pool_percent", "accept_percent", "shrinker", "zswap_writeback", "zswap_max", "zpool"),
}  # fmt: skip

WITH_LEVELS = ("lz4", "lz4hc", "zstd", "deflate")
WITH_DICTIONARY = ("lz4", "lz4hc", "zstd")
DISK_SPEED = ("disk_preset", "disk_latency", "disk_iops", "disk_bandwidth", "disk_queue")  # of the simulated disk
# Factors of workload=program alone, which needs the first
PROGRAM_ONLY = (
    "workload_name", "program", "packages", "environment", "files", "stdin", "program_folder", "program_user",
    "program_time", "image", "driver", "ready", "available", "boot_room",
)  # fmt: skip
_IMAGE_ONLY = ("driver", "ready", "available")
_NOT_OF_IMAGES = ("packages", "files", "stdin", "program_folder", "program_user")
# Factors that only some swap has, and no guest without one
_SWAP_ITSELF = ("setup", "compressor", "encryption", "tags", "crypt_writes")
SWAP_ONLY = (*(name for names in OWNED.values() for name in names), *_SWAP_ITSELF)


def check(levels: Levels) -> None:
    """Check how the factors go together. Errors: `InvalidInput` that names the factor."""
    for one in (_check_memory, _check_swap, _check_encryption, _check_work, _check_clock):
        one(levels)
    limits.check(levels, DEFAULTS)


def _check_memory(levels: Levels) -> None:
    if levels.memory_bytes % (1 << 20) or levels.memory_bytes < 64 << 20:
        raise InvalidInput("memory", levels.memory, "is not a valid memory size", hint="whole MiB, 64M or more")


def _check_swap(levels: Levels) -> None:
    if levels.compressor and levels.swap not in ("zram", "zswap"):
        hint = "omit compressor, or use swap=zram or swap=zswap"
        raise InvalidInput("compressor", levels.compressor, f"is for zram and zswap, not for {levels.swap}", hint=hint)
    for owner, names in OWNED.items():
        for name in names:
            if levels.swap != owner and getattr(levels, name) != DEFAULTS[name]:
                hint = f"use swap={owner}, or omit {name}"
                raise InvalidInput(name, getattr(levels, name), f"is {owner}'s, not {levels.swap}'s", hint=hint)
    if levels.zram_writeback_compressed and not levels.zram_writeback:
        hint = "give zram_writeback too, such as idle"
        raise InvalidInput("zram_writeback_compressed", True, "needs pages that are written back", hint=hint)
    for name in ("zram_interval", "zram_idle_age"):
        if getattr(levels, name) and not (levels.zram_writeback or levels.zram_recompressor):
            hint = "give zram_writeback or zram_recompressor too"
            raise InvalidInput(name, getattr(levels, name), "needs something to do with idle pages", hint=hint)
    if levels.zram_fallback and levels.zram_writeback:
        hint = "one of the two: zram's pages are written back, or a disk takes what zram has no room for"
        raise InvalidInput("zram_fallback", True, "needs the disk that zram_writeback has", hint=hint)
    if levels.zram_fallback and not levels.zram_size:
        hint = "give zram_size too, such as 50%"
        raise InvalidInput("zram_fallback", True, "is never used behind a zram as large as the workload", hint=hint)
    _check_compressor(levels)
    if levels.zram_limit and levels.zram_limit_bytes > levels.memory_bytes:
        hint = f"at most {levels.memory}"
        raise InvalidInput("zram_limit", levels.zram_limit, "is more than the guest's memory", hint=hint)


def _check_compressor(levels: Levels) -> None:
    for name, of in (("compressor_level", "compressor"), ("zram_recompressor_level", "zram_recompressor")):
        level, compressor = getattr(levels, name), getattr(levels, of)
        if level and compressor not in WITH_LEVELS:
            hint = f"of {', '.join(WITH_LEVELS)}; acceleration is lz4's level"
            raise InvalidInput(name, level, f"is for a {of} that has levels, not for {compressor or 'none'}", hint=hint)
    if levels.zram_dictionary:
        if levels.compressor not in WITH_DICTIONARY:
            hint = f"use {' or '.join(WITH_DICTIONARY)}"
            reason = f"is not taken by {levels.compressor}"
            raise InvalidInput("zram_dictionary", levels.zram_dictionary, reason, hint=hint)
        same = {name for name, _ in parse_mix(levels.zram_dictionary).parts} & {name for name, _ in levels.mix.parts}
        if same:
            reason = f"has {', '.join(sorted(same))}, which the data have too: it would compress what it is made of"
            hint = "name other data: a dictionary is made before one knows what it is for"
            raise InvalidInput("zram_dictionary", levels.zram_dictionary, reason, hint=hint)


def _check_encryption(levels: Levels) -> None:
    if levels.encryption == PLAIN:
        for name in ("tags", "crypt_writes"):
            if getattr(levels, name) != DEFAULTS[name]:
                hint = "give encryption too, such as @+ae"
                raise InvalidInput(name, getattr(levels, name), "is for encrypted swap", hint=hint)
        return
    if not levels.encryption.startswith("@"):
        hint = "none, or what follows the disk's name in the guide's fstab: @, @xts+cmac, @+ae"
        raise InvalidInput("encryption", levels.encryption, "is not known", hint=hint)
    if not levels.swap_on_disk:
        hint = "use swap=disk, swap=zswap, zram_writeback or zram_fallback"
        raise InvalidInput("encryption", levels.encryption, "needs a disk to encrypt", hint=hint)
    if "dmsetup" not in words(levels.tools):
        raise InvalidInput("tools", levels.tools, "lacks dmsetup, which encrypts", hint='tools = "dmsetup"')
    fstab.CipherSpec.parse(levels.encryption[1:])


def _check_work(levels: Levels) -> None:
    if levels.workload == "tmpfs" and levels.write_share:
        hint = "use workload=anon, or omit write_share"
        raise InvalidInput("write_share", levels.write_share, "is for anonymous memory", hint=hint)
    if levels.workload != "file" and levels.file_share != DEFAULTS["file_share"]:
        hint = "use workload=file, or omit file_share"
        raise InvalidInput("file_share", levels.file_share, f"does not go with workload={levels.workload}", hint=hint)
    if levels.pattern != "zipf" and levels.locality != DEFAULTS["locality"]:
        hint = "use pattern=zipf, or omit locality"
        raise InvalidInput("locality", levels.locality, f"does not act on pattern={levels.pattern}", hint=hint)
    if levels.until_steady and levels.until_steady < levels.accesses:
        hint = f"at least {levels.accesses}, or omit until_steady"
        raise InvalidInput("until_steady", levels.until_steady, "is less than accesses", hint=hint)
    _check_program(levels)
    if levels.workload == "redis" and levels.pattern == "sequential":
        raise InvalidInput("pattern", levels.pattern, "is not a pattern of workload=redis", hint="use zipf or random")


def _check_program(levels: Levels) -> None:
    if levels.workload != "program":
        for name in PROGRAM_ONLY:
            if getattr(levels, name):
                hint = f"use workload=program, or omit {name}"
                raise InvalidInput(
                    name, getattr(levels, name), f"does not go with workload={levels.workload}", hint=hint
                )
        return
    program_of(levels)
    for name in _NOT_OF_IMAGES if levels.image else _IMAGE_ONLY:
        if getattr(levels, name):
            hint = f"omit {name}: put it into the image" if levels.image else "give image, too"
            what = "does not go with image" if levels.image else "is for the program of an image"
            raise InvalidInput(name, getattr(levels, name), what, hint=hint)
    if bool(levels.driver) != bool(levels.ready):
        hint = "give both, or neither: ready says when the driver starts"
        raise InvalidInput("driver", levels.driver, f"has ready={levels.ready!r}", hint=hint)
    if levels.driver and levels.program_time:
        hint = "omit program_time: a run with a driver ends with the driver"
        raise InvalidInput("program_time", levels.program_time, "does not go with driver", hint=hint)
    words_of("driver", levels.driver)
    if levels.boot_room and not (levels.image or levels.packages):
        raise InvalidInput("boot_room", levels.boot_room, "is for unpacking an image or packages", hint="omit it")
    for name in levels.packages.replace(",", " ").split():
        if not PACKAGE_NAME.fullmatch(name):
            hint = "names of Debian packages, such as stress-ng python3-minimal"
            raise InvalidInput("packages", levels.packages, f"names {name}, which is not a Debian package", hint=hint)


def _check_clock(levels: Levels) -> None:
    if levels.clock == Clock.INSTRUCTIONS and levels.accelerator == "kvm":
        hint = "accelerator=auto or tcg, or clock=wall"
        raise InvalidInput("accelerator", "kvm", "counts no instructions: that clock is TCG's", hint=hint)
    if levels.clock == Clock.INSTRUCTIONS and levels.disk == "virtio":
        hint = "use disk=delay, whose latency is in the guest's own time, or clock=wall"
        raise InvalidInput("disk", levels.disk, "answers on the host's time, which this clock cannot see", hint=hint)
    for name in DISK_SPEED:
        if levels.disk == "virtio" and getattr(levels, name) != DEFAULTS[name]:
            hint = f"use disk=delay, or omit {name}: a virtio disk is as fast as the host's"
            raise InvalidInput(name, getattr(levels, name), "cannot be set on disk=virtio", hint=hint)
