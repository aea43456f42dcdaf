"""What to boot: one frozen dataclass that Python, notebooks, widgets and the command line all fill."""

from __future__ import annotations

import base64
import binascii
import math
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from acon_nb.errors import InvalidInput
from acon_nb.units import format_bytes, parse_bytes

# struct setup_header, Documentation/arch/x86/boot.rst
_BOOT_FLAG = 0x1FE
_HEADER_MAGIC = 0x202
_INIT_SIZE = 0x260
_MEMORY_MARGIN_BYTES = 8 << 20
_FIRMWARE_MARGIN_BYTES = 32 << 20  # OVMF 2022.11 starts with no less
_APPEND_LIMIT_BYTES = 2047  # COMMAND_LINE_SIZE of x86 less the NUL
_CID_LIMIT = 0xFFFFFFFE
_DIGEST_BYTES = 48
_GUIDE_APPEND = "ip=dhcp console=hvc0 earlyprintk=ttyS0"
_FIRMWARE_PLACES = ("/usr/share/qemu/OVMF.fd", "/usr/share/ovmf/OVMF.fd")  # the first is the guide's default


DIGESTS = ("mrconfigid", "mrowner", "mrownerconfig")


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
        if not re.fullmatch(r"([0-9]{1,3}\.){3}[0-9]{1,3}|", self.address):
            hint = "give an IPv4 address of this host (QEMU forwards no other), or none for all of them"
            raise InvalidInput("address", self.address, "is no IPv4 address", hint=hint)


