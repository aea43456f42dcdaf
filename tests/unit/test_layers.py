from __future__ import annotations

import ast
import graphlib
import re
from pathlib import Path

import pytest

import acon_nb
from acon_nb.study import kinds

FOLDER = Path(acon_nb.__file__).parent
FLOORS = [
    ("", "errors", "lazy"),
    ("units", "progress", "cache", "stats", "validation", "registry", "bzimage", "kernel_line"),
    ("known_errors", "user_file"),
    ("process", "process_supervisor"),
    ("archive",),
    ("host", "tdx", "jupyter"),
    ("guest", "kernel", "initrd", "vm"),
    ("bootcheck", "td", "results", "doctor", "agent"),
    ("study",),
    ("analysis", "profile"),
    ("boot", "swap"),
    ("plots", "tour", "changes", "reports"),
    ("widgets", "cli"),
]
APART = {"guest", "kernel", "initrd", "vm", "boot", "swap", "host", "tdx", "jupyter"}
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
    assert {part_of(module) for module in MODULES} <= set(FLOOR)


@pytest.mark.parametrize("module", MODULES)
def test_imports_only_go_down(module: str) -> None:
    here = part_of(module)
    for other in imports(module):
        there = part_of(other)
        assert FLOOR[there] <= FLOOR[here], f"{module} imports {other} of a floor above"
        if FLOOR[there] == FLOOR[here] and there in APART:
            assert here == there, f"{module} imports {other}, of a package beside it"


def test_no_modules_import_each_other() -> None:
    tuple(graphlib.TopologicalSorter({module: imports(module) for module in MODULES}).static_order())


GENERIC = [
    *(
        module
        for module in MODULES
        if part_of(module) in ("stats", "results", "study", "analysis", "registry")
        and module != "acon_nb.results.older"
    ),  # the words of rows that are written already
    *(f"acon_nb.widgets.{name}" for name in ("explorer", "designer", "board", "job")),
    *(f"acon_nb.plots.{name}" for name in ("study", "trend", "style")),
    *(f"acon_nb.cli.{name}" for name in ("bench", "cluster", "nightly")),
]
WITHOUT_A_WORD = ["results.metrics", "study.runner", "study.kinds", "analysis.explore", "widgets.explorer"]
_BOOT_ID = re.compile("boot_id")  # of /proc: which run of a host's kernel it is


def words_of(path: Path) -> set[str]:
    """The words of a module's names and texts, those of its docstrings aside."""
    tree = ast.parse(path.read_text())
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            texts.add(node.value)
        texts |= {
            text
            for name in ("id", "attr", "arg", "name", "module")
            if isinstance(text := getattr(node, name, None), str)
        }
    return {word for text in texts for word in re.split("[^a-z]+", _BOOT_ID.sub("", text.lower()))}


@pytest.mark.parametrize("module", GENERIC)
def test_generic_modules_name_no_kind_of_study(module: str) -> None:
    assert words_of(MODULES[module]) & set(kinds.names()) == set()


@pytest.mark.parametrize("module", WITHOUT_A_WORD)
def test_the_rooms_of_any_study_do_not_even_mention_a_kind(module: str) -> None:
    text = MODULES[f"acon_nb.{module}"].read_text().lower()
    assert [name for name in kinds.names() if name in text] == []


def test_generic_columns_are_of_no_kind_of_study() -> None:
    text = (FOLDER / "results/columns.toml").read_text().lower()
    assert set(kinds.names()) & set(re.split("[^a-z]+", text)) == set()
