"""Captured virtual hardware: what QEMU gave a guest, with a manifest of the machine that it was captured from.

A capture is evidence about one machine only. Reading one checks that it is whole and well-formed; `check_machine`
refuses it for a boot on any other machine. Sources: QEMU hw/acpi/bios-linker-loader.c (the loader's commands); ACPI
specification 6.5, section 5.2; edk2 OvmfPkg/Library/QemuFwCfgLib/QemuFwCfgCacheInit.c.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from acon_nb.cache import atomic_file
from acon_nb.errors import InvalidInput
from acon_nb.tdx import acpi, smbios
from acon_nb.tdx.hob import memory_text

FORM = "acon-nb capture 1"
MANIFEST, SMBIOS, FW_CFG = "manifest.json", "smbios", "fw_cfg.json"
ACPI_FILES = ("table-loader", "rsdp", "tables")  # of fw_cfg, in the order in which firmware measures them
_FILES = (*ACPI_FILES, SMBIOS, FW_CFG)
_LIMIT_BYTES = 16 << 20
_HINT = "capture this machine again: acon-nb measure capture FOLDER"
_SHA256 = re.compile(r"[0-9a-f]{64}")
ALSO = "also"  # a folder of captures of machines that differ a little, for the search of drift
_MOST_OTHERS = 64
BOOT_MENU = "BootMenu"  # a selector of fw_cfg, not a file
# What firmware measures in a TD, where present, in this order; an item of another size counts as absent (None: any).
MEASURED_ITEMS: Mapping[str, int | None] = {
    "etc/extra-pci-roots": 8,
    BOOT_MENU: 2,
    "etc/boot-menu-wait": 2,
    "etc/reserved-memory-end": 8,
    "opt/ovmf/X-PciMmio64Mb": None,
    "bootorder": None,
}


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """The machine of a capture: all that QEMU's tables depend on.

    `qemu` is QEMU's version, `machine` the versioned type ("pc-q35-10.1-machine"), `devices` what
    `vm.command.device_words` lists, `topology` the rest of -smp.
    """

    qemu: str
    machine: str
    firmware_sha256: str
    memory_bytes: int
    vcpus: int
    topology: str
    devices: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Capture:
    """A capture that was read and checked: its machine, ACPI files by name, SMBIOS structures, items of fw_cfg."""

    folder: Path
    hardware: Hardware
    acpi: Mapping[str, bytes]
    smbios: bytes
    fw_cfg: Mapping[str, bytes]

    def check_machine(
        self,
        *,
        qemu: str,
        firmware: bytes,
        memory_bytes: int,
        vcpus: int,
        topology: str,
        devices: Sequence[str],
    ) -> None:
        """Refuse the capture for a boot on another machine. Errors: `InvalidInput` that names what differs.

        `qemu` may be less precise than the capture's version: 10.1 includes 10.1.3. `firmware` is the image.
        """
        ours = self.hardware
        rows: tuple[tuple[str, object, object, bool], ...] = (
            ("QEMU", ours.qemu, qemu, _includes(qemu, ours.qemu)),
            ("memory_bytes", ours.memory_bytes, memory_bytes, ours.memory_bytes == memory_bytes),
            ("vcpus", ours.vcpus, vcpus, ours.vcpus == vcpus),
            ("topology", ours.topology, topology, ours.topology == topology),
            ("devices", " ".join(ours.devices), " ".join(devices), ours.devices == tuple(devices)),
            ("firmware", ours.firmware_sha256, sha256(firmware), ours.firmware_sha256 == sha256(firmware)),
        )
        wrong = [
            f"{name} is {_brief(theirs)}, captured was {_brief(mine)}" for name, mine, theirs, ok in rows if not ok
        ]
        if wrong:
            raise InvalidInput(
                "capture", self.folder, f"was captured from another machine: {wrong[0]}", hint=_HINT, details=wrong[1:]
            )

    def differences(self, other: Capture) -> tuple[str, ...]:
        """Describe what is different about the machine of another capture."""
        ours, theirs = self.hardware, other.hardware
        rows = (
            (
                ours.vcpus,
                theirs.vcpus,
                f"the guest has {theirs.vcpus} vCPU{'s' * (theirs.vcpus != 1)}, not {ours.vcpus}",
            ),
            (
                ours.memory_bytes,
                theirs.memory_bytes,
                f"the memory is {memory_text(theirs.memory_bytes)}, not {memory_text(ours.memory_bytes)}",
            ),
            (ours.qemu, theirs.qemu, f"QEMU is {theirs.qemu}, not {ours.qemu}"),
            (
                ours.topology,
                theirs.topology,
                f"-smp has {theirs.topology or 'no topology'}, not {ours.topology or 'none'}",
            ),
            (ours.devices, theirs.devices, f"the devices are {' '.join(theirs.devices) or 'none'}"),
        )
        return tuple(text for mine, others, text in rows if mine != others)


def sha256(data: bytes) -> str:
    """Return the SHA-256 of bytes as hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def write_capture(
    folder: Path, hardware: Hardware, *, tables: Mapping[str, bytes], structures: bytes, fw_cfg: Mapping[str, bytes]
) -> Capture:
    """Write a capture to a folder, its manifest last; return it, read back and checked. Errors: `InvalidInput`."""
    items = json.dumps({name: value.hex() for name, value in fw_cfg.items()}, indent=1, sort_keys=True).encode()
    files = {**{name: tables[name] for name in ACPI_FILES}, SMBIOS: structures, FW_CFG: items}
    (folder / MANIFEST).unlink(missing_ok=True)  # a capture that is interrupted must not look complete
    for name, data in files.items():
        with atomic_file(folder / name) as temporary:
            temporary.write_bytes(data)
    hashes = {name: sha256(data) for name, data in files.items()}
    manifest = {"form": FORM, "hardware": asdict(hardware), "files": hashes}
    with atomic_file(folder / MANIFEST) as temporary:
        temporary.write_text(json.dumps(manifest, indent=1) + "\n")
    return read_capture(folder)


