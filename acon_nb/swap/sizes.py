"""Sizes of swap as a plan gives them: in bytes, or as a share of the guest's memory, as distributions do."""

from __future__ import annotations

import re

from acon_nb.errors import InvalidInput
from acon_nb.units import parse_bytes

_SHARE = re.compile(r"([0-9]{1,4})%")
_LIMITED = re.compile(r"min\(\s*([0-9]{1,4}%)\s*,\s*([^(),\s]+)\s*\)")
_HINT = "such as 256M, 50% of the memory, or min(50%,4G)"
_MIB = 1 << 20


def is_share(text: str) -> bool:
    """Whether a size is a share of the memory ("50%", "min(50%,4G)")."""
    return "%" in text


def size_of(text: str, memory_bytes: int, *, field: str) -> int:
    """A size in bytes, a whole number of MiB: "256M", "50%" of `memory_bytes`, or "min(50%,4G)", the smaller of two.

    A share is rounded down to MiB. Errors: `InvalidInput` that names `field`.
    """
    limited, share = _LIMITED.fullmatch(text), _SHARE.fullmatch(text)
    if limited:
        parts = (size_of(part, memory_bytes, field=field) for part in limited.groups())
        return min(parts)
    if share:
        size = memory_bytes * int(share[1]) // 100 // _MIB * _MIB
        if not size:
            raise InvalidInput(field, text, "of the memory is less than 1 MiB", hint=_HINT)
        return size
    if is_share(text):
        raise InvalidInput(field, text, "is not a size", hint=_HINT)
    size = parse_bytes(text, field=field, bare="M")
    if size < _MIB or size % _MIB:
        raise InvalidInput(field, text, "is not a whole number of MiB", hint=_HINT)
    return size


def limit_of(text: str, memory_bytes: int, *, field: str) -> int:
    """A limit in bytes (0 for "": none): any size, or a share of `memory_bytes`. Errors: `InvalidInput` for `field`."""
    if not text:
        return 0
    return size_of(text, memory_bytes, field=field) if is_share(text) else parse_bytes(text, field=field, bare="M")
