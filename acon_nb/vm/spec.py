"""What to boot: one frozen dataclass that Python, notebooks, widgets and the command line all fill."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from acon_nb.errors import InvalidInput
from acon_nb.units import format_bytes

# struct setup_header, Documentation/arch/x86/boot.rst
_BOOT_FLAG = 0x1FE
_HEADER_MAGIC = 0x202
_INIT_SIZE = 0x260
_MEMORY_MARGIN_BYTES = 8 << 20
_APPEND_LIMIT_BYTES = 2047  # COMMAND_LINE_SIZE of x86 less the NUL


class Clock(StrEnum):
    """Which clock the guest lives on: the host's, or its own count of instructions (1 ns each)."""

    WALL = "wall"
    INSTRUCTIONS = "instructions"


@dataclass(frozen=True, kw_only=True)
class DiskSpec:
    """A virtio-blk device backed by an image file; the suffix gives the format (guide: `DRV`)."""

    path: Path

    def __post_init__(self) -> None:
        if self.path.suffix not in (".raw", ".qcow2"):
            raise InvalidInput("disks", self.path, "is neither .raw nor .qcow2", hint="rename the image by its format")
        if not self.path.is_file():
            raise InvalidInput("disks", self.path, "is no file", hint="create it first")

    @property
    def format(self) -> str:
        """QEMU's name of the image format."""
        return self.path.suffix[1:]


@dataclass(frozen=True, kw_only=True)
class Forward:
    """A TCP port of the host passed on to the guest (guide: `TCPFWD`); bound to 127.0.0.1 unless said otherwise."""

    host_port: int
    guest_port: int
    address: str = "127.0.0.1"

    def __post_init__(self) -> None:
        for field, port in (("host_port", self.host_port), ("guest_port", self.guest_port)):
            if not 1 <= port <= 65535:
                raise InvalidInput(field, port, "is no TCP port", hint="ports are 1 to 65535")
        if not re.fullmatch(r"(\d{1,3}\.){3}\d{1,3}|", self.address):
            hint = "give an IPv4 address of this host (QEMU forwards no other), or none for all of them"
            raise InvalidInput("address", self.address, "is no IPv4 address", hint=hint)


@dataclass(frozen=True, kw_only=True)
class VmSpec:
    """A guest of QEMU by Direct Linux Boot.

    `append` is the kernel command line. `accelerator` "auto" takes KVM where it works and TCG elsewhere; the
    instruction clock is TCG's alone and wants one vCPU. `seed` feeds every random number that QEMU gives the guest
    on the instruction clock. `results_port` adds the virtio-serial port by which results leave the guest.
    `timeout_s` is the wall time after which a guest counts as hung. `extra` are further options of QEMU.
    Source: the guide, "Launching TD". Errors: `InvalidInput` at construction.
    """

    kernel: Path
    initrd: Path | None = None
    append: str = "console=ttyS0 panic=-1"
    memory_bytes: int = 2 << 30
    vcpus: int = 1
    machine: str = "q35"
    accelerator: str = "auto"
    clock: Clock = Clock.WALL
    seed: int = 1
    disks: tuple[DiskSpec, ...] = ()
    network: bool = False
    forwards: tuple[Forward, ...] = ()
    results_port: bool = True
    timeout_s: float = 60.0
    extra: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "clock", Clock(self.clock))
        _one_of("machine", self.machine, ("q35", "microvm"))
        _one_of("accelerator", self.accelerator, ("auto", "kvm", "tcg"))
        if self.vcpus < 1:
            raise InvalidInput("vcpus", self.vcpus, "is not a number of vCPUs", hint="1 or more")
        if self.timeout_s <= 0:
            raise InvalidInput("timeout_s", self.timeout_s, "is no time limit", hint="give seconds above 0")
        if len(self.append.encode()) > _APPEND_LIMIT_BYTES or any(c in self.append for c in "\0\n"):
            raise InvalidInput("append", self.append, f"is no kernel command line of up to {_APPEND_LIMIT_BYTES} bytes")
        if self.forwards and not self.network:
            raise InvalidInput("forwards", self.forwards, "need a network", hint="set network=True")
        self._check_clock()
        self._check_memory()

    def _check_clock(self) -> None:
        if self.clock is not Clock.INSTRUCTIONS:
            return
        if self.vcpus != 1:
            raise InvalidInput("vcpus", self.vcpus, "the instruction clock counts one vCPU", hint="set vcpus=1")
        if self.accelerator == "kvm":
            raise InvalidInput("accelerator", "kvm", "only TCG counts instructions", hint="use accelerator auto or tcg")

    def _check_memory(self) -> None:
        needed = kernel_init_bytes(self.kernel) + _MEMORY_MARGIN_BYTES
        if self.initrd is not None:
            if not self.initrd.is_file():
                raise InvalidInput(
                    "initrd", self.initrd, "is no file", hint="make one: acon-nb initrd from busybox -o F"
                )
            needed += self.initrd.stat().st_size
        if self.memory_bytes < needed:
            raise InvalidInput(
                "memory_bytes",
                self.memory_bytes,
                f"{format_bytes(self.memory_bytes)} cannot hold the kernel and its initrd",
                hint=f"give at least {-(-needed // (1 << 20))}M",
            )


def kernel_init_bytes(kernel: Path) -> int:
    """The memory that a bzImage claims while it starts (`init_size` of its setup header).

    Errors: `InvalidInput` when the file is missing or not a bzImage.
    """
    if not kernel.is_file():
        raise InvalidInput("kernel", kernel, "is no file", hint="build one: acon-nb kernel build --profile minimal")
    with kernel.open("rb") as file:
        head = file.read(0x300)
    if len(head) < 0x300 or head[_BOOT_FLAG : _BOOT_FLAG + 2] != b"\x55\xaa" or head[_HEADER_MAGIC:][:4] != b"HdrS":
        raise InvalidInput("kernel", kernel, "is not a bzImage", hint="QEMU's -kernel wants arch/x86/boot/bzImage")
    size: int = struct.unpack_from("<I", head, _INIT_SIZE)[0]
    return size


def _one_of(field: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise InvalidInput(field, value, "is not known", hint=f"one of {', '.join(known)}")
