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
from typing import Annotated, Any

from acon_nb import bzimage
from acon_nb.cache import sha256_file
from acon_nb.errors import InvalidInput
from acon_nb.units import format_bytes, parse_bytes
from acon_nb.validation import Meta, OneOf, check_fields, check_given
from acon_nb.vm.memory import check_memory
from acon_nb.vm.parts import DiskSpec, Forward, Share, check_shares, parse_forward

_MACHINE_MODEL = "no fast string instructions"  # of the instruction clock; change it with vm.command
_TSC_RATE = re.compile(r"tsc_early_khz=\d+")
_ABSENT_IF_EMPTY = ("shares",)  # from the hash of results
_MEMORY_MARGIN_BYTES = 8 << 20
_FIRMWARE_MARGIN_BYTES = 32 << 20  # OVMF 2022.11 does not start with less
_APPEND_LIMIT_BYTES = 2047  # COMMAND_LINE_SIZE of x86 less the NUL
_TOPOLOGY = re.compile(r"(?:(?:sockets|dies|clusters|cores|threads|maxcpus)=[0-9]{1,5}(?:,(?=.)|$))+")
_CID_LIMIT = 0xFFFFFFFE
_CID = Meta(ge=-_CID_LIMIT, le=_CID_LIMIT, description=f"give 3 to {_CID_LIMIT}, or 0 for the process id")
_DIGEST_BYTES = 48
GUIDE_APPEND = "ip=dhcp console=hvc0 earlyprintk=ttyS0"  # the command line of `acon-nb run`, before KA
_FIRMWARE_PATHS = ("/usr/share/qemu/OVMF.fd", "/usr/share/ovmf/OVMF.fd")  # the first is the guide's default


# The guide's name of a field that `from_environment` fills
_VARIABLES = {
    "kernel": "VMLINUZ",
    "initrd": "RD",
    "append": "KA",
    "memory_bytes": "M",
    "vcpus": "VP",
    "topology": "VP",
    "firmware": "BIOS",
    "disks": "DRV",
    "forwards": "TCPFWD",
    "host_port": "TCPFWD",
    "guest_port": "TCPFWD",
    "address": "TCPFWD",
    "vsock_cid": "CID",
    "td": "TD",
}
DIGESTS = ("mrconfigid", "mrowner", "mrownerconfig")
SWITCHES = ("attributes", "sept_ve_disable", "debug")
_SEPT_VE_DISABLE = 1 << 28
_TD_ATTRIBUTES = _SEPT_VE_DISABLE | 1 << 30 | 1 << 63  # QEMU: target/i386/kvm/tdx.c, TDX_SUPPORTED_TD_ATTRS


class Clock(StrEnum):
    """The guest's clock: the host's time, or a count of its instructions (1 ns each)."""

    WALL = "wall"
    INSTRUCTIONS = "instructions"


