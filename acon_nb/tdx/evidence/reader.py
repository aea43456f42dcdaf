"""One reader for all doors: whatever can be compared or verified, in each form in which it is published.

A file or folder, bytes, or pasted text: a stored prediction, an event log, a quote, a TDREPORT, or evidence that has
several of them. The content gives the form, never a name, and the form is part of the answer. The input may be hostile.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from acon_nb import user_file
from acon_nb.errors import InvalidInput
from acon_nb.tdx.eventlog import APPLICATION, EventLog, LogKind, is_agent_log, parse_log
from acon_nb.tdx.evidence import json_forms, protobuf
from acon_nb.tdx.evidence.encoded import decode, is_dump
from acon_nb.tdx.evidence.json_logs import is_json_log, json_lines
from acon_nb.tdx.evidence.scale import scale_attestation
from acon_nb.tdx.evidence.text_logs import is_text_log, parse_text_log
from acon_nb.tdx.printable import printable
from acon_nb.tdx.quote import TdIdentity, is_identity, parse_identity
from acon_nb.tdx.stored import FORM, Expected, expected_of_json

LIMIT_BYTES = 64 << 20
_LEAST_BYTES = 40  # shorter text that happens to decode is a word
_LAYERS = 4  # encodings inside each other
_BLOB, _PROVIDER, _TDX = "outblob", "provider", "tdx_guest"
_HINT = (
    "give a stored prediction, an event log (CCEL, TCG2, JSON of dstack or Trustee, an application's text), a TD quote "
    "or a TDREPORT (binary, hexadecimal, base64, go-tdx-guest's protobuf), evidence in JSON, or a configfs-tsm folder"
)
Side = Expected | EventLog | TdIdentity


def read_side(path: Path, kind: LogKind | None = None) -> Side:
    """Read what a file holds, or a report's folder of configfs-tsm; `kind` is the kind of log if it is known.

    Errors: `InvalidInput`.
    """
    if path.is_dir():
        return _report_folder(path)
    return parse_side(
        user_file.read_bytes("file", path, hint=_HINT, most_bytes=LIMIT_BYTES), source=str(path), kind=kind
    )


def read_application_log(path: Path) -> EventLog:
    """Read the log of what extended RTMR[3], alone or in evidence. Errors: `InvalidInput`."""
    side = read_side(path)
    log = side.log if isinstance(side, TdIdentity) else side
    if not isinstance(log, EventLog) or not any(event.register == APPLICATION for event in log.events):
        hint = "give an AAEL or acond's log (text that starts with INIT), or dstack's event log (JSON)"
        raise InvalidInput("log", path, f"has no event of {APPLICATION}", hint=hint)
    return log


def read_any_log(path: Path, kind: LogKind | None = None) -> EventLog:
    """Read an event log, alone or in evidence. Errors: `InvalidInput` if there is none."""
    side = read_side(path, kind)
    log = side.log if isinstance(side, TdIdentity) else side
    if not isinstance(log, EventLog):
        raise InvalidInput("log", path, "has no event log", hint=_HINT)
    return log


def read_quote(path: Path) -> TdIdentity:
    """Read a quote or a TDREPORT, alone or in evidence. Errors: `InvalidInput` if there is none."""
    side = read_side(path)
    if not isinstance(side, TdIdentity):
        raise InvalidInput("quote", path, "has no quote", hint="give a quote, or evidence that has one")
    return side


def parse_pasted(text: str) -> Side:
    """Parse pasted text. Errors: `InvalidInput`."""
    return parse_side(text.encode(errors="surrogateescape"), source="pasted text")


def parse_side(raw: bytes, *, source: str = "input", kind: LogKind | None = None) -> Side:
    """Parse the bytes of anything that can be compared. Errors: `InvalidInput`."""
    if len(raw) > LIMIT_BYTES:
        raise InvalidInput("file", source, "is too large for a log or a quote", hint="give only the log or the quote")
    return _parse(raw, source, kind, 0, "")


def _parse(raw: bytes, source: str, kind: LogKind | None, layer: int, inside: str) -> Side:
    """Parse a layer; `inside` names the encodings that it was in."""
    binary = _binary(raw, source, kind)
    if binary is not None:
        return _said(binary, inside)
    text = _text(raw)
    if text is not None:
        return _of_text(text, source, kind, layer, inside)
    try:
        return _said(parse_identity(protobuf.quote_of_binary(raw), source=source), _more(inside, "protobuf"))
    except ValueError:
        pass  # no message of go-tdx-guest; an invalid quote in one is no help to anybody either
    if not inside and len(raw) >= 8 and raw[:4] == b"CCEL":
        hint = "the log itself is /sys/firmware/acpi/tables/data/CCEL"
        raise InvalidInput("file", source, "is the ACPI table CCEL, which only says where the log lies", hint=hint)
    packed = json_forms.message_pack(raw)
    if packed is not None:
        return _of_json(packed, source, kind, _more(inside, "MessagePack"))
    scaled = scale_attestation(raw)
    if scaled is not None:
        return _of_json(scaled, source, kind, _more(inside, "an attestation of dstack (SCALE)"))
    return _said(parse_identity(raw, source=source), inside)  # says what is wrong with it as a quote


def _binary(raw: bytes, source: str, kind: LogKind | None) -> Side | None:
    if raw[32:48] == b"Spec ID Event03\0" or is_agent_log(raw):
        return parse_log(raw, kind, source=source)
    return parse_identity(raw, source=source) if is_identity(raw) else None


def _text(raw: bytes) -> str | None:
    """The text that bytes are; None if they are not."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    return None if "\0" in text.rstrip("\0\n") or not text.strip("\0 \r\n\t") else text.rstrip("\0")


