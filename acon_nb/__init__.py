"""A workbench for small Linux guests of confidential VMs, and for what memory compression costs them.

Nothing heavy is imported here: packages and modules (`acon_nb.kernel`, `acon_nb.td.preflight`) load when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from acon_nb import lazy

__version__ = "0.2.0"

__all__ = ["__version__"]

if not TYPE_CHECKING:
    __getattr__ = lazy.submodules(__name__)


def __dir__() -> list[str]:
    return [*__all__, *lazy.names(__path__)]
