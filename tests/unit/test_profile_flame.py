"""The page of a flame graph: it loads nothing, names in it are data, counts are exact. tests/browser tries it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from acon_nb.cli import main
from acon_nb.profile import FunctionCount, Profile, Region, flame

HOSTILE = '</script><script>alert(1)</script>"&\u202e'
BEFORE = Profile(
    total=1010,
    phases=("boot", "init"),
    functions=(
        FunctionCount(name="[firmware]", phase="boot", self_count=500, region=Region.FIRMWARE),
        FunctionCount(name="get_page", phase="boot", self_count=300, file="mm/page_alloc.c"),
        FunctionCount(name="old", phase="init", self_count=150, file="mm/old.c"),
        FunctionCount(name=HOSTILE, phase="init", self_count=50, file=f"/bin/{HOSTILE}", region=Region.USER),
    ),
    origin={"kernel": HOSTILE},
)
AFTER = Profile(
    total=1100,
    phases=BEFORE.phases,
    functions=(
        *(one for one in BEFORE.functions if one.name != "old"),
        FunctionCount(name="new", phase="init", self_count=240, file="mm/new.c"),
    ),
)


def data_of(page: str) -> dict[str, Any]:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    values: dict[str, Any] = json.loads(text)
    return values


def boxes_of(page: str) -> dict[tuple[str, ...], tuple[int, ...]]:
    """The own counts of each box of a page, by the names from the outermost."""
    data = data_of(page)
    step = 2 + max(1, len(data["sides"]))
    boxes = {}
    path: list[str] = []
    for start in range(0, len(data["nodes"]), step):
        depth, frame, *counts = data["nodes"][start : start + step]
        path = [*path[:depth], data["texts"][data["frames"][frame][0]]]
        boxes[tuple(path)] = tuple(counts)
    return boxes


def test_the_boxes_add_up_to_the_total() -> None:
    boxes = boxes_of(flame.flame(BEFORE))
    assert sum(count for (count,) in boxes.values()) == 1010
    assert boxes["boot", "[kernel]", "mm/", "page_alloc.c", "get_page"] == (300,)
    assert boxes["boot", "[kernel]", "mm/"] == (0,)
    assert boxes["boot", "[firmware]"] == (500,)
    assert boxes["[unattributed]",] == (10,)


def test_a_difference_has_both_counts_and_what_is_in_one_only() -> None:
    page = flame.difference(BEFORE, AFTER, names=("a", "b"))
    boxes = boxes_of(page)
    assert boxes["init", "[kernel]", "mm/", "old.c", "old"] == (150, 0)
    assert boxes["init", "[kernel]", "mm/", "new.c", "new"] == (0, 240)
    assert boxes["boot", "[kernel]", "mm/", "page_alloc.c", "get_page"] == (300, 300)
    assert [sum(side) for side in zip(*boxes.values(), strict=True)] == [1010, 1100]
    assert "Difference: +90 instructions (+8.91%)" in page


def test_a_difference_ignores_names_of_the_compiler_and_files_that_one_profile_lacks() -> None:
    def of(name: str, file: str) -> Profile:
        one = FunctionCount(name=name, phase="boot", self_count=5, file=file)
        return Profile(total=5, phases=("boot",), functions=(one,))

    boxes = boxes_of(flame.difference(of("f.part.0", "mm/f.c"), of("f", "mm/f.c")))
    assert boxes["boot", "[kernel]", "mm/", "f.c", "f"] == (5, 5)
    assert boxes_of(flame.difference(of("f", ""), of("f", "mm/f.c")))["boot", "[kernel]", "f"] == (5, 5)


@pytest.mark.parametrize("page", [flame.flame(BEFORE), flame.difference(BEFORE, AFTER)], ids=["one", "two"])
def test_names_are_never_markup_and_nothing_is_loaded(page: str) -> None:
    assert page.count("<script") == 2
    assert "alert(1)</script>" not in page
    assert "\u202e" not in page
    assert not re.search(r"""(?:src|href|url|@import)\s*[=(]""", page)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


def test_a_page_is_embedded_as_one_attribute() -> None:
    embedded = flame.embedded(flame.flame(BEFORE))
    assert embedded.count("<") == 4
    assert 'sandbox="allow-scripts"' in embedded


def test_the_same_profile_makes_the_same_page() -> None:
    assert flame.flame(BEFORE) == flame.flame(BEFORE)


def test_an_empty_profile_has_a_page() -> None:
    assert boxes_of(flame.flame(Profile(total=0, phases=(), functions=()))) == {}


def test_functions_that_count_more_than_was_executed_are_explained() -> None:
    page = flame.flame(Profile(total=990, phases=BEFORE.phases, functions=BEFORE.functions))
    assert "990 instructions, all attributed; the boxes add up to 10 more" in page
    repeated = FunctionCount(name="(repeated)", phase="init", self_count=-7, region=Region.OTHER)
    page = flame.flame(Profile(total=993, phases=BEFORE.phases, functions=(*BEFORE.functions, repeated)))
    assert "993 instructions, all attributed; the boxes add up to 7 more" in page


def test_the_script_parses() -> None:
    if shutil.which("node") is None:
        pytest.skip("node is missing: apt-get install nodejs")
    script = Path(flame.__file__).parent / "page/flame.js"
    subprocess.run(["node", "--check", script], check=True)


@pytest.fixture
def saved(tmp_path: Path) -> list[str]:
    """The names of two saved profiles."""
    for name, profile in (("before", BEFORE), ("after", AFTER)):
        profile.save(tmp_path / name)
    return [str(tmp_path / "before"), str(tmp_path / "after")]


def command(*words: str) -> Result:
    return CliRunner().invoke(main, ["bench", "profile", *words], catch_exceptions=False)


def test_the_command_writes_what_is_requested(tmp_path: Path, saved: list[str]) -> None:
    names = {name: tmp_path / name for name in ("folded", "pprof", "speedscope", "callgrind", "flame")}
    options = [word for name, path in names.items() for word in (f"--{name}", str(path))]
    done = command("--kernel", saved[0], "--initrd", saved[0], *options, "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["total"] == 1010
    assert done.stderr.count("written: ") == 5
    heads = {name: path.read_bytes()[:20] for name, path in names.items()}
    assert heads["flame"].startswith(b"<!DOCTYPE html>")
    assert heads["pprof"].startswith(b"\x1f\x8b")
    assert heads["callgrind"].startswith(b"# callgrind format")


def test_the_command_writes_a_differences_flame_graph_and_no_other_file(tmp_path: Path, saved: list[str]) -> None:
    words = ["--kernel", saved[0], "--initrd", saved[0], "--diff", saved[1]]
    assert command(*words, "--flame", str(tmp_path / "flame.html")).exit_code == 0
    assert "Difference: +90 instructions" in (tmp_path / "flame.html").read_text()
    refused = command(*words, "--pprof", str(tmp_path / "x.pb.gz"))
    assert refused.exit_code == 2
    assert "--pprof cannot be combined with --diff" in refused.stderr
