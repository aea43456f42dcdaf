"""Predict the events of a boot: what is hashed into which register, in which order, by whom.

Order and bytes are those of edk2's OvmfPkg and of Linux's EFI stub for a Direct Linux Boot; docs/measured-boot.md has
the table. An event that cannot be known offline has no digest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from acon_nb.tdx import smbios, variables
from acon_nb.tdx.capture import ACPI_FILES, MEASURED_ITEMS
from acon_nb.tdx.firmware import SectionType
from acon_nb.tdx.hob import td_hob
from acon_nb.tdx.inputs import TPM_LOG, Material, boot_options, fw_cfg_file
from acon_nb.tdx.kernel_image import load_options
from acon_nb.tdx.predicted import PredictedEvent, given, hashed
from acon_nb.tdx.uki import measured as uki_measured
from acon_nb.tdx.uki.image import Uki

_SEPARATOR = bytes(4)
_PACKED = "the image has no compressed volumes that can be unpacked"
_BOOT_OPTION = re.compile(r"BootOrder|Boot[0-9A-F]{4}")
CALLING = "Calling EFI Application from Boot Option"
EXITS = ("Exit Boot Services Invocation", "Exit Boot Services Returned with Success")


@dataclass(frozen=True)
class Variant:
    """The differences between stacks in use, as assumed for one prediction.

    `token` is "prefix" or "suffix"; `kernel_patched` is whether QEMU's changes to the kernel's header are measured,
    `separator_rtmr1` whether the second separator goes to RTMR[1].
    """

    token: str
    kernel_patched: bool
    separator_rtmr1: bool

    def differences(self, other: Variant) -> tuple[str, ...]:
        """Describe what `other` does differently from this one."""
        token = f"the token initrd=initrd comes {'before' if other.token == 'prefix' else 'after'} the command line"
        kernel = f"the kernel is measured {'with' if other.kernel_patched else 'without'} QEMU's changes to its header"
        separator = f"the separator at ready to boot goes to RTMR[{1 if other.separator_rtmr1 else 0}]"
        rows = (
            (self.token != other.token, token),
            (self.kernel_patched != other.kernel_patched, kernel),
            (self.separator_rtmr1 != other.separator_rtmr1, separator),
        )
        return tuple(text for differs, text in rows if differs)


def _separator(register: str, *, first: bool = False) -> PredictedEvent:
    when = "the end of the secure boot variables" if first else "ready to boot"
    source = "four zero bytes"
    return hashed(register, "EV_SEPARATOR", "separator", _SEPARATOR, what=f"separator: {when}", source=source)


def _action(register: str, text: str) -> PredictedEvent:
    return hashed(register, "EV_EFI_ACTION", text, text.encode(), what=f'action "{text}"', source="the text itself")


def td_events(material: Material, variant: Variant) -> Iterator[PredictedEvent]:
    """Yield what a TD measures into RTMR[0..2], in order."""
    if not material.stack.on("rtmr"):
        return
    yield from _td_configuration(material)
    yield from _variables(material, "RTMR[0]")
    yield _separator("RTMR[0]", first=True)
    yield from _acpi(material, "RTMR[0]", with_tpm=False)
    yield from _authority(material, "RTMR[0]")
    yield from _direct(material, variant, "RTMR[1]")
    yield from _smbios(material, "RTMR[0]")
    yield from _boot_options(material, "RTMR[0]")
    yield _action("RTMR[1]", CALLING)
    yield _separator("RTMR[1]" if variant.separator_rtmr1 else "RTMR[0]")
    yield from _of_disk(material, variant, table="RTMR[1]", kernel="RTMR[1]")
    if material.uki is not None:
        start = _start(material, material.uki, td=True)
        yield from _inner_kernel(material, material.uki, "RTMR[1]")
        yield from uki_measured.td_uki_events(
            material.uki, material.kernel, start, from_disk=material.inputs.disk is not None
        )
    elif material.kernel.measures_cc:
        yield from _stub(material, variant, "RTMR[2]")
    for text in EXITS:
        yield _action("RTMR[1]", text)


def tpm_events(material: Material, variant: Variant) -> Iterator[PredictedEvent]:
    """Yield what a guest with a TPM measures into its PCRs, in order."""
    yield from _tpm_firmware(material)
    yield from _variables(material, "PCR[7]")
    yield _separator("PCR[7]", first=True)
    yield from _acpi(material, "PCR[1]", with_tpm=True)
    yield from _authority(material, "PCR[7]")
    yield from _direct(material, variant, "PCR[4]")
    yield from _smbios(material, "PCR[1]")
    yield from _boot_options(material, "PCR[1]")
    yield _action("PCR[4]", CALLING)
    for index in range(7):
        yield _separator(f"PCR[{index}]")
    yield from _of_disk(material, variant, table="PCR[5]", kernel="PCR[4]")
    if material.uki is not None:
        start = _start(material, material.uki, td=False)
        yield from _inner_kernel(material, material.uki, "PCR[4]")
        yield from uki_measured.tpm_uki_events(
            material.uki, material.kernel, start, from_disk=material.inputs.disk is not None, table=material.smbios
        )
    elif material.kernel.measures_tpm:
        yield from _stub(material, variant, "PCR[9]")
    for text in EXITS:
        yield _action("PCR[5]", text)


def _direct(material: Material, variant: Variant, register: str) -> Iterator[PredictedEvent]:
    """What is started without a disk: it is measured before the firmware looks for devices."""
    if material.inputs.disk is None:
        yield _kernel(material, variant, register)


def _of_disk(material: Material, variant: Variant, *, table: str, kernel: str) -> Iterator[PredictedEvent]:
    """The partition table of the disk that is booted from, if it has one that counts, and what is started from it."""
    disk = material.inputs.disk
    if disk is None:
        return
    if material.partitions is not None:
        words = {"what": "partition table (GPT)", "source": disk.name, "depends": ("disk",)}
        yield hashed(table, "EV_EFI_GPT_EVENT", "partition table", material.partitions, **words)
    yield _kernel(material, variant, kernel)


def _inner_kernel(material: Material, uki: Uki, register: str) -> Iterator[PredictedEvent]:
    """The kernel in a UKI, if the stub has the firmware load it; with secure boot on the stub bypasses its checks."""
    if uki.loads_kernel and material.admission is None:
        words: dict[str, object] = {"what": "kernel in the UKI (Authenticode hash)", "depends": ("kernel",)}
        words["source"] = f"{uki.path.name}, section .linux"
        size = len(material.kernel.image)
        yield given(
            register, "EV_EFI_BOOT_SERVICES_APPLICATION", "kernel in the UKI", material.inner_digest, size, **words
        )


def _start(material: Material, uki: Uki, *, td: bool) -> uki_measured.KernelStart:
    return uki_measured.start_of(uki, material.inputs.append, secure_boot=material.admission is not None, td=td)


def _td_configuration(material: Material) -> Iterator[PredictedEvent]:
    firmware, inputs = material.firmware, material.inputs
    yield hashed(
        "RTMR[0]",
        "EV_EFI_HANDOFF_TABLES2",
        "TdxTable",
        td_hob(firmware, inputs.memory_bytes),
        what="TD HOB: the TD's memory, and which of it is accepted",
        source="computed like QEMU does, from the memory size and the firmware's sections",
        depends=("memory_bytes", "firmware"),
    )
    section = next(iter(firmware.of(SectionType.CFV)), None)
    source = f"{section.raw_bytes:#x} bytes at {section.data_offset:#x} of the image" if section else "no such section"
    yield hashed(
        "RTMR[0]",
        "EV_EFI_PLATFORM_FIRMWARE_BLOB2",
        "CFV",
        material.configuration,
        what="configuration volume, with the UEFI variables",
        source=source,
        depends=("firmware",),
    )
    if material.stack.on("fw_cfg"):
        yield from _fw_cfg(material)


def _fw_cfg(material: Material) -> Iterator[PredictedEvent]:
    """Items of QEMU's fw_cfg that the firmware caches; only a TD measures them."""
    words: dict[str, object] = {"depends": ("qemu", "devices")}
    if material.fw_cfg is None:
        for name in ("BootMenu", "bootorder"):
            more = {"what": f"QEMU's {name}", "source": f"fw_cfg {name}", "why": _uncaptured("fw_cfg")}
            yield given("RTMR[0]", "EV_PLATFORM_CONFIG_FLAGS", name, None, None, **words, **more)
        return
    for name, size in MEASURED_ITEMS.items():
        data = material.fw_cfg.get(name, b"")
        if data and size in (None, len(data)):
            more = {"what": f"QEMU's {name}", "source": f"captured from QEMU: {material.inputs.capture}"}
            yield hashed("RTMR[0]", "EV_PLATFORM_CONFIG_FLAGS", name, data, **words, **more)


