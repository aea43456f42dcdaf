"""The board of a study in real JupyterLab: start, watch, the log of a cell, a filter, a cancel, and going on."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.system
CELLS = [
    f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from slow_study import study
from acon_nb import widgets
board = widgets.board(study(runs=60))
board
""",
    "rest = widgets.board(study(runs=3))\nrows = await rest.run()\nprint(len(rows), 'rows in the end')",
]


def test_a_study_is_started_watched_cancelled_and_gone_on_with(run_cells, look):
    page = run_cells
    page.get_by_text("new: 0 of 240 runs").wait_for()
    page.locator("button.jupyter-button", has_text="Start").click()
    page.get_by_text("s left; cells:").wait_for()
    page.locator("select[size]").locator("option", has_text="2 failed: panic").first.wait_for(state="attached")
    cells = page.locator("select[size]")
    cells.select_option(index=1)
    page.get_by_text("memory=2G: panic").wait_for()
    page.get_by_text("<b>no init found</b>").wait_for()
    assert page.locator("svg[aria-label=cells] rect").count() == 4
    look("board-running")

    page.get_by_placeholder("part of a cell's name").fill("512")
    page.get_by_text("1 of 4 cells").wait_for()
    assert cells.locator("option").count() == 1
    page.locator("button.jupyter-button", has_text="Cancel").click()
    page.get_by_text("cancelled: ").first.wait_for()
    page.locator("button:disabled", has_text="Cancel").wait_for()

    page.locator(".jp-CodeCell .cm-content").last.click()
    page.keyboard.press("Shift+Enter")
    page.get_by_text("12 rows in the end").wait_for()
    page.get_by_text("done: 12 of 12 runs, 3 failed; cells: 1 failed, 3 done").wait_for()
    look("board-done")
