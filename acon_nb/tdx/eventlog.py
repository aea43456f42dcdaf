"""Read and replay the event logs of a measured boot: a TD's CCEL, a TPM's TCG2 log.

A log is one TCG_PCR_EVENT ("Spec ID Event03") that lists the hash algorithms, followed by TCG_PCR_EVENT2 records. The
index of a record is a PCR in a TPM's log, and the register's number plus one in a TD's (0 is MRTD). A log ends at
0xFFFFFFFF, at zero padding or with the file. The input may be hostile: each length is checked before it is used.
Source: TCG PC Client Platform Firmware Profile, "Event Logging"; UEFI specification 2.10, section 38.4.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from acon_nb import user_file
from acon_nb.errors import InvalidInput

SHA384 = 0x000C
DIGEST_BYTES = 48
ZERO = bytes(DIGEST_BYTES)
EV_NO_ACTION = 3
EV_EVENT_TAG = 6
AAEL_TAG = b"LEAA"  # 0x4141454c ("AAEL"), little-endian: guest-components, attestation-agent, eventlog/tcg2.rs
DSTACK_EVENT = 0x08000001  # an application's event of dstack: dstack, cc-eventlog, runtime_events.rs
AAEL_LINE = 0x4141454C  # not of the specification: a line of an application's text log
APPLICATION = "RTMR[3]"  # the register that firmware and kernel leave to applications
TPM_LOG_PATH = Path("/sys/kernel/security/tpm0/binary_bios_measurements")
CCEL_PATH = Path("/sys/firmware/acpi/tables/data/CCEL")
_LOG_LIMIT_BYTES = 64 << 20
_EVENT_LIMIT = 100_000
_SPEC_ID = b"Spec ID Event03\0"
_ALGORITHM_LIMIT = 16
_SIZES = {0x0004: 20, 0x000B: 32, 0x000C: 48, 0x000D: 64, 0x0012: 32}
_END = 0xFFFFFFFF

EVENT_TYPES: Mapping[int, str] = {
    0x0: "EV_PREBOOT_CERT",
    0x1: "EV_POST_CODE",
    0x3: "EV_NO_ACTION",
    0x4: "EV_SEPARATOR",
    0x5: "EV_ACTION",
    0x6: "EV_EVENT_TAG",
    0x7: "EV_S_CRTM_CONTENTS",
    0x8: "EV_S_CRTM_VERSION",
    0x9: "EV_CPU_MICROCODE",
    0xA: "EV_PLATFORM_CONFIG_FLAGS",
    0xB: "EV_TABLE_OF_DEVICES",
    0xC: "EV_COMPACT_HASH",
    0xD: "EV_IPL",
    0xE: "EV_IPL_PARTITION_DATA",
    0xF: "EV_NONHOST_CODE",
    0x10: "EV_NONHOST_CONFIG",
    0x11: "EV_NONHOST_INFO",
    0x12: "EV_OMIT_BOOT_DEVICE_EVENTS",
    0x80000001: "EV_EFI_VARIABLE_DRIVER_CONFIG",
    0x80000002: "EV_EFI_VARIABLE_BOOT",
    0x80000003: "EV_EFI_BOOT_SERVICES_APPLICATION",
    0x80000004: "EV_EFI_BOOT_SERVICES_DRIVER",
    0x80000005: "EV_EFI_RUNTIME_SERVICES_DRIVER",
    0x80000006: "EV_EFI_GPT_EVENT",
    0x80000007: "EV_EFI_ACTION",
    0x80000008: "EV_EFI_PLATFORM_FIRMWARE_BLOB",
    0x80000009: "EV_EFI_HANDOFF_TABLES",
    0x8000000A: "EV_EFI_PLATFORM_FIRMWARE_BLOB2",
    0x8000000B: "EV_EFI_HANDOFF_TABLES2",
    0x8000000C: "EV_EFI_VARIABLE_BOOT2",
    0x80000010: "EV_EFI_HCRTM_EVENT",
    0x800000E0: "EV_EFI_VARIABLE_AUTHORITY",
    0x800000E1: "EV_EFI_SPDM_FIRMWARE_BLOB",
    0x800000E2: "EV_EFI_SPDM_FIRMWARE_CONFIG",
    DSTACK_EVENT: "DSTACK_RUNTIME_EVENT",
    AAEL_LINE: "APPLICATION_EVENT",
}


class LogKind(StrEnum):
    """The kind of log, and so whose registers its events extend."""

    TD = "CCEL"
    TPM = "TCG2"

    def register(self, index: int) -> str:
        """Return the name of the register that an index of this log refers to."""
        if self is LogKind.TPM:
            return f"PCR[{index}]"
        return f"RTMR[{index - 1}]" if index else "MRTD"

    @property
    def indexes(self) -> range:
        """The indexes of the registers that can be extended."""
        return range(24) if self is LogKind.TPM else range(1, 5)


@dataclass(frozen=True, kw_only=True)
class LoggedEvent:
    """One record: the register it extended, its type, its SHA-384 digest, and its data (not always what was hashed)."""

    number: int
    register: str
    event_type: int
    digest: bytes
    data: bytes

    @property
    def type_name(self) -> str:
        """The type's name in the specification."""
        return EVENT_TYPES.get(self.event_type, f"{self.event_type:#x}")


