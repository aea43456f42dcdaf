"""What was measured beside what was expected: register by register, event by event, the first difference in words.

Both sides may be a prediction, an event log, or what a TD shows of itself (a quote, a TDREPORT). Where a prediction
does not fit, the other stacks in the field are tried, and the one that fits is named. Where a log does not give a
quote's register, it is tried whether the quote is of an earlier moment, or an event is one too many.
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
from acon_nb.tdx.eventlog import EVENT_TYPES, ZERO, EventLog, LoggedEvent, extend, parse_log
from acon_nb.tdx.expected import Expected, ExpectedEvent, parse_expected, registers_of
from acon_nb.tdx.quote import TdIdentity, parse_identity
from acon_nb.tdx.words import label_of

_LIMIT_BYTES = 64 << 20
_FITS = "it fits if"
_NAMELESS = (0x80000003, 0x80000008, 0x8000000A)  # told apart by their place: applications and firmware blobs
Side = Expected | EventLog | TdIdentity


class Verdict(StrEnum):
    """What a comparison came to."""

    EQUAL = "equal"
    DIFFERENT = "different"
    UNKNOWN = "cannot know"


@dataclass(frozen=True, kw_only=True)
class EventPair:
    """An event of each side; None where one side has none. `number` counts the register's events, from 0.

    `depends` names the inputs that a predicted event depends on, where the two differ.
    """

    register: str
    number: int
    what: str
    verdict: Verdict
    expected: bytes | None
    measured: bytes | None
    text: str
    depends: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RegisterPair:
    """A register of each side; None where it is not known."""

    register: str
    verdict: Verdict
    expected: bytes | None
    measured: bytes | None
    text: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The whole: a verdict, each register, each event (where both sides have events), and what would explain it."""

    verdict: Verdict
    registers: tuple[RegisterPair, ...]
    events: tuple[EventPair, ...]
    explanations: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def differences(self) -> tuple[EventPair, ...]:
        """The events that differ, the first one first."""
        return tuple(pair for pair in self.events if pair.verdict is Verdict.DIFFERENT)

    @property
    def headline(self) -> str:
        """The result in one sentence."""
        if self.verdict is Verdict.DIFFERENT:
            first = next(iter(self.differences), None) or next(
                pair for pair in self.registers if pair.verdict is Verdict.DIFFERENT
            )
            return f"different: {first.register}: {first.text}"
        if self.verdict is Verdict.UNKNOWN:
            names = ", ".join(pair.register for pair in self.registers if pair.verdict is Verdict.UNKNOWN)
            return f"cannot know: {names}; what can be known is equal"
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
    """A file that can be compared: a stored prediction, a log, a quote, a TDREPORT. Errors: `InvalidInput`."""
    try:
        with path.open("rb") as file:
            raw = file.read(_LIMIT_BYTES + 1)
    except OSError as error:
        hint = "give a stored prediction, an event log, a quote or a TDREPORT"
        raise InvalidInput("file", path, error.strerror or "cannot be read", hint=hint) from error
    return parse_side(raw, source=str(path))


def parse_pasted(text: str) -> Side:
    """What a person pasted: a stored prediction, or a log or quote in hexadecimal or base64. Errors: `InvalidInput`."""
    if text.lstrip().startswith("{"):
        return parse_expected(text, source="pasted text")
    packed = "".join(text.split())
    try:
        hexadecimal = re.fullmatch(r"([0-9a-fA-F]{2})+", packed)
        raw = bytes.fromhex(packed) if hexadecimal else base64.b64decode(packed, validate=True)
    except (ValueError, binascii.Error) as error:
        hint = "paste the output of: base64 FILE (or xxd -p FILE)"
        raise InvalidInput("pasted", packed[:40], "is neither hexadecimal nor base64", hint=hint) from error
    return parse_side(raw, source="pasted text")


