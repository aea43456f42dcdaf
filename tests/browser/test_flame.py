"""The flame graph in Chromium, as a file: zoom, search, phases, keys, a phone, paper; hostile names stay text."""

from __future__ import annotations

import re
import time

import pytest

from acon_nb.profile import FunctionCount, Profile, Region, flame

pytestmark = pytest.mark.system
HOSTILE = "</script><img src=x onerror=alert(1)>"
BEFORE = Profile(
    total=1_000_010,
    phases=("boot", "init"),
    functions=(
        FunctionCount(name="[firmware]", phase="boot", self_count=200_000, region=Region.FIRMWARE),
        FunctionCount(name="get_page", phase="boot", self_count=300_000, file="mm/page_alloc.c"),
        FunctionCount(name="get_page", phase="init", self_count=100_000, file="mm/page_alloc.c"),
        FunctionCount(name="memset", phase="init", self_count=350_000, file="arch/x86/lib/memset_64.S"),
        FunctionCount(name=HOSTILE, phase="init", self_count=50_000, file="/bin/busybox", region=Region.USER),
    ),
    stacks={("boot", "start_kernel", "setup", "get_page"): 300_000},
)
AFTER = Profile(total=1_000_110, phases=BEFORE.phases, functions=BEFORE.functions, stacks={
    ("boot", "start_kernel", "setup", "get_page"): 300_000, ("init", "added"): 100})  # fmt: skip


@pytest.fixture
def show(page, tmp_path):
    """`show(html)` opens a page; the test fails if the page has an error, asks for a file, or opens a dialog."""
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text))
    page.on("dialog", lambda dialog: faults.append("dialog"))
    page.on("request", lambda one: None if one.url.endswith("flame.html") else faults.append(one.url))

    def open_page(html):
        path = flame.save(html, tmp_path / "flame.html")
        page.goto(path.as_uri())
        page.locator("#graph g").first.wait_for()
        return page

    yield open_page
    assert faults == []


def box(page, name):
    return page.get_by_role("treeitem", name=re.compile(f"^{re.escape(name)},"))


def test_boxes_say_exact_counts_and_zoom(show, look):
    page = show(flame.flame(BEFORE))
    box(page, "setup").hover()
    assert "300,000 instructions, 30.00 % of all" in page.locator("#tip").inner_text()
    box(page, "setup").click()
    assert box(page, "memset").count() == 0
    assert page.locator("#graph g.above").count() == 3
    assert page.locator("#table tbody tr").count() == 1
    page.get_by_role("button", name="Reset").click()
    assert box(page, "memset").count() == 1
    assert page.locator("#table tbody tr").first.inner_text().split("\t")[0] == "400,000"
    look("flame")


def test_a_search_adds_up_what_matches_each_box_once(show):
    page = show(flame.flame(BEFORE))
    page.get_by_role("searchbox").fill("page")
    assert "400,000 instructions, 40.00 % of all phases" in page.get_by_role("status").inner_text()
    assert page.locator("#graph g.match").count() == 3  # the file is a box too
    page.get_by_role("searchbox").fill("/^(mem|get_)/")
    assert "750,000 instructions" in page.get_by_role("status").inner_text()
    page.get_by_role("searchbox").fill("/(/")
    assert "not a regular expression" in page.get_by_role("status").inner_text()
    page.get_by_role("searchbox").fill("img src")
    assert "1 name matched: 50,000" in page.get_by_role("status").inner_text()


def test_a_phase_is_shown_alone_and_phases_together(show):
    page = show(flame.flame(BEFORE))
    page.locator("#phase").select_option("init")
    assert box(page, "setup").count() == 0
    assert "35.00 % of all, 70.00 % of init" in box(page, "memset").get_attribute("aria-label")
    page.locator("#phase").select_option("all phases together")
    assert "1,000,010 instructions" in box(page, "all phases together").get_attribute("aria-label")
    assert "100,000 instructions" in box(page, "page_alloc.c").get_attribute("aria-label")


def test_the_keyboard_reaches_every_box(show):
    page = show(flame.flame(BEFORE))
    box(page, "all phases").focus()
    for key in ("ArrowDown", "ArrowRight", "ArrowLeft", "ArrowDown"):
        page.keyboard.press(key)
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("start_kernel,")
    page.keyboard.press("Enter")
    assert box(page, "memset").count() == 0
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    assert box(page, "memset").count() == 1
    page.keyboard.press("/")
    page.keyboard.type("memset")
    assert "350,000" in page.get_by_role("status").inner_text()


def test_a_difference_shows_what_changed(show, look):
    page = show(flame.difference(BEFORE, AFTER, names=("old", "new")))
    assert "difference: +100 instructions" in box(page, "added").get_attribute("aria-label")
    assert box(page, "setup").count() == 0  # equal: no width
    assert page.locator("#table tbody tr").all_inner_texts() == ["+100\t0\t100\tadded\t"]
    page.locator("#width").select_option("old")
    assert "difference: ±0 instructions" in box(page, "setup").get_attribute("aria-label")
    look("flame-difference")


def test_it_fits_a_phone_and_paper(show, look, tmp_path):
    page = show(flame.flame(BEFORE))
    page.set_viewport_size({"width": 390, "height": 800})
    deadline = time.monotonic() + 30  # by evaluate, since the page's policy forbids what wait_for_function polls with
    while page.evaluate("document.getElementById('graph').viewBox.baseVal.width") >= 390:
        assert time.monotonic() < deadline, "the graph was not drawn again"
        page.wait_for_timeout(50)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    look("flame-phone")
    paper = page.pdf(path=tmp_path / "flame.pdf", prefer_css_page_size=True)
    assert paper.count(b"/Type /Page\n") == 1
