"""The notebook of memory compression, run by papermill: a tiny plan, asked one question."""

from __future__ import annotations

import html

import pytest

from acon_nb import reports, results
from acon_nb.jupyter import notebooks
from tests.notebooks.pages import shown

pytestmark = pytest.mark.system
NOTEBOOK = notebooks.folder() / "05_memory_compression.ipynb"
PLAN = """
study = "swap"
runs = 1
warmups = 0
baseline = {swap = "disk"}
[fixed]
memory = "64M"
workload = "anon"
accesses = 1000
samples = 10
data = "like-redis+zero:1"
[factors]
swap = ["disk", "zram:lz4"]
"""


def test_a_question_is_answered_in_words_first(tmp_path):
    plan = tmp_path / "tiny.toml"
    plan.write_text(PLAN)
    page = tmp_path / "memory.html"
    parameters = {
        "preset": str(plan),
        "pressures": [1.2],
        "my_pressure": 1.3,
        "out": str(tmp_path / "out"),
    }
    lines = reports.make(NOTEBOOK, page, parameters)
    assert lines[0].startswith("pressure 1.3 was not measured: 1.2 (")
    assert lines[0].endswith(" times the available memory) is the nearest.")
    assert lines[1].startswith("For pressure=1.2 (")
    assert " times the available memory): zram lz4 comes first with " in lines[1]
    assert "in 1 seed: an order to look at, not a ranking." in lines[1]
    assert any("1 seed (2 guests, 2 choices): exploratory" in line for line in lines)

    rows = results.load(tmp_path / "out", "swap", "tiny")
    assert set(rows["end"]) == {"powered_off"}
    assert set(rows["factor_pressure"].dropna()) >= {1.2}
    text = html.unescape(shown(page))
    assert "bit for bit" in text
    assert "Calibration, instructions clock: fault, decompression and copy take" in text
    assert "no absolute figure is that of hardware" in text
    assert text.count('src="data:image/png;base64,') >= 5