def parse_side(raw: bytes, *, source: str = "input") -> Side:
    """The bytes of any kind that can be compared. Errors: `InvalidInput`."""
    if len(raw) > _LIMIT_BYTES:
        raise InvalidInput("file", source, "is larger than any of these", hint="give the log or quote alone")
    if raw.lstrip()[:1] == b"{":
        return parse_expected(raw.decode("utf-8", "replace"), source=source)
    if raw[32:48] == b"Spec ID Event03\0":
        return parse_log(raw, source=source)
    return parse_identity(raw, source=source)


def compare(expected: Side, measured: Side, *, only: Sequence[str] = ()) -> Comparison:
    """Compare two sides; `only` names the registers that count (default: all that both sides have).

    Errors: `InvalidInput` when they are of different kinds (a TD's and a TPM's) or have no such register.
    """
    names = _common(expected, measured, only)
    first, second = _registers(expected), _registers(measured)
    mine, theirs = _events(expected), _events(measured)
    pairs = () if mine is None or theirs is None else tuple(_pairs(mine, theirs, names))
    rows = tuple(_register(name, first[name], second[name], pairs, expected) for name in names)
    verdict = _worst([row.verdict for row in rows])
    explanations = tuple(_explain(expected, measured, names, rows, pairs)) if verdict is Verdict.DIFFERENT else ()
    return Comparison(
        verdict=verdict,
        registers=rows,
        events=pairs,
        explanations=explanations,
        notes=(*_notes(expected), *_notes(measured)),
    )


def _worst(verdicts: Sequence[Verdict]) -> Verdict:
    for worst in (Verdict.DIFFERENT, Verdict.UNKNOWN):
        if worst in verdicts:
            return worst
    return Verdict.EQUAL


def _common(expected: Side, measured: Side, only: Sequence[str]) -> list[str]:
    """The registers that are compared, in order."""
    first, second = _registers(expected), _registers(measured)
    both = sorted(set(first) & set(second), key=_order)
    if not both:
        hint = "compare a TD's with a TD's (MRTD, RTMR), a TPM's with a TPM's (PCR)"
        raise InvalidInput("file", "both", "have no register in common", hint=hint)
    wrong = [name for name in only if name not in both]
    if wrong:
        raise InvalidInput("only", wrong[0], "is no register of both", hint=", ".join(both))
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


def _pairs(mine: list[_Event], theirs: list[_Event], names: Sequence[str]) -> Iterator[EventPair]:
    for name in names:
        left = [event for event in mine if event.register == name]
        right = [event for event in theirs if event.register == name]
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
        verdict = Verdict.DIFFERENT
        text = f"{event.what}: {'measured, but not expected' if first is None else 'expected, but not measured'}"
    elif first.key != second.key:
        verdict, text = Verdict.DIFFERENT, f"expected {first.what}, measured {second.what}"
    elif first.digest is None or second.digest is None:
        verdict, text = Verdict.UNKNOWN, f"{event.what}: cannot be known offline ({first.why or second.why})"
    elif first.digest != second.digest:
        verdict = Verdict.DIFFERENT
        text = f"{event.what} differs: expected sha384 {first.digest.hex()}, measured {second.digest.hex()}"
    else:
        verdict, text = Verdict.EQUAL, f"{event.what} is equal"
    return EventPair(
        register=name,
        number=number,
        what=event.what,
        verdict=verdict,
        expected=first.digest if first else None,
        measured=second.digest if second else None,
        text=text,
        depends=first.depends if first and second and verdict is Verdict.DIFFERENT else (),
    )


