"""A swap cell as a guest: its initrd, its kernel command line, its disk."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from acon_nb.cache import Cache, sha256_file
from acon_nb.errors import InvalidInput
from acon_nb.guest.programs import classes_program, guest_script, host_tsc_khz, load_program
from acon_nb.initrd import create, gen_init, join, tree_of
from acon_nb.progress import OnProgress, silent
from acon_nb.swap import corpora, knobs, limits, reclaim
from acon_nb.swap.disk import DEVICE, MODULE, PATH_NS
from acon_nb.swap.factors import SwapFactors
from acon_nb.swap.guest_report import STEADY_CHANGE
from acon_nb.swap.levels import PAGE_BYTES
from acon_nb.swap.program import program_of
from acon_nb.units import format_bytes
from acon_nb.vm import Clock, DiskSpec, VmSpec, kernel_words

_SCRIPT = "/acon/swap-study"
_KERNEL_BYTES = 48 << 20  # what a kernel keeps of its RAM, at most
# In place of the guide's: its encrypted swap would be made beside the cell's own
_FSTAB = (
    b"proc /proc proc nosuid,nodev,noexec 0 0\ndevtmpfs /dev devtmpfs nosuid,noexec 0 0\n"
    b"sysfs /sys sysfs nosuid,nodev,noexec 0 0\ntmpfs /run tmpfs mode=0755 0 0\n"
)
_FIXED = "console=ttyS0 panic=-1 quiet"
_WALL = "nokaslr"


@dataclass(frozen=True, kw_only=True)
class SwapCell:
    """A cell ready to boot: its factors, kernel, initrd, and how many times as slow its disk is as on hardware.

    `system_map` names the kernel's functions (None: as of `study.functions`), `program` is the archive of the program
    that it runs (`swap.program`).
    """

    factors: SwapFactors
    kernel: Path
    initrd: Path
    disk_dilation: float
    system_map: Path | None = None
    program: Path | None = None

    def booted_initrd(self, folder: Path) -> Path:
        """The initrd as it is booted: with the program's archive in front of it, made in `folder`, if it has one."""
        return self.initrd if self.program is None else join((self.program, self.initrd), folder / "initrd")

    def spec(self, seed: int, disk: Path | None = None, initrd: Path | None = None) -> VmSpec:
        """The guest of one run. `disk` is an image for disk=virtio, `initrd` is as of `booted_initrd`."""
        factors = self.factors
        clock = Clock(factors.clock)
        if clock is Clock.WALL:
            clock_words = f"{_WALL} {kernel_words(clock, host_tsc_khz())}"
        else:
            clock_words = kernel_words(clock, None)
        words = [_FIXED, clock_words, *self._disk_words(), f"acon_cell={self.cell_word(seed)}", f"INIT={_SCRIPT}"]
        return VmSpec(
            kernel=self.kernel,
            initrd=initrd or self.initrd,
            append=" ".join(filter(None, words)),
            memory_bytes=knobs.guest_bytes(factors),
            machine=factors.machine,
            vcpus=factors.vcpus,
            accelerator=factors.accelerator,
            clock=clock,
            seed=seed,
            timeout_s=factors.timeout_s,
            disks=(DiskSpec(path=disk),) if disk else (),
        )

    def cell_word(self, seed: int) -> str:
        """NAME=VALUE,NAME=VALUE...: the parameters of the guest's script and its workload."""
        factors = self.factors
        values = {
            "swap": factors.swap,
            "disk": DEVICE if factors.disk == "delay" else "vda",
            "uses_disk": int(factors.swap_on_disk),
            "file_system": factors.file_system_bytes or "",
            "swap_bytes": factors.disk_swap_bytes if factors.file_system_bytes else "",
            "fallback": int(factors.zram_fallback) or "",
            "zpool": factors.zpool,
            "thp_shmem": factors.thp_shmem,
            "watch": int(reclaim.is_watched(factors)) or "",
            "encryption": factors.encryption,
            "tags": factors.tags,
            "crypt_writes": factors.crypt_writes,
            "knobs": ";".join(f"{name}:{value}" for name, value in knobs.knobs_of(factors).items()),
            "settle": knobs.settle_of(factors),
            "settle_every_ns": factors.zram_interval_ns or "",
            "workload": factors.workload,
            "program_ns": program_of(factors).limit_ns or ""
            if factors.workload == "program" and not factors.image
            else "",
            "available": factors.available_bytes or "",
            "pattern": factors.pattern,
            "locality": factors.locality,
            "zipf_exponent": factors.zipf_exponent,
            "pages": factors.pages,
            "file_pages": factors.file_pages or "",
            "tmpfs_kib": factors.pages * (PAGE_BYTES >> 10) + (8 << 10),
            "accesses": factors.accesses,
            "until_steady": factors.until_steady or "",
            "steady_per_million": round(STEADY_CHANGE * 1e6),
            "write_per_million": round(factors.write_share * 1e6),
            **limits.cell_words(factors),
            "threads": factors.threads if factors.threads > 1 else "",
            "samples": factors.samples,
            "stall_ns": round(factors.stall_s * 1e9),
            "seed": seed,
        }
        return ",".join(f"{name}={value}" for name, value in values.items() if value != "")

    def _disk_words(self) -> list[str]:
        """The simulated disk's size and speed in the guest's time, for its driver."""
        if self.factors.disk != "delay":
            return []
        values = {"size_mb": self.factors.disk_bytes >> 20}
        path_ns = PATH_NS if self.factors.clock == Clock.INSTRUCTIONS else 0
        values |= self.factors.disk_speed.driver_parameters(self.disk_dilation, path_ns)
        return [f"{MODULE}.{name}={value}" for name, value in values.items()]


