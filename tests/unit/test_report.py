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

from acon_nb.errors import AconError, InvalidInput
from acon_nb.jupyter import report

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
        report.make(source, tmp_path / "out/fails.html", {"name": "duck"}, live=False)
    text = str(caught.value)
    kept = tmp_path / "out/fails.ipynb"
    assert "fails.ipynb failed in cell 4: ValueError" in text  # the parameters that are passed are a cell too
    assert "the pond is dry" in text
    assert str(kept) in text
    assert "hello duck" in kept.read_text()
    assert not (tmp_path / "out/fails.html").exists()


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
