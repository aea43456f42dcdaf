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
        ("02_initrd", {"compare": ",gz,rar"}, "compressions='rar'"),
        ("02_initrd", {"disks": "much"}, "disks='much'"),
        ("02_initrd", {"kernel_file": "/nowhere"}, "kernel='/nowhere'"),
        ("03_launch", {"memory": "lots"}, "M='lots'"),
        ("03_launch", {"vcpus": 0}, "VP='0'"),
        ("03_launch", {"swap": "x"}, "swap='x'"),
        ("04_boot_time", {"metric": "speed"}, "metric='speed'"),
        ("04_boot_time", {"cell": "kernel=other"}, "cell='kernel=other'"),
        ("04_boot_time", {"runs": 0}, "runs=0"),
        ("05_memory_compression", {"swaps": ["tape"]}, "swap='tape'"),
        ("05_memory_compression", {"metric": "speed"}, "metric='speed'"),
        ("06_measured_boot", {"memory": "lots"}, "memory='lots'"),
        ("06_measured_boot", {"measured": "/nowhere"}, "/nowhere"),
        ("90_nightly", {"plan": "quick,nowhere"}, "plan='nowhere'"),
        ("90_nightly", {"limit_wall": 2.0}, "limit_wall=2.0"),
        ("07_profile", {"cells": ["memory=1G"]}, "cells='memory=1G'"),
        ("07_profile", {"save": ["x.docx"]}, "file='x.docx'"),
        ("07_profile", {"most": 0}, "most=0"),
        ("08_your_image", {"setups": ["tape"]}, "setup='tape'"),
        ("08_your_image", {"at": ["2y"]}, "at='2y'"),
    ],
)
def test_a_wrong_parameter_ends_a_notebook_in_its_first_cell(tmp_path, name, parameters, words):
    with pytest.raises(AconError) as error:
        reports.make(notebooks.folder() / f"{name}.ipynb", tmp_path / "x.html", parameters)
    assert words in str(error.value)
    executed = (tmp_path / "x.ipynb").read_text()
    assert "kernel 100 %" not in executed
    assert "build kernel" not in executed
    assert "initrd 100 %" not in executed
    assert "did not run to its end" in (tmp_path / "x.html").read_text()
