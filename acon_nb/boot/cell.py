"""How long a guest takes to boot and what it leaves of the memory: a cell is one kernel and initrd on one clock.

Phases, on two clocks that are never mixed (docs/clocks.md):

* host, from before QEMU's exec: `vmm_start` (the vCPU is let go) -> `kernel_entry` (the loader has read its last piece)
  -> `log` (the kernel's clock begins) -> `init` -> `ready` -> `end`;
* guest: reset -> `log` -> `init` ("Run ... as init process", stamped by the kernel) -> `ready`.

What is ready is the cell's rule (`vm.Ready`); `boot.report` has how any initrd comes to report.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from acon_nb import kernel_line, results
from acon_nb.boot import counted, memory, report
from acon_nb.cache import Cache, json_sha256, sha256_file
from acon_nb.guest import kernel_log
from acon_nb.guest.programs import host_tsc_khz, mark_program, report_program
from acon_nb.initrd import InitrdImage, add_modules, create, gen_init, tree_of
from acon_nb.progress import CancelToken, OnProgress, silent
from acon_nb.study.functions import starts_of
from acon_nb.study.host_lock import run_locked
from acon_nb.vm import (
    Capabilities,
    Clock,
    End,
    Forward,
    Machine,
    Outcome,
    Ready,
    VmSpec,
    capabilities,
    kernel_words,
    parse_ready,
)
from acon_nb.vm.ready import Rule, check_ready, free_port
from acon_nb.vm.spec import identifying_values

_INITCALLS = "initcall_debug log_buf_len=4M"

VIRTIO_MODULES = ("virtio_pci", "virtio_console")


@dataclass(frozen=True, kw_only=True)
class BootCell:
    """One thing to time: a name for people, a kernel, any initrd, when the guest is ready, and the guest.

    `ready` is as of `vm.parse_ready`; "": the report's message where the initrd brings the report program
    (`boot_initrd`), else /init. `front` is the archive of `report.archive`, made elsewhere (None: made when needed).
    `system_map` names the kernel's functions (None: as of `study.functions`).
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
    ready: str = ""
    front: Path | None = None
    system_map: Path | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "clock", Clock(self.clock))
        if self.ready:
            check_ready(self.ready, self.clock)

    @property
    def reports_itself(self) -> bool:
        """Whether the initrd's own /init runs the report at its end, so that nothing is put in front of it."""
        return self.ready in ("", Rule.MESSAGE) and report.has_report(self.initrd)

    @property
    def until(self) -> Ready:
        """When the guest is ready."""
        return parse_ready(self.ready or (Rule.MESSAGE if self.reports_itself else Rule.INIT))

    def booted_initrd(self) -> Path:
        """The initrd as it is booted: with the report's archive in front, unless it reports itself."""
        if self.reports_itself:
            return self.initrd
        front = self.front or report.archive(report.command_line(self.append)[1])
        return report.joined(front, self.initrd)

    def _is_marked(self) -> bool:
        """Whether the kernel starts the initrd's mark, which tells what ran before /init."""
        counts = self.clock is Clock.INSTRUCTIONS and report.has_mark(self.initrd)
        return counts and kernel_line.parse(self.append).value("rdinit") is None

    def spec(self) -> VmSpec:
        """The guest of this cell; its kernel gets words about its clock (docs/clocks.md)."""
        khz = host_tsc_khz() if self.tsc_khz is None and self.clock is Clock.WALL else self.tsc_khz
        clock_words = kernel_words(self.clock, khz)
        logged = _INITCALLS if self.initcalls else ""
        begun, started = f"INIT={report.REPORT}", self.append
        if not self.reports_itself:
            begun, started = "", report.command_line(self.append)[0]
        elif self._is_marked():
            begun = f"rdinit={report.MARK} {begun}"
        return VmSpec(
            kernel=self.kernel,
            initrd=self.booted_initrd(),
            append=kernel_line.with_words(started, logged, clock_words, begun),
            memory_bytes=self.memory_bytes,
            vcpus=self.vcpus,
            machine=self.machine,
            accelerator=self.accelerator,
            clock=self.clock,
            seed=self.seed,
            timeout_s=self.timeout_s,
            firmware=self.firmware,
            td="boot" if self.td else None,
            network=self.until.rule is Rule.PORT,
        )