def _uncaptured(what: str) -> str:
    return f"{what} depends on QEMU's version and the guest's devices; acon-nb measure capture captures it"


def _tpm_firmware(material: Material) -> Iterator[PredictedEvent]:
    version = material.content.version.encode("utf-16-le") + b"\0\0"
    yield hashed(
        "PCR[0]",
        "EV_S_CRTM_VERSION",
        "version",
        version,
        what=f'version of the firmware, "{material.content.version}"',
        source="PcdFirmwareVersionString in the image",
        depends=("firmware",),
    )
    volumes = material.content.volumes()
    source = "unpacked from the image's compressed section"
    why = "PEI writes to its own volume before measuring it"
    words: dict[str, object] = {"source": source, "depends": ("firmware",)}
    peifv = len(volumes[0]) if volumes else None
    blob = "EV_EFI_PLATFORM_FIRMWARE_BLOB"
    yield given("PCR[0]", blob, "PEIFV", None, peifv, what="volume with the PEI modules", why=why, **words)
    if len(volumes) > 1:
        yield hashed("PCR[0]", blob, "DXEFV", volumes[1], what="volume with the DXE modules", **words)
    else:
        yield given("PCR[0]", blob, "DXEFV", None, None, what="volume with the DXE modules", why=_PACKED, **words)


