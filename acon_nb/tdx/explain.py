"""Explain a difference: another stack, drifted inputs, an earlier moment of a log, a superfluous event."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from acon_nb.tdx import drift
from acon_nb.tdx.describe import label_of
from acon_nb.tdx.eventlog import APPLICATION, ZERO, EventLog, extend
from acon_nb.tdx.evidence.reader import Side
from acon_nb.tdx.pairing import EventPair, MeasurementVerdict, events_of, of_expected, pairs_of
from acon_nb.tdx.quote import TdIdentity
from acon_nb.tdx.rows import RegisterPair
from acon_nb.tdx.stored import Expected, ExpectedEvent, registers_of

_MATCHES = "it matches if"
_LEFT_OUT = 300  # each event left out replays the rest: a hostile log with many must not take minutes


def explain(
    expected: Side,
    measured: Side,
    names: Sequence[str],
    rows: Sequence[RegisterPair],
    pairs: Sequence[EventPair],
    application: EventLog | None = None,
) -> Iterator[str]:
    """Yield possible explanations of the rows that differ, as sentences."""
    different = [row for row in rows if row.verdict is MeasurementVerdict.DIFFERENT]
    boot = [name for name in names if name != APPLICATION]
    if isinstance(expected, Expected) and any(row.register in boot and row.register != "MRTD" for row in different):
        stacks = list(_other_stacks(expected, measured, boot))
        yield from stacks
        if not any(text.startswith(_MATCHES) for text in stacks):
            yield from (f"{pair.what}: it depends on {', '.join(pair.depends)}" for pair in pairs if pair.depends)
            yield from drift.search(expected, measured, [row.register for row in different])
    if isinstance(measured, TdIdentity):
        for row in different:
            log = application if row.register == APPLICATION else None
            log = log or (expected if isinstance(expected, EventLog) else None)
            if log is not None and row.register in log.registers():
                yield from _moments(log, row)


def _other_stacks(expected: Expected, measured: Side, names: Sequence[str]) -> Iterator[str]:
    """Describe the stack that leaves the fewest differences, if it leaves fewer than the assumed one."""
    right, second = events_of(measured), measured.registers() if isinstance(measured, EventLog) else measured.registers

    def remaining(events: tuple[ExpectedEvent, ...]) -> list[str]:
        if right is not None:
            left = [of_expected(event) for event in events]
            return [p.text for p in pairs_of(left, right, names) if p.verdict is MeasurementVerdict.DIFFERENT]
        values = registers_of(expected.kind, events)
        return [name for name in names if name != "MRTD" and values.get(name) not in (None, second[name])]

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
    value = log.initial.get(row.register, ZERO)
    before = [value]
    for number, event in enumerate(events):
        if value == row.measured:
            what = f"{event.type_name} {label_of(event)}"
            yield f"{row.register}: it matches the log up to event {number}, before {what}: taken at an earlier moment"
            return
        value = extend(value, event.digest)
        before.append(value)
    for number, left_out in enumerate(events[:_LEFT_OUT]):
        value = before[number]
        for event in events[number + 1 :]:
            value = extend(value, event.digest)
        if value == row.measured:
            event_text = f"{left_out.type_name} {label_of(left_out)}"
            yield f"{row.register}: it matches the log without its event {number}, {event_text}"
            return
    last = events[-1] if events else None
    tail = f"; the log ends with {last.type_name} {label_of(last)}" if last is not None else ""
    why = "the log lacks what came later (IMA, an agent), or is from another boot"
    yield f"{row.register}: no moment of the log matches: {why}{tail}"