def _register(
    name: str, first: bytes | None, second: bytes | None, pairs: Sequence[EventPair], expected: Side
) -> RegisterPair:
    if name == "MRTD" and isinstance(expected, Expected):
        return _mrtd(expected, second)
    mine = [pair for pair in pairs if pair.register == name]
    bad = [pair for pair in mine if pair.verdict is Verdict.DIFFERENT]
    if first is not None and second is not None and not bad:
        verdict = Verdict.EQUAL if first == second else Verdict.DIFFERENT
        text = "equal" if first == second else f"expected {first.hex()}, measured {second.hex()}"
    elif bad:
        verdict, text = Verdict.DIFFERENT, bad[0].text
    else:
        verdict = Verdict.UNKNOWN
        reasons = [pair.text for pair in mine if pair.verdict is Verdict.UNKNOWN] or _reasons(expected, name)
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
    fits = [order for order, value in expected.mrtd.items() if value == measured]
    first = next(iter(expected.mrtd.values()))
    if fits:
        verdict, text, first = Verdict.EQUAL, f"equal, pages added and extended {fits[0]}", expected.mrtd[fits[0]]
    else:
        verdict = Verdict.DIFFERENT
        values = " or ".join(f"{value.hex()} ({order})" for order, value in expected.mrtd.items())
        shown = measured.hex() if measured else "nothing"
        text = f"the firmware differs: expected {values}, measured {shown}; neither page order fits"
    return RegisterPair(register="MRTD", verdict=verdict, expected=first, measured=measured, text=text)


def _explain(
    expected: Side, measured: Side, names: Sequence[str], rows: Sequence[RegisterPair], pairs: Sequence[EventPair]
) -> Iterator[str]:
    if isinstance(expected, Expected):
        better = list(_other_stacks(expected, measured, names))
        yield from better
        if not any(text.startswith(_FITS) for text in better):
            yield from (f"{pair.what}: it depends on {', '.join(pair.depends)}" for pair in pairs if pair.depends)
    if isinstance(expected, EventLog) and isinstance(measured, TdIdentity):
        for row in rows:
            if row.verdict is Verdict.DIFFERENT:
                yield from _moments(expected, row)


def _other_stacks(expected: Expected, measured: Side, names: Sequence[str]) -> Iterator[str]:
    """The stack with which the fewest differences remain, if it is a better one."""
    theirs, second = _events(measured), _registers(measured)

    def left(events: tuple[ExpectedEvent, ...]) -> list[str]:
        if theirs is not None:
            mine = [_of_expected(event) for event in events]
            return [p.text for p in _pairs(mine, theirs, names) if p.verdict is Verdict.DIFFERENT]
        values = registers_of(expected.kind, events)
        return [name for name in names if name != "MRTD" and values[name] not in (None, second[name])]

    here = len(left(expected.events))
    found = [(len(left(other.events)), other) for other in expected.alternatives]
    best = min((count for count, _ in found), default=here)
    for count, other in found:
        if count == best < here:
            words = " and ".join(other.words)
            if best:
                yield f"it fits better if {words}: then {best} of {here} differences remain"
            else:
                yield f"{_FITS} {words}: then all that can be known is equal"
            return  # those with the fewest assumptions come first


def _moments(log: EventLog, row: RegisterPair) -> Iterator[str]:
    """A quote's register as that of an earlier moment of the log, or of the log less one event."""
    events = [event for event in log.events if event.register == row.register]
    value = ZERO
    for number, event in enumerate(events):
        if value == row.measured:
            what = f"{EVENT_TYPES.get(event.event_type, hex(event.event_type))} {label_of(event)}"
            yield f"{row.register}: it fits the log up to event {number}, before {what}: taken at an earlier moment"
            return
        value = extend(value, event.digest)
    for number, left_out in enumerate(events):
        value = ZERO
        for event in events:
            value = value if event is left_out else extend(value, event.digest)
        if value == row.measured:
            yield f"{row.register}: it fits the log less its event {number}, {left_out.type_name} {label_of(left_out)}"
            return
    last = events[-1] if events else None
    tail = f"; the log ends with {last.type_name} {label_of(last)}" if last is not None else ""
    why = "what came later (IMA, an agent) is not in it, or it is of another boot"
    yield f"{row.register}: no moment of the log fits: {why}{tail}"


def _notes(side: Side) -> tuple[str, ...]:
    if isinstance(side, TdIdentity):
        debug = ("the TD is a debug TD: its host can change what it measures",) if side.debug else ()
        return (f"{side.form}: {side.note}", *debug)
    return side.notes
