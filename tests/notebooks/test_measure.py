"""The notebook of measured boot, run by papermill: the reference boot confirms the prediction."""

from __future__ import annotations

import html
import json
import os
from pathlib import Path

import pytest

from acon_nb import reports
from acon_nb.jupyter import notebooks
from tests.notebooks.pages import shown

pytestmark = pytest.mark.system
NOTEBOOK = notebooks.folder() / "06_measured_boot.ipynb"
VECTORS = Path(os.environ.get("ACON_NB_VECTORS", "/nowhere"))


@pytest.fixture(scope="module")
def measured(guide_kernel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("measure")
    log = VECTORS / "trustee/CCEL_data_ovmf"
    parameters = {"memory": "512M", "measured": str(log) if log.is_file() else ""}
    return folder, reports.make(NOTEBOOK, folder / "measure.html", parameters)


def test_the_reference_boot_confirms_the_prediction(measured):
    _, lines = measured
    assert lines[0].startswith("MRTD ")
    assert lines[1].startswith("Known before the boot: MRTD, RTMR[1], RTMR[2]; 3 events")
    assert lines[2].startswith("Reference boot: equal: PCR[1], PCR[2]")


def test_the_report_shows_the_chain_and_its_sources(measured):
    folder, _ = measured
    page = html.unescape(shown(folder / "measure.html"))
    assert page.count('src="data:image/png;base64,') == 2
    for text in ("efaf8931bbfa33a81b8792fbf9e2ccc239d53204", "Exit Boot Services Returned with Success", "mr_td "):
        assert text in page
    notebook = json.loads((folder / "measure.ipynb").read_text())
    assert "widget-view" not in json.dumps(notebook)


@pytest.mark.skipif(not VECTORS.is_dir(), reason="ACON_NB_VECTORS names no folder of vectors")
def test_a_log_of_another_boot_differs_and_is_explained_event_by_event(measured):
    folder, lines = measured
    assert lines[3].startswith("Compared: different: RTMR[0]: TD HOB")
    page = html.unescape(shown(folder / "measure.html"))
    assert "kernel (Authenticode hash) differs: expected sha384" in page
