"""The page over all nights as a reader sees it: at three widths, on paper and in the dark."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from acon_nb.changes import dashboard
from acon_nb.results.store import SCHEMA, Store

pytestmark = pytest.mark.system
CHECKS = Path(__file__).with_name("page_checks.js").read_text()
A4_PX = 680  # 180 mm between margins
CELLS = ("memory=256M machine=microvm", "swap=zswap:zstd,shrinker data=redis+zero:1 pressure=1.5")


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """Twenty nights with a step, whose names are as long as those of real ones."""
    folder = tmp_path_factory.mktemp("nights")
    store = Store(folder / "history")
    for number in range(20):
        night = str(dt.date(2026, 1, 1) + dt.timedelta(days=number))
        for cell in CELLS:
            row = {
                "schema": SCHEMA, "timestamp": f"{night}T02:00:00", "session": night, "block": 0, "host_class": "h",
                "end": "powered_off", "error": "", "host_fault": "", "warmup": False, "clock": "instructions",
                "kernel_release": f"6.12.{number}", "run_id": f"{night} {cell}", "study": "quick",
                "guest_ns_reset_to_init": 120_000_000 + 3_000_000 * (number >= 10), "cell": cell,
                "memavailable_bytes": 200 << 20,
            }  # fmt: skip
            store.add("boot", row)
    board = dashboard.of(folder / "history", "quick", reports=folder)
    return dashboard.write(board, folder / "nights.html")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 768, 1280])
def test_nothing_is_cut_broken_or_faint(page, page_file, axe, look, width, scheme):
    page.set_viewport_size({"width": width, "height": 1000})
    page.emulate_media(color_scheme=scheme)
    page.set_default_timeout(30_000)
    page.goto(page_file.as_uri())
    page.locator("#before").select_option("2026-01-10")
    page.get_by_text("+3,000,000 instructions").first.wait_for()
    assert page.evaluate(CHECKS) == []
    assert axe(page, "body") == []
    look(f"nights-{width}-{scheme}")


def test_paper_holds_all_of_it(page, page_file):
    page.set_viewport_size({"width": A4_PX, "height": 1000})
    page.emulate_media(media="print")
    page.goto(page_file.as_uri())
    assert page.evaluate(CHECKS) == []
