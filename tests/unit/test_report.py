from __future__ import annotations

import base64
import os
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import v4

import acon_nb
from acon_nb import reports, results
from acon_nb.errors import AconError, InvalidInput
from acon_nb.jupyter import provenance, report

KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


def dot() -> str:
    """A PNG of one pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bytes.fromhex("00000001000000010800000000"))
    return base64.b64encode(head + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")).decode()


def stream(name: str, text: str) -> Any:
    return v4.new_output("stream", name=name, text=text)


def executed(path: Path, *extra: Any) -> Path:
    shown = v4.new_output("display_data", data={"image/png": dot(), "text/plain": "a figure"})
    cells = [
        v4.new_markdown_cell("# A walk\n\n[a link](https://example.org/page) that a reader may click"),
        v4.new_code_cell(
            "secret_code()", outputs=[stream("stderr", "PROGRESS 50 %\n"), stream("stdout", "a result\n")]
        ),
        v4.new_code_cell("figure", outputs=[shown]),
        *extra,
        v4.new_code_cell(
            "print()", metadata={"tags": ["findings"]}, outputs=[stream("stdout", "first finding\nsecond finding\n")]
        ),
    ]
    nbformat.write(v4.new_notebook(cells=cells), path)
    return path


class Loads(HTMLParser):
    """What a page would load by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        wanted = {"src", "srcset", "poster", "data"} | ({"href"} if tag == "link" else set())
        self.found += [value or "" for name, value in attrs if name in wanted]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    html = report.render(executed(folder / "x.ipynb"), folder / "out/x.html")
    assert os.listdir(folder / "out") == ["x.html"]
    return html.read_text()


def test_a_report_has_results_and_text_but_no_code_and_no_progress(page: str) -> None:
    assert "<title>A walk</title>" in page
    assert "a result" in page
    assert "secret_code" not in page
    assert "PROGRESS" not in page


def test_findings_come_first_and_once(page: str) -> None:
    assert page.index("first finding") < page.index("a result")
    assert page.index("that a reader may click") < page.index("first finding")
    assert page.count("first finding") == 1


def test_a_report_loads_nothing(page: str) -> None:
    parser = Loads()
    parser.feed(page)
    assert [value[:60] for value in parser.found if not value.startswith("data:")] == []
    assert f"data:image/png;base64,{dot()[:40]}" in page.replace("\n", "")


