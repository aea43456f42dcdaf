"""Verify a TD's evidence: the quote's signature up to Intel's root, the platform's TCB, the log, what was expected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acon_nb.lazy import submodules

if not TYPE_CHECKING:
    __getattr__ = submodules(__name__)
