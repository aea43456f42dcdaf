"""Captures made by hand: ACPI files, SMBIOS structures and fw_cfg of a small q35, as QEMU lays them out."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

from acon_nb.tdx.capture import Capture, Hardware, sha256, write_capture

RSDP, TABLES = b"etc/acpi/rsdp", b"etc/acpi/tables"
HARDWARE = Hardware(
    qemu="10.1.3",
    machine="pc-q35-10.1-machine",
    firmware_sha256="0" * 64,
    memory_bytes=2 << 30,
    vcpus=2,
    topology="",
    devices=("virtio-serial-pci",),
)


def table(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<IBB6s8sI4sI", 36 + len(body), 1, 0, b"BOCHS ", b"BXPC    ", 1, b"BXPC", 1) + body


def tables(vcpus: int) -> list[bytes]:
    apics = b"".join(struct.pack("<BBBBI", 0, 8, number, number, 1) for number in range(vcpus))
    facs = b"FACS" + struct.pack("<I", 64) + bytes(56)
    apic = table(b"APIC", struct.pack("<II", 0xFEE00000, 1) + apics)
    return [facs, table(b"DSDT", b"\x5b" * 99), table(b"FACP", bytes(208)), apic, table(b"MCFG", bytes(24))]


def checksum(file: bytes, offset: int, start: int, length: int) -> bytes:
    return struct.pack("<I56sIII", 3, file, offset, start, length).ljust(128, b"\0")


def acpi_files(vcpus: int = 2) -> dict[str, bytes]:
    """The three files: the loader covers each table, and the tables end in padding."""
    loader = struct.pack("<I56sIB", 1, RSDP, 16, 2).ljust(128, b"\0")
    loader += struct.pack("<I56s56sIB", 2, RSDP, TABLES, 16, 4).ljust(128, b"\0")
    place, raw = 0, b""
    for each in tables(vcpus):
        if each[:4] != b"FACS":
            loader += checksum(TABLES, place + 9, place, len(each))
        place, raw = place + len(each), raw + each
    loader += checksum(RSDP, 8, 0, 20)
    return {
        "table-loader": loader.ljust(4096, b"\0"),
        "rsdp": b"RSD PTR \0BOCHS \0" + bytes(4),
        "tables": raw.ljust(4096, b"\0"),
    }


def structure(kind: int, body: bytes, *texts: bytes) -> bytes:
    strings = b"".join(text + b"\0" for text in texts) + b"\0" if texts else b"\0\0"
    return struct.pack("<BBH", kind, 4 + len(body), 0x100 + kind) + body + strings


def structures(memory_bytes: int = 2 << 30, machine: bytes = b"pc-q35-10.1", serial: bytes = b"s3cret") -> bytes:
    system = bytes((1, 2, 3, 4)) + b"\x11" * 16 + b"\x06\0\0"
    processor = bytes((1, 3, 1, 2)) + bytes(range(1, 9)) + bytes((3,)) + bytes(25)
    size = memory_bytes >> 20
    memory = bytes(8) + struct.pack("<H", size if size < 0x7FFF else 0x7FFF) + bytes(14)
    memory += struct.pack("<I", 0 if size < 0x7FFF else size)
    return (
        structure(1, system, b"QEMU", b"Standard PC", machine, serial)
        + structure(4, processor, b"CPU 0", b"QEMU", machine)
        + structure(17, memory)
        + structure(127, b"")
    )


def write(folder: Path, firmware: bytes, items: dict[str, bytes] | None = None, **fields: Any) -> Capture:
    """A whole capture of `HARDWARE` with these fields changed, and of a firmware."""
    hardware = replace(HARDWARE, firmware_sha256=sha256(firmware), **fields)
    folder.mkdir(exist_ok=True)
    return write_capture(
        folder,
        hardware,
        tables=acpi_files(hardware.vcpus),
        structures=structures(hardware.memory_bytes, hardware.machine.removesuffix("-machine").encode()),
        fw_cfg=items or {"BootMenu": b"\0\0", "bootorder": b"/rom@genroms/linuxboot_dma.bin\n\0"},
    )
