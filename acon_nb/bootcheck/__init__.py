"""Whether a guest will boot, judged before it does: its kernel, its initrd and its memory together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acon_nb.lazy import submodules

if not TYPE_CHECKING:
    __getattr__ = submodules(__name__)
