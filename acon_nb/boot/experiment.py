"""Studies of booting: what the factors of a plan mean, and how a cell is built and booted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from acon_nb import kernel, kernel_line, results
from acon_nb.boot import milestones, profiling, report
from acon_nb.boot.cell import VIRTIO_MODULES, BootCell, BootRun, boot_once, kept_initrd, not_ready, row_of, spec_hash
from acon_nb.boot.counted import init_mark
from acon_nb.boot.factors import BootFactors, boot_factors
from acon_nb.cache import Cache
from acon_nb.errors import AconError, InvalidInput
from acon_nb.guest import kernel_log, symbols
from acon_nb.guest.programs import guest_program, host_tsc_khz
from acon_nb.kernel import sizes
from acon_nb.profile.counts import Functions
from acon_nb.progress import CancelToken, OnProgress, Progress, silent
from acon_nb.study.builds import Builds
from acon_nb.study.faults import host_fault
from acon_nb.study.functions import check_counting, system_map_of
from acon_nb.study.kernels import spec_of
from acon_nb.study.plan import Plan, PlanCell, PlannedRun
from acon_nb.study.runner import Measured
from acon_nb.vm import GOOD_ENDS, Capabilities, Clock, Outcome, capabilities


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """What a cell boots: `front` is the archive that goes before its initrd, if any, `system_map` names functions.

    On another host also the program that measures the TSC there.
    """

    kernel: Path
    initrd: Path
    front: Path | None = None
    firmware: Path | None = None
    tsc_rate: Path | None = None
    system_map: Path | None = None


class BootExperiment:
    """The boot cells of a plan. Errors: `InvalidInput` at construction for an unknown factor or an invalid level."""

    kind = "boot"

    def __init__(self, plan: Plan, *, cache: Cache | None = None) -> None:
        self._store = cache or Cache()
        self._profile, self._calls = plan.profile, plan.calls
        self._kernels = plan.kernels
        self._factors = {row.label: boot_factors(row.levels) for row in plan.all_cells}
        self._parts: dict[str, _Parts] = {}
        self._facts: dict[str, dict[str, Any]] = {}
        self._builds = Builds(self._store)
        self._host: Capabilities | None = None

    @property
    def unbuilt(self) -> Mapping[str, AconError]:
        """The cells whose kernel could not be built, by label, with the reason; after `prepare`."""
        return self._builds.unbuilt

    def clock(self, cell: PlanCell) -> Clock:
        """The clock of a cell."""
        return Clock(self._factors[cell.label].clock)

    def guest_bytes(self, cell: PlanCell) -> int:
        """The RAM of a guest of the cell."""
        return self._factors[cell.label].memory_bytes

    def prepare(
        self, *, jobs: int | None = None, on_progress: OnProgress = silent, cancel: CancelToken | None = None
    ) -> None:
        """Build the kernels and initrds of all cells, and make each cell's guest once on paper.

        Errors: those of `kernel.build` (its failures only if no cell is left) and of an initrd; `InvalidInput` for a
        guest that cannot be.
        """
        self._host = capabilities()
        clocks = {Clock(factors.clock) for factors in self._factors.values()}
        check_counting(self._host.qemu, clocks, profile=self._profile, cache=self._store, on_progress=on_progress)
        for factors in self._factors.values():
            check_host(factors, self._host)
        for number, (label, factors) in enumerate(self._factors.items()):
            on_progress(Progress("prepare the cells", number / len(self._factors), label))
            if cancel is not None:
                cancel.check()
            image, modules, release = self._kernel(label, factors, jobs, on_progress, cancel)
            if image is None:
                continue
            self._facts[label] = _kernel_facts(image) if self._spec(factors) is not None else {}
            self._parts[label] = _Parts(
                kernel=image,
                initrd=self._initrd(label, modules, release, on_progress, cancel),
                firmware=factors.firmware_path(),
                tsc_rate=guest_program("tsc_rate", cache=self._store) if factors.clock == Clock.WALL else None,
                system_map=system_map_of(image, self._store) if factors.clock == Clock.INSTRUCTIONS else None,
            )
            cell = self._cell(label)
            if not cell.reports_itself:
                front = report.archive(report.command_line(cell.append)[1], store=self._store)
                self._parts[label] = replace(self._parts[label], front=front)
            self._cell(label).spec()
        self._builds.check(len(self._factors))
        on_progress(Progress("prepare the cells", 1.0))

    def parts(self, cell: PlanCell) -> dict[str, Path]:
        """The files that a cell needs on another host, by name; after `prepare`."""
        return {name: path for name, path in vars(self._parts[cell.label]).items() if path is not None}

    def findings(self, cell: PlanCell) -> dict[str, Any]:
        """What `prepare` found out for a cell: columns that all its rows have."""
        return dict(self._facts[cell.label])

    def adopt(self, cell: PlanCell, parts: Mapping[str, Path], findings: Mapping[str, Any]) -> None:
        """Take a cell's files as they came from another host, with what was found out there, in place of `prepare`."""
        self._host = capabilities()
        self._parts[cell.label] = _Parts(**parts)
        self._facts[cell.label] = dict(findings)

    def identity(self, cell: PlanCell) -> str:
        """The hash of what the cell boots: the spec with the kernel's and the initrd's bytes, and QEMU's version."""
        boot_cell = self._cell(cell.label)
        assert self._host is not None
        factors = self._factors[cell.label]
        asked = {"milestones": factors.milestones, "profile": self._profile, "calls": self._calls}
        more = "".join(f" {name}" for name, wanted in asked.items() if wanted)
        return f"{spec_hash(boot_cell)} {self._host.version} {factors.copy}{more}"

    def run(self, cell: PlanCell, planned: PlannedRun, cancel: CancelToken) -> Measured:
        """Boot the cell once."""
        del planned
        boot_cell, factors = self._cell(cell.label), self._factors[cell.label]
        outcome, functions = self._boot(boot_cell, cancel)
        run = row_of(boot_cell, outcome if functions is None else profiling.merged(outcome, functions))
        row = {"memory_bytes": boot_cell.memory_bytes, **self._facts[cell.label], **results.flat(run)}
        if factors.milestones and run.ready:
            marks = milestones.measure(boot_cell, cache=self._store, host=self._host, cancel=cancel)
            for name, milestone in marks.items():
                row |= {f"guest_ns_reset_to_{name}": milestone.clock_ns, f"idle_ns_reset_to_{name}": milestone.idle_ns}
                row[f"busy_waiting_ns_reset_to_{name}"] = 0  # no function of the kernel has run
        words = [] if run.ready else [not_ready(boot_cell, outcome, run)]
        if outcome.end not in GOOD_ENDS:
            words += [outcome.hint, *outcome.notes]
        return Measured(
            row=row,
            end=outcome.end,
            console=outcome.console,
            host_fault=host_fault(outcome),
            error="; ".join(filter(None, words)),
            kernel_log=_log_text(boot_cell.kernel, run),
            profile=self._profile_of(boot_cell, outcome, functions, cancel) if functions and run.ready else b"",
        )

    def _boot(self, cell: BootCell, cancel: CancelToken) -> tuple[Outcome, Functions | None]:
        """Boot a cell; for a profile it is counted by the functions that are returned."""
        if not self._profile:
            return boot_once(cell, self._host, cancel), None
        functions = profiling.functions(cell, cache=self._store)
        calls = functions.names if self._calls else None
        starts = functions.starts()
        return boot_once(cell, self._host, cancel, starts=starts, calls=calls, programs=True), functions

    def _profile_of(self, cell: BootCell, outcome: Outcome, functions: Functions, cancel: CancelToken) -> bytes:
        """The profile of a guest up to the last moment that it marked."""
        assert self._host is not None
        if init_mark(outcome) is None:
            return b""
        made = profiling.of_outcome(cell, outcome, functions, host=self._host, cancel=cancel, cache=self._store)
        return made.encoded()

    def _cell(self, label: str) -> BootCell:
        factors, parts = self._factors[label], self._parts[label]
        return BootCell(
            name=label,
            kernel=parts.kernel,
            initrd=parts.initrd,
            clock=Clock(factors.clock),
            memory_bytes=factors.memory_bytes,
            machine=factors.machine,
            append=kernel_line.with_words(factors.append, factors.cmdline),
            seed=factors.seed,
            timeout_s=factors.timeout_s,
            vcpus=factors.vcpus,
            firmware=parts.firmware,
            tsc_khz=host_tsc_khz(parts.tsc_rate) if parts.tsc_rate else None,
            accelerator=factors.accelerator,
            td=factors.td,
            initcalls=factors.initcalls,
            ready=factors.ready,
            front=parts.front,
        )

    def _spec(self, factors: BootFactors) -> kernel.BuildSpec | None:
        """The kernel that is built for a cell; None for one that is there already."""
        return spec_of(factors.kernel, factors.build_spec(), self._kernels)

    def _kernel(
        self,
        label: str,
        factors: BootFactors,
        jobs: int | None,
        on_progress: OnProgress,
        cancel: CancelToken | None,
    ) -> tuple[Path | None, tuple[Path, ...], str]:
        """The bzImage (None: not built), and for a packaged kernel the modules that a report needs, and its release."""
        spec = self._spec(factors)
        if spec is not None:
            image = self._builds.image(label, spec, jobs=jobs, on_progress=on_progress, cancel=cancel)
            return image, (), ""
        if factors.kernel.startswith("package:"):
            name = factors.kernel.removeprefix("package:")
            packaged = kernel.debian_kernel(name, cache=self._store, on_progress=on_progress)
            return packaged.image, kernel.module_closure(packaged, VIRTIO_MODULES, cache=self._store), packaged.version
        return Path(factors.kernel), (), ""

    def _initrd(
        self,
        label: str,
        modules: tuple[Path, ...],
        release: str,
        on_progress: OnProgress,
        cancel: CancelToken | None,
    ) -> Path:
        """The initrd of a cell; it may add to the cell's facts."""
        del cancel
        factors = self._factors[label]
        if factors.initrd.startswith("file:"):
            return Path(factors.initrd.removeprefix("file:"))
        return kept_initrd(
            self._store,
            image=factors.initrd,
            compression=factors.initrd_compression,
            modules=modules,
            release=release,
            on_progress=on_progress,
        )


