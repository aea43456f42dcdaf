"""Compute MRTD, the measurement of a TD's initial memory, from its firmware image.

It is one running SHA-384 over what the host requests from the TDX module: TDH.MEM.PAGE.ADD for each page and
TDH.MR.EXTEND for each 256 bytes of it. Their order depends on the host: upstream KVM adds a page and extends it
(KVM_TDX_INIT_MEM_REGION), an Intel tree and Ubuntu 24.04's add a whole section first.
Source: Intel TDX Module Base Architecture Specification, "MRTD: Build-Time Measurement Register".
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from enum import StrEnum

from acon_nb.tdx.firmware import MR_EXTEND, PAGE_AUG, PAGE_BYTES, Section, Tdvf

_CHUNK_BYTES = 256
_PAD = bytes(104)
_ADD = b"MEM.PAGE.ADD".ljust(16, b"\0")
_EXTEND = b"MR.EXTEND".ljust(16, b"\0")


class PageOrder(StrEnum):
    """The order in which a host adds and extends: page by page (upstream KVM), or section by section."""

    PAGE = "per page"
    SECTION = "per section"


@dataclass(frozen=True, kw_only=True)
class Mrtd:
    """Both values that a TDVF can result in; the host's kernel, not the image, decides which one a TD has."""

    per_page: bytes
    per_section: bytes

    def of(self, order: PageOrder) -> bytes:
        """Return the value for one order."""
        return self.per_page if order is PageOrder.PAGE else self.per_section


def mrtd(firmware: Tdvf) -> Mrtd:
    """Compute the MRTD of a TD that starts from `firmware`, in both page orders (48 bytes each)."""
    return Mrtd(per_page=_digest(firmware, PageOrder.PAGE), per_section=_digest(firmware, PageOrder.SECTION))


def _digest(firmware: Tdvf, order: PageOrder) -> bytes:
    state = hashlib.sha384()
    for section in firmware.sections:
        pages = range(section.address, section.address + section.memory_bytes, PAGE_BYTES)
        added = not section.attributes & PAGE_AUG
        extended = bool(section.attributes & MR_EXTEND)
        if order is PageOrder.SECTION or not extended:
            if added:
                state.update(b"".join(map(page_add, pages)))
            if extended:
                for page in pages:
                    state.update(_page_extend(firmware.image, section, page))
            continue
        for page in pages:
            if added:
                state.update(page_add(page))
            state.update(_page_extend(firmware.image, section, page))
    return state.digest()


def page_add(address: int) -> bytes:
    """Return what the TDX module hashes when a page is added (TDH.MEM.PAGE.ADD)."""
    return _ADD + struct.pack("<Q", address) + _PAD


def page_extend(page: int, data: bytes) -> bytes:
    """Return what the TDX module hashes of the content of a page at an address (TDH.MR.EXTEND, 16 times)."""
    parts = []
    for offset in range(0, PAGE_BYTES, _CHUNK_BYTES):
        parts += [_EXTEND, struct.pack("<Q", page + offset), _PAD, data[offset : offset + _CHUNK_BYTES]]
    return b"".join(parts)


def _page_extend(image: bytes, section: Section, page: int) -> bytes:
    """The extends of a page of a section; zeros stand for what lies beyond the section's bytes."""
    start = section.data_offset + page - section.address
    end = min(section.data_offset + section.raw_bytes, start + PAGE_BYTES)
    return page_extend(page, image[start : max(start, end)].ljust(PAGE_BYTES, b"\0"))
