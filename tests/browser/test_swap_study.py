"""A swap study in real JupyterLab: the board, the curves of a guest while it runs, the explorer of what it gave."""

from __future__ import annotations

import pytest

from acon_nb.progress import TextProgress
from acon_nb.study.plan import Plan
from acon_nb.swap.experiment import SwapExperiment

pytestmark = pytest.mark.system
PLAN = {
    "name": "watched",
    "study": "swap",
    "factors": {"swap": ["disk", "zswap:lz4"]},
    "fixed": {"memory": "96M", "workload": "anon", "pressure": 1.2, "accesses": 6000, "data": "like-redis+zero:1"},
    "runs": 1,
    "warmups": 0,
}
CELLS = [
    f"""
from pathlib import Path
from acon_nb import widgets
from acon_nb.study.kinds import study_of
from acon_nb.study.plan import Plan
study = study_of(Plan(**{PLAN!r}), Path("results"), parallel=1)
board, curves = widgets.board(study), widgets.guest_curves(study)
board
""",
    "curves",
    "curves.report()",
    "widgets.explorer('results', kind='swap')",
]


@pytest.fixture(scope="module")
def parts(store):
    """The kernel, initrd and data of the study's guests, built before a page waits for them."""
    SwapExperiment(Plan(**PLAN)).prepare(on_progress=TextProgress(every_s=30))


def run_cell(page, number):
    page.locator(".jp-CodeCell .cm-content").nth(number).click()
    page.keyboard.press("Shift+Enter")


def test_guests_are_watched_and_what_they_gave_is_explored(parts, run_cells, look):
    page = run_cells
    page.set_default_timeout(1_200_000)  # four guests in turn, on a host that may be busy
    run_cell(page, 1)
    page.get_by_text("waiting for a guest").wait_for()
    page.locator("button.jupyter-button", has_text="Start").click()
    for text in ("MemAvailable", "swap in use", "major faults / s"):
        page.locator(f'svg[aria-label="{text}"]').first.wait_for()
    look("swap-study-running")
    page.get_by_text("4 of 4 runs").first.wait_for()
    run_cell(page, 2)
    page.locator(".jp-OutputArea-output img").first.wait_for()
    look("swap-study-guest")
    run_cell(page, 3)
    page.get_by_text("zswap").last.wait_for()
    page.get_by_label("Measure", exact=True).select_option(label="fault_p50_ns")
    page.locator("img.widget-image:visible, .jupyter-widgets img:visible").first.wait_for()
    look("swap-study-explorer")
