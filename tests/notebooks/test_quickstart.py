"""The notebook for newcomers, run by papermill with one seed of two choices."""

from __future__ import annotations

import json

import pytest

from acon_nb import reports, results
from acon_nb.errors import AconError
from acon_nb.jupyter import notebooks
from tests.notebooks.pages import shown

pytestmark = pytest.mark.system
NOTEBOOK = notebooks.folder() / "10_quickstart.ipynb"


def test_it_has_at_most_twelve_cells():
    assert len(json.loads(NOTEBOOK.read_text())["cells"]) <= 12


def test_it_answers_which_swap(tmp_path):
    parameters = {"swaps": ["disk", "zram:lz4"], "seeds": 1, "out": str(tmp_path / "rows")}
    lines = reports.make(NOTEBOOK, tmp_path / "quick.html", parameters)
    assert "zram lz4" in lines[0]
    assert any("exploratory" in line for line in lines)
    rows = results.load(tmp_path / "rows", "swap", "quickstart")
    assert set(rows["end"]) == {"powered_off"}
    assert shown(tmp_path / "quick.html").count('src="data:image/png;base64,') == 2


def test_a_wrong_parameter_is_refused_before_anything_is_built(tmp_path):
    with pytest.raises(AconError) as error:
        reports.make(NOTEBOOK, tmp_path / "quick.html", {"memory": "lots", "out": str(tmp_path / "rows")})
    assert "memory='lots'" in str(error.value.details)
    assert not (tmp_path / "rows").exists()
