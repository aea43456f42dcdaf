"""The launch notebook, run by papermill: nobody in front of it, so no widget; the guest is typed at by the cells."""

from __future__ import annotations

import json

import pytest

from acon_nb import reports
from acon_nb.jupyter import notebooks
from tests.notebooks.pages import shown

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("launch")
    parameters = {"out": str(folder / "data"), "td_bios": "/usr/share/ovmf/OVMF.fd"}
    lines = reports.make(notebooks.folder() / "03_launch.ipynb", folder / "launch.html", parameters)
    return folder, lines


def test_the_guest_is_launched_typed_at_and_ends(launched):
    _, lines = launched
    assert "powered off" in lines[0]
    assert 250 <= int(lines[0].rpartition("guest: ")[2].split()[0]) <= 256
    assert len(lines) == 4


def test_the_report_shows_the_console_and_the_explained_td(launched):
    folder, _ = launched
    html = shown(folder / "launch.html")
    assert "root@vm" in html
    assert "the-end" in html
    assert "confidential-guest-support=tdx" in html
    assert "hostfwd=tcp:127.0.0.1:22222-:22" in html
    assert "What is <code>kernel_irqchip=split</code>" in html
    assert len(html) < 3_000_000


def test_no_widget_was_made(launched):
    folder, _ = launched
    notebook = json.loads((folder / "launch.ipynb").read_text())
    assert "widgets" not in notebook["metadata"]
    assert "widget-view" not in json.dumps(notebook)
