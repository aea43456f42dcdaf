"""The kernel notebook, run by papermill."""

from __future__ import annotations

import pytest

from acon_nb import reports
from acon_nb.jupyter import notebooks, report
from tests.notebooks.pages import shown

pytestmark = pytest.mark.system


def test_it_reports_applied_options_reasons_and_sizes(tmp_path):
    parameters = {"profiles": "guide", "settings": ""}
    lines = reports.make(notebooks.folder() / "01_kernel.ipynb", tmp_path / "kernel.html", parameters)
    assert "requested options applied" in lines[1]
    html = shown(tmp_path / "kernel.html")
    assert "INTEL_TDX_GUEST" in html
    assert html.count('src="data:image/png;base64,') == 1


def test_a_request_that_cannot_be_applied_stops_the_notebook_with_a_hint(tmp_path):
    parameters = {"profiles": "minimal", "settings": "ZSWAP=y"}
    with pytest.raises(report.AconError, match="needs SWAP"):
        reports.make(notebooks.folder() / "01_kernel.ipynb", tmp_path / "kernel.html", parameters, live=False)
