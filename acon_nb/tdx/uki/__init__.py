"""Unified kernel images: what systemd-stub measures of one, and what it starts the kernel with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acon_nb.lazy import submodules

if not TYPE_CHECKING:
    __getattr__ = submodules(__name__)
