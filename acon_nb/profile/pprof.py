"""Profiles for `go tool pprof` and what reads its files: gzip of the protobuf message of profile.proto.

The message needs numbers, texts and messages in messages, which takes less code here than the library protobuf takes to
be installed and kept compatible with generated code; tests decode it with that library.
Source: https://github.com/google/pprof/blob/main/proto/profile.proto.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable

from acon_nb.profile.frames import Frame, function_stacks_of
from acon_nb.profile.model import Profile

_NUMBER, _BYTES = 0, 2  # types of fields on the wire
_UNKNOWN_REGION = "other"


def encode(profile: Profile) -> bytes:
    """Return the file. A sample is a stack of functions, with its phase as a label (-tagfocus, -tagroot=phase)."""
    texts = _Texts()
    functions: dict[Frame, int] = {}
    mappings: dict[str, int] = {}
    samples = []
    for (phase, *frames), count in function_stacks_of(profile).items():
        stack = frames or [phase]
        for frame in stack:
            functions.setdefault(frame, len(functions) + 1)
            mappings.setdefault(frame.region or _UNKNOWN_REGION, len(mappings) + 1)
        label = _number(1, texts.of("phase")) + _number(2, texts.of(phase.name))
        locations = _packed(1, (functions[frame] for frame in reversed(stack)))
        samples.append(_message(2, locations + _packed(2, [count]) + _message(3, label)))
    value_type = _number(1, texts.of("instructions")) + _number(2, texts.of("count"))
    parts = [_message(1, value_type), *samples]
    for region, number in mappings.items():
        named = _number(7, 1) + _number(8, 1)  # has_functions, has_filenames: pprof looks for no symbols
        parts.append(_message(3, _number(1, number) + _number(5, texts.of(f"[{region}]")) + named))
    for frame, number in functions.items():
        line = _message(4, _number(1, number))
        parts.append(_message(4, _number(1, number) + _number(2, mappings[frame.region or _UNKNOWN_REGION]) + line))
    for frame, number in functions.items():
        name = texts.of(frame.name)
        names = _number(2, name) + _number(3, name) + _number(4, texts.of(frame.file))
        parts.append(_message(5, _number(1, number) + names))
    comments = [texts.of(f"{name}: {value}") for name, value in sorted(profile.origin.items())]
    parts += [_number(14, texts.of("instructions")), _packed(13, comments)]
    parts += [_bytes(6, text.encode(errors="replace")) for text in texts.all]
    return gzip.compress(b"".join(parts), mtime=0)


class _Texts:
    """The table of strings, whose first is empty."""

    def __init__(self) -> None:
        self._numbers = {"": 0}

    def of(self, text: str) -> int:
        return self._numbers.setdefault(text, len(self._numbers))

    @property
    def all(self) -> list[str]:
        return list(self._numbers)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | _NUMBER) + _varint(value) if value else b""


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | _BYTES) + _varint(len(value)) + value


def _message(field: int, value: bytes) -> bytes:
    return _bytes(field, value)


def _packed(field: int, values: Iterable[int]) -> bytes:
    """A repeated number; the elements of one field are in one piece, as proto3 writes them."""
    content = b"".join(map(_varint, values))
    return _bytes(field, content) if content else b""