@dataclass(frozen=True, kw_only=True)
class EventLog:
    """A parsed log: its events in order, and in `notes` what was left out and why.

    `size_bytes` is the length of the log itself; the rest of the input is padding, or unrelated memory. `form` is what
    was read, and `kind_known_by` how its kind is known; `initial` holds registers that were not zero before it.
    """

    kind: LogKind
    events: tuple[LoggedEvent, ...]
    size_bytes: int
    notes: tuple[str, ...] = ()
    form: str = "event log"
    kind_known_by: str = "given"
    initial: Mapping[str, bytes] = field(default_factory=dict)

    def registers(self) -> dict[str, bytes]:
        """Return the value of each register after all events; a TD's registers without an event are zero."""
        values = {self.kind.register(index): ZERO for index in (self.kind.indexes if self.kind is LogKind.TD else ())}
        values |= self.initial
        for event in self.events:
            values[event.register] = extend(values.get(event.register, ZERO), event.digest)
        return values


@dataclass(frozen=True, kw_only=True)
class CcelTable:
    """The ACPI table CCEL: the type of guest (2: TDX), and where its log lies in the guest's memory."""

    cc_type: int
    cc_subtype: int
    log_bytes: int
    log_address: int


def index_of(register: str) -> int:
    """Return the index in a log that a register's name stands for. Errors: `ValueError` for any other text."""
    match = re.fullmatch(r"RTMR\[([0-3])\]|PCR\[(\d|1\d|2[0-3])\]", register)
    if match is None:
        raise ValueError(f"{register[:40]!r} is not the name of a register")
    return int(match[1]) + 1 if match[1] else int(match[2])


def extend(register: bytes, digest: bytes) -> bytes:
    """Return a register's value after one more measurement: SHA384(register || digest)."""
    return hashlib.sha384(register + digest).digest()


def read_log(path: Path, kind: LogKind | None = None) -> EventLog:
    """Read a log from a file. Errors: `InvalidInput`."""
    hint = f"in a TD it is {CCEL_PATH}, with a TPM {TPM_LOG_PATH}"
    return parse_log(user_file.read_bytes("log", path, hint=hint), kind, source=str(path))


def parse_log(raw: bytes, kind: LogKind | None = None, *, source: str = "log") -> EventLog:
    """Parse the bytes of a log; `kind` is decided by all that the log shows if not given.

    Records of Trustee's attestation agent without a header are read too. Errors: `InvalidInput` if it is not such a
    log, lacks SHA-384 digests, has two in one record, or is truncated inside a record.
    """
    if is_agent_log(raw):
        algorithms, header_index, start = dict(_SIZES), 1, 0
    else:
        algorithms, header_index, start = _header(raw, source)
    if SHA384 not in algorithms:
        names = ", ".join(f"{name:#06x}" for name in algorithms) or "none"
        raise InvalidInput(
            "log", source, f"has no SHA-384 (algorithms: {names})", hint="swtpm_setup --pcr-banks sha384"
        )
    records = list(_records(raw, start, algorithms, source))
    known_by = "given"
    if kind is None:
        kind, known_by = _kind(header_index, set(algorithms), records)
    size_bytes = records[-1].end if records else start
    events, notes = _events(kind, records)
    return EventLog(
        kind=kind,
        events=tuple(events),
        size_bytes=size_bytes,
        notes=(*notes, *_after_end(raw[size_bytes:])),
        form="event log (binary)" if start else "log of Trustee's attestation agent (binary)",
        kind_known_by=known_by,
    )


def is_agent_log(raw: bytes) -> bool:
    """Whether bytes start with a record of Trustee's attestation agent, which writes no header."""
    if len(raw) < 14:
        return False
    index, event_type, count, name = struct.unpack_from("<IIIH", raw)
    tag = 14 + _SIZES.get(name, 0) + 4
    return index < 24 and (event_type, count) == (EV_EVENT_TAG, 1) and raw[tag : tag + 4] == AAEL_TAG


def _events(kind: LogKind, records: list[_Record]) -> tuple[list[LoggedEvent], list[str]]:
    """The events that were measured, and notes about the records that were not."""
    events: list[LoggedEvent] = []
    notes: list[str] = []
    for number, row in enumerate(records):
        if row.event_type == EV_NO_ACTION:
            notes.append(f"event {number} is EV_NO_ACTION: not measured")
        elif row.index not in kind.indexes:
            notes.append(f"event {number} has index {row.index}, which is not a register")
        else:
            register = kind.register(row.index)
            events.append(
                LoggedEvent(
                    number=number, register=register, event_type=row.event_type, digest=row.digest, data=row.data
                )
            )
    return events, notes


