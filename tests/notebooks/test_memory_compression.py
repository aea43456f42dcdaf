"""The notebook of memory compression, run by papermill: a tiny plan, asked one question."""

from __future__ import annotations

import html

import pytest

from acon_nb import notebook_files, report
from acon_nb.bench import results

pytestmark = pytest.mark.system
NOTEBOOK = notebook_files.folder() / "05_memory_compression.ipynb"
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
    lines = report.make(NOTEBOOK, page, parameters)
    assert lines[0] == "pressure 1.3 was not measured: 1.2 is the nearest."
    assert lines[1].startswith("For pressure=1.2: zram lz4 comes first with ")
    assert "in one seed: no ranking, only an order to look at." in lines[1]
    assert any("1 seed (2 guests, 2 choices): exploratory" in line for line in lines)

    rows = results.load(tmp_path / "out", "swap", "tiny")
    assert set(rows["end"]) == {"powered off"}
    assert set(rows["factor_pressure"].dropna()) >= {1.2}
    text = html.unescape(page.read_text())
    assert "bit for bit" in text
    assert "Calibration, instructions clock: the guest's time is" in text
    assert "no absolute figure is that of hardware" in text
    assert text.count('src="data:image/png;base64,') >= 5
