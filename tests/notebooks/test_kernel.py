"""The kernel notebook, run by papermill."""

from __future__ import annotations

import pytest

from acon_nb import notebook_files, report

pytestmark = pytest.mark.system


def test_it_tells_what_took_why_not_and_where_the_bytes_go(tmp_path):
    parameters = {"profiles": "guide", "settings": ""}
    lines = report.make(notebook_files.folder() / "01_kernel.ipynb", tmp_path / "kernel.html", parameters)
    assert "wishes took" in lines[1]
    html = (tmp_path / "kernel.html").read_text()
    assert "INTEL_TDX_GUEST" in html
    assert html.count('src="data:image/png;base64,') == 1


def test_a_wish_that_cannot_take_stops_the_notebook_with_the_way_out(tmp_path):
    parameters = {"profiles": "minimal", "settings": "ZSWAP=y"}
    with pytest.raises(report.AconError, match="needs SWAP"):
        report.make(notebook_files.folder() / "01_kernel.ipynb", tmp_path / "kernel.html", parameters, live=False)
