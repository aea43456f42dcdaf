"""A prediction as data that can be stored, sent, and compared later without the files it was made from.

`Expected` holds the events of the assumed stack and those of each other stack in use, so that a comparison can find out
which of them matches. It can be converted to JSON and back.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from acon_nb.errors import InvalidInput
from acon_nb.tdx.eventlog import DIGEST_BYTES, EVENT_TYPES, ZERO, LogKind, extend, index_of
from acon_nb.tdx.events import EXITS
from acon_nb.tdx.facts import BootFacts, facts_of, facts_of_json
from acon_nb.tdx.mrtd import PageOrder
from acon_nb.tdx.predict import Prediction, without_initrd
from acon_nb.tdx.printable import printable

FORM = "acon-nb measurement 1"
_LIMIT_EVENTS = 10_000
_LIMIT_ALTERNATIVES = 1_000
_LIMIT_WORDS = 1_000
_DIGEST = re.compile(r"[0-9a-fA-F]{96}")
_HINT = "make it with: acon-nb measure predict --json KERNEL > FILE"
_TYPES = {name: number for number, name in EVENT_TYPES.items()}


@dataclass(frozen=True, kw_only=True)
class ExpectedEvent:
    """The part of a predicted event that a comparison needs; `digest` is None if it cannot be known."""

    register: str
    event_type: int
    label: str
    what: str
    digest: bytes | None
    hashed_bytes: int | None
    source: str
    depends: tuple[str, ...]
    why: str


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """Another stack: what it does differently, in `words`, and the events that it would produce."""

    words: tuple[str, ...]
    events: tuple[ExpectedEvent, ...]


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a boot must measure: events, MRTD by page order (empty for a TPM), other stacks, notes.

    `facts` are those of its inputs from which drifted ones can be searched; older files have none.
    """

    kind: LogKind
    events: tuple[ExpectedEvent, ...]
    mrtd: Mapping[PageOrder, bytes]
    alternatives: tuple[Alternative, ...]
    notes: tuple[str, ...]
    facts: BootFacts | None = None

    @property
    def registers(self) -> dict[str, bytes | None]:
        """The value of each RTMR or PCR; None if one of its events cannot be known."""
        return registers_of(self.kind, self.events)

    def as_json(self) -> dict[str, Any]:
        """Return the prediction as JSON values; digests are hexadecimal."""
        return {
            "form": FORM,
            "kind": self.kind.value,
            "mrtd": {order.value: value.hex() for order, value in self.mrtd.items()},
            "registers": {name: _hex(value) for name, value in self.registers.items()},
            "events": [_event_json(event) for event in self.events],
            "alternatives": [
                {"words": list(other.words), "events": [_event_json(event) for event in other.events]}
                for other in self.alternatives
            ],
            "notes": list(self.notes),
            "facts": None if self.facts is None else self.facts.as_json(),
        }


def expected(prediction: Prediction) -> Expected:
    """Convert a prediction to data, together with those of all other stacks."""
    others = [(other.variant, other) for other in prediction.variants()]
    alternatives = [
        Alternative(words=prediction.variant.differences(variant), events=_events(other)) for variant, other in others
    ]
    if prediction.inputs.initrd is not None:
        bare = without_initrd(prediction)
        alternatives.append(Alternative(words=("the guest was given no initrd",), events=_events(bare)))
    if prediction.inputs.disk is not None:
        failed = "the kernel's first call of ExitBootServices failed (as when OVMF 2026.08 has booted from a disk)"
        alternatives.append(Alternative(words=(failed,), events=tuple(_retried(_events(prediction)))))
    for words, other in prediction.other_machines():
        alternatives.append(Alternative(words=words, events=_events(other)))
        for also in other.variants():
            differs = other.variant.differences(also.variant)
            if len(differs) == 1 and len(words) == 1:
                alternatives.append(Alternative(words=(*words, *differs), events=_events(also)))
    alternatives.sort(key=lambda other: len(other.words))  # those with the fewest assumptions come first
    unlike = [other for other in alternatives if other.events != _events(prediction)]
    mrtd = {} if prediction.mrtd is None else {order: prediction.mrtd.of(order) for order in PageOrder}
    return Expected(
        kind=prediction.kind,
        events=_events(prediction),
        mrtd=mrtd,
        alternatives=tuple(unlike),
        notes=prediction.notes,
        facts=facts_of(prediction.material) if prediction.kind is LogKind.TD else None,
    )


