"""The programs of a swap cell: the workload, and the codecs that run on host and guest alike."""

from __future__ import annotations

from pathlib import Path

from acon_nb.bench.guest_program import guest_program
from acon_nb.cache import Cache


def load_program(cache: Cache | None = None) -> Path:
    """`swap_load`, the workload. Errors: those of `guest_program`."""
    shared = ("acon", "counters", "histogram", "pages", "redis")
    return guest_program("swap_load", libraries=("m",), shared=shared, cache=cache)


def codec_program(cache: Cache | None = None) -> Path:
    """`codec`: lzo, lz4 and zstd on pages, from Debian's static libraries. Errors: those of `guest_program`."""
    return guest_program("codec", libraries=("lz4", "zstd", "lzo2"), cache=cache)