@dataclass(frozen=True, kw_only=True)
class VmSpec:
    """A guest of QEMU by Direct Linux Boot.

    `append` is the kernel command line. `accelerator` "auto" takes KVM where it works and TCG elsewhere; the
    instruction clock is TCG's alone and wants one vCPU. `seed` feeds every random number that QEMU gives the guest
    on the instruction clock. `results_port` adds the virtio-serial port by which results leave the guest.
    `timeout_s` is the wall time after which a guest counts as hung. `extra` are further options of QEMU.
    `firmware` is an image for `-bios` (q35 alone; none: QEMU's SeaBIOS). `vsock_cid` adds vhost-vsock; 2 and below
    stand for the process id, as in the guide. `balloon` adds a virtio-balloon.
    `td` makes it a TD of that name, for upstream QEMU >= 10.1 or, `td_flavour="fork"`, Intel's former fork. The TD's
    `quote_socket` is vsock:CID:PORT or unix:PATH; `mrconfigid`, `mrowner`, `mrownerconfig` are 48 bytes each, as hex
    or base64. What is None is not there (and does not count in the hash by which results are kept).
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
    firmware: Path | None = None
    vsock_cid: int | None = None
    balloon: bool | None = None
    td: str | None = None
    td_flavour: str | None = None
    quote_socket: str | None = None
    mrconfigid: str | None = None
    mrowner: str | None = None
    mrownerconfig: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "clock", Clock(self.clock))
        _one_of("machine", self.machine, ("q35", "microvm"))
        _one_of("accelerator", self.accelerator, ("auto", "kvm", "tcg"))
        if self.vcpus < 1:
            raise InvalidInput("vcpus", self.vcpus, "is not a number of vCPUs", hint="1 or more")
        if not self.timeout_s > 0:
            raise InvalidInput("timeout_s", self.timeout_s, "is no time limit", hint="give seconds above 0")
        if not 0 <= _length(self.append) <= _APPEND_LIMIT_BYTES or any(c in self.append for c in "\0\n"):
            raise InvalidInput("append", self.append, f"is no kernel command line of up to {_APPEND_LIMIT_BYTES} bytes")
        if self.forwards and not self.network:
            raise InvalidInput("forwards", self.forwards, "need a network", hint="set network=True")
        if self.vsock_cid is not None and not -_CID_LIMIT <= self.vsock_cid <= _CID_LIMIT:
            hint = f"3 to {_CID_LIMIT}, or 0 for the process id"
            raise InvalidInput("vsock_cid", self.vsock_cid, "is no vsock address", hint=hint)
        self._check_disks()
        self._check_clock()
        self._check_firmware()
        self._check_td()
        self._check_memory()

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], argv: Sequence[str] = (), **fields: Any) -> VmSpec:
        """The guest that the guide's variables and arguments name: `[VMLINUZ] [QEMU_OPTIONS]...`.

        TD VP M CID BIOS RD KA TCPFWD DRV have the guide's meaning and defaults (empty counts as not set; kernel and
        initrd default to `vmlinuz` and `initrd` in the current folder). Mended: forwards are bound to 127.0.0.1 unless
        an address is named (ADDRESS:HOST:GUEST), BIOS=- boots without the image, DRV refuses other suffixes.
        `fields` win over the variables. Errors: `InvalidInput` that names the variable or the field.
        """
        words = list(argv)
        kernel = Path(words.pop(0)) if words and not words[0].startswith("-") else Path("vmlinuz")
        values = {"kernel": kernel, "extra": tuple(words), **_guide_fields(environ), **fields}
        if values.get("machine") == "microvm" and not environ.get("BIOS"):
            values["firmware"] = None
        return cls(**values)

    @property
    def is_fork(self) -> bool:
        """Whether the TD is for Intel's former fork of QEMU."""
        return self.td is not None and self.td_flavour == "fork"

    def _check_disks(self) -> None:
        seen: set[Path] = set()
        for disk in self.disks:
            if disk.path.resolve() in seen:
                raise InvalidInput("disks", disk.path, "is given twice", hint="a disk serves one device of one machine")
            seen.add(disk.path.resolve())

    def _check_firmware(self) -> None:
        if self.firmware is None:
            return
        if self.machine == "microvm":
            hint = "leave firmware away (BIOS=-), or use machine=q35"
            raise InvalidInput("firmware", self.firmware, "microvm starts with a firmware of its own", hint=hint)
        if not self.firmware.is_file():
            raise InvalidInput("firmware", self.firmware, "is no file", hint="apt-get install ovmf, or BIOS=- for none")

    def _check_td(self) -> None:
        told = {name: getattr(self, name) for name in ("td_flavour", "quote_socket", *DIGESTS)}
        if self.td is None:
            for name, value in told.items():
                if value is not None:
                    raise InvalidInput(name, value, "belongs to a TD", hint="set td to the TD's name")
            return
        if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9-]{0,58}[A-Za-z0-9])?", self.td):
            hint = "letters, digits and dashes: it becomes the host name td-NAME"
            raise InvalidInput("td", self.td, "is no name of a TD", hint=hint)
        _one_of("td_flavour", self.td_flavour or "upstream", ("upstream", "fork"))
        for name, value in (("machine", "q35"), ("clock", Clock.WALL)):
            if getattr(self, name) != value:
                raise InvalidInput(name, getattr(self, name), "cannot run a TD", hint=f"use {name}={value}")
        if self.accelerator == "tcg":
            raise InvalidInput("accelerator", "tcg", "cannot run a TD", hint="a TD needs KVM on a TDX machine")
        if self.firmware is None:
            hint = "set firmware (BIOS) to a TDVF, such as /usr/share/ovmf/OVMF.fd"
            raise InvalidInput("firmware", None, "a TD starts from a TDVF", hint=hint)
        for name in DIGESTS:
            self.digest(name)
        quote_address(self.quote_socket, fork=self.is_fork)

    def digest(self, field: str) -> bytes | None:
        """The 48 bytes of `mrconfigid`, `mrowner` or `mrownerconfig`, or None."""
        text = getattr(self, field)
        if text is None:
            return None
        try:
            raw = bytes.fromhex(text) if len(text) == 2 * _DIGEST_BYTES else base64.b64decode(text, validate=True)
        except (ValueError, binascii.Error):
            raw = b""
        if len(raw) != _DIGEST_BYTES:
            raise InvalidInput(field, text, "is no SHA-384 digest", hint="give its 48 bytes as 96 hex digits or base64")
        return raw

    def _check_clock(self) -> None:
        if self.clock is not Clock.INSTRUCTIONS:
            return
        if self.vcpus != 1:
            raise InvalidInput("vcpus", self.vcpus, "the instruction clock counts one vCPU", hint="set vcpus=1")
        if self.accelerator == "kvm":
            raise InvalidInput("accelerator", "kvm", "only TCG counts instructions", hint="use accelerator auto or tcg")

    def _check_memory(self) -> None:
        if self.memory_bytes % (1 << 20):
            hint = f"such as {-(-self.memory_bytes // (1 << 20))}M"
            raise InvalidInput("memory_bytes", self.memory_bytes, "is not a whole number of MiB", hint=hint)
        needed = kernel_init_bytes(self.kernel) + _MEMORY_MARGIN_BYTES
        if self.firmware is not None:
            needed += _FIRMWARE_MARGIN_BYTES
        if self.initrd is not None:
            if not self.initrd.is_file():
                raise InvalidInput(
                    "initrd", self.initrd, "is no file", hint="make one: acon-nb initrd from busybox -o F"
                )
            needed += self.initrd.stat().st_size
        if self.memory_bytes < needed:
            what = "the kernel and its initrd" if self.firmware is None else "the firmware, the kernel and its initrd"
            raise InvalidInput(
                "memory_bytes",
                self.memory_bytes,
                f"{format_bytes(self.memory_bytes)} cannot hold {what}",
                hint=f"give at least {-(-needed // (1 << 20))}M",
            )