@pytest.mark.parametrize(
    "html",
    [
        '<img src="https://example.org/x.png">',
        "<script src='//example.org/x.js'></script>",
        '<link rel="stylesheet" href="http://example.org/x.css">',
        "<style>@import url(https://example.org/x.css);</style>",
        "<style>body { background: url('https://example.org/x.png') }</style>",
        '<video poster="https://example.org/x.png"></video>',
        '<img srcset="https://example.org/x.png 2x">',
        '<object data="https://example.org/x.svg"></object>',
    ],
)
def test_a_page_that_would_load_something_is_refused(tmp_path: Path, html: str) -> None:
    cell = v4.new_code_cell("x", outputs=[v4.new_output("display_data", data={"text/html": html})])
    with pytest.raises(AconError, match="network"):
        report.render(executed(tmp_path / "x.ipynb", cell), tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()


def test_the_findings_are_lines(tmp_path: Path) -> None:
    assert report.findings(executed(tmp_path / "x.ipynb")) == ["first finding", "second finding"]


def test_a_notebook_that_fails_names_its_cell_and_keeps_what_it_did(tmp_path: Path) -> None:
    cells = [
        v4.new_markdown_cell("# Fails"),
        v4.new_code_cell("name = 'nobody'", metadata={"tags": ["parameters"]}),
        v4.new_code_cell("print('hello', name)"),
        v4.new_code_cell("raise ValueError('the pond is dry')"),
        v4.new_code_cell("print('never')"),
    ]
    source = tmp_path / "fails.ipynb"
    nbformat.write(v4.new_notebook(cells=cells, metadata=KERNEL), source)
    with pytest.raises(AconError) as caught:
        reports.make(source, tmp_path / "out/fails.html", {"name": "duck"}, live=False)
    text = str(caught.value)
    kept = tmp_path / "out/fails.ipynb"
    assert "fails.ipynb failed in cell 4: ValueError" in text  # the parameters that are passed are a cell too
    assert "the pond is dry" in text
    assert str(kept) in text
    assert "hello duck" in kept.read_text()
    page = (tmp_path / "out/fails.html").read_text()
    assert page.index("did not run to its end") < page.index("hello duck"), "the error is first"
    assert "the pond is dry" in page
    assert provenance.read(tmp_path / "out/fails.html")[0].error.startswith("fails.ipynb failed in cell 4")


@pytest.mark.parametrize("metadata", [KERNEL, {}], ids=["kernel named", "no kernel named"])
def test_a_wrong_parameter_or_notebook_is_refused_before_anything_runs(
    tmp_path: Path, metadata: dict[str, Any]
) -> None:
    source = tmp_path / "x.ipynb"
    cell = v4.new_code_cell("memory = '512M'", metadata={"tags": ["parameters"]})
    nbformat.write(v4.new_notebook(cells=[cell], metadata=metadata), source)
    with pytest.raises(InvalidInput, match="parameter='memroy'") as caught:
        report.execute(source, tmp_path / "out.ipynb", {"memroy": "1G"})
    assert "memory" in caught.value.hint
    with pytest.raises(InvalidInput, match="notebook="):
        report.execute(tmp_path / "missing.ipynb", tmp_path / "out.ipynb", {})
    assert os.listdir(tmp_path) == ["x.ipynb"]


def test_a_line_that_came_in_two_outputs_is_one_finding(tmp_path: Path) -> None:
    parts = ("first", " finding", "\nsecond\n", "\n")
    outputs = [v4.new_output("stream", name="stdout", text=text) for text in parts]
    cell = v4.new_code_cell("x", outputs=outputs, metadata={"tags": ["findings"]})
    path = tmp_path / "x.ipynb"
    nbformat.write(v4.new_notebook(cells=[cell]), path)
    assert report.findings(path) == ["first finding", "second", ""]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(notebook, report): a notebook that adds a row, with one parameter given."""
    folder = tmp_path_factory.mktemp("made")
    rows = "from acon_nb import results\nrow = {**results.stamp(), 'study': 's', 'cell': 'x', 'clock': 'wall'}"
    cells = [
        v4.new_markdown_cell("# Adds a row"),
        v4.new_code_cell(
            f"out = {str(folder / 'rows')!r}\nname: str = 'nobody'\nmany = 3", metadata={"tags": ["parameters"]}
        ),
        v4.new_code_cell(f"{rows}\nresults.Store(__import__('pathlib').Path(out)).add('boot', row)"),
        v4.new_code_cell("print('hello', name, many)", metadata={"tags": ["findings"]}),
    ]
    source = folder / "adds.ipynb"
    nbformat.write(v4.new_notebook(cells=cells, metadata=KERNEL), source)
    reports.make(source, folder / "adds.html", {"name": "<b>duck</b>"}, live=False)
    return source, folder / "adds.html"


def test_a_report_says_what_it_was_made_from(made: tuple[Path, Path]) -> None:
    source, html = made
    page = html.read_text()
    before, untouched = provenance.read(html)
    assert untouched
    assert (before.changed, before.parameters["many"], before.version) == (("name",), 3, acon_nb.__version__)
    assert before.rows == reports.rows_sha256(Path(before.parameters["out"])) != ""
    assert f"acon-nb report {source} -o {html} -p name '<b>duck</b>'" == before.command
    assert "<b>name = &lt;b&gt;duck&lt;/b&gt;</b>" in page, "what was given is bold, and text"
    assert "many = 3" in page
    assert "<b>many" not in page
    assert before.host_class in page
    assert page.index("hello") < page.index(before.rows)


def test_a_report_that_was_changed_is_known(made: tuple[Path, Path], tmp_path: Path) -> None:
    other = tmp_path / "other.html"
    other.write_text(made[1].read_text().replace("hello", "hallo"))
    assert provenance.read(other)[1] is False
    for text in ("", "<html></html>", '<script type="application/json" id="acon-provenance">{"a": 1}</script>'):
        other.write_text(text)
        with pytest.raises(InvalidInput, match="is not a report that says what it was made from"):
            provenance.read(other)


def test_a_report_is_made_again_and_says_what_differs(made: tuple[Path, Path], tmp_path: Path) -> None:
    changed = tmp_path / "changed.html"
    changed.write_text(made[1].read_text().replace("hello", "hallo"))
    lines, differences = reports.repeat(changed, tmp_path / "again.html", live=False)
    assert lines == ["hello <b>duck</b> 3"]
    assert differences[0].endswith("changed.html was changed after it was written")
    assert differences[1].startswith("rows: "), "the notebook added a row"
    assert len(differences) == 2


def test_rows_have_one_hash_whatever_files_they_are_in(tmp_path: Path) -> None:
    store = results.Store(tmp_path / "rows")
    for number in range(3):
        store.add("boot", {**results.stamp(), "study": "s", "cell": str(number), "clock": "wall"})
    before = reports.rows_sha256(tmp_path / "rows")
    store.compact("boot")
    assert reports.rows_sha256(tmp_path / "rows") == before
    assert reports.rows_sha256(tmp_path / "nothing") == ""
