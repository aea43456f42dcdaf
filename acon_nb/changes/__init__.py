"""What a commit or a series of patches changes in a kernel: bisections and verdicts, by exact numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acon_nb.changes.bisection import Bisection, BisectSpec, bisect
from acon_nb.lazy import submodules

__all__ = ["BisectSpec", "Bisection", "bisect"]

if not TYPE_CHECKING:
    __getattr__ = submodules(__name__)
