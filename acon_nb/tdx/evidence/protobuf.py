"""Quotes as go-tdx-guest writes them besides Intel's binary form: as a protobuf message, binary or as text.

Source: google/go-tdx-guest, proto/tdx.proto; the protobuf documentation, "Encoding" and "Text Format". The message is a
quote taken to pieces, and is put together again here: its signature covers the same bytes.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Any

# The fields of each message in order: (name, bytes that it takes in a quote; None: as many as it has; or a message).
_BODY = (
    ("tee_tcb_svn", 16),
    ("mr_seam", 48),
    ("mr_signer_seam", 48),
    ("seam_attributes", 8),
    ("td_attributes", 8),
    ("xfam", 8),
    ("mr_td", 48),
    ("mr_config_id", 48),
    ("mr_owner", 48),
    ("mr_owner_config", 48),
    ("rtmrs", 48),
    ("report_data", 64),
)
_MESSAGES: dict[str, tuple[tuple[str, int | str | None], ...]] = {
    "QuoteV4": (
        ("header", "Header"),
        ("td_quote_body", "TDQuoteBody"),
        ("signed_data_size", 4),
        ("signed_data", "Signed"),
        ("extra_bytes", None),
    ),
    "QuoteV5": (
        ("header", "Header"),
        ("td_quote_body_descriptor", "Descriptor"),
        ("signed_data_size", 4),
        ("signed_data", "Signed"),
        ("extra_bytes", None),
    ),
    "Header": (
        ("version", 2),
        ("attestation_key_type", 2),
        ("tee_type", 4),
        ("qe_svn", 2),
        ("pce_svn", 2),
        ("qe_vendor_id", 16),
        ("user_data", 20),
    ),
    "Descriptor": (("td_quote_body_type", 2), ("td_quote_body_size", 4), ("td_quote_body_v5", "TDQuoteBodyV5")),
    "TDQuoteBody": _BODY,
    "TDQuoteBodyV5": (*_BODY, ("tee_tcb_svn2", 16), ("mr_service_td", 48)),
    "Signed": (("signature", 64), ("ecdsa_attestation_key", 64), ("certification_data", "Certification")),
    "Certification": (("certificate_data_type", 2), ("size", 4), ("qe_report_certification_data", "QeReport")),
    "QeReport": (
        ("qe_report", "Enclave"),
        ("qe_report_signature", 64),
        ("qe_auth_data", "QeAuth"),
        ("pck_certificate_chain_data", "Chain"),
    ),
    "Chain": (("certificate_data_type", 2), ("size", 4), ("pck_cert_chain", None)),
    "QeAuth": (("parsed_data_size", 2), ("data", None)),
    "Enclave": (
        ("cpu_svn", 16),
        ("misc_select", 4),
        ("reserved1", 28),
        ("attributes", 16),
        ("mr_enclave", 32),
        ("reserved2", 32),
        ("mr_signer", 32),
        ("reserved3", 96),
        ("isv_prod_id", 2),
        ("isv_svn", 2),
        ("reserved4", 60),
        ("report_data", 64),
    ),
}
_REPEATED = "rtmrs"
_TOKEN = re.compile(
    r"""\s*(?:\#[^\n]*\n\s*)*(?:(?P<name>[A-Za-z_]\w*)|(?P<number>-?\w+)|(?P<mark>[{}<>:,;\[\]])|(?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'))"""
)
_ESCAPES = {"n": 10, "r": 13, "t": 9, "a": 7, "b": 8, "f": 12, "v": 11, "\\": 92, '"': 34, "'": 39, "?": 63}
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{1,2}|[0-7]{1,3}|.)|([^\\]+)", re.DOTALL)
Message = dict[str, list[Any]]


def looks_like_text(text: str) -> bool:
    """Whether a text starts as go-tdx-guest writes a quote."""
    return re.match(r"\s*(?:#[^\n]*\n\s*)*header\s*:?\s*[{<]", text) is not None


def quote_of_text(text: str) -> bytes:
    """Return the quote of a message as text. Errors: `ValueError`."""
    tokens = list(_tokens(text))
    message, end = _text_message(tokens, 0, 0)
    if end != len(tokens):
        raise ValueError("there is more after the message")
    return _assemble(message)


def quote_of_binary(raw: bytes) -> bytes:
    """Return the quote of a binary message. Errors: `ValueError`."""
    fifth = dict(_wire(dict(_wire(raw)).get(1, b""))).get(1) == 5
    return _assemble(_named("QuoteV5" if fifth else "QuoteV4", raw, 0))


def _assemble(message: Message) -> bytes:
    fifth = "td_quote_body_descriptor" in message
    return _packed("QuoteV5" if fifth else "QuoteV4", message)


