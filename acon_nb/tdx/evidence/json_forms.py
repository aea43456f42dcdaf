"""Evidence in JSON: the quotes and the logs in it, under the names by which projects publish them.

dstack: {"quote": hexadecimal, "event_log": JSON as text}, also its attestation, MessagePack or SCALE as hexadecimal;
Trustee: {"quote": base64, "cc_eventlog": base64}; Intel Trust Authority: {"tdx": {"quote", "event_log"}}; others: see
the names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from acon_nb.errors import InvalidInput
from acon_nb.tdx.eventlog import APPLICATION, EventLog, LogKind, is_agent_log, parse_log
from acon_nb.tdx.evidence.encoded import decode
from acon_nb.tdx.evidence.json_logs import is_json_log, json_lines, parse_json_log
from acon_nb.tdx.evidence.scale import scale_attestation
from acon_nb.tdx.evidence.text_logs import is_text_log, parse_text_log
from acon_nb.tdx.quote import is_identity

_QUOTES = {"quote", "tdquote", "tdxquote", "rawquote", "intelquote", "outblob", "quotehex", "quotebytes", "tdreport"}
_LOGS = {"eventlog", "cceventlog", "ccel", "cceldata", "ccelogs", "uefieventlogs", "bootlog", "events", "logs"}
_APPLICATION_LOGS = {"aaeventlog", "aael", "runtimeeventlog", "runtimeevents", "rtmr3log", "applicationlog"}
_WRAPPERS = {"evidence", "teeevidence", "primaryevidence", "attestation", "attestationreport", "report", "tcbinfo"}
_DEPTH = 8
_NODES = 20_000


@dataclass
class JsonEvidence:
    """What a piece of JSON holds: quotes and logs, each with the words for how it was evidence."""

    quotes: dict[bytes, str] = field(default_factory=dict)
    logs: list[tuple[EventLog, str]] = field(default_factory=list)
    nodes: int = 0


def load(text: str) -> Any:
    """Parse JSON strictly: no name twice, no infinite numbers. Errors: `ValueError`, `RecursionError`."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = dict(pairs)
        if len(names) != len(pairs):
            raise ValueError("a name occurs twice in one object")
        return names

    def refuse(name: str) -> Any:
        raise ValueError(f"{name} is not a number of JSON")

    return json.loads(text, object_pairs_hook=unique, parse_constant=refuse)


def search(value: Any, *, source: str, kind: LogKind | None = None) -> JsonEvidence:
    """Collect quotes and logs from parsed JSON. Errors: `InvalidInput` that names the member."""
    evidence = JsonEvidence()
    if is_json_log(value):
        evidence.logs.append((parse_json_log(value, source=source, kind=kind), "a list of events"))
        return evidence
    _walk(value, "", evidence, 0, source, kind)
    return evidence


def _walk(value: Any, path: str, evidence: JsonEvidence, depth: int, source: str, kind: LogKind | None) -> None:
    evidence.nodes += 1
    if depth > _DEPTH or evidence.nodes > _NODES:
        hint = "give only the evidence: the quote, and its event log"
        raise InvalidInput("file", source, "has JSON that is nested too deeply or too long", hint=hint)
    if isinstance(value, list):
        for number, item in enumerate(value):
            if isinstance(item, dict | list):
                _walk(item, f"{path}[{number}]", evidence, depth + 1, source, kind)
        return
    for name, item in value.items() if isinstance(value, dict) else ():
        where = f"{path}.{name}" if path else str(name)
        simple = "".join(one for one in str(name).lower() if one.isalnum())
        if simple in _QUOTES and isinstance(item, str | bytes | list) and _quote(item, where, evidence, source):
            continue
        is_log = simple in _LOGS | _APPLICATION_LOGS and isinstance(item, str | bytes | list) and bool(item)
        if is_log and _log(item, where, evidence, source, kind):
            continue
        if isinstance(item, dict | list):
            _walk(item, where, evidence, depth + 1, source, kind)
        elif simple in _WRAPPERS and isinstance(item, str | bytes):
            inner = _unwrapped(item)
            if inner is not None:
                _walk(inner, where, evidence, depth + 1, source, kind)


def _quote(item: Any, where: str, evidence: JsonEvidence, source: str) -> bool:
    """Take a quote as text, bytes or a list of numbers; False if it is something else that is searched further."""
    raw, how = _bytes(item)
    if raw is None:
        inner = _unwrapped(item) if isinstance(item, str) else None
        if inner is None and isinstance(item, str):
            hint = "a quote is written in hexadecimal or base64"
            raise InvalidInput("quote", source, f"has a member {where} that is not an encoded quote", hint=hint)
        if inner is not None:
            _walk(inner, where, evidence, 1, source, None)
        return inner is not None
    if not is_identity(raw):
        if len(raw) < 64:
            return False
        hint = "give the evidence of a TD"
        raise InvalidInput("quote", source, f"has a member {where} that is not a TD quote ({how})", hint=hint)
    evidence.quotes.setdefault(raw, f"{where} ({how})")
    return True


