"""All widgets in one page of real JupyterLab: an error is announced, and its field is invalid and described by it."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

pytestmark = pytest.mark.system


def shown(test, name):
    """The cell of another test, which shows its widget here with the others: its last line names it."""
    source = runpy.run_path(str(Path(__file__).with_name(f"test_{test}.py")))["CELLS"][0]
    return f"{source.strip().rpartition(chr(10))[0]}\ndisplay({name})\n"


CELLS = [
    "\n".join(
        [
            shown("explorer", "explorer"),
            shown("initrd", "form"),
            shown("kernel", "form"),
            shown("measure", "form"),
            shown("profile", "explorer"),
            shown("board", "board"),
            """
from acon_nb import vm
from acon_nb.study.plan import Plan
plan = Plan(name="designed", study="boot", factors={"memory": ["128M", "256M"]}, runs=2, warmups=0)
display(widgets.study_designer(plan, Path("results")))
display(widgets.vm_panel(vm.VmSpec(kernel=image, initrd=Path("initrd"))))
print("all", "shown")
""",
        ]
    )
]


def test_an_error_is_announced_and_marks_and_describes_its_field_among_all_widgets(guide_kernel, run_cells, look):
    page = run_cells
    page.get_by_text("all shown").wait_for()
    page.locator("button.jupyter-button", has_text="Kill").wait_for()
    memory = page.get_by_label("Memory (M)")
    memory.fill("8M")
    alert = page.locator("[role=alert]", has_text="cannot hold the kernel and its initrd")
    alert.wait_for()
    page.locator('input[aria-invalid="true"]').first.wait_for()
    assert memory.get_attribute("aria-invalid") == "true"
    described = memory.get_attribute("aria-describedby")
    assert "cannot hold the kernel" in page.locator(f'[id="{described}"]').inner_text()
    look("access")