def _retried(events: tuple[ExpectedEvent, ...]) -> Iterator[ExpectedEvent]:
    """The events of a boot whose kernel had to leave the firmware twice."""
    for event in events:
        yield event
        if event.label == EXITS[0]:
            failure = "Exit Boot Services Returned with Failure"
            digest = hashlib.sha384(failure.encode()).digest()
            yield replace(event, label=failure, what=f'action "{failure}"', digest=digest, hashed_bytes=len(failure))
            yield event


def registers_of(kind: LogKind, events: tuple[ExpectedEvent, ...]) -> dict[str, bytes | None]:
    """Return the registers after some events."""
    values: dict[str, bytes | None] = {}
    if kind is LogKind.TD:
        values = {kind.register(index): ZERO for index in kind.indexes}
    for event in events:
        value = values.get(event.register, ZERO)
        known = value is not None and event.digest is not None
        values[event.register] = extend(value, event.digest) if known else None  # type: ignore[arg-type]
    return values


def parse_expected(text: str, *, source: str = "prediction") -> Expected:
    """Parse what `Expected.as_json` wrote. Errors: `InvalidInput` for anything else."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = f"is not a stored prediction: {error}"[:200]
        raise InvalidInput("prediction", source, reason, hint=_HINT) from error
    return expected_of_json(data, source=source)


def expected_of_json(data: Any, *, source: str = "prediction") -> Expected:
    """Build a prediction from parsed JSON, which is not trusted. Errors: `InvalidInput`."""
    try:
        if not isinstance(data, dict) or data.get("form") != FORM:
            raise ValueError("it has a different form")
        kind = LogKind(data["kind"])
        alternatives = _list(data["alternatives"], _LIMIT_ALTERNATIVES)
        return Expected(
            kind=kind,
            events=_events_of_json(data["events"], kind),
            mrtd={PageOrder(order): _digest(value) for order, value in data["mrtd"].items()},
            alternatives=tuple(
                Alternative(
                    words=tuple(map(_text, _list(row["words"], _LIMIT_WORDS))),
                    events=_events_of_json(row["events"], kind),
                )
                for row in alternatives
            ),
            notes=tuple(map(_text, _list(data["notes"], _LIMIT_WORDS))),
            facts=facts_of_json(data.get("facts")),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        reason = printable(f"is not a stored prediction: {error}", 200)
        raise InvalidInput("prediction", source, reason, hint=_HINT) from error


def _events(prediction: Prediction) -> tuple[ExpectedEvent, ...]:
    return tuple(
        ExpectedEvent(
            register=event.register,
            event_type=event.event_type,
            label=event.label,
            what=event.what,
            digest=event.digest,
            hashed_bytes=event.hashed_bytes,
            source=event.source,
            depends=event.depends,
            why=event.why,
        )
        for event in prediction.events
    )


def _event_json(event: ExpectedEvent) -> dict[str, Any]:
    return {
        "register": event.register,
        "type": EVENT_TYPES[event.event_type],
        "label": event.label,
        "what": event.what,
        "sha384": _hex(event.digest),
        "hashed_bytes": event.hashed_bytes,
        "source": event.source,
        "depends": list(event.depends),
        "unknown_because": event.why,
    }


def _events_of_json(rows: Any, kind: LogKind) -> tuple[ExpectedEvent, ...]:
    return tuple(
        ExpectedEvent(
            register=_register(row["register"], kind),
            event_type=_TYPES[row["type"]],
            label=_text(row["label"]),
            what=_text(row["what"]),
            digest=None if row["sha384"] is None else _digest(row["sha384"]),
            hashed_bytes=None if row["hashed_bytes"] is None else _count(row["hashed_bytes"]),
            source=_text(row["source"]),
            depends=tuple(map(_text, _list(row["depends"], _LIMIT_WORDS))),
            why=_text(row["unknown_because"]),
        )
        for row in _list(rows, _LIMIT_EVENTS)
    )


def _list(value: Any, most: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise ValueError("a list is missing, or too long for a boot")
    return value


def _text(value: Any) -> str:
    """A text that may be shown: a stored prediction can come from anybody."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text"[:80])
    return printable(value)


def _register(value: Any, kind: LogKind) -> str:
    if not isinstance(value, str) or index_of(value) not in kind.indexes or value[0] != kind.register(1)[0]:
        raise ValueError(f"{value!r} is not a register of such a log"[:80])
    return value


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is not a number of bytes"[:80])
    return value


def _hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()


def _digest(text: Any) -> bytes:
    if not isinstance(text, str) or not _DIGEST.fullmatch(text):
        raise ValueError(f"a digest does not have {2 * DIGEST_BYTES} hexadecimal digits")
    return bytes.fromhex(text)
