"""The inputs of a measurement: the files and texts of a Direct Linux Boot, and what of them is hashed."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from acon_nb.errors import InvalidInput
from acon_nb.progress import CancelToken, OnProgress, Progress, silent
from acon_nb.tdx import stacks, variables, volumes
from acon_nb.tdx.firmware import SectionType, Tdvf, read_tdvf
from acon_nb.tdx.kernel_image import KernelFile, authenticode, authenticode_library, patched, read_kernel
from acon_nb.tdx.mrtd import Mrtd, mrtd
from acon_nb.validation import check_fields

ACPI_FILES = ("table-loader", "rsdp", "tables")  # of fw_cfg, in the order in which firmware measures them
TPM_LOG = "tpm/log"  # of fw_cfg if the guest has a TPM; measured before the tables
_ACPI_LIMIT_BYTES = 16 << 20
_CHUNK_BYTES = 64 << 20  # large enough that hashing continues while another thread holds the GIL
_MEMORY_LIMIT_BYTES = 1 << 51  # a TD's addresses have 52 bits, of which the highest says that memory is shared
_APPEND_LIMIT_BYTES = 2047  # COMMAND_LINE_SIZE of x86 less the NUL


def fw_cfg_file(name: str) -> str:
    """Return the file of fw_cfg for one of `ACPI_FILES`, or `TPM_LOG`."""
    return f"etc/acpi/{name}" if name in ("rsdp", "tables") else f"etc/{name}"


@dataclass(frozen=True, kw_only=True)
class BootInputs:
    """A Direct Linux Boot whose measurement is to be predicted.

    `firmware` is a TDVF, `append` the kernel command line, `memory_bytes` the guest's memory. `edk2` is the firmware's
    release (202411; "": detected from the image), `qemu` the version of QEMU ("": an old one is assumed). `acpi` is a
    folder with the tables that this QEMU gives such a guest (`acon_nb.td.acpi.capture_acpi`); without it RTMR[0] of
    most firmware cannot be known. Errors: `InvalidInput` at construction.
    """

    firmware: Path
    kernel: Path
    initrd: Path | None = None
    append: str = "console=ttyS0"
    memory_bytes: int = 2 << 30
    edk2: str = ""
    qemu: str = ""
    acpi: Path | None = None

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
        stacks.edk2_release(self.edk2)
        stacks.qemu_version(self.qemu)

    def changed(self, **fields: Any) -> BootInputs:
        """Return the same boot with some fields changed."""
        return replace(self, **fields)


@dataclass(frozen=True)
class Material:
    """The contents of a boot's inputs; what is expensive to hash is hashed once.

    `initrd_digest` is None without an initrd; `acpi` maps the names in `ACPI_FILES` to their bytes, or is empty. It has
    `TPM_LOG` too if it is that of a guest with a TPM.
    """

    inputs: BootInputs
    firmware: Tdvf
    kernel: KernelFile
    initrd_digest: bytes | None
    initrd_bytes: int | None
    acpi: Mapping[str, bytes] = field(default_factory=dict, repr=False)

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
    def kernel_digest(self) -> bytes:
        """Authenticode hash of the unchanged kernel file."""
        return authenticode(self.kernel.image, self.kernel.path)

    @cached_property
    def patched_digest(self) -> bytes:
        """Authenticode hash of the kernel with QEMU's changes to its header."""
        inputs = self.inputs
        image = patched(self.kernel, inputs.append, self.initrd_bytes, inputs.memory_bytes)
        return authenticode(image, self.kernel.path)


def load(inputs: BootInputs, *, on_progress: OnProgress = silent, cancel: CancelToken | None = None) -> Material:
    """Read the files of a boot; the initrd is hashed as a stream. Errors: `InvalidInput`, `Cancelled`.

    `on_progress` is called in another thread, because the firmware is unpacked at the same time.
    """
    firmware = read_tdvf(inputs.firmware)
    kernel = read_kernel(inputs.kernel)
    acpi = {} if inputs.acpi is None else read_acpi(inputs.acpi)
    with ThreadPoolExecutor(1, thread_name_prefix="acon-hash") as pool:
        hashed = None if inputs.initrd is None else pool.submit(_hash_file, inputs.initrd, on_progress, cancel)
        volumes.unpack(firmware.image)  # cached for later
        authenticode_library()
        digest, size = (None, None) if hashed is None else hashed.result()
    return Material(inputs, firmware, kernel, digest, size, acpi)


def read_acpi(folder: Path) -> dict[str, bytes]:
    """Read the ACPI files of a capture. Errors: `InvalidInput`."""
    files = {}
    for name in ACPI_FILES:
        path = folder / name
        if not path.is_file() or path.stat().st_size > _ACPI_LIMIT_BYTES:
            hint = "create the folder with: acon-nb measure acpi FOLDER"
            raise InvalidInput("acpi", folder, f"lacks a captured {name}", hint=hint)
        files[name] = path.read_bytes()
    return files


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
_MENU_APP = uuid.UUID("eec25bdc-67f2-4d95-b1d5-f81b2039d11d")
_HIDDEN, _ACTIVE, _APPLICATION = 0x8, 0x1, 0x100


def boot_options(*, menu: bool) -> tuple[tuple[str, bytes], ...]:
    """Return BootOrder and the boot options that OVMF creates before a direct boot.

    With `menu` the boot menu is an option of its own. Source: edk2 OvmfPkg PlatformBootManagerLib; both forms were read
    from logs of Debian's OVMF 2022.11, 2025.02 and 2026.08. A direct boot starts before devices are connected, so disks
    and network cards add no options.
    """
    hidden = _APPLICATION | _HIDDEN | _ACTIVE
    if not menu:
        return ("BootOrder", b"\0\0"), ("Boot0000", _load_option(hidden, "UiApp", _UI_APP))
    return (
        ("BootOrder", b"\0\0\1\0"),
        ("Boot0000", _load_option(hidden, "BootManagerMenuApp", _MENU_APP)),
        ("Boot0001", _load_option(_APPLICATION | _ACTIVE, "EFI Firmware Setup", _UI_APP)),
    )


def _load_option(attributes: int, name: str, application: uuid.UUID) -> bytes:
    """EFI_LOAD_OPTION of an application in DXEFV (UEFI specification, section 3.1.3)."""
    path = b"\x04\x07\x14\0" + _DXEFV.bytes_le + b"\x04\x06\x14\0" + application.bytes_le + b"\x7f\xff\x04\0"
    head = attributes.to_bytes(4, "little") + len(path).to_bytes(2, "little")
    return head + name.encode("utf-16-le") + b"\0\0" + path
