"""What zsmalloc, the allocator of zram and zswap, takes for a compressed page (mm/zsmalloc.c of Linux 6.12).

It keeps objects of like sizes together, in blocks of so many pages that little of them is left over.
"""

from __future__ import annotations

import functools

PAGE_BYTES = 4096
_CHAIN_PAGES = 8  # CONFIG_ZSMALLOC_CHAIN_SIZE's default
_HANDLE_BYTES = 8
_LEAST_BYTES = 32  # ZS_MIN_ALLOC_SIZE
_STEP_BYTES = PAGE_BYTES >> 8  # ZS_SIZE_CLASS_DELTA
# From this size on zram keeps a page whole: it would get a block of its own anyway (zs_huge_class_size)
HUGE_BYTES = 3625


@functools.cache
def pool_bytes(size: int) -> float:
    """The memory that a page compressed to `size` bytes takes in a pool whose blocks are full."""
    stored = min(PAGE_BYTES, max(_LEAST_BYTES, size + _HANDLE_BYTES))
    class_bytes = min(PAGE_BYTES, -(-(stored - _LEAST_BYTES) // _STEP_BYTES) * _STEP_BYTES + _LEAST_BYTES)
    pages = _chain(class_bytes)
    return pages * PAGE_BYTES / (pages * PAGE_BYTES // class_bytes)


def _chain(class_bytes: int) -> int:
    """The pages of a block of a class: those that leave the least over, the fewest of equals."""
    if class_bytes & (class_bytes - 1) == 0:
        return 1
    return min(range(1, _CHAIN_PAGES + 1), key=lambda pages: (pages * PAGE_BYTES % class_bytes, pages))
