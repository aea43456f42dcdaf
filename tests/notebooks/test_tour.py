"""The tour, run by papermill as `make tour` runs it, with fewer runs."""

from __future__ import annotations

import json
import re

import pytest

from acon_nb import notebook_files, report
from acon_nb.bench.results import Store

pytestmark = [pytest.mark.system, pytest.mark.slow]


@pytest.fixture(scope="module")
def tour(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tour")
    parameters = {"out": str(folder / "data"), "wall_runs": 1, "instruction_runs": 2, "fill": 1.25, "reads": 1000}
    lines = report.make(notebook_files.folder() / "00_tour.ipynb", folder / "tour.html", parameters)
    return folder, lines


def test_it_ends_in_five_findings(tour):
    _, lines = tour
    assert len(lines) == 5
    assert "the same in all 2 runs" in lines[2]
    assert "disk" in lines[4]


def test_the_report_is_one_file_that_loads_nothing(tour):
    folder, _ = tour
    html = (folder / "tour.html").read_text()
    assert html.count('src="data:image/png;base64,') == 3
    assert html.count('<img alt="') == 3
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", html)
    assert not re.search(r"""import\(|@import|url\(["']?http""", html)
    assert html.index("Host: QEMU") < html.index("This host"), "findings come first"
    assert "fetch linux-source" not in html, "progress is left out"
    assert "application/vnd.jupyter.widget" not in html


def test_no_widget_was_made(tour):
    folder, _ = tour
    notebook = json.loads((folder / "tour.ipynb").read_text())
    assert "widgets" not in notebook["metadata"]


def test_the_rows_are_kept_as_data(tour):
    folder, _ = tour
    store = Store(folder / "data")
    boots = store.load("boot")
    assert len(boots) == 2 * (1 + 2)
    counted = boots[boots["clock"] == "instructions"]
    for _, rows in counted.groupby("name"):
        assert rows["guest_ns_init"].nunique() == 1
        assert rows["guest_ns_reset_to_init"].nunique() == 1
    swaps = store.load("swap")
    assert sorted(swaps["swap"]) == ["disk", "zram", "zswap"]
    assert set(swaps["end"]) == {"powered off"}
    assert set(swaps["corrupt_pages"]) == {0}
    assert (swaps["swapped_bytes"] > 0).all()
    assert swaps.set_index("swap").loc["zram", "pool_bytes"] > 0
