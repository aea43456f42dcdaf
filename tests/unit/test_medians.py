"""One median, from a library, everywhere: no code picks the middle of a sorted list itself."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def sources() -> Iterator[tuple[str, str]]:
    """Every Python source of the project with its name, notebooks' cells too."""
    for folder in ("acon_nb", "benchmarks", "tests", "tools"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield str(path.relative_to(ROOT)), path.read_text()
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text())["cells"]
        code = ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        yield str(path.relative_to(ROOT)), "\n".join(text.replace("await ", "") for text in code)


def home_made(source: str) -> list[int]:
    """The lines that take an element at a share of a sequence's length: a home-made median or quantile."""
    if "// 2" not in source and "len(" not in source:
        return []
    tree = ast.parse(source)
    middles = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and _is_share_of_length(node.value)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    return sorted(
        {
            node.lineno
            for node in ast.walk(tree)
            if isinstance(node, ast.Subscript)
            and not isinstance(node.slice, ast.Slice)
            and (
                _is_share_of_length(node.slice)
                or any(isinstance(part, ast.Name) and part.id in middles for part in ast.walk(node.slice))
            )
        }
    )


def _is_share_of_length(value: ast.expr) -> bool:
    """Whether an expression has a part `... // 2` (or `/ 2`), or a share times a `len(...)`."""
    return any(isinstance(part, ast.BinOp) and (_is_half(part) or _is_share(part)) for part in ast.walk(value))


def _is_half(part: ast.BinOp) -> bool:
    is_two = isinstance(part.right, ast.Constant) and part.right.value == 2
    return is_two and isinstance(part.op, ast.FloorDiv | ast.Div)


def _is_share(part: ast.BinOp) -> bool:
    sides = [part.left, part.right]
    lengths = [isinstance(side, ast.Call) and ast.unparse(side.func) == "len" for side in sides]
    shares = [
        (isinstance(side, ast.Constant) and isinstance(side.value, float))
        or (isinstance(side, ast.Name) and side.id in ("share", "quantile", "q", "percentile"))
        for side in sides
    ]
    return isinstance(part.op, ast.Mult) and any(lengths) and any(shares)


@pytest.mark.parametrize(
    "code",
    [
        "sorted(times)[len(times) // 2]",
        "known = sorted(values)\nknown[len(known) // 2]",
        "middle = len(known) // 2\nmedian = (known[middle - 1] + known[middle]) / 2",
        "sorted(times)[int(0.9 * len(times))]",
        "ordered[round(share * (len(ordered)))]",
        "times.sort()\ntimes[RUNS // 2]",
    ],
)
def test_a_home_made_median_is_recognised(code: str) -> None:
    assert home_made(code)


def test_halves_that_are_not_medians_are_left_alone() -> None:
    assert home_made("half = len(block) // 2\nfirst, second = block[:half], block[half:]") == []
    assert home_made("COLOURS[number % len(COLOURS)]\nspread = good[number * len(good) // 64]") == []


def test_no_source_has_a_home_made_median() -> None:
    lines = {name: home_made(source) for name, source in sources()}
    assert {name: numbers for name, numbers in lines.items() if numbers} == {}