def quote_address(text: str | None, *, fork: bool = False) -> dict[str, str] | None:
    """QEMU's SocketAddress of a quote socket: vsock:CID:PORT or unix:PATH. Errors: `InvalidInput`."""
    if text is None:
        return None
    vsock = re.fullmatch(r"vsock:([0-9]{1,10}):([0-9]{1,10})", text)
    if vsock:
        return {"type": "vsock", "cid": vsock[1], "port": vsock[2]}
    if re.fullmatch(r"unix:/[^\0]+", text) and not fork:
        return {"type": "unix", "path": text[5:]}
    hint = "vsock:CID:PORT" if fork else "vsock:CID:PORT (Intel's service: vsock:2:4050) or unix:/PATH"
    raise InvalidInput("quote_socket", text, "is no address of a quote service", hint=hint)


def parse_forward(text: str) -> Forward:
    """`HOST:GUEST`, `PORT` (the same on both sides) or `ADDRESS:HOST:GUEST` (guide: TCPFWD)."""
    parts = text.strip().split(":")
    ports = parts[-2:] if len(parts) > 1 else parts * 2
    if len(parts) > 3 or not all(re.fullmatch(r"[0-9]{1,6}", port) for port in ports):
        raise InvalidInput("TCPFWD", text, "is no port mapping", hint="HOSTPORT:GUESTPORT, PORT, or ADDRESS:HOST:GUEST")
    address = parts[0] if len(parts) == 3 else "127.0.0.1"
    return Forward(host_port=int(ports[0]), guest_port=int(ports[1]), address=address)


def _guide_fields(environ: Mapping[str, str]) -> dict[str, Any]:
    """Fields of a spec from the variables of the guide's script."""
    told = {name: environ.get(name, "") for name in ("TD", "VP", "M", "CID", "BIOS", "RD", "KA", "TCPFWD", "DRV")}
    fields: dict[str, Any] = {
        "append": " ".join(word for word in (_GUIDE_APPEND, told["KA"].strip()) if word),
        "memory_bytes": parse_bytes(told["M"] or "2g", field="M", bare="M"),
        "network": True,
        "results_port": False,
        "timeout_s": math.inf,
        "td": told["TD"] or None,
        "firmware": _firmware(told["BIOS"]),
        "initrd": None if told["RD"] == "-" else Path(told["RD"] or "initrd"),
        "forwards": tuple(parse_forward(part) for part in told["TCPFWD"].split(",") if part.strip()),
        "disks": tuple(DiskSpec(path=Path(part)) for part in told["DRV"].split(",") if part),
    }
    if told["VP"]:
        fields["vcpus"] = _number("VP", told["VP"])
    if told["CID"]:
        fields["vsock_cid"] = _number("CID", told["CID"])
    return fields


def _firmware(told: str) -> Path | None:
    if told == "-":
        return None
    if told:
        return Path(told)
    return next((Path(place) for place in _FIRMWARE_PLACES if Path(place).is_file()), Path(_FIRMWARE_PLACES[0]))


def _length(text: str) -> int:
    """Bytes of a text as it goes to a program; -1 for one that cannot."""
    try:
        return len(text.encode(errors="surrogateescape"))
    except UnicodeEncodeError:
        return -1


def _number(variable: str, text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise InvalidInput(variable, text, "is not a whole number", hint=f"such as {variable}=4") from error


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
