"""The kernel's form in real JupyterLab: search an option, set it, see why it is not applied, build, see the sizes."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.system
CELLS = [
    """
from acon_nb import kernel, widgets
form = widgets.kernel_form(kernel.BuildSpec(profiles=("minimal",)))
form
""",
    "print(form.spec.settings, form.image is not None)",
]


def test_an_option_is_found_set_explained_and_the_kernel_is_built(guide_kernel, run_cells, look):
    page = run_cells
    page.locator("button.jupyter-button", has_text="Check").click()
    page.get_by_text("requested options applied").first.wait_for()
    page.get_by_placeholder("name, or words of the prompt").fill("zswap")
    page.get_by_text("Compressed cache for swap pages").first.wait_for()
    page.get_by_text("SWAP (n)").first.wait_for()
    page.locator("button.jupyter-button", has_text="Set").click()
    page.locator("button.jupyter-button", has_text="Check").click()
    page.get_by_text("needs SWAP (n)").first.wait_for()
    look("kernel-form")

    settings = page.get_by_placeholder("OPT=VAL, one per line")
    settings.fill("ZSWAP")
    page.get_by_text("is not of the form OPT=VAL").wait_for()
    page.locator("button.jupyter-button:disabled", has_text="Build").wait_for()
    settings.fill("")
    page.get_by_label("Profiles").select_option("guide")
    page.locator("button.jupyter-button", has_text="Build").click()
    page.get_by_text("from the cache").wait_for()
    page.locator("img.widget-image:visible, .jupyter-widgets img:visible").first.wait_for()
    page.locator(".jp-CodeCell .cm-content").last.click()
    page.keyboard.press("Shift+Enter")
    page.get_by_text("() True").wait_for()
