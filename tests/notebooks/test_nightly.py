"""A real night by `acon-nb bench nightly`, which runs the notebook; then the same after made-up nights before it."""

from __future__ import annotations

import datetime as dt
import json
import shutil

import pytest
from click.testing import CliRunner

from acon_nb import boot
from acon_nb.cli import main
from acon_nb.results.store import Store
from tests.notebooks.pages import shown

pytestmark = pytest.mark.system

PLAN = """
study = "boot"
runs = 2
warmups = 0
[fixed]
kernel = "{kernel}"
initrd = "file:{initrd}"
[[cells]]
clock = "instructions"
[[cells]]
clock = "wall"
"""
NIGHT = "2026-03-20"


@pytest.fixture(scope="module")
def night(tmp_path_factory, guide_kernel, store):
    folder = tmp_path_factory.mktemp("nightly")
    initrd = shutil.copy(boot.default_initrd(store), folder)
    (folder / "night.toml").write_text(PLAN.format(kernel=guide_kernel.image, initrd=initrd))

    def run():
        argv = ["bench", "nightly", "--plan", folder / "night.toml", "--history", folder / "history"]
        argv += ["--night", NIGHT, "-o", folder / "report/nightly.html"]
        return CliRunner().invoke(main, [str(word) for word in argv])

    return folder, run, run()


def test_a_first_night_is_measured_kept_and_steady(night):
    folder, _, first = night
    assert first.exit_code == 0, first.output
    assert f"BASELINE RECORDED: night {NIGHT}" in first.output
    rows = Store(folder / "history").load("boot", "night")
    assert list(rows["end"]) == ["powered_off"] * 4
    assert set(rows["session"]) == {NIGHT}


def test_a_night_that_is_slower_than_those_before_ends_with_1_and_still_reports(night):
    folder, run, _ = night
    history = Store(folder / "history")
    rows = history.load("boot", "night").to_dict("records")
    for back in range(1, 9):
        day = dt.date.fromisoformat(NIGHT) - dt.timedelta(days=back)
        for row in rows:
            change = {"guest_ns_reset_to_init": row["guest_ns_reset_to_init"] / 1.005}
            change |= {"session": str(day), "run_id": f"{back}{row['run_id']}", "run_key": ""}
            history.add("boot", {**row, **change, "timestamp": f"{day}T02:00:00.{row['block']:06d}+00:00"})
    again = run()
    assert again.exit_code == 1
    assert f"REGRESSION: night {NIGHT}" in again.output
    assert f"longer by 0.5 % since the night {NIGHT}" in again.output
    summary = json.loads((folder / "report/nightly.json").read_text())
    assert (summary["verdict"], summary["passed"], summary["nights"]) == ("worse", False, 9)
    assert len(history.load("boot", "night")) == 36, "the night was there: nothing is measured twice"
    html = shown(folder / "report/nightly.html")
    assert html.index("REGRESSION") < html.index("<table"), "the verdict is first"
    assert html.count('src="data:image/png') == 2


def test_no_widget_was_made(night):
    folder, _, _ = night
    assert "widget-view" not in (folder / "report/nightly.ipynb").read_text()
