"""How long a guest takes to boot and what it leaves of the memory: a cell is one kernel and initrd on one clock.

Phases, on two clocks that are never mixed (docs/clocks.md):

* host, from before QEMU's exec: `vmm_start` (the vCPU is let go) -> `kernel_entry` (the loader has read its last piece)
  -> `log` (the kernel's clock begins) -> `init` -> `ready` -> `end`;
* guest: reset -> `log` -> `init` ("Run /init", stamped by the kernel) -> `ready`.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from acon_nb import process
from acon_nb.bench import kernel_log, memory, results
from acon_nb.bench.guest_program import guest_program
from acon_nb.cache import Cache, sha256_file
from acon_nb.errors import GuestFailed
from acon_nb.initrd import InitrdImage, add_modules, create, gen_init, tree_of
from acon_nb.progress import CancelToken, OnProgress, silent
from acon_nb.vm import Capabilities, Clock, End, Machine, Outcome, VmSpec

REPORT = "/acon/boot-report"
_INSTRUCTIONS_TSC_KHZ = 1_000_000
_INITCALLS = "initcall_debug log_buf_len=4M"
_TSC_RATE = re.compile(r"tsc_early_khz=\d+")
VIRTIO_MODULES = ("virtio_pci", "virtio_console")


@dataclass(frozen=True, kw_only=True)
class BootCell:
    """One thing to time: a name for people, a kernel, an initrd made by `boot_initrd`, and the guest.

    `firmware` is an image for q35 (none: QEMU's SeaBIOS), `accelerator` as of `VmSpec`; `td` makes the guest a TD.
    `initcalls` makes the kernel log each initcall, which takes time of its own. `tsc_khz` is the rate of this host's
    time stamp counter (None: measured).
    """

    name: str
    kernel: Path
    initrd: Path
    clock: Clock = Clock.WALL
    memory_bytes: int = 512 << 20
    machine: str = "q35"
    append: str = "console=ttyS0 panic=-1 quiet"
    seed: int = 1
    timeout_s: float = 120.0
    vcpus: int = 1
    firmware: Path | None = None
    accelerator: str = "auto"
    td: bool = False
    initcalls: bool = False
    tsc_khz: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "clock", Clock(self.clock))

    def spec(self) -> VmSpec:
        """The guest of this cell; the kernel is told the speed of its time stamp counter (docs/clocks.md)."""
        khz = host_tsc_khz() if self.tsc_khz is None and self.clock is Clock.WALL else self.tsc_khz
        khz = _INSTRUCTIONS_TSC_KHZ if self.clock is Clock.INSTRUCTIONS else khz
        told = f"tsc=reliable tsc_early_khz={khz}" if khz else ""
        logged = _INITCALLS if self.initcalls else ""
        return VmSpec(
            kernel=self.kernel,
            initrd=self.initrd,
            append=" ".join(word for word in (self.append, logged, told, f"INIT={REPORT}") if word),
            memory_bytes=self.memory_bytes,
            vcpus=self.vcpus,
            machine=self.machine,
            accelerator=self.accelerator,
            clock=self.clock,
            seed=self.seed,
            timeout_s=self.timeout_s,
            firmware=self.firmware,
            td="boot" if self.td else None,
        )


@dataclass(frozen=True, kw_only=True)
class BootRun:
    """What one boot gave.

    `host_ns` and `guest_ns` hold the phases in ns (keys as in the module's text; a phase that cannot be known on a
    clock is absent). Memory is in bytes: MemTotal and MemAvailable as `/init` ended, `mem` the parts of the guest's RAM
    (`bench.memory`), `qemu` QEMU's proportional set size by kind (`host.QemuMemory`). `kernel_start` is the physical
    address of the kernel, `log` its log; neither is a column.
    """

    name: str
    clock: Clock
    end: End
    accelerator: str
    host_ns: Mapping[str, int] = field(default_factory=dict)
    guest_ns: Mapping[str, int] = field(default_factory=dict)
    memtotal_bytes: int | None = None
    memavailable_bytes: int | None = None
    memory_line: str = ""
    mem: Mapping[str, int] = field(default_factory=dict)
    qemu: Mapping[str, int] = field(default_factory=dict)
    kernel_release: str = ""
    kernel_bytes: int = 0
    initrd_bytes: int = 0
    kernel_sha256: str = ""
    initrd_sha256: str = ""
    firmware_sha256: str = ""
    spec_sha256: str = ""
    cmdline: str = ""
    console: Path = Path()
    kernel_start: int | None = field(default=None, metadata=results.NO_COLUMN)
    log: tuple[kernel_log.Record, ...] = field(default=(), metadata=results.NO_COLUMN)


def boot_initrd(
    path: Path,
    *,
    image: str = "busybox",
    modules: tuple[Path, ...] = (),
    release: str = "",
    store: Cache | None = None,
    on_progress: OnProgress = silent,
) -> InitrdImage:
    """An initrd for boot cells: an image, /init, the report program, and modules for a kernel that needs them.

    `modules` come from `kernel.module_closure(kernel, ("virtio_pci", "virtio_console"))` with the kernel's `release`.
    """
    tree = tree_of(image, cache=store, on_progress=on_progress)
    gen_init(tree, force=True)  # an image's own /init would not run the report
    tree.add_file(REPORT, guest_program("boot_report", cache=store), mode=0o755)
    if modules:
        add_modules(tree, release, modules, VIRTIO_MODULES)
    return create(tree, path)


def run(
    cell: BootCell,
    *,
    host: Capabilities | None = None,
    cancel: CancelToken | None = None,
    check: bool = True,
) -> BootRun:
    """Boot once. With `check` a guest that does not power off raises `GuestFailed`; else its end is in the row."""
    spec = cell.spec()
    with Machine(spec, host=host) as machine:
        outcome = machine.wait(cancel)
    if check:
        outcome.check()
    row = row_of(cell, outcome)
    if check and not row.host_ns:
        raise GuestFailed(
            f"{cell.name} powered off without a report",
            end=outcome.end,
            details=outcome.tail,
            hint="the initrd must come from boot_initrd, and the kernel needs virtio-serial on this machine"
            " (microvm: --profile guide,microvm)",
        )
    return row


@cache
def host_tsc_khz(program: Path | None = None) -> int:
    """The rate of this host's time stamp counter in kHz (0: unknown), which plain TCG passes on to its guests.

    A guest under TCG often fails to calibrate it on a busy host, and then counts its time in 10 ms ticks.
    `program` is `tsc_rate`, built elsewhere (default: built here).
    """
    return int(process.output([program or guest_program("tsc_rate")]))


def row_of(cell: BootCell, outcome: Outcome) -> BootRun:
    """What an ended guest of a cell gave."""
    ready = next((message for message in outcome.messages if message.data.get("event") == "ready"), None)
    kernel_sha256, initrd_sha256 = sha256_file(cell.kernel), sha256_file(cell.initrd)
    base = BootRun(
        name=cell.name,
        clock=cell.clock,
        end=outcome.end,
        accelerator=outcome.accelerator,
        qemu=_qemu(outcome),
        kernel_bytes=cell.kernel.stat().st_size,
        initrd_bytes=cell.initrd.stat().st_size,
        kernel_sha256=kernel_sha256,
        initrd_sha256=initrd_sha256,
        firmware_sha256=sha256_file(cell.firmware) if cell.firmware is not None else "",
        spec_sha256=spec_hash(cell),
        console=outcome.console,
    )
    if ready is None:
        return base
    data = ready.data
    info = data.get("meminfo_kib", {})
    log = kernel_log.of_messages(message.data for message in outcome.messages)
    found = memory.parts(data, log, cell.memory_bytes)
    return replace(
        base,
        host_ns=_host_phases(outcome, ready.host_ns, data),
        guest_ns=_guest_phases(cell.clock, data),
        memtotal_bytes=_kib(info.get("MemTotal")),
        memavailable_bytes=_kib(info.get("MemAvailable")),
        mem={f"{name}_bytes": size for name, size in found.items()},
        memory_line=str(data.get("memory_line", "")),
        kernel_release=str(data.get("release", "")),
        cmdline=str(data.get("cmdline", "")),
        kernel_start=memory.kernel_start(data),
        log=log,
    )


def _host_phases(outcome: Outcome, arrived_ns: int, data: Mapping[str, Any]) -> dict[str, int]:
    """Host times since QEMU's exec. `init` is the message's arrival less the guest's own time since `/init`."""
    ready_ns = arrived_ns - (int(data["sent_ns"]) - int(data["monotonic_ns"])) - outcome.started_ns
    phases = {"ready": ready_ns}
    if outcome.continued_ns is not None:
        phases["vmm_start"] = outcome.continued_ns - outcome.started_ns
    if outcome.kernel_entry_ns is not None:
        phases["kernel_entry"] = outcome.kernel_entry_ns - outcome.started_ns
    if data["init_us"] >= 0 and data["ready_us"] >= 0:
        phases["init"] = ready_ns - 1000 * (int(data["ready_us"]) - int(data["init_us"]))
        phases["log"] = ready_ns - 1000 * int(data["ready_us"])
    phases["end"] = outcome.ended_ns - outcome.started_ns
    return phases


def _guest_phases(clock: Clock, data: Mapping[str, Any]) -> dict[str, int]:
    """Times of the kernel's clock; on the instruction clock also `reset_to_log`, what came before that clock began."""
    phases = {name: 1000 * int(data[f"{name}_us"]) for name in ("init", "ready") if data[f"{name}_us"] >= 0}
    if clock is Clock.INSTRUCTIONS and "ready" in phases:
        phases["reset_to_log"] = int(data["tsc"]) - phases["ready"]
        phases["reset_to_init"] = phases["reset_to_log"] + phases["init"]
        phases["reset_to_ready"] = int(data["tsc"])
    return phases


def _qemu(outcome: Outcome) -> dict[str, int]:
    memory = outcome.qemu_memory
    if memory is None:
        return {}
    return {"pss_bytes": memory.total_bytes, **{f"{kind}_pss_bytes": size for kind, size in vars(memory).items()}}


def spec_hash(cell: BootCell) -> str:
    """A hash of what decides a boot, by content: the paths of the files do not count, their bytes do.

    A field that is None does not count either, so that a new field does not part new results from old ones; nor does
    the host's measured TSC rate, which differs in the last digits each time.
    """
    values = {
        key: sha256_file(value) if isinstance(value, Path) else _TSC_RATE.sub("", str(value))
        for key, value in vars(cell.spec()).items()
        if value is not None
    }
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _kib(value: object) -> int | None:
    return int(value) * 1024 if isinstance(value, int) else None


def kept_initrd(
    store: Cache,
    *,
    image: str = "busybox",
    compression: str = "",
    modules: tuple[Path, ...] = (),
    release: str = "",
    on_progress: OnProgress = silent,
) -> Path:
    """A `boot_initrd` in the user cache, named by its bytes: a study that runs keeps its own when another is made."""
    folder = store.workdir("boot", {"initrd": "by content"})
    suffix = ".cpio" + (f".{compression}" if compression else "")
    made = boot_initrd(
        folder / f"{uuid.uuid4().hex}{suffix}",
        image=image, modules=modules, release=release, store=store, on_progress=on_progress,
    )  # fmt: skip
    return made.path.replace(folder / f"{made.sha256}{suffix}")


def default_initrd(store: Cache | None = None) -> Path:
    """An initrd for kernels with virtio built in, in the user cache."""
    return kept_initrd(store or Cache())
