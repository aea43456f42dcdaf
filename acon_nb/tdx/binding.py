"""Whether the data of an event are evidence: only a digest is measured, and data count if they hash to it.

Which bytes a type's digest covers: TCG PC Client Platform Firmware Profile, table "Events"; for boot variables edk2
hashes the value alone (SecurityPkg, MeasureAllBootVariables); GRUB hashes what follows the prefix of its text;
systemd-stub describes in UTF-16 what it hashes, and hashes the name of each section in ASCII (src/boot/stub.c).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from enum import StrEnum

from acon_nb.tdx.eventlog import AAEL_TAG, DSTACK_EVENT, EV_EVENT_TAG, LoggedEvent

_SEPARATOR, _ACTION, _EFI_ACTION, _GPT, _IPL = 0x4, 0x5, 0x80000007, 0x80000006, 0xD
_DRIVER_CONFIG, _AUTHORITY, _BOOT, _BOOT2 = 0x80000001, 0x800000E0, 0x80000002, 0x8000000C
_MUST_HASH = {_SEPARATOR, _ACTION, _EFI_ACTION, _GPT, _DRIVER_CONFIG, _AUTHORITY, _BOOT, _BOOT2, DSTACK_EVENT}
_GRUB = (b"grub_cmd: ", b"grub_cmd ", b"kernel_cmdline: ", b"module_cmdline: ", b"grub_kernel_cmdline ")


class Binding(StrEnum):
    """What an event's data are worth: a code for files, with `text` for people."""

    BOUND = "bound"
    UNBOUND = "unbound"
    FORGED = "forged"

    @property
    def text(self) -> str:
        """What the code means, in words."""
        return {
            Binding.BOUND: "the data hash to the digest",
            Binding.UNBOUND: "the data are only a label: the digest covers other bytes",
            Binding.FORGED: "the data do not hash to the digest, as this type's must: they are forged or damaged",
        }[self]


def binding_of(event: LoggedEvent) -> Binding:
    """Return whether an event's data are bound to its digest."""
    if any(hashlib.sha384(data).digest() == event.digest for data in _hashed(event)):
        return Binding.BOUND
    must = event.event_type in _MUST_HASH or is_aael(event)
    return Binding.FORGED if must and event.data else Binding.UNBOUND


def wide_text(data: bytes) -> str | None:
    """Return the text of data in UTF-16 with a NUL at its end, as EFI programs describe events; None for others."""
    if len(data) < 4 or len(data) % 2 or data[-2:] != b"\0\0" or 0 not in data[1:4:2]:
        return None
    try:
        text = data[:-2].decode("utf-16-le")
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def section_name_digest(name: str) -> bytes:
    """Return the digest of the name of a section as systemd-stub measures it, with the NUL at its end."""
    return hashlib.sha384(name.encode("utf-8", "replace") + b"\0").digest()


def is_aael(event: LoggedEvent) -> bool:
    """Whether an event is a record of Trustee's attestation agent."""
    return event.event_type == EV_EVENT_TAG and event.data[:4] == AAEL_TAG


def _hashed(event: LoggedEvent) -> Iterator[bytes]:
    """Yield the bytes of an event's data that its digest may cover."""
    data = event.data
    yield data
    if event.event_type in (_BOOT, _BOOT2) and len(data) >= 32:
        yield data[32 + 2 * struct.unpack_from("<Q", data, 16)[0] :]  # the value that follows the variable's name
    if event.event_type in (_EFI_ACTION, _ACTION, _IPL):
        yield data.rstrip(b"\0")
    if event.event_type == _IPL and (text := wide_text(data)) is not None:
        yield text.encode("utf-8", "replace") + b"\0"
    if event.event_type == _IPL:
        yield from (data.removeprefix(start).rstrip(b"\0") for start in _GRUB if data.startswith(start))
