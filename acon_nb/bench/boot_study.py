"""Studies of booting: what the factors of a plan mean, and how a cell is built and booted."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from acon_nb import kernel
from acon_nb.bench import boot, kernel_log, milestones, results, symbols
from acon_nb.bench.builds import Builds
from acon_nb.bench.guest_program import guest_program
from acon_nb.bench.plan import Plan, Setting, Turn
from acon_nb.bench.runner import Measured
from acon_nb.cache import Cache
from acon_nb.errors import AconError, InvalidInput
from acon_nb.initrd.compress import SUFFIXES
from acon_nb.kernel import BuildSpec
from acon_nb.progress import CancelToken, OnProgress, Progress, silent
from acon_nb.tdx.firmware import find_firmware
from acon_nb.units import parse_bytes
from acon_nb.vm import Capabilities, Clock, End, Machine, Outcome, capabilities

_COMPRESSORS = ("gzip", "bzip2", "lzma", "xz", "lzo", "lz4", "zstd")
_NO_MEMORY = ("cannot allocate memory", "cannot set up guest memory", "failed to allocate memory")


@dataclass(frozen=True, kw_only=True)
class BootFactors:
    """The factors of a boot study, as a plan, a notebook or TOML gives them.

    `kernel` is "build" (of `source` with `profile`, names with commas, and `settings`, OPT=VAL with commas), a
    bzImage's path, or package:NAME of Debian. `kernel_compression` is the bzImage's (gzip ... zstd; "": as the profile
    says). `initrd` is an image as of `acon-nb initrd from`, or file:PATH made by `boot_initrd`; `initrd_compression` a
    suffix, "" for none. `firmware` is none, ovmf, or a path. `append` is the command line, `cmdline` words added to it.
    `accelerator` is auto, tcg or kvm; `td` makes it a TD. `initcalls` logs every initcall, which takes time of its own;
    `milestones` boots again, up to three times, to find where firmware and unpacking end (instruction clock).
    `copy` means nothing: two copies of a cell are an A/A comparison.
    Errors: `InvalidInput` at construction.
    """

    clock: str = "instructions"
    kernel: str = "build"
    profile: str = "guide"
    source: str = "debian:6.12"
    settings: str = ""
    kernel_compression: str = ""
    initrd: str = "busybox"
    initrd_compression: str = ""
    memory: str = "512M"
    vcpus: int = 1
    machine: str = "q35"
    firmware: str = "none"
    append: str = "console=ttyS0 panic=-1 quiet"
    cmdline: str = ""
    accelerator: str = "auto"
    td: bool = False
    initcalls: bool = False
    milestones: bool = False
    seed: int = 1
    copy: str = ""
    timeout_s: float = 120.0

    def __post_init__(self) -> None:
        _one_of("clock", self.clock, tuple(Clock))
        _one_of("machine", self.machine, ("q35", "microvm"))
        _one_of("kernel_compression", self.kernel_compression, ("", *_COMPRESSORS))
        _one_of("initrd_compression", self.initrd_compression, ("", *SUFFIXES))
        _one_of("accelerator", self.accelerator, ("auto", "tcg", "kvm"))
        self._check_kinds()
        self._check_together()
        _ = self.memory_bytes

    def _check_kinds(self) -> None:
        for name, least in (("vcpus", 1), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InvalidInput(name, value, "is no number for it", hint=f"a whole number from {least}")
        for name in ("td", "initcalls", "milestones"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidInput(name, getattr(self, name), "is no truth value", hint="true or false")
        if isinstance(self.timeout_s, bool) or not isinstance(self.timeout_s, int | float) or not self.timeout_s > 0:
            raise InvalidInput("timeout_s", self.timeout_s, "is no time limit", hint="give seconds above 0")
        for name in ("kernel", "profile", "source", "settings", "initrd", "firmware", "append", "cmdline"):
            if not isinstance(getattr(self, name), str):
                raise InvalidInput(name, getattr(self, name), "is no text", hint="write it in quotes")

    def _check_together(self) -> None:
        """What cannot be in one guest, told before anything is built."""
        if self.kernel != "build" and self.kernel_compression:
            raise InvalidInput(
                "kernel_compression", self.kernel_compression, "needs kernel=build", hint="leave it away"
            )
        if self.clock == Clock.INSTRUCTIONS and (self.vcpus != 1 or self.accelerator == "kvm" or self.td):
            hint = "clock=wall, or one vCPU, no KVM, no TD"
            raise InvalidInput("clock", self.clock, "counts one vCPU of TCG alone", hint=hint)
        if self.milestones and self.clock != Clock.INSTRUCTIONS:
            hint = "set clock=instructions; on the wall clock the phases come from QEMU's trace"
            raise InvalidInput("milestones", self.milestones, "are counted in instructions", hint=hint)
        if self.machine == "microvm" and self.firmware not in ("", "none"):
            hint = "set firmware=none, or machine=q35"
            raise InvalidInput("firmware", self.firmware, "microvm starts with a firmware of its own", hint=hint)
        if self.td and (self.machine != "q35" or self.firmware in ("", "none") or self.accelerator == "tcg"):
            hint = "set machine=q35, firmware=ovmf and accelerator=auto"
            raise InvalidInput("td", self.td, "needs q35, a TDVF as its firmware, and KVM", hint=hint)

    @property
    def memory_bytes(self) -> int:
        """The guest's memory."""
        return parse_bytes(self.memory, field="memory", bare="M")

    def build_spec(self) -> BuildSpec:
        """The kernel to build."""
        settings = _words(self.settings)
        if self.kernel_compression:
            chosen = f"KERNEL_{self.kernel_compression.upper()}"
            settings += (*(() if chosen == "KERNEL_ZSTD" else ("KERNEL_ZSTD=n",)), f"{chosen}=y")
        return BuildSpec(profiles=_words(self.profile), source=self.source, settings=settings)

    def firmware_path(self) -> Path | None:
        """The firmware's image, if any. Errors: `InvalidInput` where there is none on this host."""
        if self.firmware in ("", "none"):
            return None
        if self.firmware != "ovmf":
            return Path(self.firmware)
        whole = [image.path for image in find_firmware() if image.whole]
        if not whole:
            raise InvalidInput("firmware", "ovmf", "is not on this host", hint="apt-get install ovmf")
        return whole[0]


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """What a cell boots; on another host also the program that measures the TSC there."""

    kernel: Path
    initrd: Path
    firmware: Path | None = None
    tsc_rate: Path | None = None


