"""The notebook of profiles, run by papermill: two real boots compared, then a stored profile alone."""

from __future__ import annotations

import html
import json
import re

import pytest

from acon_nb import reports
from acon_nb.jupyter import notebooks
from acon_nb.profile.model import load
from tests.notebooks.pages import shown

pytestmark = pytest.mark.system
NOTEBOOK = "07_profile.ipynb"


@pytest.fixture(scope="module")
def made(tmp_path_factory, guide_kernel):
    folder = tmp_path_factory.mktemp("profile")
    parameters = {
        "factors": ['memory = ["192M", "256M"]'],
        "fixed": [f'kernel = "{guide_kernel.image}"', "timeout_s = 1200"],
        "save": [str(folder / "difference.html")],
        "out": str(folder / "results"),
    }
    lines = reports.make(notebooks.folder() / NOTEBOOK, folder / "profile.html", parameters)
    return folder, lines


def test_it_says_what_each_boot_executed_and_how_they_differ(made):
    folder, lines = made
    totals = [int(re.search(r"([\d,]+) instructions", line)[1].replace(",", "")) for line in lines[:2]]
    assert lines[0].startswith("memory=192M: ")
    assert totals[0] < totals[1]
    assert f"{totals[1] - totals[0]:+,}" in lines[2]
    assert lines[-1] == f"written: {folder / 'difference.html'}"


def test_the_report_has_figures_tables_and_a_flame_graph_and_loads_nothing(made):
    folder, _ = made
    text = shown(folder / "profile.html")
    assert text.count('src="data:image/png;base64,') == 3
    assert text.count("<iframe") == 1
    (page,) = re.findall(r'srcdoc="([^"]*)"', text)
    assert html.unescape(page) == (folder / "difference.html").read_text()
    assert "memmap_init_range" in text


def test_no_widget_was_made(made):
    folder, _ = made
    assert "widgets" not in json.loads((folder / "profile.ipynb").read_text())["metadata"]


def test_a_stored_profile_needs_no_boot(made, tmp_path):
    folder, _ = made
    stored = sorted((folder / "results/profiles").iterdir())[0]
    parameters = {
        "stored": [str(stored)],
        "save": [str(tmp_path / name) for name in ("mine.folded", "mine.pb.gz", "mine.speedscope.json")],
        "out": str(tmp_path / "none"),
    }
    lines = reports.make(notebooks.folder() / NOTEBOOK, tmp_path / "profile.html", parameters)
    assert f"{load(stored).total:,} instructions" in lines[0]
    assert (tmp_path / "mine.folded").read_text().startswith("firmware;")
    assert not (tmp_path / "none").exists()