def _log(item: Any, where: str, evidence: JsonEvidence, source: str, kind: LogKind | None) -> bool:
    """Take a log: a list of events, JSON as text, lines of an application, or an encoded binary log."""
    if isinstance(item, str):
        if is_text_log(item):
            evidence.logs.append((parse_text_log(item, source=source), f"{where} (text)"))
            return True
        if item.lstrip()[:1] in ("[", "{"):
            item = _json(item, where, source)
    if isinstance(item, dict):
        _walk(item, where, evidence, 1, source, kind)
        return True
    if is_json_log(item):
        evidence.logs.append((parse_json_log(item, source=source, kind=kind), f"{where} (JSON)"))
        return True
    if isinstance(item, list) and not item:
        return True
    raw, how = _bytes(item)
    if raw is None or not (raw[32:48] == b"Spec ID Event03\0" or is_agent_log(raw)):
        text = None if raw is None else raw.decode("utf-8", "replace")
        if text is not None and is_text_log(text):
            evidence.logs.append((parse_text_log(text, source=source), f"{where} ({how})"))
            return True
        return False
    evidence.logs.append((parse_log(raw, kind, source=source), f"{where} ({how})"))
    return True


def _json(text: str, where: str, source: str) -> Any:
    try:
        try:
            return load(text)
        except json.JSONDecodeError:
            return list(json_lines(text))
    except (ValueError, RecursionError) as error:
        raise InvalidInput(
            "log", source, f"has invalid JSON in {where}: {error}"[:200], hint="read the evidence again"
        ) from error


def _bytes(item: Any) -> tuple[bytes | None, str]:
    """The bytes of a member and how they were written."""
    if isinstance(item, bytes):
        return item, "bytes"
    if isinstance(item, str):
        return decode(item) or (None, "")
    try:
        return bytes(item), "a list of numbers"
    except (TypeError, ValueError):
        return None, ""


def _unwrapped(item: str | bytes) -> Any:
    """What a member holds that is itself JSON or MessagePack, plain or encoded; None otherwise."""
    raw = item.encode(errors="replace") if isinstance(item, str) else item
    for _ in range(2):
        if raw.lstrip()[:1] in (b"{", b"["):
            try:
                return load(raw.decode("utf-8", "replace"))
            except (ValueError, RecursionError):
                return None
        packed = message_pack(raw) or scale_attestation(raw)
        if packed is not None:
            return packed
        decoded = decode(raw.decode("utf-8", "replace"))
        if decoded is None:
            return None
        raw = decoded[0]
    return None


def message_pack(raw: bytes) -> Any:
    """The table that a MessagePack holds; None if bytes are anything else."""
    if not raw or not (0x80 <= raw[0] <= 0x8F or raw[0] in (0xDE, 0xDF)):
        return None
    try:
        value = msgspec.msgpack.decode(raw)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def joined(logs: list[tuple[EventLog, str]], *, source: str) -> EventLog | None:
    """Return the one log that several pieces make: that of the boot, and an application's. Errors: `InvalidInput`."""
    distinct: list[EventLog] = []
    for log, _ in logs:
        if all(log.events != other.events for other in distinct):
            distinct.append(log)
    whole = next(iter(distinct), None)
    for log in distinct[1:]:
        assert whole is not None
        whole = with_application(whole, log, source=source)
    return whole


def with_application(first: EventLog, second: EventLog, *, source: str) -> EventLog:
    """Return a boot's log followed by an application's. Errors: `InvalidInput` if neither is an application's."""
    boot, application = (second, first) if _only_application(first) else (first, second)
    if boot.kind is not LogKind.TD or not _only_application(application):
        hint = "give the log of one boot, and at most one of its applications"
        raise InvalidInput("log", source, "has more than one event log", hint=hint)
    if any(event.register == APPLICATION for event in boot.events):
        hint = f"leave the application's log away: the boot's log has events of {APPLICATION} already"
        raise InvalidInput("log", source, f"has two logs of {APPLICATION}", hint=hint)
    start = 1 + max((event.number for event in boot.events), default=-1)
    moved = tuple(replace(event, number=start + event.number) for event in application.events)
    return replace(
        boot,
        events=(*boot.events, *moved),
        notes=(*boot.notes, *application.notes),
        form=f"{boot.form} and {application.form}",
        initial={**boot.initial, **application.initial},
    )


def _only_application(log: EventLog) -> bool:
    return log.kind is LogKind.TD and bool(log.events) and all(event.register == APPLICATION for event in log.events)


def names(evidence: JsonEvidence) -> Iterator[str]:
    """Describe what was evidence, for a person."""
    yield from (f"quote in {how}" for how in evidence.quotes.values())
    yield from (f"log in {how}" for _, how in evidence.logs)