class BootExperiment:
    """The boot cells of a plan. Errors: `InvalidInput` at construction for a factor or a level that is none."""

    kind = "boot"

    def __init__(self, plan: Plan, *, cache: Cache | None = None) -> None:
        self._store = cache or Cache()
        self._factors = {row.label: boot_factors(row.levels) for row in plan.settings}
        self._parts: dict[str, _Parts] = {}
        self._builds = Builds(self._store)
        self._host: Capabilities | None = None

    @property
    def unbuilt(self) -> Mapping[str, AconError]:
        """The cells whose kernel could not be built, by label, with the reason; after `prepare`."""
        return self._builds.unbuilt

    def clock(self, setting: Setting) -> Clock:
        """The clock of a cell."""
        return Clock(self._factors[setting.label].clock)

    def prepare(
        self, *, jobs: int | None = None, on_progress: OnProgress = silent, cancel: CancelToken | None = None
    ) -> None:
        """Build the kernels and initrds of all cells, and make each cell's guest once on paper.

        Errors: those of `kernel.build` (its failures only if no cell is left) and of an initrd; `InvalidInput` for a
        guest that cannot be.
        """
        self._host = capabilities()
        for factors in self._factors.values():
            check_host(factors, self._host)
        for number, (label, factors) in enumerate(self._factors.items()):
            on_progress(Progress("prepare the cells", number / len(self._factors), label))
            if cancel is not None:
                cancel.check()
            image, modules, release = self._kernel(label, factors, jobs, on_progress, cancel)
            if image is None:
                continue
            self._parts[label] = _Parts(
                kernel=image,
                initrd=self._initrd(factors, modules, release, on_progress),
                firmware=factors.firmware_path(),
                tsc_rate=guest_program("tsc_rate", cache=self._store) if factors.clock == Clock.WALL else None,
            )
            self._cell(label).spec()
        self._builds.check(len(self._factors))
        on_progress(Progress("prepare the cells", 1.0))

    def parts(self, setting: Setting) -> dict[str, Path]:
        """The files that a cell needs on another host, by name; after `prepare`."""
        return {name: path for name, path in vars(self._parts[setting.label]).items() if path is not None}

    def findings(self, setting: Setting) -> dict[str, Any]:
        """What else a cell needs on another host: nothing."""
        del setting
        return {}

    def adopt(self, setting: Setting, parts: Mapping[str, Path], findings: Mapping[str, Any]) -> None:
        """Take a cell's files as they came from another host, in place of `prepare`."""
        del findings
        self._host = capabilities()
        self._parts[setting.label] = _Parts(**parts)

    def identity(self, setting: Setting) -> str:
        """The hash of what the cell boots: the spec with the kernel's and the initrd's bytes, and QEMU's version."""
        cell = self._cell(setting.label)
        assert self._host is not None
        factors = self._factors[setting.label]
        more = " milestones" if factors.milestones else ""
        return f"{boot.spec_hash(cell)} {self._host.version} {factors.copy}{more}"

    def run(self, setting: Setting, turn: Turn, cancel: CancelToken) -> Measured:
        """Boot the cell once."""
        del turn
        cell, factors = self._cell(setting.label), self._factors[setting.label]
        with Machine(cell.spec(), host=self._host) as machine:
            outcome = machine.wait(cancel)
        run = boot.row_of(cell, outcome)
        row = {"memory_bytes": cell.memory_bytes, **results.flat(run)}
        if factors.milestones and run.host_ns:
            marks = milestones.measure(cell, cache=self._store, host=self._host, cancel=cancel)
            row |= {f"guest_ns_reset_to_{name}": count for name, count in marks.items()}
        error = "" if outcome.end is not End.POWERED_OFF or run.host_ns else "powered off without a report"
        words = [outcome.hint, *outcome.notes] if outcome.end is not End.POWERED_OFF else [error]
        return Measured(
            row=row,
            end=outcome.end,
            console=outcome.console,
            host_fault=host_fault(outcome),
            error="; ".join(filter(None, words)),
            kernel_log=_log_text(cell.kernel, run),
        )

    def _cell(self, label: str) -> boot.BootCell:
        factors, parts = self._factors[label], self._parts[label]
        return boot.BootCell(
            name=label,
            kernel=parts.kernel,
            initrd=parts.initrd,
            clock=Clock(factors.clock),
            memory_bytes=factors.memory_bytes,
            machine=factors.machine,
            append=" ".join(filter(None, (factors.append, factors.cmdline))),
            seed=factors.seed,
            timeout_s=factors.timeout_s,
            vcpus=factors.vcpus,
            firmware=parts.firmware,
            tsc_khz=boot.host_tsc_khz(parts.tsc_rate) if parts.tsc_rate else None,
            accelerator=factors.accelerator,
            td=factors.td,
            initcalls=factors.initcalls,
        )

    def _kernel(
        self,
        label: str,
        factors: BootFactors,
        jobs: int | None,
        on_progress: OnProgress,
        cancel: CancelToken | None,
    ) -> tuple[Path | None, tuple[Path, ...], str]:
        """The bzImage (None: not built), and for a packaged kernel the modules that a report needs, and its release."""
        if factors.kernel == "build":
            spec = factors.build_spec()
            image = self._builds.image(label, spec, jobs=jobs, on_progress=on_progress, cancel=cancel)
            return image, (), ""
        if factors.kernel.startswith("package:"):
            name = factors.kernel.removeprefix("package:")
            found = kernel.debian_kernel(name, cache=self._store, on_progress=on_progress)
            return found.image, kernel.module_closure(found, boot.VIRTIO_MODULES), found.version
        return Path(factors.kernel), (), ""

    def _initrd(self, factors: BootFactors, modules: tuple[Path, ...], release: str, on_progress: OnProgress) -> Path:
        if factors.initrd.startswith("file:"):
            return Path(factors.initrd.removeprefix("file:"))
        return boot.kept_initrd(
            self._store,
            image=factors.initrd,
            compression=factors.initrd_compression,
            modules=modules,
            release=release,
            on_progress=on_progress,
        )