def _kernel_facts(image: Path) -> dict[str, int]:
    """What is known of a kernel that was built here: options that are on, bytes of the objects that it is linked of."""
    values = kernel.values_of(str(image.with_name("config")))
    return {
        "kernel_options_on": sum(value == "y" for value in values.values()),
        "kernel_linked_bytes": sum(part.total_bytes for part in sizes.of_image(image)),
    }


def check_host(factors: BootFactors, host: Capabilities) -> None:
    """Refuse what this host cannot run, before anything is built. Errors: `InvalidInput`."""
    if factors.td and not host.kvm:
        hint = "a TD needs a TDX machine (see acon-nb doctor)"
        raise InvalidInput("td", factors.td, f"KVM is not usable here: {host.kvm_why}", hint=hint)
    if factors.accelerator == "kvm" and not host.kvm:
        raise InvalidInput("accelerator", "kvm", host.kvm_why, hint="use accelerator=tcg; see acon-nb doctor")
    factors.firmware_path()


def _log_text(kernel_path: Path, run: BootRun) -> str:
    """The kernel's log; initcalls that it has as addresses get their names where System.map lies next to the kernel."""
    text, system_map = kernel_log.to_text(run.log), kernel_path.with_name("System.map")
    if "calling  0x" not in text or not system_map.is_file():
        return text
    return symbols.named(text, symbols.read_map(system_map))
