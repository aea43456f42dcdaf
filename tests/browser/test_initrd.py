"""The initrd's form in real JupyterLab: see what is inside, add an encrypted disk, be told of a mistake, make it."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.system
CELLS = [
    """
from pathlib import Path
from acon_nb import initrd, widgets
form = widgets.initrd_form(initrd.InitrdSpec(), Path("made"))
form
""",
    "print(form.spec.fstab, form.built.image.path)",
]


def test_an_initrd_is_inspected_extended_and_built(run_cells, look):
    page = run_cells

    def button(name):
        return page.locator("button.jupyter-button", has_text=name)

    button("Look inside").click()
    page.get_by_text("/bin/busybox").first.wait_for()
    page.get_by_text("Encrypted with AES-256 in XTS mode").wait_for()
    page.get_by_label("scheme").select_option("@+ae")
    page.get_by_text("Each write uses a new random IV").wait_for()
    button("Add line").click()

    keys = page.get_by_placeholder("public keys that may log in as root")
    keys.fill("/etc/hostname")
    page.get_by_text("is not a public SSH key").wait_for()
    look("initrd-form")
    page.locator("button.jupyter-button:disabled", has_text="Build").wait_for()
    keys.fill("")
    page.get_by_label("Compression").select_option("gz")
    button("Build").click()
    page.get_by_text("sha256").first.wait_for()
    page.locator(".jp-CodeCell .cm-content").last.click()
    page.keyboard.press("Shift+Enter")
    page.get_by_text("('/dev/mapper/vda@+ae none swap sw,discard 0 0',) made/initrd-busybox.cpio.gz").wait_for()
