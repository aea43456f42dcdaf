"""One name, one meaning: no two public classes share a name, and locals are named for what they hold."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import acon_nb

FOLDER = Path(acon_nb.__file__).parent

# Names that say how a value came about, not what it is: `rows`, `path` or `message` tells a reader more.
EMPTY_NAMES = {"found", "said", "told"}
FOUND_OF_PLANTED = ("analysis/selfcheck.py",)  # a count of what was planted and found, a key of its JSON


def public_classes() -> dict[str, list[str]]:
    """The modules that define each public class, by the class's name."""
    modules = defaultdict(list)
    for path in sorted(FOLDER.rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                modules[node.name].append(str(path.relative_to(FOLDER)))
    return modules


def test_no_two_public_classes_share_a_name() -> None:
    classes = public_classes()
    assert len(classes) > 100
    assert {name: paths for name, paths in classes.items() if len(paths) > 1} == {}


def empty_names(source: str) -> Iterator[tuple[int, str]]:
    """The locals, parameters and attributes of a module with a name of `EMPTY_NAMES`, with their lines."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            name = node.id if isinstance(node, ast.Name) else node.attr
        elif isinstance(node, ast.arg):
            name = node.arg
        else:
            continue
        if name in EMPTY_NAMES:
            yield node.lineno, name


def renamed_modules() -> list[str]:
    paths = (path.relative_to(FOLDER).as_posix() for path in sorted(FOLDER.rglob("*.py")))
    return [path for path in paths if not path.startswith(FOUND_OF_PLANTED)]


@pytest.mark.parametrize("path", renamed_modules())
def test_locals_are_named_for_what_they_hold(path: str) -> None:
    lines = [f"{path}:{line}: {name}" for line, name in empty_names((FOLDER / path).read_text())]
    assert lines == [], "name it for what it holds"


def test_empty_names_are_seen_wherever_a_name_is_bound() -> None:
    source = "def f(found):\n    said: int = 0\n    self.told = [found for found in said]\n    return found.found\n"
    assert sorted(empty_names(source)) == [(1, "found"), (2, "said"), (3, "found"), (3, "told")]
