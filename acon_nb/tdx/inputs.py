"""The inputs of a measurement: the files and texts of a Direct Linux Boot, and what of them is hashed."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from acon_nb.errors import InvalidInput
from acon_nb.progress import CancelToken, OnProgress, Progress, silent
from acon_nb.tdx import partitions, secure_boot, smbios, stacks, variables, volumes
from acon_nb.tdx.capture import Capture, read_capture, read_others
from acon_nb.tdx.firmware import SectionType, Tdvf, read_tdvf
from acon_nb.tdx.kernel_image import KernelFile, authenticode, authenticode_library, patched
from acon_nb.tdx.mrtd import Mrtd, mrtd
from acon_nb.tdx.uki.image import Uki, read_boot_file
from acon_nb.validation import Meta, check_fields

TPM_LOG = "tpm/log"  # of fw_cfg if the guest has a TPM; measured before the tables
_CHUNK_BYTES = 64 << 20  # large enough that hashing continues while another thread holds the GIL
_MEMORY_LIMIT_BYTES = 1 << 51  # a TD's addresses have 52 bits, of which the highest says that memory is shared
_CPUID = re.compile(r"(?:0x)?[0-9a-fA-F]{1,8}:(?:0x)?[0-9a-fA-F]{1,8}")
_PCI = re.compile(r"(?:[12]?[0-9]|3[01])\.[0-7]")
_APPEND_LIMIT_BYTES = 2047  # COMMAND_LINE_SIZE of x86 less the NUL


def fw_cfg_file(name: str) -> str:
    """Return the file of fw_cfg for one of `ACPI_FILES`, or `TPM_LOG`."""
    return f"etc/acpi/{name}" if name in ("rsdp", "tables") else f"etc/{name}"


@dataclass(frozen=True, kw_only=True)
class BootInputs:
    """A Direct Linux Boot whose measurement is to be predicted.

    `kernel` is what QEMU's -kernel gets: a bzImage, or a UKI, which brings its own initrd and command line (`append`
    replaces the latter; empty: its own). `firmware` is a TDVF, `append` the kernel command line, `memory_bytes` the
    guest's memory. `edk2` is the firmware's release (202411; "": detected from the image), `qemu` the version of QEMU
    ("": for a TD, one that can start it; see `predict`). `vcpus`, `topology` (the rest of -smp) and `devices`
    (`vm.command.device_words`) matter with `capture` alone: a folder with what QEMU gives such a guest
    (`acon_nb.td.capture`), without which RTMR[0] of most firmware cannot be known; it is refused if it is from another
    machine. `cpuid` is CPUID leaf 1 of the TD's vCPU as "EAX:EDX" in hexadecimal, which SMBIOS tables contain. `shim`
    is QEMU's -shim, which the firmware starts in place of the kernel. Errors: `InvalidInput` at construction.
    """

    firmware: Path
    kernel: Path
    initrd: Path | None = None
    append: str = "console=ttyS0"
    memory_bytes: int = 2 << 30
    edk2: str = ""
    qemu: str = ""
    vcpus: Annotated[int, Meta(ge=1)] = 1
    topology: str = ""
    devices: tuple[str, ...] = ()
    capture: Path | None = None
    shim: Path | None = None
    cpuid: str = ""
    disk: Path | None = None
    disk_address: str = "2.0"

    def __post_init__(self) -> None:
        check_fields(self)
        if self.memory_bytes <= 0 or self.memory_bytes % (1 << 20):
            raise InvalidInput("memory_bytes", self.memory_bytes, "is not a whole number of MiB", hint="such as 2048M")
        if self.memory_bytes > _MEMORY_LIMIT_BYTES:
            raise InvalidInput("memory_bytes", self.memory_bytes, "is more than a TD can address", hint="such as 2048M")
        raw = self.append.encode(errors="surrogateescape")
        if len(raw) > _APPEND_LIMIT_BYTES or b"\0" in raw or b"\n" in raw:
            raise InvalidInput(
                "append", self.append, f"is not a valid kernel command line of at most {_APPEND_LIMIT_BYTES} bytes"
            )
        if self.initrd is not None and not self.initrd.is_file():
            hint = "make one: acon-nb initrd from busybox -o FILE"
            raise InvalidInput("initrd", self.initrd, "is not a file", hint=hint)
        if self.shim is not None and not self.shim.is_file():
            raise InvalidInput(
                "shim", self.shim, "is not a file", hint="such as shimx64.efi of the kernel's distribution"
            )
        if not _PCI.fullmatch(self.disk_address):
            hint = "such as 2.0, which is that of the guide's first disk"
            raise InvalidInput("disk_address", self.disk_address, "is not DEVICE.FUNCTION of bus 0", hint=hint)
        if self.disk is not None and self.append:
            hint = "put it into the UKI: ukify build --cmdline"
            raise InvalidInput("append", self.append, "reaches no UKI that is started from a disk", hint=hint)
        stacks.edk2_release(self.edk2)
        stacks.qemu_version(self.qemu)
        if self.cpuid and not _CPUID.fullmatch(self.cpuid):
            raise InvalidInput("cpuid", self.cpuid, "is not EAX:EDX of CPUID leaf 1", hint="such as c06f2:1fa9fbff")

    @property
    def processor_id(self) -> bytes:
        """The processor ID that SMBIOS has of a CPU with `cpuid`, or nothing."""
        words = self.cpuid.split(":") if self.cpuid else []
        return b"".join(int(word, 16).to_bytes(4, "little") for word in words)

    def changed(self, **fields: Any) -> BootInputs:
        """Return the same boot with some fields changed."""
        return replace(self, **fields)


@dataclass(frozen=True)
class Material:
    """The contents of a boot's inputs; what is expensive to hash is hashed once.

    `initrd_digest` is None without an initrd; `acpi` maps the names in `ACPI_FILES` to their bytes, or is empty. It has
    `TPM_LOG` too if it is that of a guest with a TPM. `uki` is the UKI that `kernel` is in, None for a bzImage.
    `smbios` are SMBIOS structures as the firmware installs them, `fw_cfg` items of QEMU's fw_cfg; both are None if
    unknown. `partitions` is what is measured of the partition table of the disk that is booted from, None without one.
    `others` are captures of other machines, each with what differs in words.
    """

    inputs: BootInputs
    firmware: Tdvf
    kernel: KernelFile
    initrd_digest: bytes | None
    initrd_bytes: int | None
    acpi: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    smbios: bytes | None = field(default=None, repr=False)
    fw_cfg: Mapping[str, bytes] | None = field(default=None, repr=False)
    uki: Uki | None = field(default=None, repr=False)
    partitions: bytes | None = field(default=None, repr=False)
    others: tuple[tuple[tuple[str, ...], Capture], ...] = field(default=(), repr=False)

    @property
    def started(self) -> bytes:
        """The file that the firmware starts: the UKI, or the kernel."""
        return self.kernel.image if self.uki is None else self.uki.image

    @cached_property
    def content(self) -> volumes.FirmwareContent:
        """The firmware, unpacked."""
        return volumes.unpack(self.firmware.image)

    @cached_property
    def stack(self) -> stacks.Stack:
        """The switches of the firmware and QEMU."""
        return stacks.stack(self.content, edk2=self.inputs.edk2, qemu=self.inputs.qemu)

    @cached_property
    def configuration(self) -> bytes:
        """The firmware's configuration volume."""
        return b"".join(self.firmware.raw(section) for section in self.firmware.of(SectionType.CFV))

    @cached_property
    def mrtd(self) -> Mrtd:
        """The MRTD of the firmware."""
        return mrtd(self.firmware)

    @cached_property
    def stored_variables(self) -> variables.Variables:
        """The UEFI variables in the firmware's image."""
        return variables.read_variables(self.configuration)

    @cached_property
    def variables(self) -> variables.Variables:
        """The UEFI variables that the firmware starts with: those of its image only if built with secure boot."""
        return self.stored_variables if self.stack.on("secure_boot") else {}

    @cached_property
    def admission(self) -> secure_boot.Admission | None:
        """Whether the firmware starts the kernel (or shim); None if its secure boot is off.

        Errors: `WillNotBoot` if it refuses it, and does not fall back to its legacy loader.
        """
        if not (self.stack.on("secure_boot") and variables.secure_boot(self.variables)):
            return None
        shim = self.inputs.shim
        image, path = (self.started, self.kernel.path) if shim is None else (shim.read_bytes(), shim)
        if secure_boot.falls_back(self.content):
            return secure_boot.admission(image, self.variables)
        return secure_boot.check(path, image, self.variables)

    @cached_property
    def kernel_digest(self) -> bytes:
        """Authenticode hash of the unchanged file that the firmware starts."""
        return authenticode(self.started, self.kernel.path)

    @cached_property
    def inner_digest(self) -> bytes:
        """Authenticode hash of the kernel itself, which a UKI's stub may load by the firmware."""
        return authenticode(self.kernel.image, self.kernel.path)

    @cached_property
    def patched_digest(self) -> bytes:
        """Authenticode hash of the file that the firmware starts with QEMU's changes to its header."""
        inputs = self.inputs
        if self.uki is not None:  # which has no such header
            return self.kernel_digest
        image = patched(self.kernel, inputs.append, self.initrd_bytes, inputs.memory_bytes)
        return authenticode(image, self.kernel.path)


