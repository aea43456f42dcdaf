"""Event logs in JSON: dstack's, the form in which Trustee prints a CCEL, and that of `acon-nb measure replay --json`.

Sources: dstack, cc-eventlog (tdx.rs, runtime_events.rs); confidential-containers/trustee, deps/eventlog.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from acon_nb.errors import InvalidInput
from acon_nb.tdx.eventlog import (
    DIGEST_BYTES,
    DSTACK_EVENT,
    EV_NO_ACTION,
    EVENT_TYPES,
    EventLog,
    LoggedEvent,
    LogKind,
    index_of,
)

_LIMIT_EVENTS = 100_000
_TYPES = {name: number for number, name in EVENT_TYPES.items()}
_SECOND = (2, "2", "v2", "V2")


def is_json_log(rows: Any) -> bool:
    """Whether parsed JSON is a list of events."""
    if not isinstance(rows, list) or not rows or not isinstance(rows[0], dict):
        return False
    first = rows[0]
    return "imr" in first or ("digests" in first and "index" in first) or ("sha384" in first and "register" in first)


def parse_json_log(rows: Sequence[Any], *, source: str, kind: LogKind | None = None) -> EventLog:
    """Read a list of events. Errors: `InvalidInput` that names the event."""
    if len(rows) > _LIMIT_EVENTS:
        raise InvalidInput("log", source, f"has more than {_LIMIT_EVENTS} events", hint="this is not the log of a boot")
    events, notes = [], []
    form, known_by = "event log (JSON)", "its names of registers"
    for number, row in enumerate(rows):
        try:
            register, event_type, digest, data = _row(row, kind)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            hint = "give the log as its project writes it, with a SHA-384 digest for each event"
            raise InvalidInput("log", source, f"has an invalid event {number}: {error!r}"[:300], hint=hint) from error
        if "imr" in row:
            form, known_by = "event log of dstack (JSON)", "it numbers RTMRs"
        elif "digests" in row:
            form, known_by = "event log as Trustee prints it (JSON)", "its indexes"
        if event_type == EV_NO_ACTION:
            notes.append(f"event {number} is EV_NO_ACTION: not measured")
        elif register is None:
            notes.append(f"event {number} has an index that is not a register")
        else:
            events.append(
                LoggedEvent(number=number, register=register, event_type=event_type, digest=digest, data=data)
            )
    kinds = {LogKind.TPM if event.register.startswith("PCR") else LogKind.TD for event in events}
    if len(kinds) > 1:
        raise InvalidInput("log", source, "has registers of a TD and of a TPM", hint="give the log of one boot")
    return EventLog(
        kind=kind or next(iter(kinds), LogKind.TD),
        events=tuple(events),
        size_bytes=0,
        notes=tuple(notes),
        form=form,
        kind_known_by=known_by,
    )


def _row(row: Mapping[str, Any], kind: LogKind | None) -> tuple[str | None, int, bytes, bytes]:
    """The register, type, digest and data of an event."""
    if "imr" in row:
        return _dstack(row)
    if "digests" in row:
        return _trustee(row, kind)
    register = str(row["register"])
    index_of(register)
    name = str(row["type"])
    return register, _TYPES[name] if name in _TYPES else _number(name), _digest(row["sha384"]), b""


def _dstack(row: Mapping[str, Any]) -> tuple[str | None, int, bytes, bytes]:
    index, event_type = _number(row["imr"]), _number(row["event_type"])
    payload, digest = _bytes(row.get("event_payload", "")), _bytes(row.get("digest", ""))
    data = payload
    if event_type == DSTACK_EVENT:
        data = _hashed(str(row.get("event", "")), payload, row)
        digest = digest or hashlib.sha384(data).digest()
    if len(digest) != DIGEST_BYTES and event_type != EV_NO_ACTION:
        raise ValueError(f"its digest has {len(digest)} bytes, not {DIGEST_BYTES}")
    return f"RTMR[{index}]" if index in range(4) else None, event_type, digest, data


def _hashed(name: str, payload: bytes, row: Mapping[str, Any]) -> bytes:
    """What dstack hashes of an application's event: the second version writes JSON with sorted names."""
    if row.get("version") in _SECOND:
        content = {"name": name, "payload": payload.hex(), "type": DSTACK_EVENT}
        return json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    return DSTACK_EVENT.to_bytes(4, "little") + b":" + name.encode() + b":" + payload


def _trustee(row: Mapping[str, Any], kind: LogKind | None) -> tuple[str | None, int, bytes, bytes]:
    index = _number(row["index"])
    name = row.get("type", row.get("event_type"))
    event_type = _number(_TYPES.get(str(row.get("type_name")), -1) if name is None else name)
    digests = [_digest(each["digest"]) for each in row["digests"] if _is_sha384(str(each["alg"]))]
    if len(digests) != 1 and event_type != EV_NO_ACTION:
        raise ValueError(f"it has {len(digests)} digests of SHA-384")
    data = row.get("event") or ""
    register = (kind or LogKind.TD).register(index) if index in (kind or LogKind.TD).indexes else None
    return register, event_type, digests[0] if digests else b"", _bytes(data, base64=True)


def _is_sha384(name: str) -> bool:
    return name.upper().replace("-", "").replace("_", "") in ("SHA384", "TPMALGSHA384")


def _number(value: Any) -> int:
    """A number of 32 bits, also as text: "0x80000003"."""
    number = int(value, 0) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 1 << 32:
        raise ValueError(f"{value!r} is not a number of 32 bits")
    return number


def _bytes(value: Any, *, base64: bool = False) -> bytes:
    """Bytes as hexadecimal (or base64) text, as a list of numbers, or as they are."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, list):
        return bytes(value)
    if not value:
        return b""
    return b64decode(value, validate=True) if base64 else bytes.fromhex(value.removeprefix("0x"))


def _digest(value: Any) -> bytes:
    digest = _bytes(value)
    if len(digest) != DIGEST_BYTES:
        raise ValueError(f"its digest has {len(digest)} bytes, not {DIGEST_BYTES}")
    return digest


def json_lines(text: str) -> Iterator[Any]:
    """Yield the objects of a text that has one on each line. Errors: `ValueError`."""
    for line in text.splitlines():
        if line.strip():
            yield json.loads(line)