def _of_text(text: str, source: str, kind: LogKind | None, layer: int, inside: str) -> Side:
    start = text.lstrip()
    if start[:1] in ("{", "["):
        return _of_json_text(text, source, kind, inside)
    if is_text_log(start):
        return _said(parse_text_log(start, source=source), inside)
    if protobuf.looks_like_text(start):
        try:
            return _said(
                parse_identity(protobuf.quote_of_text(start), source=source), _more(inside, "protobuf as text")
            )
        except InvalidInput:
            raise
        except (ValueError, OverflowError) as error:
            hint = "write it again: attest -outform textproto"
            raise InvalidInput("quote", source, f"is an invalid message as text: {error}"[:300], hint=hint) from error
    if is_dump(start):
        hint = "write it without offsets: xxd -p FILE, or base64 FILE"
        raise InvalidInput("file", source, "is a dump with offsets", hint=hint)
    decoded = decode(start.strip().strip('"'))
    if decoded is not None and len(decoded[0]) >= _LEAST_BYTES and layer < _LAYERS:
        return _parse(decoded[0], source, kind, layer + 1, _more(inside, decoded[1]))
    if start.count(".") == 2 and start.startswith("eyJ"):
        hint = "give the evidence that went to the verifier"
        raise InvalidInput("file", source, "is a verifier's token, which holds its results alone", hint=hint)
    first = printable(start[:40])
    reason = f"is neither hexadecimal nor base64, nor another form that is known (it starts {first!r})"
    raise InvalidInput("file", source, reason, hint=_HINT)


def _of_json_text(text: str, source: str, kind: LogKind | None, inside: str) -> Side:
    try:
        value = json_forms.load(text)
    except (ValueError, RecursionError) as error:
        lines = _lines(text)
        if lines is None:
            reason = printable(f"is not valid JSON: {error}", 200)
            raise InvalidInput("file", source, reason, hint=_HINT) from error
        value = lines
    if isinstance(value, dict) and value.get("form") == FORM:
        return expected_of_json(value, source=source)
    return _of_json(value, source, kind, _more(inside, "JSON"))


def _lines(text: str) -> list[Any] | None:
    """A log with one event in JSON on each line, as dstack's guest keeps it."""
    try:
        rows = list(json_lines(text))
    except (ValueError, RecursionError):
        return None
    return rows if is_json_log(rows) else None


def _of_json(value: Any, source: str, kind: LogKind | None, inside: str) -> Side:
    pieces = json_forms.search(value, source=source, kind=kind)
    if len(pieces.quotes) > 1:
        hint = "give the evidence of one TD"
        raise InvalidInput("file", source, f"has {len(pieces.quotes)} different quotes", hint=hint)
    log = json_forms.joined(pieces.logs, source=source)
    how = _more(inside, ", ".join(json_forms.names(pieces)))
    if pieces.quotes:
        identity = parse_identity(next(iter(pieces.quotes)), source=source)
        return _said(replace(identity, log=log), how)
    if log is not None:
        return log if is_json_log(value) else _said(log, how)
    raise InvalidInput("file", source, "is JSON without a quote, a log or a prediction", hint=_HINT)


def _report_folder(path: Path) -> TdIdentity:
    """Read a report's folder of configfs-tsm: /sys/kernel/config/tsm/report/NAME. Errors: `InvalidInput`."""
    hint = "give a folder of /sys/kernel/config/tsm/report, or its outblob"
    provider = path / _PROVIDER
    try:
        name = provider.read_text(errors="replace").strip() if provider.is_file() else _TDX
        with (path / _BLOB).open("rb") as file:
            raw = file.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise InvalidInput("file", path, "is a folder without a report of configfs-tsm", hint=hint) from error
    if name != _TDX:
        raise InvalidInput("file", path, f"is a report of {printable(name, 40)}, not of a TD", hint=hint)
    identity = parse_identity(raw, source=str(path / _BLOB))
    return replace(identity, form=f"{identity.form}, read from a report of configfs-tsm")


def _more(inside: str, how: str) -> str:
    return f"{inside}, {how}" if inside else how


def _said(side: Side, inside: str) -> Side:
    """Name the form in which a side was pieces."""
    if not inside or isinstance(side, Expected):
        return side
    return replace(side, form=f"{side.form}, read from {inside}")
