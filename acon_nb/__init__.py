"""A workbench for small Linux guests of confidential VMs, and for what memory compression costs them.

Nothing heavy is imported here: `acon_nb.kernel`, `.initrd`, `.vm`, `.bench`, `.tdx` and `.widgets` load when used.
"""

from __future__ import annotations

import importlib
from types import ModuleType

__version__ = "0.1.0"
_ROOMS = ("bench", "doctor", "host", "initrd", "kernel", "plots", "tdx", "vm", "widgets")

__all__ = ["__version__"]


def __getattr__(name: str) -> ModuleType:
    if name in _ROOMS:
        return importlib.import_module(f"acon_nb.{name}")
    raise AttributeError(f"module 'acon_nb' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, *_ROOMS]