@dataclass(frozen=True, kw_only=True)
class VmSpec:
    """A QEMU guest that is started by Direct Linux Boot, or with `boot_disk` by its firmware from a disk.

    `append` is the kernel command line. `accelerator` "auto" uses KVM where it works and TCG elsewhere; the instruction
    clock works only on TCG and with one vCPU. `topology` is what else QEMU's -smp says of the vCPUs
    ("sockets=1,threads=2"). `seed` determines all random numbers that QEMU gives the guest on the
    instruction clock. `results_port` adds the virtio-serial port through which results leave the guest. `timeout_s` is
    the wall time after which a guest counts as hung. `extra` holds further options for QEMU. `firmware` is an image for
    `-bios` (q35 only; None: QEMU's SeaBIOS). `vsock_cid` adds vhost-vsock; 2 and below stand for the process id, as in
    the guide. `balloon` adds a virtio-balloon. `shares` are folders of the host, offered by 9p; the agent mounts them.
    `td` makes the guest a TD of that name, for upstream QEMU >= 10.1 or, with `td_flavour="fork"`, Intel's former fork.
    The TD's `quote_socket` is vsock:CID:PORT or unix:PATH; `mrconfigid`, `mrowner`, `mrownerconfig` are 48 bytes each,
    as hex or base64; `attributes` are its 64 bits (0x10000000), `sept_ve_disable` is one of them, `debug` another that
    only the fork has. `memory_backend` is QEMU's for the memory, `hugepages` the size of its pages on the host,
    `host_nodes` the host's NUMA nodes that it comes from, `numa` the number of the guest's own nodes. With `boot_disk`
    QEMU is not given `kernel`, which is then what the disk is expected to start.
    A field that is None is absent, also from the hash under which results are stored.
    Source: the guide, "Launching TD". Errors: `InvalidInput` at construction.
    """

    kernel: Path
    initrd: Path | None = None
    append: str = "console=ttyS0 panic=-1"
    memory_bytes: int = 2 << 30
    vcpus: Annotated[int, Meta(ge=1)] = 1
    topology: str | None = None
    machine: Annotated[str, OneOf(("q35", "microvm"))] = "q35"
    accelerator: Annotated[str, OneOf(("auto", "kvm", "tcg"))] = "auto"
    clock: Clock = Clock.WALL
    seed: int = 1
    disks: tuple[DiskSpec, ...] = ()
    network: bool = False
    forwards: tuple[Forward, ...] = ()
    shares: tuple[Share, ...] = ()
    results_port: bool = True
    timeout_s: Annotated[float, Meta(gt=0, description="give seconds above 0")] = 60.0
    extra: tuple[str, ...] = ()
    firmware: Path | None = None
    vsock_cid: Annotated[int, _CID] | None = None
    balloon: bool | None = None
    td: str | None = None
    td_flavour: Annotated[str, OneOf(("upstream", "fork"))] | None = None
    quote_socket: str | None = None
    mrconfigid: str | None = None
    mrowner: str | None = None
    mrownerconfig: str | None = None
    attributes: str | None = None
    sept_ve_disable: bool | None = None
    debug: bool | None = None
    memory_backend: Annotated[str, OneOf(("ram", "memfd"))] | None = None
    hugepages: Annotated[str, OneOf(("2M", "1G"))] | None = None
    numa: Annotated[int, Meta(ge=1, le=64)] | None = None
    host_nodes: str | None = None
    boot_disk: bool | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 <= _length(self.append) <= _APPEND_LIMIT_BYTES or any(c in self.append for c in "\0\n"):
            raise InvalidInput(
                "append", self.append, f"is not a valid kernel command line of at most {_APPEND_LIMIT_BYTES} bytes"
            )
        if self.forwards and not self.network:
            raise InvalidInput("forwards", self.forwards, "need a network", hint="set network=True")
        if self.topology is not None and not _TOPOLOGY.fullmatch(self.topology):
            hint = "such as sockets=1,threads=2 (also dies, clusters, cores, maxcpus)"
            raise InvalidInput("topology", self.topology, "is not a topology of vCPUs", hint=hint)
        self._check_disks()
        check_shares(self.shares)
        self._check_clock()
        self._check_firmware()
        self._check_td()
        self._check_memory()
        check_memory(self)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], argv: Sequence[str] = (), **fields: Any) -> VmSpec:
        """Create a spec from the guide's variables and arguments: `[VMLINUZ] [QEMU_OPTIONS]...`.

        TD VP M CID BIOS RD KA TCPFWD DRV have the guide's meaning and defaults (empty counts as not set; kernel and
        initrd default to `vmlinuz` and `initrd` in the current folder). Unlike in the guide, forwards are bound to
        127.0.0.1 unless an address is given (ADDRESS:HOST:GUEST), BIOS=- boots without an image, and DRV refuses other
        suffixes. `fields` override the variables. Errors: `InvalidInput` that names the variable, or the field.
        """
        words = list(argv)
        kernel = Path(words.pop(0)) if words and not words[0].startswith("-") else Path("vmlinuz")
        try:
            values = {"kernel": kernel, "extra": tuple(words), **_guide_fields(environ), **fields}
            if values.get("machine") == "microvm" and not environ.get("BIOS"):
                values["firmware"] = None
            return cls(**values)
        except InvalidInput as error:
            raise _of_the_guide(error, environ, fields) from error

    @classmethod
    def check_environment(cls, environ: Mapping[str, str]) -> None:
        """Check the guide's variables before there are a kernel and an initrd. Errors: as `from_environment`."""
        try:
            values = _guide_fields(environ)
            check_given(cls, {name: value for name, value in values.items() if name != "initrd"})
        except InvalidInput as error:
            raise _of_the_guide(error, environ, {}) from error

    @property
    def is_fork(self) -> bool:
        """Whether the TD is for Intel's former fork of QEMU."""
        return self.td is not None and self.td_flavour == "fork"

    def _check_disks(self) -> None:
        seen: set[Path] = set()
        for disk in self.disks:
            if disk.path.resolve() in seen:
                hint = "an image can back only one device of one machine"
                raise InvalidInput("disks", disk.path, "is given twice", hint=hint)
            seen.add(disk.path.resolve())

    def _check_firmware(self) -> None:
        if self.firmware is None:
            return
        if self.machine == "microvm":
            hint = "omit the firmware (BIOS=-), or use machine=q35"
            raise InvalidInput("firmware", self.firmware, "microvm has its own firmware", hint=hint)
        if not self.firmware.is_file():
            raise InvalidInput(
                "firmware", self.firmware, "is not a file", hint="apt-get install ovmf, or BIOS=- for none"
            )

    def _check_td(self) -> None:
        if self.td is None:
            for name in ("td_flavour", "quote_socket", *DIGESTS, *SWITCHES):
                value = getattr(self, name)
                if value is not None:
                    raise InvalidInput(name, value, "only applies to a TD", hint="set td to the TD's name")
            return
        if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9-]{0,58}[A-Za-z0-9])?", self.td):
            hint = "use letters, digits and dashes: it becomes the host name td-NAME"
            raise InvalidInput("td", self.td, "is not a valid name of a TD", hint=hint)
        for name, value in (("machine", "q35"), ("clock", Clock.WALL)):
            if getattr(self, name) != value:
                raise InvalidInput(name, getattr(self, name), "cannot run a TD", hint=f"use {name}={value}")
        if self.accelerator == "tcg":
            raise InvalidInput("accelerator", "tcg", "cannot run a TD", hint="a TD needs KVM on a TDX machine")
        if self.firmware is None:
            hint = "set firmware (BIOS) to a TDVF, such as /usr/share/ovmf/OVMF.fd"
            raise InvalidInput("firmware", None, "a TD needs a TDVF", hint=hint)
        for name in DIGESTS:
            self.digest(name)
        quote_address(self.quote_socket, fork=self.is_fork)
        self._check_attributes()

    def _check_attributes(self) -> None:
        """Refuse what QEMU refuses ("Invalid attributes", qemu_errors.toml), before it starts."""
        if self.debug and not self.is_fork:
            hint = "omit it: upstream QEMU offers no debug TD; Intel's former fork does (td_flavour=fork)"
            raise InvalidInput("debug", self.debug, "is not an attribute that upstream QEMU allows", hint=hint)
        if self.attributes is None:
            return
        if self.is_fork:
            hint = "use debug and sept_ve_disable, which the fork has"
            raise InvalidInput("attributes", self.attributes, "is not a property of the fork", hint=hint)
        bits = self.attribute_bits
        if bits is None:
            raise InvalidInput("attributes", self.attributes, "is not a number of 64 bits", hint="such as 0x10000000")
        if bits & ~_TD_ATTRIBUTES:
            hint = "omit debug and others: SEPT_VE_DISABLE (bit 28), PKS (30) and PERFMON (63) are allowed"
            raise InvalidInput(
                "attributes", self.attributes, "has bits that QEMU refuses (Invalid attributes)", hint=hint
            )
        if self.sept_ve_disable is not None and bool(bits & _SEPT_VE_DISABLE) is not self.sept_ve_disable:
            hint = "omit one of them: it is bit 28 of the attributes"
            raise InvalidInput("sept_ve_disable", self.sept_ve_disable, "contradicts attributes", hint=hint)

    @property
    def attribute_bits(self) -> int | None:
        """The TD's attributes as a number; None if there are none, or it is not one of 64 bits."""
        if not re.fullmatch(r"0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20}", self.attributes or ""):
            return None
        value = int(self.attributes or "", 0) if "x" in (self.attributes or "").lower() else int(self.attributes or "")
        return value if value < 1 << 64 else None

    def digest(self, field: str) -> bytes | None:
        """Return the 48 bytes of `mrconfigid`, `mrowner` or `mrownerconfig`; None if it is not set."""
        text = getattr(self, field)
        if text is None:
            return None
        try:
            raw = bytes.fromhex(text) if len(text) == 2 * _DIGEST_BYTES else base64.b64decode(text, validate=True)
        except (ValueError, binascii.Error):
            raw = b""
        if len(raw) != _DIGEST_BYTES:
            raise InvalidInput(
                field, text, "is not a SHA-384 digest", hint="give its 48 bytes as 96 hex digits or base64"
            )
        return raw

    def _check_clock(self) -> None:
        if self.clock is not Clock.INSTRUCTIONS:
            return
        if self.vcpus != 1:
            raise InvalidInput("vcpus", self.vcpus, "the instruction clock counts one vCPU only", hint="set vcpus=1")
        if self.accelerator == "kvm":
            raise InvalidInput("accelerator", "kvm", "only TCG counts instructions", hint="use accelerator auto or tcg")

    def _check_memory(self) -> None:
        if self.memory_bytes % (1 << 20):
            hint = f"such as {-(-self.memory_bytes // (1 << 20))}M"
            raise InvalidInput("memory_bytes", self.memory_bytes, "is not a whole number of MiB", hint=hint)
        if self.firmware is not None and bzimage.is_efi_application(self.kernel):
            needed = 2 * self.kernel.stat().st_size + _FIRMWARE_MARGIN_BYTES  # such as a UKI: the file and its sections
        else:
            needed = least_memory_bytes(self.kernel, 0, firmware=self.firmware is not None)
        if self.initrd is not None:
            if not self.initrd.is_file():
                hint = "make one: acon-nb initrd from busybox -o FILE"
                raise InvalidInput("initrd", self.initrd, "is not a file", hint=hint)
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
    """Return QEMU's SocketAddress for a quote socket, vsock:CID:PORT or unix:PATH. Errors: `InvalidInput`."""
    if text is None:
        return None
    vsock = re.fullmatch(r"vsock:([0-9]{1,10}):([0-9]{1,10})", text)
    if vsock:
        return {"type": "vsock", "cid": vsock[1], "port": vsock[2]}
    if re.fullmatch(r"unix:/[^\0]+", text) and not fork:
        return {"type": "unix", "path": text[5:]}
    hint = "vsock:CID:PORT" if fork else "vsock:CID:PORT (Intel's service: vsock:2:4050) or unix:/PATH"
    raise InvalidInput("quote_socket", text, "is not a valid address of a quote service", hint=hint)