def _variables(material: Material, register: str) -> Iterator[PredictedEvent]:
    built = material.stack.on("secure_boot")
    unread = not (built or material.content.unpacked)  # then a module's absence says nothing
    for row in variables.measured(material.variables, secure_boot_built=built):
        words: dict[str, object] = {
            "source": "variables of the firmware's configuration volume",
            "depends": ("firmware",),
        }
        if unread:
            words["why"] = f"{_PACKED}: it is unknown whether it was built with secure boot"
            words["what"] = f"UEFI variable {row.name}"
            yield given(register, "EV_EFI_VARIABLE_DRIVER_CONFIG", row.name, None, None, **words)
            continue
        value = "no value" if not row.value else f"{len(row.value)} bytes"
        words["what"] = f"UEFI variable {row.name} ({value})"
        yield hashed(register, "EV_EFI_VARIABLE_DRIVER_CONFIG", row.name, row.hashed, **words)


def _acpi(material: Material, register: str, *, with_tpm: bool) -> Iterator[PredictedEvent]:
    if not material.stack.on("acpi"):
        return
    loader, rsdp, tables = ACPI_FILES
    of_this_guest = (TPM_LOG in material.acpi) == with_tpm
    for name in (loader, rsdp, TPM_LOG, tables) if with_tpm else ACPI_FILES:  # the order of the loader's commands
        file = fw_cfg_file(name)
        words: dict[str, object] = {
            "what": f"ACPI: {file}",
            "depends": ("qemu", "devices", "vcpus", "memory_bytes", "append"),
        }
        data = material.acpi.get(name) if of_this_guest else None
        if data is not None:
            captured = f"captured from QEMU: {material.inputs.capture}"
            words["source"] = "read from QEMU after the boot" if with_tpm else captured
            yield hashed(register, "EV_PLATFORM_CONFIG_FLAGS", "ACPI DATA", data, **words)
            continue
        how = "a reference boot reads it" if with_tpm else "acon-nb measure capture captures it"
        why = f"it depends on QEMU's version and the guest's devices; {how}"
        words |= {"source": f"fw_cfg {file}", "why": why}
        yield given(register, "EV_PLATFORM_CONFIG_FLAGS", "ACPI DATA", None, None, **words)


def _authority(material: Material, register: str) -> Iterator[PredictedEvent]:
    admission = material.admission
    if admission is not None:
        why = f"secure boot is on ({admission.why}): this event was not checked against a log"
        source, depends = "the firmware's db, and the kernel's signature", ("firmware", "kernel")
        what = "certificate that verified the kernel"
        words: dict[str, object] = {"what": what, "source": source, "depends": depends, "why": why}
        yield given(register, "EV_EFI_VARIABLE_AUTHORITY", "db", None, None, **words)


