"""Events of two sides as pairs: digests decide what corresponds and what is equal, labels only help to align the rest.

The data of a logged event, and so its label, come from the guest: two events with one digest are equal whatever their
data claim.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import StrEnum

from acon_nb.tdx.binding import Binding, binding_of
from acon_nb.tdx.describe import label_of
from acon_nb.tdx.eventlog import EventLog, LoggedEvent
from acon_nb.tdx.quote import TdIdentity
from acon_nb.tdx.stored import Expected, ExpectedEvent

_NAMELESS = (0x80000003, 0x80000008, 0x8000000A)  # distinguished by their position: applications and firmware blobs


class MeasurementVerdict(StrEnum):
    """The result of comparing two measurements: a code for files, with `text` for people."""

    EQUAL = "equal"
    DIFFERENT = "different"
    UNKNOWN = "cannot_know"
    UNLOGGED = "extended_without_log"
    NOT_COMPARED = "not_compared"

    @property
    def text(self) -> str:
        """The verdict in words."""
        return self.value.replace("_", " ")


@dataclass(frozen=True, kw_only=True)
class EventPair:
    """A pair of corresponding events; a digest is None if its side has no such event or does not know it.

    `number` counts the register's events from 0. `depends` names the inputs that a predicted event depends on if the
    two differ. `binding` says what the data of the measured event are worth, None if there is none.
    """

    register: str
    number: int
    what: str
    verdict: MeasurementVerdict
    expected: bytes | None
    measured: bytes | None
    text: str
    depends: tuple[str, ...] = ()
    binding: Binding | None = None


@dataclass(frozen=True)
class Event:
    """An event of either side."""

    register: str
    kind: int
    label: str
    what: str
    digest: bytes | None
    why: str = ""
    depends: tuple[str, ...] = ()
    binding: Binding | None = None

    @property
    def key(self) -> tuple[int, str]:
        """What aligns events of unlike digests."""
        return self.kind, "" if self.kind in _NAMELESS else self.label


def events_of(side: Expected | EventLog | TdIdentity) -> list[Event] | None:
    """Return the events of a side; None if it has registers alone."""
    if isinstance(side, Expected):
        return [of_expected(event) for event in side.events]
    log = side.log if isinstance(side, TdIdentity) else side
    return None if log is None else [_of_logged(event) for event in log.events]


def of_expected(event: ExpectedEvent) -> Event:
    """Return a predicted event."""
    return Event(event.register, event.event_type, event.label, event.what, event.digest, event.why, event.depends)


def _of_logged(event: LoggedEvent) -> Event:
    label = label_of(event)
    what = f"{event.type_name} {label}"
    return Event(event.register, event.event_type, label, what, event.digest, binding=binding_of(event))


def pairs_of(expected: Sequence[Event], measured: Sequence[Event], names: Sequence[str]) -> Iterator[EventPair]:
    """Yield the pairs of each register, in order."""
    for name in names:
        left = [event for event in expected if event.register == name]
        right = [event for event in measured if event.register == name]
        for number, (first, second) in enumerate(_aligned(left, right)):
            yield _pair(name, number, first, second)


def _aligned(left: list[Event], right: list[Event]) -> Iterator[tuple[Event | None, Event | None]]:
    """Align by digest first, then what lies between by type and label."""
    unknown = iter(range(len(left) + len(right)))

    def tokens(events: list[Event]) -> list[bytes | int]:
        return [next(unknown) if event.digest is None else event.digest for event in events]

    for tag, a, a_end, b, b_end in SequenceMatcher(None, tokens(left), tokens(right), autojunk=False).get_opcodes():
        if tag == "equal":
            yield from zip(left[a:a_end], right[b:b_end], strict=True)
            continue
        first, second = left[a:a_end], right[b:b_end]
        matcher = SequenceMatcher(None, [e.key for e in first], [e.key for e in second], autojunk=False)
        for _, c, c_end, d, d_end in matcher.get_opcodes():
            for offset in range(max(c_end - c, d_end - d)):
                yield (
                    first[c + offset] if c + offset < c_end else None,
                    second[d + offset] if d + offset < d_end else None,
                )


def _pair(name: str, number: int, first: Event | None, second: Event | None) -> EventPair:
    event = first or second
    assert event is not None
    verdict, text = MeasurementVerdict.DIFFERENT, ""
    if first is None or second is None:
        text = f"{event.what}: {'measured, but not expected' if first is None else 'expected, but not measured'}"
    elif first.digest is not None and first.digest == second.digest:
        verdict, text = MeasurementVerdict.EQUAL, f"{event.what} is equal"
        if first.key != second.key:
            text += f" (labelled {second.what})"
    elif first.key != second.key:
        text = f"expected {first.what}, measured {second.what}"
    elif first.digest is None or second.digest is None:
        verdict, text = MeasurementVerdict.UNKNOWN, f"{event.what}: cannot be known offline ({first.why or second.why})"
    else:
        text = f"{event.what} differs: expected sha384 {first.digest.hex()}, measured {second.digest.hex()}"
    return EventPair(
        register=name,
        number=number,
        what=event.what,
        verdict=verdict,
        expected=first.digest if first else None,
        measured=second.digest if second else None,
        text=text,
        depends=first.depends if first and second and verdict is MeasurementVerdict.DIFFERENT else (),
        binding=second.binding if second else None,
    )
