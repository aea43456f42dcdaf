"""What a notebook that a person ran shows once it is saved, where no widget lives: on GitHub and through nbconvert."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import nbformat
import pytest
from matplotlib.figure import Figure
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from nbformat import v4

import acon_nb
from acon_nb import plots, results, widgets
from acon_nb.analysis import explore
from acon_nb.jupyter import show

BROWSER = Path(__file__).parents[1] / "browser"
CELLS = {
    "job": 'await widgets.run(lambda on_progress, cancel: on_progress(Progress("measured all")))',
    "cached": "await widgets.run(lambda on_progress, cancel: None)",
    "board": "board = widgets.board(study(runs=2, seconds=0.01))\nrows = await board.run()",
    "form": "widgets.kernel_form(kernel.BuildSpec(profiles=('guide',)))",
    "explorer": "widgets.explorer('results')",
    "designer": "widgets.study_designer(board.study.plan, Path('results'))",
}
SETUP = f"""
import sys; sys.path.insert(0, {str(BROWSER)!r})
from pathlib import Path
from acon_nb import kernel, widgets
from acon_nb.progress import Progress
from slow_study import study
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The notebook, executed as with a person in front, and saved as JupyterLab saves it: without widget state."""
    folder = tmp_path_factory.mktemp("saved")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACON_NB_HEADLESS", "0")
        patch.setenv("PYTHONPATH", str(Path(acon_nb.__file__).parents[1]))
        cells = [v4.new_code_cell(source) for source in (SETUP, *CELLS.values())]
        resources = {"metadata": {"path": str(folder)}}
        client = NotebookClient(
            v4.new_notebook(cells=cells), resources=resources, store_widget_state=False, kernel_name="python3"
        )
        made = client.execute()
    nbformat.write(made, folder / "saved.ipynb")
    return folder / "saved.ipynb"


def bundles(path: Path) -> dict[str, list[Any]]:
    cells = nbformat.read(path, as_version=4).cells[1:]
    return {
        name: [output.data for output in cell.outputs if "data" in output]
        for name, cell in zip(CELLS, cells, strict=True)
    }


def test_every_widget_is_saved_with_its_result(saved: Path) -> None:
    for name, (data,) in bundles(saved).items():
        assert "application/vnd.jupyter.widget-view+json" in data, f"{name} is a widget for a person"
        assert "Box(children" not in data["text/plain"], name
        assert "<table" in data["text/html"] or "<pre" in data["text/html"], name


def test_what_stays_is_the_last_state(saved: Path) -> None:
    shown = {name: data["text/plain"] for name, (data,) in bundles(saved).items()}
    assert shown["job"] == "done: measured all"
    assert shown["cached"] == "done"
    assert "done: 8 of 8 runs, 2 failed" in shown["board"]
    assert "memory=2G" in shown["board"]
    assert "guide" in shown["form"]
    assert base64.b64decode(bundles(saved)["explorer"][0]["image/png"]).startswith(b"\x89PNG")


def test_nbconvert_shows_it(saved: Path) -> None:
    page, _ = HTMLExporter(template_name="classic").from_filename(str(saved))
    for text in ("done: measured all", "done: 8 of 8 runs, 2 failed", "data:image/png;base64,", "memory=2G"):
        assert text in page
    assert "HBox(children" not in page


def test_texts_are_literal_and_figures_have_their_title_as_alternative() -> None:
    figure, _ = plots.style.subplots(1, width=3.0)
    figure.suptitle('"a" < b')
    data = show.bundle([figure, show.table(results.frame([{"x": "<b>"}])), show.ShownText("<i>")])
    assert 'alt="&quot;a&quot; &lt; b"' in data["text/html"]
    assert "<b>" not in data["text/html"]
    assert "<i>" not in data["text/html"]
    assert data["text/plain"].startswith('["a" < b]')


def test_a_figure_is_drawn_once_for_the_page_and_the_saved_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACON_NB_HEADLESS", "0")
    rows = [{"factor_memory": "1G", "clock": "wall", "end": "powered_off", "error": "", "host_ns_init": 1e9, "block": n}
            for n in range(3)]  # fmt: skip
    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: (drawn.append(1), save(figure, *a, **k)))
    shown = widgets.explorer(results.frame(rows), explore.View(metric="host_ns_init", x="memory"))
    shown._repr_mimebundle_()
    shown._repr_mimebundle_()
    assert len(drawn) == 1


def test_a_figure_that_was_changed_is_drawn_again() -> None:
    figure, (axes,) = plots.style.subplots(1, width=3.0)
    first = show.png(figure)
    assert show.png(figure) is first
    axes.plot([1, 2])
    assert show.png(figure) != first
