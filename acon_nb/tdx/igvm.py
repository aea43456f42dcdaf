"""The initial measurement of a guest that starts from an IGVM file: SEV-SNP's launch digest, a TD's MRTD.

An IGVM file lists what a loader puts into a guest's memory, page by page, for one or several platforms. No hardware of
either was at hand: no value was compared with a report. Sources: Microsoft's igvm_defs (the format); AMD, "SEV Secure
Nested Paging Firmware ABI Specification", section 8.17 (PAGE_INFO); coconut-svsm's igvmmeasure (which pages are
measured how); Intel, "TDX Module Base Architecture Specification" (TDH.MEM.PAGE.ADD, TDH.MR.EXTEND).
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from acon_nb import user_file
from acon_nb.errors import InvalidInput
from acon_nb.tdx.mrtd import page_add, page_extend

MAGIC = b"IGVM"
PAGE_BYTES, LARGE_PAGE_BYTES = 4096, 2 << 20
_LIMIT_BYTES = 1 << 30
_MOST_PAGES = 1 << 20  # 4 GiB of a guest
_PLATFORM, _AREA, _PAGE, _INSERT, _CONTEXT = 1, 0x301, 0x302, 0x303, 0x304
_LARGE, _UNMEASURED = 1, 2  # flags of a page
_NORMAL, _SECRETS, _CPUID = 0, 1, (2, 3)  # types of a page
_HINT = "give a whole IGVM file, as its builder wrote it"


class Platform(IntEnum):
    """The platforms whose measurement is computed, by their numbers in a file."""

    SEV_SNP = 2
    TDX = 3


class _Kind(IntEnum):
    """Types of pages in PAGE_INFO."""

    NORMAL, VMSA, ZERO, UNMEASURED, SECRETS, CPUID = range(1, 7)


@dataclass(frozen=True)
class _Page:
    address: int
    kind: _Kind
    data: bytes


@dataclass(frozen=True, kw_only=True)
class IgvmMeasurement:
    """The measurement of one platform of an IGVM file: a launch digest or an MRTD, and how much memory it covers."""

    platform: Platform
    digest: bytes
    measured_pages: int
    pages: int


def measure_igvm(path: Path) -> tuple[IgvmMeasurement, ...]:
    """Compute the measurement of each platform of a file that is known here. Errors: `InvalidInput`."""
    image = user_file.read_bytes("igvm", path, hint=_HINT, most_bytes=_LIMIT_BYTES)
    headers = list(_headers(path, image))
    masks = {}
    for kind, data in headers:
        if kind == _PLATFORM and len(data) >= 6:
            mask, number = struct.unpack_from("<IxB", data)
            if number in tuple(Platform):
                masks[Platform(number)] = mask
    if not masks:
        raise InvalidInput("igvm", path, "is neither for SEV-SNP nor for TDX", hint=_HINT)
    return tuple(_measure(path, image, headers, platform, mask) for platform, mask in masks.items())


def _measure(
    path: Path, image: bytes, headers: list[tuple[int, bytes]], platform: Platform, mask: int
) -> IgvmMeasurement:
    pages = list(_pages(path, image, headers, mask))
    digest = _launch_digest(pages) if platform is Platform.SEV_SNP else _mrtd(path, pages)
    measured = sum(page.kind in (_Kind.NORMAL, _Kind.VMSA) for page in pages)
    return IgvmMeasurement(platform=platform, digest=digest, measured_pages=measured, pages=len(pages))


def _launch_digest(pages: list[_Page]) -> bytes:
    digest = bytes(48)
    for page in pages:
        content = hashlib.sha384(page.data).digest() if page.kind in (_Kind.NORMAL, _Kind.VMSA) else bytes(48)
        info = struct.pack("<HBBBBBBQ", 0x70, page.kind, 0, 0, 0, 0, 0, page.address)
        digest = hashlib.sha384(digest + content + info).digest()
    return digest


def _mrtd(path: Path, pages: list[_Page]) -> bytes:
    state = hashlib.sha384()
    for page in pages:
        if page.kind not in (_Kind.NORMAL, _Kind.UNMEASURED):
            raise InvalidInput("igvm", path, "has pages for TDX that a TD does not know", hint=_HINT)
        state.update(page_add(page.address))
        if page.kind is _Kind.NORMAL:
            state.update(page_extend(page.address, page.data))
    return state.digest()


def _headers(path: Path, image: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and content of each variable header; the file's checksum is verified."""
    if len(image) < 24 or image[:4] != MAGIC:
        raise InvalidInput("igvm", path, "is not an IGVM file", hint=_HINT)
    version, start, size, total, checksum = struct.unpack_from("<5I", image, 4)
    fixed = 24 if version == 1 else 32
    if version not in (1, 2) or start < fixed or start + size > len(image) or total > len(image):
        raise InvalidInput("igvm", path, "has a damaged header, or a version that is not known", hint=_HINT)
    covered = bytearray(image[: start + size])
    covered[20:24] = bytes(4)
    if zlib.crc32(covered) != checksum:
        raise InvalidInput("igvm", path, "has a wrong checksum", hint=_HINT)
    place, end = start, start + size
    while place + 8 <= end:
        kind, length = struct.unpack_from("<II", image, place)
        if place + 8 + length > end:
            raise InvalidInput("igvm", path, "has a header that is cut off", hint=_HINT)
        yield kind, image[place + 8 : place + 8 + length]
        place += 8 + (length + 7 & ~7)


