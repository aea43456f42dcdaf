"""The progress view in real JupyterLab, in Chromium: a bar that moves, and a cancel that works while a cell waits."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.system
CELLS = [
    """
import time
from acon_nb import widgets
from acon_nb.progress import Progress

def slow(*, on_progress, cancel):
    for step in range(600):
        cancel.check()
        on_progress(Progress("slow work", step / 600, f"step {step}"))
        time.sleep(0.1)
    return "never"

await widgets.run(slow)
"""
]


def test_progress_is_shown_and_cancel_stops_the_cell(run_cells):
    page = run_cells
    page.get_by_text("step 5").first.wait_for()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("cancelled: slow work").wait_for()
    page.locator(".jp-OutputArea-output", has_text="Cancelled").first.wait_for()
