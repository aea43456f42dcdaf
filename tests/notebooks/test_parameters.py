"""A parameter that cannot be is refused in a notebook's first cell, before anything is built."""

from __future__ import annotations

import pytest

from acon_nb import reports
from acon_nb.errors import AconError
from acon_nb.jupyter import notebooks

pytestmark = pytest.mark.system


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        ("01_kernel", {"compare_to": "nonsense"}, "profile='nonsense'"),
        ("03_launch", {"memory": "lots"}, "M='lots'"),
        ("03_launch", {"vcpus": 0}, "VP='0'"),
        ("03_launch", {"swap": "x"}, "swap='x'"),
        ("06_measured_boot", {"memory": "lots"}, "memory='lots'"),
    ],
)
def test_a_wrong_parameter_ends_a_notebook_in_its_first_cell(tmp_path, name, parameters, words):
    with pytest.raises(AconError) as error:
        reports.make(notebooks.folder() / f"{name}.ipynb", tmp_path / "x.html", parameters)
    assert words in str(error.value)
    executed = (tmp_path / "x.ipynb").read_text()
    assert "kernel 100 %" not in executed
    assert "build kernel" not in executed
    assert "did not run to its end" in (tmp_path / "x.html").read_text()
