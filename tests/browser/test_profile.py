"""The explorer of profiles in real JupyterLab: the flame graph in the page, each profile and the difference, export."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.system
CELLS = [
    """
from acon_nb import widgets
from acon_nb.profile import FunctionCount, Profile
from acon_nb.profile.chosen import ChosenProfiles

def profile(count):
    names = {"get_page": count, "<b>clear</b>": 500, "same": 1000}
    functions = tuple(FunctionCount(name=n, phase="kernel", self_count=c, file="mm/x.c") for n, c in names.items())
    return Profile(total=count + 1500, phases=("kernel",), functions=functions)

chosen = ChosenProfiles(profiles=(profile(2000), profile(2700)), names=("old", "new"))
explorer = widgets.profile_explorer(chosen)
explorer
""",
    "print(explorer.shown)",
]


def test_the_flame_graph_follows_what_is_chosen_and_is_exported(run_cells, look, tmp_path):
    page = run_cells
    graph = page.frame_locator("iframe[title='Flame graph']").first
    graph.locator("#graph g").first.wait_for()
    assert "difference: +700 instructions" in graph.get_by_role("treeitem", name="get_page,").get_attribute(
        "aria-label"
    )
    shown = page.get_by_label("Show", exact=True)
    assert shown.evaluate("field => field.selectedOptions[0].text") == "difference"
    graph.get_by_role("searchbox").fill("same")
    assert "1 name matched: 1,000 to 1,000" in graph.get_by_role("status").inner_text()
    look("profile-difference")
    shown.select_option(label="old")
    box = graph.get_by_role("treeitem", name="<b>clear</b>,")
    box.wait_for()
    assert "500 instructions, 14.29 % of all" in box.get_attribute("aria-label")
    box.click()
    assert graph.locator("#detail").inner_text().startswith("<b>clear</b>")
    look("profile-one")
    page.get_by_label("File", exact=True).fill("old.folded")
    page.locator("button.jupyter-button", has_text="Export").click()
    page.get_by_text("written: old.folded").wait_for()
    assert "kernel;[kernel];mm/;x.c;get_page 2000" in (tmp_path / "old.folded").read_text()
    page.get_by_label("File", exact=True).fill("old.exe")
    page.locator("button.jupyter-button", has_text="Export").click()
    page.get_by_text("has no suffix of a known format").wait_for()
