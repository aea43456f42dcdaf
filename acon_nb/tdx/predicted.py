"""A predicted event: what is extended into which register, and where its bytes come from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from acon_nb.tdx.eventlog import EVENT_TYPES

_TYPES = {name: number for number, name in EVENT_TYPES.items()}


@dataclass(frozen=True, kw_only=True)
class PredictedEvent:
    """A predicted measurement: what is extended into which register.

    `label` distinguishes events of one type ("PK", "initrd"); `what` describes what is hashed, `source` where the bytes
    come from, `depends` lists the inputs it depends on. `digest` is None if it cannot be known offline, for the reason
    in `why`. `hashed_bytes` is the number of bytes hashed, None if unknown.
    """

    register: str
    event_type: int
    label: str
    what: str
    source: str
    depends: tuple[str, ...] = ()
    digest: bytes | None = None
    hashed_bytes: int | None = None
    why: str = ""

    @property
    def type_name(self) -> str:
        """The type's name in the specification."""
        return EVENT_TYPES.get(self.event_type, f"{self.event_type:#x}")


def hashed(register: str, event_type: str, label: str, data: bytes, **words: object) -> PredictedEvent:
    """Return an event whose digest is the SHA-384 of known bytes; `words` are other fields."""
    return given(register, event_type, label, hashlib.sha384(data).digest(), len(data), **words)


def given(
    register: str, event_type: str, label: str, digest: bytes | None, hashed_bytes: int | None, **words: object
) -> PredictedEvent:
    """Return an event with a known digest, or with None if it cannot be known (`why` among `words`)."""
    return PredictedEvent(
        register=register,
        event_type=_TYPES[event_type],
        label=label,
        digest=digest,
        hashed_bytes=hashed_bytes,
        **words,  # type: ignore[arg-type]
    )
