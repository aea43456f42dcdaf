"""The form of measured boot in real JupyterLab: predict, change an input, see what changes, compare a pasted log."""

from __future__ import annotations

import base64
import struct

import pytest

pytestmark = pytest.mark.system
BODY = b"Spec ID Event03\0" + bytes(4) + b"\0\2\0\2\1\0\0\0\x0c\0\x30\0\0"
LOG = base64.b64encode(struct.pack("<II20xI", 1, 3, len(BODY)) + BODY).decode()
CELLS = [
    """
from pathlib import Path
from acon_nb import kernel, tdx, widgets
image = kernel.build(kernel.BuildSpec(profiles=("guide",))).image
Path("initrd").write_bytes(b"x" * 5000)
ovmf = Path("/usr/share/ovmf/OVMF.fd")
inputs = tdx.BootInputs(firmware=ovmf, kernel=image, initrd=Path("initrd"), append="one", edk2="202411")
form = widgets.measure_form(inputs)
form
""",
    "print('append is', form.inputs.append, form.comparison.verdict)",
]


def test_an_input_is_changed_and_what_changes_is_seen(guide_kernel, run_cells, look):
    page = run_cells

    def button(name):
        return page.locator("button.jupyter-button", has_text=name)

    def row(*cells):
        return page.get_by_role("row", name=" ".join(cells), exact=True)

    button("Predict").click()
    page.get_by_text("Which registers change").wait_for()
    row("RTMR[2]", "unchanged").wait_for()
    append = page.get_by_label("Append")
    append.fill("two")
    append.press("Enter")
    button("Predict").click()
    row("RTMR[2]", "changed", "command line").wait_for()
    row("RTMR[1]", "unchanged").wait_for()
    look("measure-moved")
    button("Keep").click()
    row("RTMR[2]", "unchanged").wait_for()

    memory = page.get_by_label("Memory")
    memory.fill("lots")
    memory.press("Enter")
    page.get_by_text("is not a valid size").wait_for()
    assert button("Predict").is_disabled()
    memory.fill("1G")
    memory.press("Enter")
    page.get_by_text("is not a valid size").wait_for(state="detached")

    page.get_by_label("Measured").fill("not a log!")
    page.get_by_label("Measured").press("Tab")
    button("Compare").click()
    page.get_by_text("is neither hexadecimal nor base64").wait_for()
    page.get_by_label("Measured").fill(LOG)
    page.get_by_label("Measured").press("Tab")
    button("Compare").click()
    page.get_by_text("different: RTMR[0]").first.wait_for()
    look("measure-compared")
    page.locator(".jp-CodeCell .cm-content").nth(1).click()
    page.keyboard.press("Shift+Enter")
    page.get_by_text("append is two different").wait_for()