def _kernel(material: Material, variant: Variant, register: str) -> PredictedEvent:
    admission = material.admission
    if material.inputs.shim is not None or (admission is not None and not admission.admitted):
        why = "the firmware starts the shim, whose own measurements are not predicted"
        if material.inputs.shim is None and admission is not None:
            why = f"the firmware uses its legacy loader, which is not predicted, since {admission.why}"
        words: dict[str, object] = {"what": "kernel, by other means", "source": "not the firmware's own loader"}
        words |= {"depends": ("kernel", "firmware"), "why": why}
        return given(register, "EV_EFI_BOOT_SERVICES_APPLICATION", "kernel", None, None, **words)
    source = f"{material.kernel.path.name}, the unchanged file"
    depends: tuple[str, ...] = ("kernel", "qemu")
    if material.uki is not None:
        depends = ("kernel",)
    elif variant.kernel_patched:
        source = f"{material.kernel.path.name} with QEMU's changes to its header"
        depends = ("kernel", "qemu", "initrd", "memory_bytes", "append")  # its size; its address; vga= alone
    return given(
        register,
        "EV_EFI_BOOT_SERVICES_APPLICATION",
        "kernel",
        material.patched_digest if variant.kernel_patched else material.kernel_digest,
        len(material.started),
        what="kernel (Authenticode hash)" if material.uki is None else "UKI (Authenticode hash of the whole file)",
        source=source,
        depends=depends,
    )


def _smbios(material: Material, register: str) -> Iterator[PredictedEvent]:
    if not material.stack.on("smbios"):
        return
    words: dict[str, object] = {"what": "SMBIOS tables", "depends": ("qemu", "devices", "memory_bytes", "cpuid")}
    release = material.stack.edk2
    unchecked = register.startswith("RTMR") and release not in smbios.CHECKED_RELEASES
    if material.smbios is not None and not unchecked:
        words["source"] = "SMBIOS tables that the firmware installed, without what identifies one machine"
        yield hashed(register, "EV_EFI_HANDOFF_TABLES", "SMBIOS", smbios.measured(material.smbios), **words)
        return
    why = "SMBIOS tables contain CPUID leaf 1 of the TD's vCPU; give it (--cpuid EAX:EDX) with a capture"
    if material.smbios is not None:
        checked = ", ".join(smbios.CHECKED_RELEASES)
        why = f"which fields edk2 {release or 'of an unknown release'} leaves out was not checked (checked: {checked})"
    words |= {"source": "fw_cfg etc/smbios/smbios-tables and the firmware", "why": why}
    yield given(register, "EV_EFI_HANDOFF_TABLES", "SMBIOS", None, None, **words)


def _boot_options(material: Material, register: str) -> Iterator[PredictedEvent]:
    stored = sorted(name for name, _ in material.variables if _BOOT_OPTION.fullmatch(name))
    address = material.inputs.disk_address if material.inputs.disk is not None else ""
    for name, value in boot_options(menu=material.stack.on("boot_menu"), disk=address):
        words: dict[str, object] = {
            "what": f"UEFI variable {name}: the value alone",
            "source": "boot options that OVMF creates itself",
            "depends": ("firmware", "disk_address") if address else ("firmware",),
        }
        if stored:
            words["why"] = (
                f"how the firmware adds its options to those of its image ({', '.join(stored)}) is not computed"
            )
            yield given(register, "EV_EFI_VARIABLE_BOOT", name, None, None, **words)
        else:
            yield hashed(register, "EV_EFI_VARIABLE_BOOT", name, value, **words)


def _stub(material: Material, variant: Variant, register: str) -> Iterator[PredictedEvent]:
    token = variant.token if material.initrd_bytes else ""  # OVMF offers none for an empty file, and no file either
    where = {"prefix": ", initrd=initrd before it", "suffix": ", initrd=initrd after it", "": ""}[token]
    yield hashed(
        register,
        "EV_EVENT_TAG",
        "command line",
        load_options(material.inputs.append, token=token),
        what=f"kernel command line in UTF-16{where}",
        source="append",
        depends=("append", "initrd") if token else ("append",),
    )
    if material.initrd_digest is not None and material.initrd_bytes:
        assert material.inputs.initrd is not None
        yield given(
            register,
            "EV_EVENT_TAG",
            "initrd",
            material.initrd_digest,
            material.initrd_bytes,
            what="initrd (the file itself)",
            source=material.inputs.initrd.name,
            depends=("initrd",),
        )
