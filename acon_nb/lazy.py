"""Import the modules of a package when they are first used, so that `import acon_nb` alone gives every name.

Packages define `__getattr__` only if not TYPE_CHECKING: otherwise mypy would accept any attribute of theirs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType


def submodules(package: str) -> Callable[[str], ModuleType]:
    """Return a module-level `__getattr__` (PEP 562) that imports the modules of `package` on first use."""

    def getter(name: str) -> ModuleType:
        if not name.startswith("_"):
            try:
                return importlib.import_module(f"{package}.{name}")
            except ModuleNotFoundError as error:
                if error.name != f"{package}.{name}":
                    raise
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return getter


def names(paths: list[str]) -> list[str]:
    """Return the public names of the modules in a package with this `__path__`."""
    import pkgutil  # slow to load, and only `dir` needs it

    return sorted(module.name for module in pkgutil.iter_modules(paths) if not module.name.startswith("_"))