def load(inputs: BootInputs, *, on_progress: OnProgress = silent, cancel: CancelToken | None = None) -> Material:
    """Read the files of a boot; the initrd is hashed as a stream. Errors: `InvalidInput`, `Cancelled`.

    `on_progress` is called in another thread, because the firmware is unpacked at the same time.
    """
    firmware = read_tdvf(inputs.firmware)
    kernel, uki = read_boot_file(inputs.kernel)
    if uki is not None and inputs.initrd is not None:
        hint = "put it into the UKI (ukify build --initrd=), or leave it out (--initrd -)"
        raise InvalidInput("initrd", inputs.initrd, "QEMU takes no initrd with a UKI, which has its own", hint=hint)
    captured = None if inputs.capture is None else read_capture(inputs.capture)
    with ThreadPoolExecutor(1, thread_name_prefix="acon-hash") as pool:
        hashed = None if inputs.initrd is None else pool.submit(_hash_file, inputs.initrd, on_progress, cancel)
        volumes.unpack(firmware.image)  # cached for later
        authenticode_library()
        digest, size = (None, None) if hashed is None else hashed.result()
    table = None if inputs.disk is None else _partitions(inputs.disk, uki)
    material = Material(inputs, firmware, kernel, digest, size, uki=uki, partitions=table)
    return material if captured is None else _with_capture(material, captured)


