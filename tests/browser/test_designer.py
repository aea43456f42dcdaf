"""The study designer in real JupyterLab: change levels, be told of a mistake, see the size, run it."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.system
CELLS = [
    """
from pathlib import Path
from acon_nb import widgets
from acon_nb.study.plan import Plan
fixed = {"clock": "instructions"}
plan = Plan(name="designed", study="boot", factors={"memory": ["128M", "256M"]}, fixed=fixed, runs=2, warmups=0)
designer = widgets.study_designer(plan, Path("results"))
designer
""",
    "print(designer.plan.factors, len(designer.rows), set(designer.rows['end']))",
]


def test_a_study_is_designed_told_its_size_and_run(guide_kernel, run_cells, look):
    page = run_cells
    page.get_by_text("as such runs took on another host").wait_for()
    page.get_by_text("2 cells, 4 runs, some").wait_for()

    memory = page.get_by_label("memory", exact=True)
    memory.fill("128M huge")
    page.get_by_text("memory='huge' is not a valid size").wait_for()
    look("study-designer")
    page.locator("button.jupyter-button:disabled", has_text="Run").wait_for()
    memory.fill("192M")
    page.get_by_label("Seeds (runs)").fill("1")
    page.get_by_text("1 cell, 1 run, some").wait_for()

    page.locator("button.jupyter-button", has_text="Run").click()
    page.get_by_text("1 rows: 1 powered off").wait_for()
    memory.fill("192M 320M")
    page.get_by_text("as 1 earlier run took").wait_for()
    look("study-designer-run")
    page.locator(".jp-CodeCell .cm-content").last.click()
    page.keyboard.press("Shift+Enter")
    page.get_by_text("{'memory': ['192M', '320M']} 1 {'powered_off'}").wait_for()
