"""The UEFI variables of a firmware's configuration volume, and the bytes that firmware measures of them.

Source: edk2 MdeModulePkg/Include/Guid/VariableFormat.h (AUTHENTICATED_VARIABLE_HEADER); TCG PC Client Platform Firmware
Profile, UEFI_VARIABLE_DATA. The input may be hostile: lengths are checked, and reading stops where it is damaged.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

GLOBAL = uuid.UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")
IMAGE_SECURITY = uuid.UUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f")
SECURE_BOOT_ENABLE = uuid.UUID("f0a30bc7-af08-4556-99c4-001009c93a44")
_STORE = uuid.UUID("aaf32c78-947b-439a-a180-2e144ec37792").bytes_le  # gEfiAuthenticatedVariableGuid
_STORE_HEADER_BYTES = 28
_HEADER = struct.Struct("<HBBIQ16sIII16s")
_START = 0x55AA
_PRESENT = (0x3F, 0x3E)  # VAR_ADDED, and the same while its successor is being written
_COUNT_LIMIT = 4096

# What firmware measures before anything else (TCG profile 1.05, section 2.3.4.8).
MEASURED = (("SecureBoot", GLOBAL), ("PK", GLOBAL), ("KEK", GLOBAL), ("db", IMAGE_SECURITY), ("dbx", IMAGE_SECURITY))

Variables = Mapping[tuple[str, uuid.UUID], bytes]


@dataclass(frozen=True)
class MeasuredVariable:
    """A variable as it is measured: its name, its value and the bytes that are hashed."""

    name: str
    value: bytes
    hashed: bytes


def read_variables(volume: bytes) -> Variables:
    """Read the variables of a configuration volume (OVMF_VARS, a TDVF's CFV); none if it has no variable store."""
    variables: dict[tuple[str, uuid.UUID], bytes] = {}
    store = volume.find(_STORE, 0, 4096)
    if store < 0 or store + _STORE_HEADER_BYTES > len(volume):
        return variables
    end = min(len(volume), store + struct.unpack_from("<I", volume, store + 16)[0])
    offset = store + _STORE_HEADER_BYTES
    for _ in range(_COUNT_LIMIT):
        if offset + _HEADER.size > end:
            break
        start, state, _, _, _, _, _, name_bytes, data_bytes, vendor = _HEADER.unpack_from(volume, offset)
        data = offset + _HEADER.size + name_bytes
        if start != _START or data + data_bytes > end:
            break
        if state in _PRESENT:
            name = volume[data - name_bytes : data].decode("utf-16-le", "replace").rstrip("\0")
            variables[name, uuid.UUID(bytes_le=vendor)] = volume[data : data + data_bytes]
        offset = (data + data_bytes + 3) & ~3
    return variables


def secure_boot(variables: Variables) -> bool:
    """Return whether firmware with these variables verifies signatures: it has a PK and secure boot is not disabled."""
    enabled = variables.get(("SecureBootEnable", SECURE_BOOT_ENABLE), b"\1")
    return bool(variables.get(("PK", GLOBAL))) and enabled[:1] == b"\1"


def measured(variables: Variables, *, secure_boot_built: bool) -> tuple[MeasuredVariable, ...]:
    """Return the variables that are measured first, in order.

    `secure_boot_built` is whether the firmware supports secure boot; without it, it measures SecureBoot as a variable
    without a value.
    """
    switch = (b"\1" if secure_boot(variables) else b"\0") if secure_boot_built else b""
    values = {**variables, ("SecureBoot", GLOBAL): switch}
    rows = ((name, guid, values.get((name, guid), b"")) for name, guid in MEASURED)
    return tuple(MeasuredVariable(name, value, variable_data(name, guid, value)) for name, guid, value in rows)


def variable_data(name: str, guid: uuid.UUID, value: bytes) -> bytes:
    """Return UEFI_VARIABLE_DATA: GUID, lengths of name (in characters) and value, name without NUL, value."""
    return guid.bytes_le + struct.pack("<QQ", len(name), len(value)) + name.encode("utf-16-le") + value