@dataclass(frozen=True, kw_only=True)
class BootRun:
    """What one boot gave.

    `host_ns` and `guest_ns` hold the phases in ns (keys as in the module's text; a phase that cannot be known on a
    clock is absent). `ready` is the rule that was met ("": none). Memory is in bytes: MemTotal and MemAvailable as the
    report was made (as `/init` ended, or of any initrd as it began), `mem` the parts of the guest's RAM
    (`boot.memory`), `qemu` QEMU's proportional set size by kind (`host.QemuMemory`). `report_ns` is what the report
    took before the user's /init ran, on the guest's clock; the times to ready are without it. `executed_ns`,
    `busy_waiting_ns` and `idle_ns` are what the instruction clock was from reset to /init, `wait_ns` the functions of
    the busy waiting, `functions` those with the most instructions until then (`study.clock_parts`); with
    `idle_ns_reset_to` and `busy_waiting_ns_reset_to` other moments' phases are split. `initrd` is the one that was
    given, `booted_initrd` it with the report's archive. `kernel_start` is the physical address of the kernel, `log` its
    log; neither is a column.
    """

    name: str
    clock: Clock
    end: End
    accelerator: str
    ready: str = ""
    report_ns: int | None = None
    host_ns: Mapping[str, int] = field(default_factory=dict)
    guest_ns: Mapping[str, int] = field(default_factory=dict)
    executed_ns: int | None = None
    busy_waiting_ns: int | None = None
    idle_ns: int | None = None
    wait_ns: Mapping[str, int] = field(default_factory=dict)
    idle_ns_reset_to: Mapping[str, int] = field(default_factory=dict)
    busy_waiting_ns_reset_to: Mapping[str, int] = field(default_factory=dict)
    functions: tuple[str, ...] = ()
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
    booted_initrd_sha256: str = ""
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
    tree.add_file(report.MARK, mark_program(store), mode=0o755)
    tree.add_file(report.REPORT, report_program(store), mode=0o755)
    if modules:
        add_modules(tree, release, modules, VIRTIO_MODULES)
    return create(tree, path)


def boot_once(
    cell: BootCell,
    host: Capabilities | None,
    cancel: CancelToken,
    *,
    starts: Sequence[int] | None = None,
    calls: Mapping[int, str] | None = None,
    programs: bool = False,
    to_end: bool = False,
) -> Outcome:
    """Boot the guest of a cell and wait until it is ready or ends; the caller holds the host's lock.

    `starts` are the addresses to count by (default: as of `study.functions`, where QEMU counts), `calls` the functions
    whose call stacks are counted too; with `programs` user space is counted by page of a file. With `to_end` it runs
    until it ends.
    """
    spec, until = cell.spec(), None if cell.reports_itself or to_end else cell.until
    if until is not None and until.rule is Rule.PORT:
        spec = replace(spec, forwards=(Forward(host_port=free_port(), guest_port=until.port),))
    host = host or capabilities()
    count_by = starts_of(cell.kernel, cell.clock, cell.system_map, qemu=host.qemu) if starts is None else starts
    with Machine(spec, host=host, until=until, count_by=count_by, calls=calls, programs=programs) as machine:
        return machine.wait(cancel)


def run(
    cell: BootCell,
    *,
    host: Capabilities | None = None,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
    check: bool = True,
) -> BootRun:
    """Boot once, as the runner of studies does: on the wall clock no other measurement runs on this host meanwhile.

    With `check` a guest that does not become ready raises `GuestFailed`; else its end is in the row.
    Errors: `Cancelled`, `GuestFailed`, those of `Machine`.
    """
    outcome, _ = run_locked(
        lambda token: boot_once(cell, host, token),
        alone=cell.clock is Clock.WALL,
        cancel=cancel,
        on_progress=on_progress,
    )
    row = row_of(cell, outcome)
    if check and not row.ready:
        raise outcome.failure(f"{cell.name} ended: {outcome.end.text}; {not_ready(cell, outcome, row)}")
    if check:
        outcome.check()
    return row


def not_ready(cell: BootCell, outcome: Outcome, row: BootRun) -> str:
    """How far a guest came that did not become ready, and what was awaited."""
    failed = next((m.data for m in outcome.messages if m.data.get("event") == "exec-failure"), None)
    if failed is not None:
        return f"{failed.get('program')} or its interpreter cannot be executed"
    reached = "QEMU's start" if outcome.kernel_entry_ns is None else "the kernel's entry"
    if row.log:
        reached = "the end of /init" if cell.reports_itself else "/init"
    return f"reached {reached}, awaited {cell.until.awaited}"