def read_capture(folder: Path) -> Capture:
    """Read a capture; check its manifest, each file's hash, and the structure of the tables. Errors: `InvalidInput`."""
    if not folder.is_dir():
        raise InvalidInput("capture", folder, "is not a folder", hint=_HINT)
    hardware, hashes = _manifest(folder)
    files = {}
    for name in _FILES:
        data = _read(folder, name)
        if hashes[name] != sha256(data):
            _refuse(folder, f"{name} is not the file of the manifest: its SHA-256 is {_brief(sha256(data))}")
        files[name] = data
    capture = Capture(
        folder=folder,
        hardware=hardware,
        acpi={name: files[name] for name in ACPI_FILES},
        smbios=files[SMBIOS],
        fw_cfg=_items(folder, files[FW_CFG]),
    )
    _check_tables(capture)
    return capture


def read_others(capture: Capture) -> tuple[Capture, ...]:
    """Read the captures of other machines that were made along with one. Errors: `InvalidInput`."""
    folder = capture.folder / ALSO
    paths = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if len(paths) > _MOST_OTHERS:
        _refuse(folder, f"has more than {_MOST_OTHERS} captures")
    others = tuple(map(read_capture, paths))
    for other in others:
        if other.hardware.firmware_sha256 != capture.hardware.firmware_sha256:
            _refuse(other.folder, "was captured from another firmware than the capture that it belongs to")
    return others


def _check_tables(capture: Capture) -> None:
    """The tables must be tables, and those of the machine in the manifest."""
    hardware = capture.hardware
    try:
        processors = acpi.processors(acpi.linked_tables(*(capture.acpi[name] for name in ACPI_FILES)))
        structures = smbios.structures(capture.smbios)
    except ValueError as error:
        _refuse(capture.folder, str(error))
    memory = smbios.memory_bytes(structures)
    if processors < hardware.vcpus:
        _refuse(capture.folder, f"tables: the APIC table lists {processors} vCPUs, the manifest {hardware.vcpus}")
    if memory is not None and memory != hardware.memory_bytes:
        _refuse(capture.folder, f"smbios: it lists {memory} bytes of memory, the manifest {hardware.memory_bytes}")
    version = smbios.machine(structures)
    if version and version not in hardware.machine:
        _refuse(capture.folder, f"smbios: it was made by the machine {version[:40]!r}, not {hardware.machine!r}")


def _manifest(folder: Path) -> tuple[Hardware, Mapping[str, str]]:
    raw = _read(folder, MANIFEST)
    try:
        data = json.loads(raw)
        if data["form"] != FORM:
            raise ValueError(f"its form is {str(data['form'])[:40]!r}, not {FORM!r}")
        return _hardware(data["hardware"]), _hashes(data["files"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        why = f"it lacks {error}" if isinstance(error, KeyError) else str(error)[:120]
        _refuse(folder, f"{MANIFEST} is not that of a capture: {why}")


def _hardware(row: Mapping[str, Any]) -> Hardware:
    kinds = {"memory_bytes": int, "vcpus": int, "devices": list}
    for name in Hardware.__dataclass_fields__:
        kind = kinds.get(name, str)
        if not isinstance(row[name], kind) or isinstance(row[name], bool):
            raise ValueError(f"{name} is {str(row[name])[:40]!r}")
    if not re.fullmatch(r"\d{1,3}(\.\d{1,3}){0,2}", row["qemu"]):
        raise ValueError(f"qemu is {row['qemu'][:40]!r}, not a version")
    fields = {name: row[name] for name in Hardware.__dataclass_fields__}
    return Hardware(**{**fields, "devices": tuple(map(str, row["devices"]))})


def _hashes(files: Mapping[str, str]) -> Mapping[str, str]:
    for name in _FILES:
        if not isinstance(files[name], str) or not _SHA256.fullmatch(files[name]):
            raise ValueError(f"the SHA-256 of {name} is {str(files[name])[:40]!r}")
    return files


def _items(folder: Path, raw: bytes) -> Mapping[str, bytes]:
    try:
        items = {str(name): bytes.fromhex(value) for name, value in json.loads(raw).items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        _refuse(folder, f"{FW_CFG} is damaged: {error}")
    if len(items.get(BOOT_MENU, b"")) != MEASURED_ITEMS[BOOT_MENU]:
        _refuse(folder, f"{FW_CFG} lacks {BOOT_MENU}, which every QEMU offers")
    return items


def _read(folder: Path, name: str) -> bytes:
    path = folder / name
    if not path.is_file():
        _refuse(folder, f"lacks {name}")
    if path.stat().st_size > _LIMIT_BYTES:
        _refuse(folder, f"{name} is too large for a capture")
    return path.read_bytes()


def _refuse(folder: Path, reason: str) -> NoReturn:
    raise InvalidInput("capture", folder, reason, hint=_HINT)


def _includes(asked: str, version: str) -> bool:
    """Whether the version in question is that of the capture, as far as it is given."""
    return version.split(".")[: asked.count(".") + 1] == asked.split(".")


def _brief(value: object) -> str:
    text = str(value)
    return f"{text[:16]}..." if _SHA256.fullmatch(text) else (text or "none")
