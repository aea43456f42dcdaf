"""Describe the events of a log: a label that distinguishes events of one type, taken from a record's data.

The data of an event are not always what was hashed, and they come from the guest: nothing here trusts them, and text is
truncated and limited to printable characters.
"""

from __future__ import annotations

import struct
import uuid

from acon_nb.tdx.binding import section_name_digest, wide_text
from acon_nb.tdx.eventlog import AAEL_TAG, DSTACK_EVENT, LoggedEvent

_TAGS = {
    0x8F3B22ED: "command line",  # Linux: libstub/efistub.h
    0x8F3B22EC: "initrd",
    0xF5BC582A: "systemd-boot's loader.conf",  # systemd: src/fundamental/tpm2-pcr.h
    0x6C46F751: "systemd-stub: devicetree addon",
    0x49DFFE0F: "systemd-stub: initrd addon",
    0xDAC08E1A: "systemd-stub: microcode addon",
    0x13AED6DB: "systemd-stub: profile of the UKI",
    0xD5CB7CBC: "systemd-stub:",  # followed by smbios:type1
    0xE0D47BC8: "systemd-stub:",
    0xC0B3BD23: "systemd-stub:",
}
_TABLES = {
    uuid.UUID("eb9d2d31-2d88-11d3-9a16-0090273fc14d"): "SMBIOS",
    uuid.UUID("f2fd1544-9794-4a2c-992e-e5bbcf20e394"): "SMBIOS",
    uuid.UUID("8868e871-e4f1-11d3-bc22-0080c73c8881"): "ACPI",
}
_LIMIT_CHARACTERS = 100
_VARIABLES = (0x80000001, 0x80000002, 0x8000000C, 0x800000E0)
_APPLICATIONS = (0x80000003, 0x80000004, 0x80000005)
_IPL = 0xD
_BLOBS = (0x80000008, 0x8000000A)
_FILE_PATH = (4, 4)  # device path node: media, file path


def label_of(event: LoggedEvent) -> str:
    """Return what distinguishes a logged event from others of its type, in the terms of `PredictedEvent.label`."""
    data, kind = event.data, event.event_type
    if kind == 0x4:
        return "separator"
    if kind in _VARIABLES:
        return _variable_name(data) or "variable"
    if kind == 0x6:
        return _tag(data)
    if kind == 0x8:
        return "version"
    if kind in _APPLICATIONS:
        return _application(data)
    if kind in _BLOBS:
        return _blob(data, described=kind == 0x8000000A)
    if kind == 0x80000009:
        return _table(data)
    if kind == 0x8000000B:
        return text_of(data[1 : 1 + data[0]]) if data else "table"
    if kind == 0xA and data.startswith(b"QEMU FW CFG\0"):
        return text_of(data[12:]) or "QEMU FW CFG"
    if kind == DSTACK_EVENT:
        return text_of(data[5:].split(b":", 1)[0]) if data else "event"
    if kind == 0x80000006:
        return "partition table"
    if kind == _IPL and (text := wide_text(data)) is not None:
        if text.startswith("."):  # systemd-stub measures the name of each section of a UKI, then the section
            what = "name" if event.digest == section_name_digest(text) else "content"
            return text_of(f"section {text}: {what}".encode())
        return text_of(text.encode("utf-8", "replace"))
    return text_of(data)


def text_of(data: bytes) -> str:
    """Return bytes as a short line of printable text, or as hexadecimal digits if they are not text."""
    raw = data.split(b"\0", 1)[0]
    text = " ".join(raw.decode("utf-8", "replace").split())
    if not raw or not text.isprintable() or "\N{REPLACEMENT CHARACTER}" in text:
        text = data[: _LIMIT_CHARACTERS // 2].hex()
    return text if len(text) <= _LIMIT_CHARACTERS else text[: _LIMIT_CHARACTERS - 1] + "…"


def _variable_name(data: bytes) -> str:
    """The name in UEFI_VARIABLE_DATA, or ""."""
    if len(data) < 32:
        return ""
    characters = struct.unpack_from("<Q", data, 16)[0]
    if not 1 <= characters <= min(_LIMIT_CHARACTERS, (len(data) - 32) // 2):
        return ""
    name = data[32 : 32 + 2 * characters].decode("utf-16-le", "replace")
    return name if name.isprintable() else ""


def _tag(data: bytes) -> str:
    if len(data) < 8:
        return "tag"
    if data[:4] == AAEL_TAG:
        return text_of(data[8 : 8 + struct.unpack_from("<I", data, 4)[0]])
    number = struct.unpack_from("<I", data)[0]
    name = _TAGS.get(number, f"tag {number:#010x}")
    text = wide_text(data[8:]) if name.startswith("systemd") else None  # systemd says which file it was
    return name if text is None else text_of(f"{name} {text}".encode("utf-8", "replace"))


def _application(data: bytes) -> str:
    """The file in the device path of UEFI_IMAGE_LOAD_EVENT; OVMF names what -kernel passes "kernel"."""
    if len(data) < 32:
        return "application"
    path = data[32 : 32 + struct.unpack_from("<Q", data, 24)[0]]
    name, offset = b"", 0
    while offset + 4 <= len(path):
        kind, subtype, size = struct.unpack_from("<BBH", path, offset)
        if size < 4 or offset + size > len(path):
            break
        if (kind, subtype) == _FILE_PATH:
            name = path[offset + 4 : offset + size]
        offset += size
    text = name.decode("utf-16-le", "replace").rstrip("\0")
    return text[:_LIMIT_CHARACTERS] if text and text.isprintable() else "application"


def _blob(data: bytes, *, described: bool) -> str:
    """Where a firmware blob lies: UEFI_PLATFORM_FIRMWARE_BLOB, preceded by a description in the newer form."""
    location = data[1 + data[0] :] if described and data else data
    if len(location) < 16:
        return "firmware"
    start, size = struct.unpack_from("<QQ", location)
    return f"{size:#x} bytes at {start:#x}"


def _table(data: bytes) -> str:
    """The name of the table in UEFI_HANDOFF_TABLE_POINTERS."""
    if len(data) < 24:
        return "tables"
    return _TABLES.get(uuid.UUID(bytes_le=data[8:24]), "tables")
