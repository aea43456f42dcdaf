"""Trees of files in memory, and the archives they are read from and written to.

newc as a kernel unpacks it, tar in all its forms, layers laid over each other, and what archives are compressed with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from acon_nb.lazy import submodules

if not TYPE_CHECKING:
    __getattr__ = submodules(__name__)