def _pages(path: Path, image: bytes, headers: list[tuple[int, bytes]], mask: int) -> Iterator[_Page]:
    """Yield the pages of a platform in the order in which they are measured."""
    areas: dict[int, int] = {}
    count = 0
    for kind, data in headers:
        if kind not in (_AREA, _PAGE, _INSERT, _CONTEXT):
            continue
        if len(data) < 16:
            raise InvalidInput("igvm", path, "has a header that is too short", hint=_HINT)
        first, second, third = struct.unpack_from("<QII", data)
        if kind == _AREA:
            areas[second] = first
        elif not second & mask:
            continue
        else:
            for page in _of_header(path, image, kind, data, areas.get(third, PAGE_BYTES)):
                count += 1
                if count > _MOST_PAGES:
                    raise InvalidInput("igvm", path, "has more pages than a guest is given", hint=_HINT)
                yield page


def _of_header(path: Path, image: bytes, kind: int, data: bytes, area_bytes: int) -> Iterator[_Page]:
    address, _, place = struct.unpack_from("<QII", data)
    if kind == _INSERT:  # a parameter, which the loader fills in
        for offset in range(0, area_bytes, PAGE_BYTES):
            yield _Page(address + offset, _Kind.UNMEASURED, b"")
        return
    flags, page_type = struct.unpack_from("<IH", data, 16) if kind == _PAGE and len(data) >= 22 else (0, _NORMAL)
    size = LARGE_PAGE_BYTES if flags & _LARGE else PAGE_BYTES
    content = image[place : place + size] if place else bytes(size)
    if len(content) < size:
        raise InvalidInput("igvm", path, f"has no data of its page at {address:#x}", hint=_HINT)
    if kind == _CONTEXT:
        yield _Page(address, _Kind.VMSA, content)
        return
    names = {_NORMAL: _Kind.NORMAL, _SECRETS: _Kind.SECRETS, **dict.fromkeys(_CPUID, _Kind.CPUID)}
    if page_type not in names:
        raise InvalidInput("igvm", path, f"has a page of the unknown type {page_type}", hint=_HINT)
    page_kind = _Kind.UNMEASURED if page_type == _NORMAL and flags & _UNMEASURED else names[page_type]
    for offset in range(0, size, PAGE_BYTES):
        yield _Page(address + offset, page_kind, content[offset : offset + PAGE_BYTES])