def _partitions(disk: Path, uki: Uki | None) -> bytes | None:
    """What is measured of a disk's partition table. Errors: `InvalidInput` if the UKI is not on the disk."""
    if uki is None:
        hint = "give a UKI (--uki), which the firmware finds as \\EFI\\BOOT\\BOOTX64.EFI"
        raise InvalidInput("disk", disk, "is booted from with a UKI only", hint=hint)
    return partitions.measured(disk, uki.image)


def _with_capture(material: Material, captured: Capture) -> Material:
    """Add a capture of this very machine; without a version of QEMU, that of the capture. Errors: `InvalidInput`."""
    inputs = material.inputs
    hardware = captured.hardware
    if not inputs.qemu and not stacks.starts_td(hardware.qemu):
        first = stacks.td_versions()[0]
        hint = f"capture with QEMU {first} or later, or give qemu={hardware.qemu} for Intel's former fork"
        reason = f"was captured from QEMU {hardware.qemu}, which cannot start a TD"
        raise InvalidInput("capture", inputs.capture, reason, hint=hint)
    inputs = inputs.changed(qemu=inputs.qemu or hardware.qemu)
    captured.check_machine(
        qemu=inputs.qemu,
        firmware=material.firmware.image,
        memory_bytes=inputs.memory_bytes,
        vcpus=inputs.vcpus,
        topology=inputs.topology,
        devices=inputs.devices,
    )
    others = tuple((captured.differences(other), other) for other in read_others(captured))
    return replace(of_captured(replace(material, inputs=inputs), captured), others=others)


