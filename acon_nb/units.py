"""Sizes with units, as people write them and read them."""

from __future__ import annotations

import re
from decimal import Decimal

from acon_nb.errors import InvalidInput

_FACTORS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"(\d+)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)


def parse_bytes(value: str | int, *, field: str = "size", bare: str = "") -> int:
    """Bytes of "512M", "2g", "256MiB" or a number (1024-based, as QEMU takes them).

    `bare` is the unit of a number without one ("M" for QEMU's -m). Errors: `InvalidInput` naming `field`.
    """
    match = _SIZE.fullmatch(str(value).strip())
    if match is None:
        raise InvalidInput(field, value, "is not a size", hint="write a whole number and K, M, G or T, such as 512M")
    number, unit = match.groups()
    return int(number) * _FACTORS[(unit or bare).upper()]


def format_bytes(count: float) -> str:
    """A size for people, in binary units (ISO/IEC 80000): "13.5 MiB"."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def format_seconds(seconds: float) -> str:
    """A time for people: "306.5 ms", "1.55 s", "4 min 10 s"."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.1f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < 100:
        return f"{seconds:.2f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def format_share(share: float, *, sign: bool = False) -> str:
    """A share in per cent with two digits, or to the unit above 100 %: "0.012 %", "3.7 %", "+374 %"."""
    percent = 100 * share
    text = f"{percent:.0f}" if abs(percent) >= 100 else f"{Decimal(f'{percent:.2g}'):f}"
    return f"{'+' if sign and percent >= 0 else ''}{text} %"
