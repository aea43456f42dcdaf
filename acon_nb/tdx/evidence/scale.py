"""The first version of dstack's attestation, which is encoded with SCALE, as a table like that of its later versions.

Sources: dstack, dstack-attest (attestation.rs, `VersionedAttestation::V0`) and cc-eventlog (tdx.rs); Polkadot's
documentation of SCALE. The input may be hostile: each length is checked before it is used.
"""

from __future__ import annotations

from typing import Any

from acon_nb.tdx.eventlog import APPLICATION, DSTACK_EVENT

_ITEMS = 100_000
_REPORT_DATA_BYTES = 64
_RTMR3 = int(APPLICATION[5])


def scale_attestation(raw: bytes) -> dict[str, Any] | None:
    """Return the quote and the events of an attestation of a TD, {"quote", "event_log"}; None if bytes are another."""
    try:
        return _attestation(_Reader(raw))
    except ValueError:
        return None


def _attestation(reader: _Reader) -> dict[str, Any]:
    if reader.take(2) != b"\0\0":
        raise ValueError("neither version 0 nor a TD's quote")
    quote = reader.sized()
    events = [_boot_event(reader) for _ in range(reader.count())]
    applications = [{"event": reader.text(), "event_payload": reader.sized()} for _ in range(reader.count())]
    reader.take(_REPORT_DATA_BYTES)
    reader.text()  # the configuration
    if reader.left:
        raise ValueError("bytes after its end")
    if not any(event["imr"] == _RTMR3 for event in events):  # some producers list them only once
        events += [{"imr": _RTMR3, "event_type": DSTACK_EVENT, **event} for event in applications]
    return {"quote": quote, "event_log": events}


def _boot_event(reader: _Reader) -> dict[str, Any]:
    return {
        "imr": reader.number(),
        "event_type": reader.number(),
        "digest": reader.sized(),
        "event": reader.text(),
        "event_payload": reader.sized(),
    }


class _Reader:
    """Reads values of SCALE from the front of bytes. Errors: `ValueError`."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._at = 0

    @property
    def left(self) -> int:
        """The number of bytes that were not read."""
        return len(self._raw) - self._at

    def take(self, size: int) -> bytes:
        """Read bytes."""
        if size > self.left:
            raise ValueError("truncated")
        self._at += size
        return self._raw[self._at - size : self._at]

    def number(self) -> int:
        """Read a number of 32 bits."""
        return int.from_bytes(self.take(4), "little")

    def compact(self) -> int:
        """Read a compact number: its two lowest bits say how many bytes it takes."""
        first = self.take(1)[0]
        mode = first & 3
        if mode == 3:
            size = (first >> 2) + 4
            if size > 4:
                raise ValueError("a length of more than 32 bits")
            return int.from_bytes(self.take(size), "little")
        rest = self.take((1 << mode) - 1)
        return int.from_bytes(bytes([first]) + rest, "little") >> 2

    def count(self) -> int:
        """Read the number of items of a list."""
        count = self.compact()
        if count > _ITEMS:
            raise ValueError("too many items")
        return count

    def sized(self) -> bytes:
        """Read bytes after their number."""
        return self.take(self.compact())

    def text(self) -> str:
        """Read text in UTF-8 after the number of its bytes."""
        return self.sized().decode()
