"""The memory that an initrd takes while and after the kernel unpacks it, against the guest's.

Sources: mm/shmem.c (tmpfs: at most half of the pages, and as many inodes), init/do_mounts.c, init/initramfs.c.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, replace
from enum import Enum

from acon_nb.archive.tree import FileTree
from acon_nb.initrd.check.command_line import Start
from acon_nb.initrd.check.findings import BootFinding, Kernel, Severity
from acon_nb.units import format_bytes

PAGE_BYTES = 4096
_SHORT_LINK_BYTES = 128  # tmpfs keeps longer targets in a page (SHORT_SYMLINK_LEN)


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What files take in the guest: pages of content, and inodes."""

    pages: int
    inodes: int


def footprint(tree: FileTree) -> Footprint:
    """Return what the files of a tree take."""
    pages = inodes = 0
    seen: set[object] = set()
    for _, entry in tree.items():  # noqa: PERF102 (not a dict)
        if entry.inode is not None:
            if entry.inode in seen:
                continue
            seen.add(entry.inode)
        inodes += 1
        if entry.is_file or (entry.is_link and entry.content.size >= _SHORT_LINK_BYTES):
            pages += -(-entry.content.size // PAGE_BYTES)
    return Footprint(pages=pages, inodes=inodes)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """A guest's memory, and who takes of it before the kernel: firmware (OVMF), and as a TD its bounce buffers."""

    bytes: int
    firmware: bool = False
    td: bool = False


@dataclass(frozen=True, kw_only=True)
class Room:
    """Whether files fit: findings, and, if the kernel stops unpacking, after how many pages (`cut_pages`) and why."""

    findings: tuple[BootFinding, ...] = ()
    cut_pages: int | None = None
    cause: BootFinding | None = None


def room(files: Footprint, packed_bytes: int, window_bytes: int, kernel: Kernel, start: Start, memory: Memory) -> Room:
    """Return whether the files fit into the guest's memory while the kernel unpacks them."""
    tmpfs = start.tmpfs and kernel.value("TMPFS") != "n"

    def fit_in(count: int) -> tuple[_Fit, int]:
        low, high = (free - packed_bytes for free in usable(kernel, replace(memory, bytes=count)))
        return _fit(files, window_bytes, low, high, tmpfs=tmpfs)

    fit, most = fit_in(memory.bytes)
    if fit is _Fit.YES:
        return Room()
    needed = format_bytes(files.pages * PAGE_BYTES)
    sizes = f"{needed} unpacked and {format_bytes(packed_bytes)} packed, of {format_bytes(memory.bytes)}"
    mib = range(memory.bytes // _MIB, memory.bytes // _MIB + _MOST_MIB)
    least = mib[bisect.bisect_left(mib, True, key=lambda count: fit_in(count * _MIB)[0] is _Fit.YES)]
    what = f"the initrd does not fit into the guest's memory: {sizes}"
    if fit is _Fit.PERHAPS:
        what = f"whether the initrd fits into the guest's memory is not known: {sizes}"
    severity, why = _WHY[fit]
    finding = BootFinding(severity=severity, what=what, why=why, fix=f"give the guest {least}M, or omit files")
    return Room(cut_pages=most, cause=finding) if fit is _Fit.CUT else Room(findings=(finding,))


class _Fit(Enum):
    YES = 0
    PERHAPS = 1
    CUT = 2  # the kernel stops in the middle
    NO = 3


_WHY = {
    _Fit.PERHAPS: (
        Severity.UNKNOWN,
        "the kernel unpacks it into a tmpfs, which takes at most half of what is left, or into a ramfs (with root=)",
    ),
    _Fit.CUT: (
        Severity.WARNING,
        "the kernel unpacks it into a tmpfs, which takes at most half of what is left; it stops there with a write "
        "error, and starts what is unpacked by then",
    ),
    _Fit.NO: (Severity.ERROR, "the kernel runs out of memory while it unpacks it, and panics"),
}


def _fit(files: Footprint, window_bytes: int, low: int, high: int, *, tmpfs: bool) -> tuple[_Fit, int]:
    """Whether files fit into what is left of the memory, between `low` and `high`, and how many pages do at most."""
    needed = files.pages * PAGE_BYTES
    if tmpfs:
        most = max(needed, files.inodes * PAGE_BYTES)  # a tmpfs has as many inodes as pages
        if most > high // 2:
            return _Fit.CUT, max(0, high // 2) // PAGE_BYTES
        if most > low // 2:
            return _Fit.PERHAPS, 0
    needed += window_bytes
    if needed > high:
        return _Fit.NO, 0
    return (_Fit.PERHAPS if needed > low - _WORKING_BYTES else _Fit.YES), 0


def usable(kernel: Kernel, memory: Memory) -> tuple[int, int]:
    """Return what is left of the memory once the kernel has started, without the initrd: at least, and at most.

    Measured on Linux 6.12 of the guide and 6.1 of Debian, with SeaBIOS and OVMF 2022.11: the "Memory:" line of the log.
    """
    least, most = _UNKNOWN_KERNEL_BYTES
    if kernel.image_bytes is not None:  # the gaps between its parts are given back
        least, most = int(0.88 * kernel.image_bytes), int(1.06 * kernel.image_bytes) + _MIB
    above_4g = memory.bytes >= _ABOVE_4G_BYTES
    sections = -(-memory.bytes // _SECTION_BYTES) + above_4g
    fixed = sections * _SECTION_MAP_BYTES + _BIOS_BYTES
    if memory.td:
        fixed += min(max(_BOUNCE_BYTES, memory.bytes * 6 // 100), 1 << 30)  # arch/x86/mm/mem_encrypt.c
    elif above_4g:
        fixed += _BOUNCE_BYTES
    if memory.firmware:
        least, most = least + _OVMF_BYTES[0], most + _OVMF_BYTES[1]
    return memory.bytes - fixed - most, memory.bytes - fixed - least


_MIB = 1 << 20
_MOST_MIB = 1 << 20  # more than any initrd needs
_UNKNOWN_KERNEL_BYTES = (10 * _MIB, 80 * _MIB)
_SECTION_BYTES = 128 * _MIB
_SECTION_MAP_BYTES = 2240 << 10  # struct page of 64 bytes for each page of a section, and hash tables
_BIOS_BYTES = 520 << 10
_OVMF_BYTES = (24 * _MIB, 56 * _MIB)  # what it returns only later
_ABOVE_4G_BYTES = 2816 * _MIB  # q35 puts the rest above 4 GiB: swiotlb then takes its 64 MiB
_BOUNCE_BYTES = 64 * _MIB
_WORKING_BYTES = 8 * _MIB
