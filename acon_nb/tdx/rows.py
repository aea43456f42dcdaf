"""The rows of a comparison: one register or property, its value on both sides, and the verdict on it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from acon_nb.errors import InvalidInput
from acon_nb.tdx.eventlog import DIGEST_BYTES
from acon_nb.tdx.evidence.reader import Side
from acon_nb.tdx.pairing import EventPair, MeasurementVerdict
from acon_nb.tdx.quote import PROPERTIES
from acon_nb.tdx.stored import Expected

_SIZES = {name: {"ATTRIBUTES": 8, "XFAM": 8, "REPORTDATA": 64}.get(name, DIGEST_BYTES) for name in PROPERTIES}
_SHORTER = ("REPORTDATA", "MRCONFIGID", "MROWNER", "MROWNERCONFIG")  # filled up with zeros by whoever sets them


@dataclass(frozen=True)
class RegisterPair:
    """The values of a register or a property on both sides; None if unknown."""

    register: str
    verdict: MeasurementVerdict
    expected: bytes | None
    measured: bytes | None
    text: str


def of_register(
    name: str, first: bytes | None, second: bytes | None, pairs: Sequence[EventPair], expected: Side
) -> RegisterPair:
    """Return the row of a register that the boot measures: its value decides, its events explain."""
    if name == "MRTD" and isinstance(expected, Expected):
        return _mrtd(expected, second)
    own_pairs = [pair for pair in pairs if pair.register == name]
    different = [pair for pair in own_pairs if pair.verdict is MeasurementVerdict.DIFFERENT]
    if first is not None and second is not None and first == second:
        verdict, text = MeasurementVerdict.EQUAL, "equal"
    elif different:
        verdict, text = MeasurementVerdict.DIFFERENT, different[0].text
    elif first is not None and second is not None:
        verdict, text = MeasurementVerdict.DIFFERENT, f"expected {first.hex()}, measured {second.hex()}"
    else:
        verdict = MeasurementVerdict.UNKNOWN
        reasons = [pair.text for pair in own_pairs if pair.verdict is MeasurementVerdict.UNKNOWN]
        text = next(iter(reasons or _reasons(expected, name)), "cannot be known offline")
    return RegisterPair(name, verdict, first, second, text)


def of_value(name: str, wanted: bytes, value: bytes, good: str, bad: str) -> RegisterPair:
    """Return the row of a value that is expected exactly."""
    if wanted == value:
        return RegisterPair(name, MeasurementVerdict.EQUAL, wanted, value, good)
    text = f"{bad}: expected {wanted.hex()}, measured {value.hex()}"
    return RegisterPair(name, MeasurementVerdict.DIFFERENT, wanted, value, text)


def of_property(name: str, wanted: bytes, value: bytes) -> RegisterPair:
    """Return the row of a property; what is given may be shorter, as a nonce is in 64 bytes of REPORTDATA."""
    return of_value(name, wanted.ljust(len(value), b"\0"), value, "equal to the value given", "differs")


def parse_values(texts: Sequence[str]) -> dict[str, bytes]:
    """Parse expected values as people write them: "mrconfigid=00ff...", "RTMR[3]=...", "attributes=0x10000000".

    Hexadecimal digits are bytes as they lie in a quote; for ATTRIBUTES and XFAM a text with 0x is a number.
    Errors: `InvalidInput`.
    """
    values: dict[str, bytes] = {}
    for text in texts:
        name, _, given = text.partition("=")
        register = re.fullmatch(r"(rtmr|pcr)\[?(\d{1,2})\]?", name.strip(), re.IGNORECASE)
        name = f"{register[1]}[{register[2]}]".upper() if register else name.strip().upper().replace("_", "")
        size = _SIZES.get(name, DIGEST_BYTES if register or name == "MRTD" else 0)
        digits = given.strip().lower()
        known = ", ".join(("MRTD", "RTMR[0..3]", *PROPERTIES))
        if not size or name in values:
            raise InvalidInput("value", text, "names nothing that is known, or twice the same", hint=f"one of {known}")
        number = size == 8 and digits.startswith("0x") and re.fullmatch(r"0x[0-9a-f]{1,16}", digits)
        plain = digits.removeprefix("0x")
        if not number and not re.fullmatch(r"([0-9a-f]{2})+", plain):
            raise InvalidInput("value", text, "is not NAME=HEX", hint="such as mrconfigid=00ff... of 96 digits")
        value = int(digits, 16).to_bytes(8, "little") if number else bytes.fromhex(plain)
        if len(value) != size and not (name in _SHORTER and len(value) < size):
            raise InvalidInput("value", text, f"has {len(value)} bytes, not {size}", hint=f"{name} has {size} bytes")
        values[name] = value
    return values


def _reasons(side: Side, name: str) -> list[str]:
    events = side.events if isinstance(side, Expected) else ()
    return [
        f"{event.what}: cannot be known offline ({event.why})"
        for event in events
        if event.register == name and event.digest is None
    ]


def _mrtd(expected: Expected, measured: bytes | None) -> RegisterPair:
    matching = [order for order, value in expected.mrtd.items() if value == measured]
    first = next(iter(expected.mrtd.values()))
    if matching:
        first = expected.mrtd[matching[0]]
        verdict, text = MeasurementVerdict.EQUAL, f"equal, pages added and extended {matching[0]}"
    else:
        verdict = MeasurementVerdict.DIFFERENT
        values = " or ".join(f"{value.hex()} ({order})" for order, value in expected.mrtd.items())
        shown = measured.hex() if measured else "nothing"
        text = f"the firmware differs: expected {values}, measured {shown}; neither page order matches"
    return RegisterPair("MRTD", verdict, first, measured, text)
