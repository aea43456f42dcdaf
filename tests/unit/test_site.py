"""The documentation site is built from the pages, the notebooks and the package, without a warning."""

from __future__ import annotations

import dataclasses
import html
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from acon_nb.boot.factors import BootFactors
from acon_nb.cli import main
from acon_nb.results import columns
from acon_nb.swap.factors import SwapFactors
from acon_nb.vm import End

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built of copies in a folder of its own."""
    root = tmp_path_factory.mktemp("site")
    for name in ("docs", "notebooks"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("_generated"))
    for name in ("CHANGELOG.md", "CONTRIBUTING.md"):
        shutil.copy(ROOT / name, root)
    document = json.loads((ROOT / "notebooks/00_tour.ipynb").read_text())
    code = next(cell for cell in document["cells"] if cell["cell_type"] == "code")
    code["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "as it was measured here"}]
    (root / "reports").mkdir()
    (root / "reports/tour.ipynb").write_text(json.dumps(document))
    argv = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "docs", "out"]
    done = subprocess.run(argv, cwd=root, capture_output=True, text=True, timeout=600, check=False)
    assert not done.returncode, done.stderr
    return root / "out"


def text_of(page: Path) -> str:
    return html.unescape(re.sub(r"<[^>]*>", "", page.read_text()))


def commands(group: click.Group, path: str = "acon-nb") -> Iterator[str]:
    for name, command in group.commands.items():
        if not command.hidden and command.name == name:  # else a second name of a command
            yield f"{path} {name}"
            if isinstance(command, click.Group):
                yield from commands(command, f"{path} {name}")


def test_every_page_and_notebook_is_in_it_and_reached_from_its_start(site: Path) -> None:
    start = (site / "index.html").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert (site / f"{page.stem}.html").is_file()
        assert f"{page.stem}.html" in start or page.stem == "index"
    tutorials = (site / "_generated/tutorials/index.html").read_text()
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        assert f'href="{notebook.stem}.html"' in tutorials
    assert "as it was measured here" in (site / "_generated/tutorials/00_tour.html").read_text()


def test_commands_factors_columns_and_ends_are_all_described(site: Path) -> None:
    cli = " ".join(text_of(page) for page in (site / "_generated/cli").glob("*.html"))
    usages = set(re.findall(r"^(acon-nb(?: [a-z][a-z0-9-]*)+)", cli, re.MULTILINE))
    missing = set(commands(main)) - usages
    assert not missing
    factors = text_of(site / "_generated/factors.html")
    for kind in (BootFactors, SwapFactors):
        for field in dataclasses.fields(kind):
            assert re.search(rf"^{field.name}$", factors, re.MULTILINE), field.name
    described = text_of(site / "_generated/columns.html")
    assert not [column.name for column in columns.columns() if column.name not in described]
    ends = text_of(site / "_generated/ends.html")
    assert not [end.value for end in End if end.value not in ends]
    assert "class acon_nb.vm.VmSpec" in text_of(site / "_generated/api/vm.html")


def test_it_loads_nothing_from_the_network(site: Path) -> None:
    loads = re.compile(r"""<(?!a\b)[^>]*\s(?:src|href)\s*=\s*["']?(?:https?:)?//[^>]*>""")
    for page in site.rglob("*.html"):
        assert not loads.findall(page.read_text()), page
