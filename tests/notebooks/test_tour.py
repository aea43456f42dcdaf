"""The tour, run by papermill as `make tour` runs it, with fewer runs."""

from __future__ import annotations

import json
import re

import pytest

from acon_nb import reports
from acon_nb.jupyter import notebooks
from acon_nb.results.store import Store
from acon_nb.swap.analysis.rows import without_calibrations
from acon_nb.swap.experiment import determinism
from tests.notebooks.pages import shown

pytestmark = [pytest.mark.system, pytest.mark.slow]


@pytest.fixture(scope="module")
def tour(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tour")
    parameters = {"out": str(folder / "data"), "wall_runs": 1, "instruction_runs": 2, "accesses": 1000}
    lines = reports.make(notebooks.folder() / "00_tour.ipynb", folder / "tour.html", parameters)
    return folder, lines


def test_it_ends_in_five_findings(tour):
    _, lines = tour
    assert len(lines) == 5
    assert "the same in all 2 runs" in lines[2]
    assert "executed from reset to /init" in lines[2]
    assert "waits, busy + idle: " in lines[2]
    assert "disk" in lines[4]
    assert "(wall clock, n=1)" in lines[3]
    assert "(instruction clock, n=1)" in lines[4]
    assert lines[4].count(" x disk)") == 2, "zram and zswap are compared with the disk"


def test_the_report_is_one_file_that_loads_nothing(tour):
    folder, _ = tour
    html = shown(folder / "tour.html")
    assert html.count('src="data:image/png;base64,') == 4
    assert html.count('<img alt="') == 4
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
        parts = rows["executed_ns"] + rows["busy_waiting_ns"] + rows["idle_ns"]
        assert list(parts) == list(rows["guest_ns_reset_to_init"])
    rows = store.load("swap", "tour")
    assert set(rows["end"]) == {"powered_off"}
    assert set(rows["error"]) == {""}
    swaps = without_calibrations(rows)
    assert sorted(swaps["factor_swap"]) == ["disk", "zram", "zswap"]
    assert set(swaps["corrupt_pages"]) == {0}
    assert (swaps["swap_used_bytes"] > 0).all()
    assert (swaps["access_ops_per_s"] > 0).all()
    assert swaps.set_index("factor_swap").loc["zram", "pool_bytes"] > 0
    assert swaps.set_index("factor_swap").loc["zswap", "pool_stored_bytes"] > 0


def test_the_swap_guests_repeat_and_are_calibrated(tour):
    folder, _ = tour
    rows = Store(folder / "data").load("swap", "tour")
    assert list(determinism(rows)["same"]) == [True]
    assert rows["dilation_lz4_decompress"].notna().sum() == 1, "the codec cell"
    assert "Determinism: 1 of 1 repeated runs gave the same" in shown(folder / "tour.html")
