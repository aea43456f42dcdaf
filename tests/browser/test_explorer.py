"""The explorer of results in real JupyterLab: the plot, the sentences and the table follow what is chosen; export."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.system
CELLS = [
    """
from pathlib import Path
import numpy as np, pandas as pd
from acon_nb import widgets
from acon_nb.results.store import SCHEMA, Store
rng = np.random.default_rng(1)
store = Store(Path("results"))
number = 0
for clock, metric in (("wall", "host_ns_init"), ("instructions", "guest_ns_reset_to_init")):
    for block in range(8):
        for memory, base in (("1G", 1.00), ("256M", 1.02)):
            for machine, cost in (("q35", 1.0), ("microvm", 0.7)):
                number += 1
                value = 1e9 * base * cost * (1 if clock == "instructions" else float(np.exp(rng.normal(0, 0.003))))
                store.add("boot", {
                    "schema": SCHEMA, "run_id": f"{number:03d}", "timestamp": f"2026-01-01T00:{number:03d}",
                    "study": "sizes", "session": "", "cell": f"{memory} {machine}", "clock": clock, "block": block,
                    "factor_memory": memory, "factor_machine": machine, "factor_clock": clock, "host_class": "h",
                    "end": "powered_off", "error": "", "host_fault": "", "warmup": False, metric: round(value),
                })
explorer = widgets.explorer("results")
explorer
""",
    "print(explorer.view.x, explorer.view.colour, explorer.view.clock)",
]


def choose(page, label, value):
    page.get_by_label(label, exact=True).select_option(label=value)


def test_plot_sentences_and_table_follow_what_is_chosen(run_cells, look, tmp_path):
    page = run_cells
    page.get_by_text("256M q35 compared with 1G q35").wait_for()
    choose(page, "Across", "memory")
    page.get_by_text("256M compared with 1G (machine=q35)").wait_for()
    choose(page, "Colour", "machine")
    page.get_by_text("slower by").first.wait_for()
    look("explorer-wall")

    choose(page, "Baseline", "256M")
    page.get_by_text("1G compared with 256M (machine=microvm)").wait_for()
    choose(page, "Clock", "instructions")
    page.get_by_text("exact, no test needed").first.wait_for()
    choose(page, "Panels", "machine")
    page.locator("img.widget-image:visible, .jupyter-widgets img:visible").first.wait_for()
    look("explorer-instructions")

    page.get_by_placeholder("share, such as 0.01").fill("much")
    page.get_by_text("minimum_effect='much': is not a share").wait_for()
    page.get_by_placeholder("share, such as 0.01").fill("0.5")
    page.get_by_text("below the minimum effect of 50 %").first.wait_for()

    file = page.get_by_label("File", exact=True)
    for name in ("rows.csv", "plot.svg"):
        file.fill(name)
        page.locator("button.jupyter-button", has_text="Export").click()
        page.get_by_text(f"written: {name}").wait_for()
    assert (tmp_path / "rows.csv").read_text().count("\n") == 33
    assert "<svg" in (tmp_path / "plot.svg").read_text()
    file.fill("rows.exe")
    page.locator("button.jupyter-button", has_text="Export").click()
    page.get_by_text("has no suffix of a known format").wait_for()
    page.locator(".jp-CodeCell .cm-content").last.click()
    page.keyboard.press("Shift+Enter")
    page.get_by_text("memory  instructions").wait_for()