def guide_append(environ: Mapping[str, str]) -> str:
    """Return the kernel command line of the guide's launch: its own, and what KA adds."""
    return " ".join(word for word in (GUIDE_APPEND, environ.get("KA", "").strip()) if word)


def _guide_fields(environ: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a spec that the variables of the guide's script set."""
    values = {name: environ.get(name, "") for name in ("TD", "VP", "M", "CID", "BIOS", "RD", "KA", "TCPFWD", "DRV")}
    fields: dict[str, Any] = {
        "append": guide_append(environ),
        "memory_bytes": parse_bytes(values["M"] or "2g", field="M", bare="M"),
        "network": True,
        "results_port": False,
        "timeout_s": math.inf,
        "td": values["TD"] or None,
        "firmware": _firmware(values["BIOS"]),
        "initrd": None if values["RD"] == "-" else Path(values["RD"] or "initrd"),
        "forwards": tuple(parse_forward(part) for part in values["TCPFWD"].split(",") if part.strip()),
        "disks": tuple(DiskSpec(path=path) for path in _images(values["DRV"])),
    }
    if values["VP"]:
        number, _, topology = values["VP"].partition(",")
        fields |= {"vcpus": _number("VP", number), "topology": topology or None}
    if values["CID"]:
        fields["vsock_cid"] = _number("CID", values["CID"])
    return fields


def _images(drv: str) -> list[Path]:
    """The paths of DRV, which commas separate; a piece without a suffix belongs to a path that has a comma itself."""
    paths: list[Path] = []
    start = ""
    for part in drv.split(","):
        text = start + (part if start else part.lstrip())
        if text.rstrip().endswith((".raw", ".qcow2")) or not text.strip():
            paths += [Path(text.rstrip())] if text.strip() else []
            start = ""
        else:
            start = f"{text},"
    return [*paths, *([Path(start[:-1].rstrip())] if start else [])]


def _of_the_guide(error: InvalidInput, environ: Mapping[str, str], given: Mapping[str, Any]) -> InvalidInput:
    """An error in the guide's terms: of the variable that the user has set, with its value."""
    variable = _VARIABLES.get(error.field, "")
    if not variable or error.field in given or not (environ.get(variable) or variable == "VMLINUZ"):
        return error
    value = environ.get(variable, error.value)
    return InvalidInput(variable, value, error.reason, hint=error.hint, details=error.details)


def _firmware(bios: str) -> Path | None:
    if bios == "-":
        return None
    if bios:
        return Path(bios)
    return next((Path(path) for path in _FIRMWARE_PATHS if Path(path).is_file()), Path(_FIRMWARE_PATHS[0]))


def _length(text: str) -> int:
    """The number of bytes of a text as an argument of a program; -1 if it cannot be one."""
    try:
        return len(text.encode(errors="surrogateescape"))
    except UnicodeEncodeError:
        return -1


def _number(variable: str, text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise InvalidInput(variable, text, "is not a whole number", hint=f"such as {variable}=4") from error


def least_memory_bytes(kernel: Path, initrd_bytes: int, *, firmware: bool) -> int:
    """Return the memory below which a kernel does not even start to unpack its initrd. Errors: `InvalidInput`."""
    margin = _MEMORY_MARGIN_BYTES + (_FIRMWARE_MARGIN_BYTES if firmware else 0)
    return kernel_init_bytes(kernel) + margin + initrd_bytes


def kernel_init_bytes(kernel: Path) -> int:
    """Return the memory that a bzImage needs while it starts (`init_size` of its setup header), in bytes.

    Errors: `InvalidInput` if the file is missing or not a bzImage.
    """
    if not kernel.is_file():
        raise InvalidInput("kernel", kernel, "is not a file", hint="build one: acon-nb kernel build --profile minimal")
    with kernel.open("rb") as file:
        head = file.read(bzimage.HEADER_BYTES)
    if not bzimage.is_bzimage(head):
        raise InvalidInput("kernel", kernel, "is not a bzImage", hint="QEMU's -kernel wants arch/x86/boot/bzImage")
    size: int = struct.unpack_from("<I", head, bzimage.INIT_SIZE)[0]
    return size


def identifying_values(spec: VmSpec) -> dict[str, str | None]:
    """Return the fields of a spec as texts that identify what it boots, for hashing.

    Files count by their SHA-256, not by their path. The host's measured TSC rate, whose last digits vary, is removed.
    What QEMU's command makes of the instruction clock counts as `machine_model`.
    """

    def text_of(value: object) -> str | None:
        if isinstance(value, Path):
            return sha256_file(value)
        return None if value is None else _TSC_RATE.sub("", str(value))

    model = {"machine_model": _MACHINE_MODEL} if spec.clock is Clock.INSTRUCTIONS else {}
    values = {name: value for name, value in vars(spec).items() if value or name not in _ABSENT_IF_EMPTY}
    return {**{name: text_of(value) for name, value in values.items()}, **model}
