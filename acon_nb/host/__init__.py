"""Finds out by trying what this machine can do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acon_nb.host.facts import Environment, boot_id, environment, free_bytes, memory_available_bytes, wanted_cpu_ns
from acon_nb.host.kvm import KvmFinding, access_hint, kvm_has_tdx, probe_kvm
from acon_nb.host.qemu import QemuInfo, find_qemu, probe_qemu
from acon_nb.host.smaps import QemuMemory, qemu_memory
from acon_nb.lazy import submodules

__all__ = [
    "Environment",
    "KvmFinding",
    "QemuInfo",
    "QemuMemory",
    "access_hint",
    "boot_id",
    "environment",
    "find_qemu",
    "free_bytes",
    "kvm_has_tdx",
    "memory_available_bytes",
    "probe_kvm",
    "probe_qemu",
    "qemu_memory",
    "wanted_cpu_ns",
]

if not TYPE_CHECKING:
    __getattr__ = submodules(__name__)
