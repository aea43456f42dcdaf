"""The notebook of boot times, run by papermill with a plan of two cells."""

from __future__ import annotations

import json

import pytest

from acon_nb import reports
from acon_nb.jupyter import notebooks
from tests.notebooks.pages import shown

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def told(tmp_path_factory, guide_kernel):
    folder = tmp_path_factory.mktemp("boot-time")
    parameters = {
        "factors": ['memory = ["192M", "256M"]'],
        "fixed": [f'kernel = "{guide_kernel.image}"', "initcalls = true", "timeout_s = 600"],
        "out": str(folder / "results"),
    }
    lines = reports.make(notebooks.folder() / "04_boot_time.ipynb", folder / "boot.html", parameters)
    return folder, lines


def test_it_tells_each_cells_time_initcalls_and_memory(told):
    _, lines = told
    assert lines[0].startswith("memory=192M: ")
    assert "× 10⁶ instructions to the end of /init" in lines[0]
    assert "of 192.0 MiB available" in lines[0]
    assert "initcalls take" in lines[1]
    assert "most goes to" in lines[3]


def test_the_report_has_its_figures_and_tables(told):
    folder, _ = told
    html = shown(folder / "boot.html")
    assert html.count('src="data:image/png;base64,') == 5
    assert "watermarks and low-memory reserve" in html
    assert "memory=256M compared with memory=192M" in html
    assert "all runs are whole" in html


def test_no_widget_was_made(told):
    folder, _ = told
    notebook = json.loads((folder / "boot.ipynb").read_text())
    assert "widgets" not in notebook["metadata"]
