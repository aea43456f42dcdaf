"""Compare what was measured with what was expected, register by register and event by event.

Either side may be a prediction, an event log, or a TD's evidence (a quote, a TDREPORT). If a prediction does not match,
the other stacks in use are tried and the one that matches is named. If a log does not lead to a quote's register, the
comparison looks for an earlier moment of the log, or a superfluous event, that does.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import StrEnum
from pathlib import Path

from acon_nb.errors import InvalidInput
from acon_nb.tdx.describe import label_of
from acon_nb.tdx.eventlog import EVENT_TYPES, ZERO, EventLog, LoggedEvent, extend, parse_log
from acon_nb.tdx.quote import TdIdentity, parse_identity
from acon_nb.tdx.stored import Expected, ExpectedEvent, parse_expected, registers_of

_LIMIT_BYTES = 64 << 20
_MATCHES = "it matches if"
_NAMELESS = (0x80000003, 0x80000008, 0x8000000A)  # distinguished by their position: applications and firmware blobs
Side = Expected | EventLog | TdIdentity


class MeasurementVerdict(StrEnum):
    """The result of comparing two measurements: a code for files, with `text` for people."""

    EQUAL = "equal"
    DIFFERENT = "different"
    UNKNOWN = "cannot_know"

    @property
    def text(self) -> str:
        """The verdict in words."""
        return self.value.replace("_", " ")


@dataclass(frozen=True, kw_only=True)
class EventPair:
    """A pair of corresponding events; a digest is None if its side has no such event or does not know it.

    `number` counts the register's events from 0. `depends` names the inputs that a predicted event depends on if the
    two differ.
    """

    register: str
    number: int
    what: str
    verdict: MeasurementVerdict
    expected: bytes | None
    measured: bytes | None
    text: str
    depends: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RegisterPair:
    """The values of a register on both sides; None if unknown."""

    register: str
    verdict: MeasurementVerdict
    expected: bytes | None
    measured: bytes | None
    text: str


@dataclass(frozen=True, kw_only=True)
class MeasurementComparison:
    """A comparison: the verdict, each register, each event if both sides have events, possible explanations."""

    verdict: MeasurementVerdict
    registers: tuple[RegisterPair, ...]
    events: tuple[EventPair, ...]
    explanations: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def differences(self) -> tuple[EventPair, ...]:
        """The events that differ, in order."""
        return tuple(pair for pair in self.events if pair.verdict is MeasurementVerdict.DIFFERENT)

    @property
    def headline(self) -> str:
        """The result in one sentence."""
        if self.verdict is MeasurementVerdict.DIFFERENT:
            first = next(iter(self.differences), None) or next(
                pair for pair in self.registers if pair.verdict is MeasurementVerdict.DIFFERENT
            )
            return f"different: {first.register}: {first.text}"
        if self.verdict is MeasurementVerdict.UNKNOWN:
            names = ", ".join(pair.register for pair in self.registers if pair.verdict is MeasurementVerdict.UNKNOWN)
            return f"cannot know: {names}; everything that can be known is equal"
        return f"equal: {', '.join(pair.register for pair in self.registers)}"


@dataclass(frozen=True)
class _Event:
    """An event of either side."""

    register: str
    kind: int
    label: str
    what: str
    digest: bytes | None
    why: str = ""
    depends: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[int, str]:
        return self.kind, "" if self.kind in _NAMELESS else self.label


def read_side(path: Path) -> Side:
    """Read a file that can be compared: a stored prediction, log, quote or TDREPORT. Errors: `InvalidInput`."""
    try:
        with path.open("rb") as file:
            raw = file.read(_LIMIT_BYTES + 1)
    except OSError as error:
        hint = "give a stored prediction, an event log, a quote or a TDREPORT"
        raise InvalidInput("file", path, error.strerror or "cannot be read", hint=hint) from error
    return parse_side(raw, source=str(path))


def parse_pasted(text: str) -> Side:
    """Parse pasted text: a stored prediction, or a log or quote in hexadecimal or base64. Errors: `InvalidInput`."""
    if text.lstrip().startswith("{"):
        return parse_expected(text, source="pasted text")
    encoded = "".join(text.split())
    try:
        hexadecimal = re.fullmatch(r"([0-9a-fA-F]{2})+", encoded)
        raw = bytes.fromhex(encoded) if hexadecimal else base64.b64decode(encoded, validate=True)
    except (ValueError, binascii.Error) as error:
        hint = "paste the output of: base64 FILE (or xxd -p FILE)"
        raise InvalidInput("pasted", encoded[:40], "is neither hexadecimal nor base64", hint=hint) from error
    return parse_side(raw, source="pasted text")


def parse_side(raw: bytes, *, source: str = "input") -> Side:
    """Parse the bytes of anything that can be compared. Errors: `InvalidInput`."""
    if len(raw) > _LIMIT_BYTES:
        raise InvalidInput("file", source, "is too large for a log or a quote", hint="give only the log or the quote")
    if raw.lstrip()[:1] == b"{":
        return parse_expected(raw.decode("utf-8", "replace"), source=source)
    if raw[32:48] == b"Spec ID Event03\0":
        return parse_log(raw, source=source)
    return parse_identity(raw, source=source)


def compare(expected: Side, measured: Side, *, only: Sequence[str] = ()) -> MeasurementComparison:
    """Compare two sides; `only` names the registers to consider (default: all that both sides have).

    Errors: `InvalidInput` if they are of different kinds (a TD's and a TPM's) or lack such a register.
    """
    names = _common(expected, measured, only)
    first, second = _registers(expected), _registers(measured)
    left, right = _events(expected), _events(measured)
    pairs = () if left is None or right is None else tuple(_pairs(left, right, names))
    rows = tuple(_register(name, first[name], second[name], pairs, expected) for name in names)
    verdict = _worst([row.verdict for row in rows])
    explanations = (
        tuple(_explain(expected, measured, names, rows, pairs)) if verdict is MeasurementVerdict.DIFFERENT else ()
    )
    return MeasurementComparison(
        verdict=verdict,
        registers=rows,
        events=pairs,
        explanations=explanations,
        notes=(*_notes(expected), *_notes(measured)),
    )


def _worst(verdicts: Sequence[MeasurementVerdict]) -> MeasurementVerdict:
    for worst in (MeasurementVerdict.DIFFERENT, MeasurementVerdict.UNKNOWN):
        if worst in verdicts:
            return worst
    return MeasurementVerdict.EQUAL


def _common(expected: Side, measured: Side, only: Sequence[str]) -> list[str]:
    """The registers to compare, in order."""
    first, second = _registers(expected), _registers(measured)
    both = sorted(set(first) & set(second), key=_order)
    if not both:
        hint = "compare a TD with a TD (MRTD, RTMR), or a TPM with a TPM (PCR)"
        raise InvalidInput("file", "both", "have no register in common", hint=hint)
    unknown = [name for name in only if name not in both]
    if unknown:
        raise InvalidInput("only", unknown[0], "is not a register of both sides", hint=", ".join(both))
    return [name for name in both if not only or name in only]


def _order(register: str) -> tuple[str, int]:
    name, _, number = register.partition("[")
    return name, int(number.rstrip("]") or 0) if number else -1


def _registers(side: Side) -> dict[str, bytes | None]:
    if isinstance(side, Expected):
        mrtd = {"MRTD": next(iter(side.mrtd.values()))} if side.mrtd else {}
        return {**mrtd, **side.registers}
    return {**(side.registers() if isinstance(side, EventLog) else side.registers)}


def _events(side: Side) -> list[_Event] | None:
    if isinstance(side, Expected):
        return [_of_expected(event) for event in side.events]
    return [_of_logged(event) for event in side.events] if isinstance(side, EventLog) else None


def _of_expected(event: ExpectedEvent) -> _Event:
    return _Event(event.register, event.event_type, event.label, event.what, event.digest, event.why, event.depends)


def _of_logged(event: LoggedEvent) -> _Event:
    label = label_of(event)
    return _Event(event.register, event.event_type, label, f"{event.type_name} {label}", event.digest)


def _pairs(expected: list[_Event], measured: list[_Event], names: Sequence[str]) -> Iterator[EventPair]:
    for name in names:
        left = [event for event in expected if event.register == name]
        right = [event for event in measured if event.register == name]
        matcher = SequenceMatcher(a=[e.key for e in left], b=[e.key for e in right], autojunk=False)
        number = 0
        for _, a, a_end, b, b_end in matcher.get_opcodes():
            for offset in range(max(a_end - a, b_end - b)):
                first = left[a + offset] if a + offset < a_end else None
                second = right[b + offset] if b + offset < b_end else None
                yield _pair(name, number, first, second)
                number += 1


def _pair(name: str, number: int, first: _Event | None, second: _Event | None) -> EventPair:
    event = first or second
    assert event is not None
    if first is None or second is None:
        verdict = MeasurementVerdict.DIFFERENT
        text = f"{event.what}: {'measured, but not expected' if first is None else 'expected, but not measured'}"
    elif first.key != second.key:
        verdict, text = MeasurementVerdict.DIFFERENT, f"expected {first.what}, measured {second.what}"
    elif first.digest is None or second.digest is None:
        verdict, text = MeasurementVerdict.UNKNOWN, f"{event.what}: cannot be known offline ({first.why or second.why})"
    elif first.digest != second.digest:
        verdict = MeasurementVerdict.DIFFERENT
        text = f"{event.what} differs: expected sha384 {first.digest.hex()}, measured {second.digest.hex()}"
    else:
        verdict, text = MeasurementVerdict.EQUAL, f"{event.what} is equal"
    return EventPair(
        register=name,
        number=number,
        what=event.what,
        verdict=verdict,
        expected=first.digest if first else None,
        measured=second.digest if second else None,
        text=text,
        depends=first.depends if first and second and verdict is MeasurementVerdict.DIFFERENT else (),
    )


def _register(
    name: str, first: bytes | None, second: bytes | None, pairs: Sequence[EventPair], expected: Side
) -> RegisterPair:
    if name == "MRTD" and isinstance(expected, Expected):
        return _mrtd(expected, second)
    own_pairs = [pair for pair in pairs if pair.register == name]
    different = [pair for pair in own_pairs if pair.verdict is MeasurementVerdict.DIFFERENT]
    if first is not None and second is not None and not different:
        verdict = MeasurementVerdict.EQUAL if first == second else MeasurementVerdict.DIFFERENT
        text = "equal" if first == second else f"expected {first.hex()}, measured {second.hex()}"
    elif different:
        verdict, text = MeasurementVerdict.DIFFERENT, different[0].text
    else:
        verdict = MeasurementVerdict.UNKNOWN
        reasons = [pair.text for pair in own_pairs if pair.verdict is MeasurementVerdict.UNKNOWN] or _reasons(
            expected, name
        )
        text = reasons[0] if reasons else "cannot be known offline"
    return RegisterPair(register=name, verdict=verdict, expected=first, measured=second, text=text)


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
    return RegisterPair(register="MRTD", verdict=verdict, expected=first, measured=measured, text=text)


def _explain(
    expected: Side, measured: Side, names: Sequence[str], rows: Sequence[RegisterPair], pairs: Sequence[EventPair]
) -> Iterator[str]:
    if isinstance(expected, Expected):
        stacks = list(_other_stacks(expected, measured, names))
        yield from stacks
        if not any(text.startswith(_MATCHES) for text in stacks):
            yield from (f"{pair.what}: it depends on {', '.join(pair.depends)}" for pair in pairs if pair.depends)
    if isinstance(expected, EventLog) and isinstance(measured, TdIdentity):
        for row in rows:
            if row.verdict is MeasurementVerdict.DIFFERENT:
                yield from _moments(expected, row)


def _other_stacks(expected: Expected, measured: Side, names: Sequence[str]) -> Iterator[str]:
    """Describe the stack that leaves the fewest differences, if it leaves fewer than the assumed one."""
    right, second = _events(measured), _registers(measured)

    def remaining(events: tuple[ExpectedEvent, ...]) -> list[str]:
        if right is not None:
            left = [_of_expected(event) for event in events]
            return [p.text for p in _pairs(left, right, names) if p.verdict is MeasurementVerdict.DIFFERENT]
        values = registers_of(expected.kind, events)
        return [name for name in names if name != "MRTD" and values[name] not in (None, second[name])]

    assumed = len(remaining(expected.events))
    counts = [(len(remaining(other.events)), other) for other in expected.alternatives]
    best = min((count for count, _ in counts), default=assumed)
    for count, other in counts:
        if count == best < assumed:
            words = " and ".join(other.words)
            if best:
                yield f"it matches better if {words}: then {best} of {assumed} differences remain"
            else:
                yield f"{_MATCHES} {words}: then everything that can be known is equal"
            return  # those with the fewest assumptions come first


def _moments(log: EventLog, row: RegisterPair) -> Iterator[str]:
    """Explain a quote's register by an earlier moment of the log, or by the log without one of its events."""
    events = [event for event in log.events if event.register == row.register]
    value = ZERO
    for number, event in enumerate(events):
        if value == row.measured:
            what = f"{EVENT_TYPES.get(event.event_type, hex(event.event_type))} {label_of(event)}"
            yield f"{row.register}: it matches the log up to event {number}, before {what}: taken at an earlier moment"
            return
        value = extend(value, event.digest)
    for number, left_out in enumerate(events):
        value = ZERO
        for event in events:
            value = value if event is left_out else extend(value, event.digest)
        if value == row.measured:
            event_text = f"{left_out.type_name} {label_of(left_out)}"
            yield f"{row.register}: it matches the log without its event {number}, {event_text}"
            return
    last = events[-1] if events else None
    tail = f"; the log ends with {last.type_name} {label_of(last)}" if last is not None else ""
    why = "the log lacks what came later (IMA, an agent), or is from another boot"
    yield f"{row.register}: no moment of the log matches: {why}{tail}"


def _notes(side: Side) -> tuple[str, ...]:
    if isinstance(side, TdIdentity):
        debug = ("this is a debug TD: its host can change what it measures",) if side.debug else ()
        return (f"{side.form}: {side.note}", *debug)
    return side.notes