def _kind(header_index: int, algorithms: set[int], records: list[_Record]) -> tuple[LogKind, str]:
    """Decide whose log this is, and say by what: td-shim's has the header index of a TPM's, for example."""
    measured = [row for row in records if row.event_type != EV_NO_ACTION]
    used = sorted({row.index for row in measured})
    if any(row.data[1:9] in (b"TdxTable", b"td_hob\0\0") for row in measured) and 0 not in used:
        return LogKind.TD, "it measures a TD HOB"
    if header_index == 1:
        return LogKind.TD, "its header has index 1"
    if used and all(index in LogKind.TD.indexes for index in used) and algorithms == {SHA384}:
        return LogKind.TD, "it has SHA-384 alone, and no index but 1 to 4"
    others = [index for index in used if index not in LogKind.TD.indexes]
    if others:
        return LogKind.TPM, f"it measures into index {others[0]}, which a TD does not have"
    return LogKind.TPM, "its header has index 0, and it has the digests of a TPM"


def _after_end(rest: bytes) -> tuple[str, ...]:
    """A note if a log is followed by more than padding, which could hide records."""
    data = rest.lstrip(b"\xff\0").rstrip(b"\xff\0")
    return (f"{len(data)} bytes after the log's end are neither zero nor 0xff: they were not read",) if data else ()


def parse_ccel_table(raw: bytes) -> CcelTable:
    """Parse the ACPI table CCEL (/sys/firmware/acpi/tables/CCEL). Errors: `InvalidInput`."""
    if len(raw) < 56 or raw[:4] != b"CCEL" or not 56 <= struct.unpack_from("<I", raw, 4)[0] <= len(raw):
        hint = "use /sys/firmware/acpi/tables/CCEL; the log is in data/CCEL next to it"
        raise InvalidInput("table", raw[:8].hex(), "is not an ACPI table CCEL", hint=hint)
    if sum(raw[: struct.unpack_from("<I", raw, 4)[0]]) % 256:
        raise InvalidInput("table", "CCEL", "has a wrong checksum", hint="read it again")
    cc_type, cc_subtype, _, length, address = struct.unpack_from("<BBHQQ", raw, 36)
    return CcelTable(cc_type=cc_type, cc_subtype=cc_subtype, log_bytes=length, log_address=address)


def _header(raw: bytes, source: str) -> tuple[dict[int, int], int, int]:
    """Parse the header: the digest size of each algorithm, the header's index, and where the records start."""
    hint = "give a CCEL or TCG2 log (crypto-agile, 'Spec ID Event03')"
    if len(raw) < 32 + 28 or raw[32 : 32 + 16] != _SPEC_ID:
        raise InvalidInput("log", source, "is not an event log", hint=hint)
    index, _, size = struct.unpack_from("<II20xI", raw)
    end = 32 + size
    count = struct.unpack_from("<I", raw, 32 + 24)[0]
    if end > len(raw) or count > _ALGORITHM_LIMIT or 28 + 4 * count > size:
        raise InvalidInput("log", source, "has a damaged header", hint=hint)
    algorithms = dict(struct.unpack_from("<HH", raw, 60 + 4 * number) for number in range(count))
    for name, length in algorithms.items():
        if _SIZES.get(name, length) != length or not 1 <= length <= 64:
            raise InvalidInput("log", source, f"claims digests of {length} bytes for algorithm {name:#06x}", hint=hint)
    return algorithms, index, end


@dataclass(frozen=True)
class _Record:
    """A record as it lies in the log; `end` is the offset after it."""

    index: int
    event_type: int
    digest: bytes
    data: bytes
    end: int


def _records(raw: bytes, offset: int, algorithms: Mapping[int, int], source: str) -> Iterator[_Record]:
    """Yield each record."""

    def take(size: int) -> int:
        nonlocal offset
        if size > len(raw) - offset:
            hint = "read the log again; the events before this one are complete"
            raise InvalidInput("log", source, f"is truncated in event {number} at byte {offset}", hint=hint)
        offset += size
        return offset - size

    def damaged(reason: str) -> InvalidInput:
        return InvalidInput(
            "log", source, f"{reason} in event {number}", hint="read the log again; it is damaged there"
        )

    for number in range(_EVENT_LIMIT):
        if len(raw) - offset < 4 or raw[offset : offset + 4] == b"\xff" * 4 or not any(raw[offset : offset + 12]):
            return
        index, event_type, count = struct.unpack_from("<III", raw, take(12))
        if count > len(algorithms):
            raise damaged(f"claims {count} digests")
        digests: dict[int, bytes] = {}
        for _ in range(count):
            (name,) = struct.unpack_from("<H", raw, take(2))
            if name not in algorithms:
                raise damaged(f"has a digest of {name:#06x}")
            if name in digests:
                raise damaged(f"has two digests of {name:#06x}, of which only one can be what was measured,")
            start = take(algorithms[name])
            digests[name] = raw[start : start + algorithms[name]]
        (size,) = struct.unpack_from("<I", raw, take(4))
        start = take(size)
        if SHA384 not in digests and event_type != EV_NO_ACTION:
            hint = "every event needs a digest of the SHA-384 bank"
            raise InvalidInput("log", source, f"has no SHA-384 digest in event {number}", hint=hint)
        yield _Record(index, event_type, digests.get(SHA384, b""), raw[start : start + size], offset)
    raise InvalidInput("log", source, f"has more than {_EVENT_LIMIT} events", hint="this is not the log of a boot")
