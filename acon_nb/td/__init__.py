"""TDs on this host, and what stands in for them: preflight checks, the vTPM reference boot, captured hardware."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acon_nb.lazy import submodules

if not TYPE_CHECKING:
    __getattr__ = submodules(__name__)
