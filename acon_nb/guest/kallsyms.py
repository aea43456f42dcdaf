"""The functions of a kernel's image by its own symbol table (CONFIG_KALLSYMS), as /proc/kallsyms shows them.

The table is data of the image, without a header: it is found by its parts. Names are compressed with 256 tokens; the
tokens of the digits and letters are these themselves, and the array of indices behind the tokens must fit them.
Source: scripts/kallsyms.c and kernel/kallsyms.c of Linux 6.1 (offsets first) and 6.12 (offsets last).
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator

from acon_nb.guest.symbols import by_address

_DIGITS = b"\0".join(str(digit).encode() for digit in range(10)) + b"\0"
_TOKENS = 256
_MARKED = 256  # every 256th name has a marker
_LEAST_STEP, _MOST_STEP = 2 * _MARKED, 128 * _MARKED  # bytes of 256 names
_BEFORE_TOKENS_BYTES = 4 << 20  # Linux 6.2 to 6.5 have three bytes for each name between markers and tokens
_KERNEL_LOW, _KERNEL_HIGH = 0xFFFF_FFFF_8000_0000, 0xFFFF_FFFF_FFFF_FFFF
_FUNCTIONS = b"tTwW"


def functions(image: bytes) -> dict[int, str]:
    """The functions of an unpacked kernel by address; empty where it has no table that is understood."""
    for tokens_at, index_at, tokens in _token_tables(image):
        for markers_at, markers in _marker_arrays(image, tokens_at):
            table = _names(image, markers_at, markers, tokens)
            if table is None:
                continue
            names_at, names = table
            for base, offsets in _offsets(image, names_at, index_at, len(names)):
                for relative in (_plain, _per_cpu):
                    addresses = [relative(base, offset) for offset in offsets]
                    if _plausible(addresses, names):
                        pairs = zip(addresses, names, strict=True)
                        return by_address((at, name[1:].decode()) for at, name in pairs if name[:1] in _FUNCTIONS)
    return {}


def _token_tables(image: bytes) -> Iterator[tuple[int, int, list[bytes]]]:
    """Where the tokens and their indices begin, and the tokens."""
    place = image.find(_DIGITS)
    while place >= 0:
        index_at = _indices_after(image, place)
        if index_at is not None:
            indices = struct.unpack_from(f"<{_TOKENS}H", image, index_at)
            start = place - indices[ord("0")]
            tokens = [image[start + at : image.index(b"\0", start + at)] for at in indices]
            yield start, index_at, tokens
        place = image.find(_DIGITS, place + 1)


def _indices_after(image: bytes, digits_at: int) -> int | None:
    """Where the 256 indices begin, behind the tokens among which are the digits; None if these are not tokens."""
    for index_at in range((digits_at + len(_DIGITS) + 7) & ~7, digits_at + 8192, 8):
        if index_at + 2 * _TOKENS > len(image):
            return None
        indices = struct.unpack_from(f"<{_TOKENS}H", image, index_at)
        rising = indices[0] == 0 and all(a < b for a, b in itertools.pairwise(indices))
        if rising and indices[ord("0")] + 2 == indices[ord("1")] and digits_at - indices[ord("0")] >= 0:
            return index_at
    return None


def _marker_arrays(image: bytes, tokens_at: int) -> Iterator[tuple[int, list[int]]]:
    """The arrays that may be the markers, in front of the tokens: numbers that rise from 0 by what 256 names take."""
    first = max(tokens_at - _BEFORE_TOKENS_BYTES, 0) & ~3
    values = struct.unpack_from(f"<{(tokens_at - first) // 4}I", image, first)
    at = len(values) - 2
    while at >= 0:
        if values[at] == 0 and _LEAST_STEP <= values[at + 1] <= _MOST_STEP:
            end = at + 1
            while end < len(values) and _LEAST_STEP <= values[end] - values[end - 1] <= _MOST_STEP:
                end += 1
            for length in range(end - at, max(end - at - 3, 1), -1):
                yield first + 4 * at, list(values[at : at + length])
        at -= 1


def _names(image: bytes, markers_at: int, markers: list[int], tokens: list[bytes]) -> tuple[int, list[bytes]] | None:
    """Where the names begin and what they are, the type's letter first; they end at the markers."""
    last = markers_at - markers[-1]
    for names_at in range((last - 2) & ~7, max(last - _MOST_STEP, 8), -8):
        (count,) = struct.unpack_from("<I", image, names_at - 8)
        if not _MARKED * (len(markers) - 1) < count <= _MARKED * len(markers):
            continue
        names = _read_names(image, names_at, count, markers, tokens, markers_at)
        if names is not None:
            return names_at, names
    return None


def _read_names(
    image: bytes, names_at: int, count: int, markers: list[int], tokens: list[bytes], limit: int
) -> list[bytes] | None:
    names = []
    at = names_at
    for number in range(count):
        if number % _MARKED == 0 and at - names_at != markers[number // _MARKED]:
            return None
        length = image[at]
        at += 1
        if length & 0x80:  # two bytes since Linux 6.1
            length = length & 0x7F | image[at] << 7
            at += 1
        if not length or at + length > limit:
            return None
        names.append(b"".join([tokens[code] for code in image[at : at + length]]))
        at += length
    return names


def _offsets(image: bytes, names_at: int, index_at: int, count: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    """The relative base and the offsets: in front of the number of names, or behind the indices of the tokens."""
    size = (4 * count + 7) & ~7
    before = names_at - 16 - size
    after = index_at + 2 * _TOKENS
    for offsets_at, base_at in ((before, names_at - 16), (after, after + size)):
        if offsets_at >= 0 and base_at + 8 <= len(image):
            (base,) = struct.unpack_from("<Q", image, base_at)
            if _KERNEL_LOW <= base <= _KERNEL_HIGH:
                yield base, struct.unpack_from(f"<{count}i", image, offsets_at)


def _plain(base: int, offset: int) -> int:
    return base + (offset & 0xFFFF_FFFF)


def _per_cpu(base: int, offset: int) -> int:
    """CONFIG_KALLSYMS_ABSOLUTE_PERCPU: addresses of per-CPU variables are positive, all others negative."""
    return offset if offset >= 0 else base - 1 - offset


def _plausible(addresses: list[int], names: list[bytes]) -> bool:
    """Whether _text and _etext are where a kernel's are, in this order, and all functions in the kernel."""
    symbols = dict(zip((name[1:] for name in names), addresses, strict=True))
    text, end = symbols.get(b"_stext", 0), symbols.get(b"_etext", 0)
    return _KERNEL_LOW <= text < end <= _KERNEL_HIGH and all(
        _KERNEL_LOW <= address <= _KERNEL_HIGH
        for address, name in zip(addresses, names, strict=True)
        if name[:1] in b"tT"
    )