def check_unpacking(factors: SwapFactors, initrd: Path, memory_bytes: int) -> None:
    """Check that the kernel unpacks all of an initrd with packages. Errors: `InvalidInput`.

    The archive stays in memory until it is unpacked, and the root's tmpfs takes half of the rest (mm/shmem.c,
    shmem_default_max_blocks); the kernel drops what does not fit, and boots.
    """
    size = initrd.stat().st_size
    lacking = 3 * size + _KERNEL_BYTES - memory_bytes
    if factors.packages and lacking > 0:
        hint = f"memory = {(factors.memory_bytes + lacking) >> 20}M or more, or boot_room for what only unpacking needs"
        reason = f"does not hold the packages: unpacking {format_bytes(size)} takes three times as much"
        raise InvalidInput("memory", factors.memory, reason, hint=hint)


def image_of(factors: SwapFactors) -> str:
    """The image that a cell's initrd is made of: the same for all cells of a workload."""
    base = {"redis": corpora.REDIS_IMAGE, "file": "busybox+e2fsprogs"}.get(factors.workload, "busybox")
    packages = factors.packages.replace(",", " ").split()
    if packages:  # whole, with all that they depend on
        base = "debian"
    return "+".join([base, *factors.tools.replace(",", " ").split(), *packages])


def cell_initrd(
    image: str,
    pages: Path,
    *,
    dictionary: bytes = b"",
    cache: Cache | None = None,
    on_progress: OnProgress = silent,
) -> Path:
    """The initrd of cells: an image, /init, the script, the workload, the calibration, pages, a dictionary; cached."""
    store = cache or Cache()
    programs = {
        "swap_load": load_program(store),
        "classes": classes_program(store),
        "swap-study": guest_script("swap-study"),
    }
    inputs: Mapping[str, object] = {
        "image": image,
        "pages": sha256_file(pages),
        "programs": {name: sha256_file(path) for name, path in programs.items()},
        "knobs": knobs.guest_table(),
        "fstab": _FSTAB.decode(),
        "version": 2,
    }
    if dictionary:
        inputs = {**inputs, "dictionary": hashlib.sha256(dictionary).hexdigest()}

    def make(folder: Path) -> None:
        tree = tree_of(image, cache=store, on_progress=on_progress)
        gen_init(tree, force=True)
        tree.add_file("etc/fstab", _FSTAB)
        for name, path in programs.items():
            tree.add_file(f"acon/{name}", path, mode=0o755)
        tree.add_file("acon/knobs", knobs.guest_table().encode())
        tree.add_file("acon/pages", pages)
        if dictionary:
            tree.add_file(knobs.DICTIONARY.removeprefix("/"), dictionary)
        create(tree, folder / "swap.cpio", on_progress=on_progress)

    return store.get("swap-initrd", inputs, make).path / "swap.cpio"