def of_captured(material: Material, captured: Capture) -> Material:
    """Return a boot on the machine of a capture, which is not checked to be that of the inputs."""
    hardware = captured.hardware
    inputs = material.inputs.changed(
        memory_bytes=hardware.memory_bytes,
        vcpus=hardware.vcpus,
        topology=hardware.topology,
        devices=hardware.devices,
    )
    if stacks.starts_td(hardware.qemu) and hardware.qemu.split(".")[:2] != inputs.qemu.split(".")[:2]:
        inputs = inputs.changed(qemu=hardware.qemu)
    table = smbios.with_processor_id(captured.smbios, inputs.processor_id) if inputs.cpuid else None
    return replace(material, inputs=inputs, acpi=captured.acpi, smbios=table, fw_cfg=captured.fw_cfg, others=())


def _hash_file(path: Path, on_progress: OnProgress, cancel: CancelToken | None) -> tuple[bytes, int]:
    state, done, total = hashlib.sha384(), 0, max(1, path.stat().st_size)
    buffer = memoryview(bytearray(min(total, _CHUNK_BYTES)))
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(buffer):
            state.update(buffer[:size])
            done += size
            if cancel is not None:
                cancel.check()
            on_progress(Progress("hash initrd", min(1.0, done / total)))
    return state.digest(), done


# edk2: the volume DXEFV of OvmfPkg (FvNameGuid) and its two applications that are boot options.
_DXEFV = uuid.UUID("7cb8bdc9-f8eb-4f34-aaea-3ee4af6516a1")
_UI_APP = uuid.UUID("462caa21-7614-4503-836e-8ab6f4662331")
_SHELL = uuid.UUID("7c04a583-9e3e-4f1c-ad65-e05268d0b4d1")
_AUTOMATIC = uuid.UUID("8108ac4e-9f11-4d59-850e-e21a522c59b2")  # mBmAutoCreateBootOptionGuid
_MENU_APP = uuid.UUID("eec25bdc-67f2-4d95-b1d5-f81b2039d11d")
_HIDDEN, _ACTIVE, _APPLICATION = 0x8, 0x1, 0x100


def boot_options(*, menu: bool, disk: str = "") -> tuple[tuple[str, bytes], ...]:
    """Return BootOrder and the boot options that OVMF creates before a direct boot, or before it boots a disk.

    `disk` is the PCI address ("2.0") of a virtio disk, the machine's only bootable device. With `menu` the boot menu is
    an option of its own. Source: edk2 OvmfPkg PlatformBootManagerLib; both forms were read from logs of Debian's OVMF
    2022.11, 2025.02 and 2026.08. A direct boot starts before devices are connected, so disks and network cards add no
    options. Those of a disk boot were read from logs of the same three.
    """
    hidden = _APPLICATION | _HIDDEN | _ACTIVE
    options = [_load_option(hidden, "UiApp", _UI_APP)]
    if menu:
        setup = _load_option(_APPLICATION | _ACTIVE, "EFI Firmware Setup", _UI_APP)
        options = [_load_option(hidden, "BootManagerMenuApp", _MENU_APP), setup]
    if disk:
        shell = _ACTIVE | _APPLICATION if menu else _ACTIVE
        options += [_disk_option(disk), _load_option(shell, "EFI Internal Shell", _SHELL)]
    order = b"".join(number.to_bytes(2, "little") for number in range(len(options)))
    return ("BootOrder", order), *((f"Boot{number:04X}", option) for number, option in enumerate(options))


def _disk_option(address: str) -> bytes:
    device, function = map(int, address.split("."))
    path = b"\x02\x01\x0c\0\xd0\x41\x03\x0a" + bytes(4)  # PciRoot(0x0)
    path += b"\x01\x01\x06\0" + bytes((function, device))
    return _option(_ACTIVE, "UEFI Misc Device", path, _AUTOMATIC.bytes_le)


def _load_option(attributes: int, name: str, application: uuid.UUID) -> bytes:
    """EFI_LOAD_OPTION of an application in DXEFV (UEFI specification, section 3.1.3)."""
    path = b"\x04\x07\x14\0" + _DXEFV.bytes_le + b"\x04\x06\x14\0" + application.bytes_le
    return _option(attributes, name, path)


def _option(attributes: int, name: str, path: bytes, data: bytes = b"") -> bytes:
    path += b"\x7f\xff\x04\0"
    head = attributes.to_bytes(4, "little") + len(path).to_bytes(2, "little")
    return head + name.encode("utf-16-le") + b"\0\0" + path + data