def row_of(cell: BootCell, outcome: Outcome) -> BootRun:
    """What an ended guest of a cell gave. Without a report only what is seen from outside is known."""
    reported = report.read(outcome.messages, cell.clock)
    own = cell.reports_itself
    ready_ns = (
        outcome.ready_ns if not own else reported.arrived_ns - reported.sending_ns if reported is not None else None
    )
    base = BootRun(
        name=cell.name,
        clock=cell.clock,
        end=outcome.end,
        accelerator=outcome.accelerator,
        ready=str(cell.until) if ready_ns is not None else "",
        host_ns=_host_phases(cell, outcome, reported, ready_ns),
        qemu=_qemu(outcome),
        kernel_bytes=cell.kernel.stat().st_size,
        initrd_bytes=cell.initrd.stat().st_size,
        kernel_sha256=sha256_file(cell.kernel),
        initrd_sha256=sha256_file(cell.initrd),
        booted_initrd_sha256=sha256_file(cell.booted_initrd()),
        firmware_sha256=sha256_file(cell.firmware) if cell.firmware is not None else "",
        spec_sha256=spec_hash(cell),
        console=outcome.console,
        **counted.fields(outcome, cell.kernel, cell.system_map),
    )
    mark = counted.init_mark(outcome)
    if reported is None:
        return base if mark is None else replace(base, guest_ns={"reset_to_init": mark.tsc_ns})
    info = reported.memory["meminfo_kib"]
    parts = memory.parts(reported.memory, reported.log, cell.memory_bytes)
    return replace(
        base,
        report_ns=reported.taken_ns,
        guest_ns=_guest_phases(cell, outcome, reported),
        memtotal_bytes=_kib(info.get("MemTotal")),
        memavailable_bytes=_kib(info.get("MemAvailable")),
        mem={f"{name}_bytes": size for name, size in parts.items()},
        memory_line=reported.memory_line,
        kernel_release=reported.release,
        cmdline=reported.cmdline,
        kernel_start=memory.kernel_start(reported.memory),
        log=reported.log,
    )


def _host_phases(
    cell: BootCell, outcome: Outcome, reported: report.Report | None, ready_ns: int | None
) -> dict[str, int]:
    """Host times since QEMU's exec. `init` is the report's arrival less the guest's own time since `/init`.

    The time to ready is without what the report took; that to a ready /init is `init`.
    """
    phases = {"end": outcome.ended_ns - outcome.started_ns}
    if outcome.continued_ns is not None:
        phases["vmm_start"] = outcome.continued_ns - outcome.started_ns
    if outcome.kernel_entry_ns is not None:
        phases["kernel_entry"] = outcome.kernel_entry_ns - outcome.started_ns
    if reported is not None and reported.mark_us is not None and reported.init_us is not None:
        mark_ns = reported.arrived_ns - reported.sending_ns - outcome.started_ns
        phases["init"] = mark_ns - 1000 * (reported.mark_us - reported.init_us)
        phases["log"] = mark_ns - 1000 * reported.mark_us
    if ready_ns is not None and (cell.until.rule is not Rule.INIT or "init" not in phases):
        phases["ready"] = ready_ns - outcome.started_ns - (reported.taken_ns or 0 if reported is not None else 0)
    return phases


def _guest_phases(cell: BootCell, outcome: Outcome, reported: report.Report) -> dict[str, int]:
    """Times of the kernel's clock; on the instruction clock also `reset_to_log`, what came before that clock began.

    The guest's time at a line on its console, or at a message of its own without a `tsc`, is not known.
    """
    phases: dict[str, int] = {}
    if reported.init_us is not None:
        phases["init"] = 1000 * reported.init_us
    if reported.mark_us is None:
        return phases
    if reported.at_end:
        phases["ready"] = 1000 * reported.mark_us
    if cell.clock is Clock.INSTRUCTIONS:
        phases["reset_to_log"] = reported.tsc - 1000 * reported.mark_us
        if (mark := counted.init_mark(outcome)) is not None:
            phases["reset_to_init"] = mark.tsc_ns
        elif "init" in phases:
            phases["reset_to_init"] = phases["reset_to_log"] + phases["init"]
        if reported.at_end:
            phases["reset_to_ready"] = reported.tsc
        elif (tsc := report.ready_tsc(outcome.messages)) is not None and reported.taken_ns is not None:
            phases["reset_to_ready"] = tsc - reported.taken_ns
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
    values = {**identifying_values(cell.spec()), "ready": cell.ready or None}
    return json_sha256({name: value for name, value in values.items() if value is not None})


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