def _packed(kind: str, message: Message) -> bytes:
    """Put the fields of a message together as they lie in a quote."""
    parts = []
    known = dict(_MESSAGES[kind])
    if unknown := [name for name in message if name not in known]:
        raise ValueError(f"{unknown[0]!r} is not a field of {kind}")
    for name, size in _MESSAGES[kind]:
        values = message.get(name, [])
        if len(values) > (4 if name == _REPEATED else 1):
            raise ValueError(f"{name} is there {len(values)} times")
        if isinstance(size, str):
            if not values or not isinstance(values[0], dict):
                raise ValueError(f"{name} is missing")
            parts.append(_packed(size, values[0]))
        elif name == _REPEATED:
            parts.append(b"".join(_field(name, value, size) for value in values).ljust(4 * 48, b"\0"))
        else:
            parts.append(_field(name, values[0] if values else None, size))
    return b"".join(parts)


def _field(name: str, value: Any, size: int | None) -> bytes:
    if size is None:
        value = b"" if value is None else value
    elif value is None:
        value = bytes(size)  # protobuf leaves out what is zero
    elif isinstance(value, int):
        value = struct.pack("<Q", value)[:size] if 0 <= value < 1 << 8 * size else b""
    if not isinstance(value, bytes) or (size is not None and len(value) != size):
        raise ValueError(f"{name} does not have {size} bytes")
    return value


def _named(kind: str, raw: bytes, depth: int) -> Message:
    """Read a binary message, whose fields are numbered in order."""
    fields = _MESSAGES[kind]
    message: Message = {}
    for number, value in _wire(raw):
        if not 1 <= number <= len(fields):
            raise ValueError(f"field {number} is not one of {kind}")
        name, size = fields[number - 1]
        if isinstance(size, str):
            if not isinstance(value, bytes):
                raise ValueError(f"{name} is not a message")
            value = _named(size, value, depth + 1)
        message.setdefault(name, []).append(value)
    return message


def _wire(raw: Any) -> Iterator[tuple[int, Any]]:
    """Yield (number, value) of each field: a whole number, or bytes."""
    if not isinstance(raw, bytes):
        raise ValueError("a message is missing")
    offset = 0
    while offset < len(raw):
        key, offset = _varint(raw, offset)
        value, offset = _varint(raw, offset)
        if key & 7 == 2:
            if value > len(raw) - offset:
                raise ValueError("a field is truncated")
            yield key >> 3, raw[offset : offset + value]
            offset += value
        elif key & 7 == 0:
            yield key >> 3, value
        else:
            raise ValueError(f"a field has wire type {key & 7}")


def _varint(raw: bytes, offset: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if offset >= len(raw):
            break
        byte = raw[offset]
        offset += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, offset
    raise ValueError("a number is truncated")


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    offset, end = 0, len(text.rstrip())
    while offset < end:
        match = _TOKEN.match(text, offset)
        if match is None or match.lastgroup is None:
            raise ValueError(f"{text[offset : offset + 20]!r} is not text of a message")
        yield match.lastgroup, match[match.lastgroup]
        offset = match.end()


def _text_message(tokens: list[tuple[str, str]], at: int, depth: int) -> tuple[Message, int]:
    """Read fields up to the closing brace, or to the end."""
    message: Message = {}
    if depth > 8:
        raise ValueError("messages are nested too deeply")
    while at < len(tokens) and tokens[at][1] not in ("}", ">"):
        kind, name = tokens[at]
        if kind != "name":
            if name in (",", ";"):
                at += 1
                continue
            raise ValueError(f"{name[:20]!r} is not a field's name")
        at += 1
        if at < len(tokens) and tokens[at][1] == ":":
            at += 1
        value, at = _text_value(tokens, at, depth)
        message.setdefault(name, []).append(value)
    if depth:
        if at >= len(tokens):
            raise ValueError("a brace is missing")
        at += 1
    return message, at


def _text_value(tokens: list[tuple[str, str]], at: int, depth: int) -> tuple[Any, int]:
    if at >= len(tokens):
        raise ValueError("a value is missing")
    kind, word = tokens[at]
    if word in ("{", "<"):
        return _text_message(tokens, at + 1, depth + 1)
    if kind == "number":
        return int(word, 0), at + 1
    if kind != "text":
        raise ValueError(f"{word[:20]!r} is not a value")
    parts = []
    while at < len(tokens) and tokens[at][0] == "text":  # texts that follow each other are one
        parts.append(_unescaped(tokens[at][1][1:-1]))
        at += 1
    return b"".join(parts), at


def _unescaped(text: str) -> bytes:
    parts = []
    for escape, plain in _ESCAPE.findall(text):
        if plain:
            parts.append(plain.encode())
        elif escape[0] == "x" and len(escape) > 1:
            parts.append(bytes([int(escape[1:], 16)]))
        elif escape[0] in "01234567":
            parts.append(bytes([int(escape, 8) & 0xFF]))
        else:
            parts.append(bytes([_ESCAPES[escape]]) if escape in _ESCAPES else escape.encode())
    return b"".join(parts)