def boot_factors(levels: Mapping[str, Any]) -> BootFactors:
    """The factors of a cell. Errors: `InvalidInput` that names what is none, and the nearest that is."""
    known = [item.name for item in fields(BootFactors)]
    for name in levels:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(known)}"
            raise InvalidInput(name, levels[name], "is no factor of a boot study", hint=hint)
    return BootFactors(**levels)


def host_fault(outcome: Outcome) -> str:
    """The fault of the host for which a run is to be done again, or ""."""
    if outcome.end is End.KILLED:
        return "killed from outside"
    said = " ".join(outcome.stderr).lower()
    if outcome.end is End.QEMU_FAILED and any(words in said for words in _NO_MEMORY):
        return "the host is out of memory"
    return ""


def check_host(factors: BootFactors, host: Capabilities) -> None:
    """Refuse what this host cannot run, before anything is built. Errors: `InvalidInput`."""
    if factors.td and not host.kvm:
        hint = "a TD needs a TDX machine (see acon-nb doctor)"
        raise InvalidInput("td", factors.td, f"KVM is not usable here: {host.kvm_why}", hint=hint)
    if factors.accelerator == "kvm" and not host.kvm:
        raise InvalidInput("accelerator", "kvm", host.kvm_why, hint="use accelerator=tcg; see acon-nb doctor")
    factors.firmware_path()


def _log_text(kernel_path: Path, run: boot.BootRun) -> str:
    """The kernel's log; initcalls that it has as addresses get their names where System.map lies beside the kernel."""
    text, system_map = kernel_log.to_text(run.log), kernel_path.with_name("System.map")
    if "calling  0x" not in text or not system_map.is_file():
        return text
    return symbols.named(text, symbols.read_map(system_map))


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _one_of(field: str, value: object, known: Iterable[str]) -> None:
    if value not in tuple(known):
        raise InvalidInput(
            field, value, "is not known", hint=f"one of {', '.join(word or 'nothing' for word in known)}"
        )
