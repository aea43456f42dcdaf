"""Compare what was measured with what was expected, register by register and event by event.

Either side may be a prediction, an event log, or a TD's evidence (a quote, a TDREPORT). Digests decide. RTMR[3] belongs
to applications: it is compared only with a log of theirs or with a value given. A debug TD is never equal to anything,
unless that is allowed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from acon_nb.errors import InvalidInput
from acon_nb.tdx.binding import Binding, binding_of
from acon_nb.tdx.describe import label_of
from acon_nb.tdx.eventlog import APPLICATION, ZERO, EventLog
from acon_nb.tdx.evidence.reader import Side
from acon_nb.tdx.explain import explain
from acon_nb.tdx.pairing import Event, EventPair, MeasurementVerdict, events_of, pairs_of
from acon_nb.tdx.quote import PROPERTIES, TdIdentity
from acon_nb.tdx.rows import RegisterPair, of_property, of_register, of_value
from acon_nb.tdx.stored import Expected

__all__ = [
    "EventPair",
    "MeasurementComparison",
    "MeasurementVerdict",
    "RegisterPair",
    "Side",
    "compare",
]
_DEBUG = "this is a debug TD: its host can read it and change what it measures"


@dataclass(frozen=True, kw_only=True)
class MeasurementComparison:
    """A comparison: the verdict, each register, each event if both sides have events, possible explanations.

    `identity` is what was measured if it has attributes (a quote, a TDREPORT), else None.
    """

    verdict: MeasurementVerdict
    registers: tuple[RegisterPair, ...]
    events: tuple[EventPair, ...]
    explanations: tuple[str, ...]
    notes: tuple[str, ...] = ()
    identity: TdIdentity | None = None

    @property
    def equal(self) -> bool:
        """Whether everything that was compared is equal."""
        return self.verdict is MeasurementVerdict.EQUAL

    @property
    def differences(self) -> tuple[EventPair, ...]:
        """The events that differ, in order."""
        return tuple(pair for pair in self.events if pair.verdict is MeasurementVerdict.DIFFERENT)

    @property
    def headline(self) -> str:
        """The result in one sentence."""
        if self.verdict is MeasurementVerdict.DIFFERENT:
            row = next(pair for pair in self.registers if pair.verdict is MeasurementVerdict.DIFFERENT)
            return f"different: {row.register}: {row.text}"
        if self.verdict is MeasurementVerdict.UNKNOWN:
            names = ", ".join(pair.register for pair in self.registers if pair.verdict is MeasurementVerdict.UNKNOWN)
            return f"cannot know: {names}; everything that can be known is equal"
        if self.verdict is MeasurementVerdict.UNLOGGED:
            return f"cannot know: {APPLICATION} was extended without a log; everything else is equal"
        compared = [pair.register for pair in self.registers if pair.verdict is MeasurementVerdict.EQUAL]
        return f"equal: {', '.join(compared)}"


def compare(
    expected: Side,
    measured: Side,
    *,
    only: Sequence[str] = (),
    values: Mapping[str, bytes] | None = None,
    application: EventLog | None = None,
    allow_debug: bool = False,
) -> MeasurementComparison:
    """Compare two sides; `only` names the registers to consider (default: all that both sides have).

    `values` are further expected values, by the names of registers and `PROPERTIES`. `application` is the log of what
    extended RTMR[3] after the boot. With `allow_debug` a debug TD is compared like any other.

    Errors: `InvalidInput` if they are of different kinds (a TD's and a TPM's) or lack such a register.
    """
    names = _common(expected, measured, only, values or {})
    first, second = registers_of_side(expected), registers_of_side(measured)
    left, right = events_of(expected), _evidence(measured)
    boot = [name for name in names if name != APPLICATION or _has_application(left)]
    pairs = () if left is None or right is None else tuple(pairs_of(left, right, boot))
    rows = [
        _application(expected, measured, application)
        if name == APPLICATION
        else of_register(name, first[name], second[name], pairs, expected)
        for name in names
    ]
    rows = [row for row in rows if row.register not in (values or {})]
    rows += _given(measured, second, values or {})
    rows += () if allow_debug else _debug(expected, measured)
    verdict = _worst([row.verdict for row in rows])
    different = verdict is MeasurementVerdict.DIFFERENT
    explanations = tuple(explain(expected, measured, names, rows, pairs, application)) if different else ()
    return MeasurementComparison(
        verdict=verdict,
        registers=tuple(rows),
        events=pairs,
        explanations=explanations,
        notes=tuple(dict.fromkeys((*notes_of(expected), *notes_of(measured), *_debug_notes(measured)))),
        identity=measured if isinstance(measured, TdIdentity) else None,
    )


def notes_of(side: Side) -> tuple[str, ...]:
    """Return what a person should know of a side: its form, forged data, what was left out."""
    if isinstance(side, Expected):
        return side.notes
    if isinstance(side, TdIdentity):
        log = () if side.log is None else (*notes_of(side.log), *_disagreements(side, side.log))
        return (f"{side.form}: {side.note}", *side.notes, *log)
    forged = (
        f"event {event.number} ({event.register}, {event.type_name} {label_of(event)}): {Binding.FORGED.text}"
        for event in side.events
        if binding_of(event) is Binding.FORGED
    )
    return (*side.notes, *forged)


def registers_of_side(side: Side) -> dict[str, bytes | None]:
    """Return the registers of a side; None for a value that cannot be known."""
    if isinstance(side, Expected):
        mrtd = {"MRTD": next(iter(side.mrtd.values()))} if side.mrtd else {}
        return {**mrtd, **side.registers}
    return {**(side.registers() if isinstance(side, EventLog) else side.registers)}


def _worst(verdicts: Sequence[MeasurementVerdict]) -> MeasurementVerdict:
    for worst in (MeasurementVerdict.DIFFERENT, MeasurementVerdict.UNKNOWN, MeasurementVerdict.UNLOGGED):
        if worst in verdicts:
            return worst
    return MeasurementVerdict.EQUAL


def _common(expected: Side, measured: Side, only: Sequence[str], values: Mapping[str, bytes]) -> list[str]:
    """The registers to compare, in order."""
    first, second = registers_of_side(expected), registers_of_side(measured)
    both = sorted(set(first) & set(second), key=_order)
    if not both:
        hint = "compare a TD with a TD (MRTD, RTMR), or a TPM with a TPM (PCR); --kind says whose log it is"
        raise InvalidInput("file", "both", "have no register in common", hint=hint)
    unknown = [name for name in only if name not in both]
    if unknown:
        raise InvalidInput("only", unknown[0], "is not a register of both sides", hint=", ".join(both))
    for name in values:
        if name in PROPERTIES and not isinstance(measured, TdIdentity):
            raise InvalidInput("value", name, "is not in a log", hint="give a quote or a TDREPORT as what was measured")
        if name not in PROPERTIES and name not in second:
            raise InvalidInput("value", name, "is not a register of what was measured", hint=", ".join(second))
    return [name for name in both if not only or name in only]


def _order(register: str) -> tuple[str, int]:
    name, _, number = register.partition("[")
    return name, int(number.rstrip("]")) if number else -1


def _evidence(measured: Side) -> list[Event] | None:
    """The events of what was measured; of a quote's own log only those of registers to which it leads."""
    events = events_of(measured)
    if not isinstance(measured, TdIdentity) or measured.log is None or events is None:
        return events
    replayed = measured.log.registers()
    leading = {name for name, value in measured.registers.items() if replayed.get(name) == value}
    return [event for event in events if event.register in leading] if leading else None


