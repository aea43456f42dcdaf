"""A report as a reader sees it: at three widths, on paper and in the dark, nothing cut, broken or faint."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbformat import v4

from acon_nb import plots, reports
from acon_nb.jupyter import report, show

pytestmark = pytest.mark.system
CHECKS = Path(__file__).with_name("page_checks.js").read_text()
A4_PX = 680  # 180 mm between margins
HASH = "b2" * 32
COLUMNS = ["choice", "access throughput", "compared with disk", "p99 latency of an access", "CPU time of the kernel"]
COLUMNS += ["written to the disk", "memory saved", "/sys/kernel/mm/transparent_hugepage/hugepages-2048kB/stats/swpout"]
ROW = [
    "zram lz4",
    "26,445 [25,956, 32,192] accesses / s (range of 3 seeds)",
    "4.98 times",
    "60.4 µs",
    "0.18 s",
    "0.00 MiB",
]
ROW += ["80.8 MiB in 38.2 MiB of RAM", "CONFIG_CRYPTO_DEV_VIRTIO_AND_A_NAME_THAT_IS_LONGER_THAN_A_PHONE_IS_WIDE=y"]


def figure():
    made, axes = plots.style.subplots(2, width=5.2)
    for number, ax in enumerate(axes):
        ax.plot([1, 2, 3], [1, 10, 5], label=f"guest {number}")
        ax.set(xlabel="RAM freed: swap used less pool / MiB", ylabel="access throughput", title=f"all rows {number}")
    made.suptitle("Access throughput against RAM freed (filled: on the Pareto front by the medians)")
    return made


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """A report with all that reports hold: findings, a figure, wide and narrow tables, text, and a traceback."""
    folder = tmp_path_factory.mktemp("report")

    def output(value, kind="display_data"):
        if isinstance(value, str):
            return v4.new_output("stream", name="stdout", text=value)
        data, metadata = (
            value._repr_mimebundle_() if hasattr(value, "suptitle") else ({"text/html": value.to_html()}, {})
        )
        return v4.new_output(kind, data=data, metadata=metadata)

    wide, small = (
        show.table(pd.DataFrame([row] * 3, columns=names)) for row, names in ((ROW, COLUMNS), (["a", 1], ["x", "y"]))
    )
    error = v4.new_output(
        "error", ename="ValueError", evalue="no", traceback=["\x1b[31mValueError\x1b[0m: the pond is dry"]
    )
    lines = "Here (1.53 times the available memory): access throughput 26,445 accesses / s.\n"
    lines += f"The rows have the hash {HASH}.\n"
    shown = [figure(), wide, small, f"{HASH} /{'long/' * 30}\n"]
    cells = [
        v4.new_markdown_cell("# A report\n\nWhat it is, with `code` and a [link](https://example.org/)."),
        *(v4.new_markdown_cell(f"## Section {number}\n\n| a | b |\n|---|---|\n| 1 | `{HASH}` |") for number in (1, 2)),
        v4.new_code_cell("x", outputs=[*map(output, shown), error]),
        v4.new_code_cell("x", outputs=[output(lines)], metadata={"tags": ["findings"]}),
    ]  # fmt: skip
    cells.append(v4.new_code_cell("out = 1", metadata={"tags": ["parameters"]}))
    source = folder / "report.ipynb"
    nbformat.write(v4.new_notebook(cells=cells), source)
    given = {"image": "docker-archive:/srv/images/of-somebody/with-a-long-name_and-version-2026.11.27.tar"}
    made = reports.of(
        source, folder / "report.html", given, dt.datetime.now(dt.UTC), error="report.ipynb failed in cell 4"
    )
    return report.render(source, folder / "report.html", made)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 768, 1280])
def test_nothing_is_cut_broken_or_faint(page, page_file, look, width, scheme):
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    page.goto(page_file.as_uri())
    look(f"report-{width}-{scheme}")
    assert page.evaluate(CHECKS) == []
    dark = (
        sum(page.evaluate("getComputedStyle(document.documentElement).backgroundColor.match(/\\d+/g).map(Number)"))
        < 200
    )
    assert dark == (scheme == "dark")


def test_figures_can_be_read_on_a_phone(page, page_file):
    page.set_viewport_size({"width": 390, "height": 900})
    page.goto(page_file.as_uri())
    shown = page.locator(".figure img:visible")
    assert shown.count() == 1
    box = shown.bounding_box()
    assert box["height"] > 1.2 * box["width"], "the panels are below one another"
    page.set_viewport_size({"width": 1280, "height": 900})
    box = shown.bounding_box()
    assert box["height"] < 0.6 * box["width"]


def test_paper_holds_it_and_its_first_page_is_full(page, page_file, look, tmp_path):
    page.set_viewport_size({"width": A4_PX, "height": 1000})
    page.emulate_media(media="print", color_scheme="dark")  # paper is white, whatever the screen is
    page.goto(page_file.as_uri())
    look("report-paper")
    assert page.evaluate(CHECKS) == []
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("Math.max(...[...document.querySelectorAll('.figure')].map((one) => one.offsetHeight))") < 480
    paper = page.pdf(path=tmp_path / "report.pdf", prefer_css_page_size=True)
    assert paper.count(b"/Type /Page\n") <= 3


def test_contents_lead_to_sections_and_headers_have_scopes(page, page_file):
    page.goto(page_file.as_uri())
    links = page.locator("nav a")
    assert links.all_inner_texts() == ["Section 1", "Section 2"]
    for link in links.all():
        assert page.locator(link.get_attribute("href")).count() == 1
    assert page.locator("th").count() > 10
    assert page.locator("th:not([scope])").count() == 0
    assert page.locator(".findings strong").all_inner_texts() == ["26,445 accesses / s", ""]
    assert page.locator(".findings a").first.inner_text().startswith("Figure 1: Access throughput")
    assert (
        page.locator("nav").evaluate("(nav) => nav.compareDocumentPosition(document.querySelector('.findings'))") == 2
    )


def test_axe_finds_nothing_in_a_report(page, page_file, axe):
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.goto(page_file.as_uri())
        assert axe(page, "body") == []
