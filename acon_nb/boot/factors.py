"""The factors of a boot study, as a plan, a notebook or TOML gives them, checked before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from acon_nb.archive.compress import SUFFIXES
from acon_nb.boot.report import command_line
from acon_nb.errors import InvalidInput
from acon_nb.kernel import BuildSpec
from acon_nb.tdx.firmware import find_firmware
from acon_nb.units import parse_bytes
from acon_nb.validation import Meta, OneOf, build, check_fields, words
from acon_nb.vm import Clock
from acon_nb.vm.ready import check_ready

_COMPRESSORS = ("gzip", "bzip2", "lzma", "xz", "lzo", "lz4", "zstd")


@dataclass(frozen=True, kw_only=True)
class BootFactors:
    """The factors of a boot study, as a plan, a notebook or TOML gives them.

    `kernel` is "build" (of `source` with `profile`, names with commas, and `settings`, OPT=VAL with commas), a
    bzImage's path, package:NAME[@SUITE] of Debian, debian:SERIES (built as "build" of that source), or a name of the
    plan's table `kernels`. `kernel_compression` is the bzImage's (gzip ... zstd; "": as the profile says). `initrd` is
    an image as of `acon-nb initrd from`, or file:PATH, any initrd; `initrd_compression` is a suffix, "" for none.
    `ready` is when a guest is ready, and then ended: init (/init is reached), console:REGEX, port:NUMBER, message
    (`{"event": "ready"}` on the results port); "": the end of /init where the initrd brings our report, as images do,
    else init. `firmware` is none, ovmf, or a path. `append` is the command line, `cmdline` words added. `accelerator`
    is auto, tcg or kvm; `td` makes it a TD. `initcalls` logs every initcall, which takes time of its own; `milestones`
    boots again, up to three times, to find where firmware and unpacking end (instruction clock). `copy` means nothing:
    two copies of a cell are an A/A comparison.
    Errors: `InvalidInput` at construction.
    """

    clock: Annotated[str, OneOf(tuple(Clock))] = "instructions"
    kernel: str = "build"
    profile: str = "guide"
    source: str = "debian:6.12"
    settings: str = ""
    kernel_compression: Annotated[str, OneOf(("", *_COMPRESSORS))] = ""
    initrd: str = "busybox"
    initrd_compression: Annotated[str, OneOf(("", *SUFFIXES))] = ""
    ready: str = ""
    memory: str = "512M"
    vcpus: Annotated[int, Meta(ge=1)] = 1
    machine: Annotated[str, OneOf(("q35", "microvm"))] = "q35"
    firmware: str = "none"
    append: str = "console=ttyS0 panic=-1 quiet"
    cmdline: str = ""
    accelerator: Annotated[str, OneOf(("auto", "tcg", "kvm"))] = "auto"
    td: bool = False
    initcalls: bool = False
    milestones: bool = False
    seed: Annotated[int, Meta(ge=0)] = 1
    copy: str | int = ""
    timeout_s: Annotated[float, Meta(gt=0, description="give seconds above 0")] = 120.0

    def __post_init__(self) -> None:
        check_fields(self)
        self._check_together()
        _ = self.memory_bytes

    def _check_together(self) -> None:
        """Refuse what cannot be in one guest, before anything is built."""
        if self.ready:
            check_ready(self.ready, Clock(self.clock))
        if self.initrd.startswith("file:") and self.initrd_compression:
            raise InvalidInput("initrd_compression", self.initrd_compression, "is the file's own", hint="omit it")
        command_line(self.append)
        if self.kernel != "build" and self.kernel_compression:
            raise InvalidInput("kernel_compression", self.kernel_compression, "needs kernel=build", hint="omit it")
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
        settings = words(self.settings)
        if self.kernel_compression:
            chosen = f"KERNEL_{self.kernel_compression.upper()}"
            settings += (*(() if chosen == "KERNEL_ZSTD" else ("KERNEL_ZSTD=n",)), f"{chosen}=y")
        return BuildSpec(profiles=words(self.profile), source=self.source, settings=settings)

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


def boot_factors(levels: Mapping[str, Any]) -> BootFactors:
    """The factors of a cell. Errors: `InvalidInput` that names what is none, and the nearest that is."""
    return build(BootFactors, levels, what="a boot study")
