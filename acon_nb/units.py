"""Parses and formats sizes, times and percentages."""

from __future__ import annotations

import re
from decimal import Decimal

from acon_nb.errors import InvalidInput

_FACTORS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(ns|us|µs|ms|s)")
_NS = {"ns": 1, "us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE | re.ASCII)


def parse_bytes(value: str | int, *, field: str = "size", bare: str = "") -> int:
    """Parse a size such as "512M", "2g", "1.5G", "256MiB" or a plain number into bytes (1024-based, as in QEMU).

    `bare` is the unit of a number that has none ("M" for QEMU's -m). Errors: `InvalidInput` naming `field`.
    """
    match = _SIZE.fullmatch(str(value).strip())
    if match is None:
        hint = "give a number and K, M, G or T, such as 512M"
        raise InvalidInput(field, value, "is not a valid size", hint=hint)
    number, unit = match.groups()
    size = Decimal(number) * _FACTORS[(unit or bare).upper()]
    if size != int(size):
        raise InvalidInput(field, value, "is not a whole number of bytes", hint="such as 512M or 1.5G")
    return int(size)


def parse_ns(value: str, *, field: str) -> int:
    """Parse a time such as "80us", "0.5 ms" or "2s" into ns. Errors: `InvalidInput` naming `field`."""
    match = _TIME.fullmatch(value.strip())
    if match is None:
        raise InvalidInput(field, value, "is not a time", hint="give a number and ns, us, ms or s, such as 80us or 5ms")
    return round(float(match[1]) * _NS[match[2]])


def format_bytes(count: float) -> str:
    """Format a size in binary units (ISO/IEC 80000): "13.5 MiB"."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def format_seconds(seconds: float) -> str:
    """Format a duration: "306.5 ms", "1.55 s", "4 min 10 s"."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.1f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < 100:
        return f"{seconds:.2f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def format_share(share: float, *, sign: bool = False) -> str:
    """Format a fraction as a percentage with two significant digits: "0.012 %", "3.7 %"; no decimals from 100 %."""
    percent = 100 * share
    text = f"{percent:.0f}" if abs(percent) >= 100 else f"{Decimal(f'{percent:.2g}'):f}"
    return f"{'+' if sign and percent >= 0 else ''}{text} %"
