"""Boots, measured: how long a guest takes to boot, and what it leaves of the memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acon_nb.boot.cell import (
    VIRTIO_MODULES,
    BootCell,
    BootRun,
    boot_initrd,
    boot_once,
    default_initrd,
    kept_initrd,
    row_of,
    run,
    spec_hash,
)
from acon_nb.boot.report import REPORT
from acon_nb.lazy import submodules

__all__ = [
    "REPORT",
    "VIRTIO_MODULES",
    "BootCell",
    "BootRun",
    "boot_initrd",
    "boot_once",
    "default_initrd",
    "kept_initrd",
    "row_of",
    "run",
    "spec_hash",
]

if not TYPE_CHECKING:
    __getattr__ = submodules(__name__)
