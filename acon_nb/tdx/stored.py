"""A prediction as data that can be stored, sent, and compared later without the files it was made from.

`Expected` holds the events of the assumed stack and those of each other stack in use, so that a comparison can find out
which of them matches. It can be converted to JSON and back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from acon_nb.errors import InvalidInput
from acon_nb.tdx.eventlog import DIGEST_BYTES, EVENT_TYPES, ZERO, LogKind, extend
from acon_nb.tdx.mrtd import PageOrder
from acon_nb.tdx.predict import Prediction, without_initrd

FORM = "acon-nb measurement 1"
_LIMIT_EVENTS = 10_000
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
    """What a boot must measure: events, MRTD by page order (empty for a TPM), other stacks, notes."""

    kind: LogKind
    events: tuple[ExpectedEvent, ...]
    mrtd: Mapping[PageOrder, bytes]
    alternatives: tuple[Alternative, ...]
    notes: tuple[str, ...]

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
    unlike = [other for other in alternatives if other.events != _events(prediction)]
    mrtd = {} if prediction.mrtd is None else {order: prediction.mrtd.of(order) for order in PageOrder}
    return Expected(
        kind=prediction.kind,
        events=_events(prediction),
        mrtd=mrtd,
        alternatives=tuple(unlike),
        notes=prediction.notes,
    )


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
    hint = "make it with: acon-nb measure predict --json KERNEL > FILE"
    try:
        data = json.loads(text)
        if not isinstance(data, dict) or data.get("form") != FORM:
            raise ValueError("it has a different form")
        return Expected(
            kind=LogKind(data["kind"]),
            events=_events_of_json(data["events"]),
            mrtd={PageOrder(order): _digest(value) for order, value in data["mrtd"].items()},
            alternatives=tuple(
                Alternative(words=tuple(map(str, row["words"])), events=_events_of_json(row["events"]))
                for row in data["alternatives"]
            ),
            notes=tuple(map(str, data["notes"])),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidInput("prediction", source, f"is not a stored prediction: {error}", hint=hint) from error


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


def _events_of_json(rows: Any) -> tuple[ExpectedEvent, ...]:
    if not isinstance(rows, list) or len(rows) > _LIMIT_EVENTS:
        raise ValueError("its events are not a list, or too many for a boot")
    return tuple(
        ExpectedEvent(
            register=str(row["register"]),
            event_type=_TYPES[row["type"]],
            label=str(row["label"]),
            what=str(row["what"]),
            digest=None if row["sha384"] is None else _digest(row["sha384"]),
            hashed_bytes=None if row["hashed_bytes"] is None else int(row["hashed_bytes"]),
            source=str(row["source"]),
            depends=tuple(map(str, row["depends"])),
            why=str(row["unknown_because"]),
        )
        for row in rows
    )


def _hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()


def _digest(text: Any) -> bytes:
    raw = bytes.fromhex(text)
    if len(raw) != DIGEST_BYTES:
        raise ValueError("a digest does not have 48 bytes")
    return raw
