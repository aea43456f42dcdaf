"""Profiles: what each function of a guest executed on the instruction clock, exactly, and how two guests differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acon_nb.lazy import submodules
from acon_nb.profile.model import FunctionCount, Profile, Region

__all__ = ["FunctionCount", "Profile", "Region"]

if not TYPE_CHECKING:
    __getattr__ = submodules(__name__)
