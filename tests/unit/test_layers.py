from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import pytest

import acon_nb

FOLDER = Path(acon_nb.__file__).parent
ROOMS = ("kernel", "initrd", "vm", "tdx")
FLOORS = [
    ("", "errors", "progress", "units"),
    ("process", "cache", "supervisor"),
    ("host", "debian"),
    ROOMS,
    ("bench", "launch", "twin"),
    ("plots", "show", "tour", "doctor", "widgets", "report", "notebook_files", "lab_server", "lines"),
    ("cli",),
]
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}


def name_of(path: Path) -> str:
    parts = path.relative_to(FOLDER.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(FOLDER.rglob("*.py")) if "notebooks" not in path.parts}


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imports(module: str) -> set[str]:
    """The package's own modules that a module imports, wherever in its text."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in MODULES else node.module or "")
    return {name for name in found if name in MODULES and name != module}


def test_every_part_has_a_floor() -> None:
    assert {part_of(module) for module in MODULES} == set(FLOOR)


@pytest.mark.parametrize("module", MODULES)
def test_imports_only_go_down(module: str) -> None:
    here = part_of(module)
    for other in imports(module):
        there = part_of(other)
        assert FLOOR[there] <= FLOOR[here], f"{module} imports {other} of a floor above"
        if here in ROOMS and there in ROOMS:
            assert here == there, f"{module} imports {other} of the next room"


def test_no_modules_import_each_other() -> None:
    tuple(graphlib.TopologicalSorter({module: imports(module) for module in MODULES}).static_order())