def _disagreements(identity: TdIdentity, log: EventLog) -> Iterator[str]:
    replayed = log.registers()
    for name, value in identity.registers.items():
        if name in replayed and replayed[name] != value:
            yield f"{name}: the log that came with the quote does not lead to its value, and is not evidence for it"


def _has_application(events: Sequence[Event] | None) -> bool:
    return any(event.register == APPLICATION for event in events or ())


def _application(expected: Side, measured: Side, application: EventLog | None) -> RegisterPair:
    """The row of RTMR[3]: compared only with a log of applications, else reported."""
    value = registers_of_side(measured)[APPLICATION] or ZERO
    own = measured.log if isinstance(measured, TdIdentity) else measured
    for log, whose in ((application, "the application's log"), (_log_of(expected), "the expected log")):
        if log is not None and _has_application(events_of(log)):
            wanted = log.registers()[APPLICATION]
            count = sum(event.register == APPLICATION for event in log.events)
            good = f"equal: {count} events of {whose} lead to it"
            return of_value(APPLICATION, wanted, value, good, f"{whose} does not lead to it")
    if value == ZERO:
        return RegisterPair(APPLICATION, MeasurementVerdict.EQUAL, ZERO, ZERO, "not extended")
    if isinstance(own, EventLog) and _has_application(events_of(own)):
        count = sum(event.register == APPLICATION for event in own.events)
        if own.registers()[APPLICATION] == value:
            text = f"extended by applications: {count} events of its log lead to it; no value was expected"
            return RegisterPair(APPLICATION, MeasurementVerdict.NOT_COMPARED, None, value, text)
    given = registers_of_side(expected)[APPLICATION]
    if given == value and not isinstance(expected, Expected):
        return RegisterPair(APPLICATION, MeasurementVerdict.EQUAL, given, value, "equal on both sides")
    text = f"extended to {value.hex()} without a log entry: what applications measured is unknown"
    return RegisterPair(APPLICATION, MeasurementVerdict.UNLOGGED, None, value, text)


def _log_of(side: Side) -> EventLog | None:
    if isinstance(side, TdIdentity):
        return side.log
    return side if isinstance(side, EventLog) else None


def _given(
    measured: Side, registers: Mapping[str, bytes | None], values: Mapping[str, bytes]
) -> Iterator[RegisterPair]:
    """The rows of expected values that were given one by one."""
    for name, wanted in values.items():
        if name in PROPERTIES:
            assert isinstance(measured, TdIdentity)
            yield of_property(name, wanted, measured.properties[name])
        else:
            yield of_value(name, wanted, registers[name] or b"", "equal to the value given", "differs")


def _debug(expected: Side, measured: Side) -> Iterator[RegisterPair]:
    for side, role in ((expected, "what is expected comes from a debug TD"), (measured, _DEBUG)):
        if isinstance(side, TdIdentity) and side.debug:
            value = side.properties["ATTRIBUTES"]
            text = f"{role} ({', '.join(side.attribute_names)}); --allow-debug accepts it"
            yield RegisterPair("ATTRIBUTES", MeasurementVerdict.DIFFERENT, None, value, text)


def _debug_notes(measured: Side) -> tuple[str, ...]:
    return (_DEBUG,) if isinstance(measured, TdIdentity) and measured.debug else ()
