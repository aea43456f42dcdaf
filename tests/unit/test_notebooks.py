from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from acon_nb.errors import InvalidInput
from acon_nb.jupyter import notebooks

ALL = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


@pytest.fixture(params=ALL, ids=lambda path: path.stem)
def notebook(request: pytest.FixtureRequest) -> Any:
    return nbformat.read(request.param, as_version=nbformat.NO_CONVERT)


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_notebooks() -> None:
    assert ALL


def test_a_notebook_is_valid_and_begins_with_its_title(notebook: Any) -> None:
    nbformat.validate(notebook)
    assert notebook.nbformat == 4
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")


def test_a_notebook_is_kept_without_outputs(notebook: Any) -> None:
    for cell in code(notebook):
        assert cell.outputs == []
        assert cell.execution_count is None


def test_a_notebook_has_parameters_of_plain_values(notebook: Any) -> None:
    (parameters,) = [cell for cell in code(notebook) if "parameters" in cell.metadata.get("tags", [])]
    values: dict[str, Any] = {}
    exec(parameters.source, {}, values)
    values.pop("__annotations__", None)
    assert values
    assert all(isinstance(value, str | int | float | bool | list) for value in values.values())


def test_a_notebook_ends_with_findings(notebook: Any) -> None:
    assert sum("findings" in cell.metadata.get("tags", []) for cell in notebook.cells) == 1


def test_no_code_cell_is_longer_than_15_lines(notebook: Any) -> None:
    assert [cell.source for cell in code(notebook) if len(cell.source.splitlines()) > 15] == []


def test_copying_keeps_what_is_there(tmp_path: Path) -> None:
    target = tmp_path / "new/folder"
    assert [(path.name, fresh) for path, fresh in notebooks.copy(target)] == [(path.name, True) for path in ALL]
    changed = target / ALL[0].name
    changed.write_text("mine")
    assert not any(fresh for _, fresh in notebooks.copy(target))
    assert changed.read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match="directory"):
        notebooks.copy(tmp_path / "file/below")


@pytest.mark.parametrize(
    ("root", "options", "allowed"),
    [
        (True, [], True),
        (True, ["--no-browser", "--ServerApp.port=1"], True),
        (True, ["--ip=0.0.0.0"], False),
        (True, ["--ServerApp.ip=::"], False),
        (True, ["--ip", "0.0.0.0"], False),
        (True, ["--ip=127.0.0.1", "--port=1"], True),
        (False, [], False),
    ],
)
def test_root_may_start_jupyterlab_where_only_this_host_reaches_it(
    tmp_path: Path, root: bool, options: list[str], allowed: bool
) -> None:
    argv = notebooks.lab_argv(tmp_path, options, root=root)
    assert ("--allow-root" in argv) is allowed
    addresses = [option for option in argv if re.match(r"--(ServerApp\.)?ip\b", option)]
    assert len(addresses) == 1, "JupyterLab does not start with two"
    assert argv[len(argv) - len(options) :] == options
