"""A swap cell as a guest: its initrd, its kernel command line, its disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from acon_nb.bench.boot import host_tsc_khz
from acon_nb.bench.guest_program import guest_script
from acon_nb.bench.swap import corpora, knobs
from acon_nb.bench.swap.factors import PAGE_BYTES, SwapFactors
from acon_nb.bench.swap.programs import codec_program, load_program
from acon_nb.cache import Cache, sha256_file
from acon_nb.initrd import create, gen_init, tree_of
from acon_nb.progress import OnProgress, silent
from acon_nb.vm import Clock, DiskSpec, VmSpec

_SCRIPT = "/acon/swap-study"
_IMAGE = "busybox+dmsetup"
# In place of the guide's: its encrypted swap would be made beside the cell's own
_FSTAB = (
    b"proc /proc proc nosuid,nodev,noexec 0 0\ndevtmpfs /dev devtmpfs nosuid,noexec 0 0\n"
    b"sysfs /sys sysfs nosuid,nodev,noexec 0 0\ntmpfs /run tmpfs mode=0755 0 0\n"
)
# nolapic_timer: calibrating the APIC timer busy-waits 0.2 s, which costs 13 s of wall time on this clock
_FIXED = "console=ttyS0 panic=-1 quiet nokaslr no_timer_check"
_INSTRUCTIONS = "tsc=reliable tsc_early_khz=1000000 nolapic_timer"


@dataclass(frozen=True, kw_only=True)
class SwapCell:
    """A cell ready to boot: its factors, kernel, initrd, and the disk's latency in the guest's own time."""

    factors: SwapFactors
    kernel: Path
    initrd: Path
    disk_latency_ns: int

    def spec(self, seed: int, disk: Path | None = None) -> VmSpec:
        """The guest of one run. `disk` is an image for disk=virtio."""
        factors = self.factors
        clock = Clock(factors.clock)
        if clock is Clock.INSTRUCTIONS:
            told = _INSTRUCTIONS
        else:
            khz = host_tsc_khz()
            told = f"tsc=reliable tsc_early_khz={khz}" if khz else ""
        words = [_FIXED, told, *self._disk_words(), f"acon_cell={self.cell_word(seed)}", f"INIT={_SCRIPT}"]
        return VmSpec(
            kernel=self.kernel,
            initrd=self.initrd,
            append=" ".join(filter(None, words)),
            memory_bytes=knobs.guest_bytes(factors),
            machine=factors.machine,
            clock=clock,
            seed=seed,
            timeout_s=factors.timeout_s,
            disks=(DiskSpec(path=disk),) if disk else (),
        )

    def cell_word(self, seed: int) -> str:
        """NAME=VALUE,NAME=VALUE...: what the guest's script and its workload are told."""
        factors = self.factors
        values = {
            "swap": factors.swap,
            "disk": "sda" if factors.disk == "delay" else "vda",
            "uses_disk": int(factors.uses_disk),
            "encryption": factors.encryption,
            "tags": factors.tags,
            "crypt_writes": factors.crypt_writes,
            "knobs": ";".join(f"{name}:{value}" for name, value in knobs.knobs_of(factors).items()),
            "settle": knobs.settle_of(factors),
            "workload": factors.workload,
            "program": "+".join(factors.program.replace("{bytes}", str(factors.pages * PAGE_BYTES)).split()),
            "pattern": factors.pattern,
            "zipf_exponent": factors.zipf_exponent,
            "pages": factors.pages,
            "tmpfs_kib": factors.pages * (PAGE_BYTES >> 10) + (8 << 10),
            "accesses": factors.accesses,
            "write_per_million": round(factors.write_share * 1e6),
            "samples": factors.samples,
            "stall_ns": round(factors.stall_s * 1e9),
            "seed": seed,
        }
        return ",".join(f"{name}={value}" for name, value in values.items() if value != "")

    def _disk_words(self) -> list[str]:
        """scsi_debug's parameters (drivers/scsi/scsi_debug.c); lbpu: it can discard, as an SSD can."""
        if self.factors.disk != "delay":
            return ["scsi_debug.add_host=0"]
        values = {
            "dev_size_mb": self.factors.swap_bytes >> 20,
            "ndelay": self.disk_latency_ns,
            "sector_size": PAGE_BYTES,
            "lbpu": 1,
        }
        return [f"scsi_debug.{name}={value}" for name, value in values.items()]


def image_of(factors: SwapFactors) -> str:
    """The image that a cell's initrd is made of: the same for all cells of a workload."""
    if factors.workload == "program":
        return "+".join([_IMAGE, *factors.packages.replace(",", " ").split()])
    return corpora.REDIS_IMAGE + "+dmsetup" if factors.workload == "redis" else _IMAGE


def cell_initrd(image: str, pages: Path, *, cache: Cache | None = None, on_progress: OnProgress = silent) -> Path:
    """The initrd of cells: an image, /init, the script, the workload, the codecs, and the file of pages; cached."""
    store = cache or Cache()
    programs = {
        "swap_load": load_program(store),
        "codec": codec_program(store),
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

    def make(folder: Path) -> None:
        tree = tree_of(image, cache=store, on_progress=on_progress)
        gen_init(tree, force=True)
        tree.add_file("etc/fstab", _FSTAB)
        for name, path in programs.items():
            tree.add_file(f"acon/{name}", path, mode=0o755)
        tree.add_file("acon/knobs", knobs.guest_table().encode())
        tree.add_file("acon/pages", pages)
        create(tree, folder / "swap.cpio", on_progress=on_progress)

    return store.get("swap-initrd", inputs, make).path / "swap.cpio"
