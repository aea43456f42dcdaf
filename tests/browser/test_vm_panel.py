"""The panel in real JupyterLab with a real guest: a wrong field, launch, type, load the page again, stop."""

from __future__ import annotations

import re

import pytest

pytestmark = pytest.mark.system
CELLS = [
    """
from pathlib import Path
from acon_nb import initrd, kernel, vm, widgets
tree = initrd.tree_of("busybox")
initrd.gen_init(tree)
image = initrd.create(tree, Path("initrd-bbox.cpio"))
guide = {"RD": str(image.path), "M": "256m", "BIOS": "-"}
spec = vm.VmSpec.from_environment(guide, [str(kernel.build(kernel.BuildSpec()).image)])
panel = widgets.vm_panel(spec)
panel
""",
    "print('kernel', 'answers', panel.machine.running)",
]


def test_a_guest_is_launched_from_the_form_typed_at_and_stopped(guide_kernel, run_cells, look, reload):
    page = run_cells
    start = page.locator("button.jupyter-button", has_text="Start")
    page.locator("code", has_text="-kernel").wait_for()
    memory = page.get_by_label("Memory (M)")
    memory.fill("8M")
    page.get_by_text("cannot hold the kernel and its initrd: give at least").wait_for()
    assert start.is_disabled()
    page.get_by_label("Disks (DRV)").fill("swap.img")
    page.get_by_text("is neither .raw nor .qcow2").wait_for()
    page.get_by_text("cannot hold the kernel and its initrd: give at least").wait_for()
    row = page.locator(".widget-vbox", has=page.get_by_label("Disks (DRV)")).last
    assert "neither .raw" in row.inner_text(), "the error stands beside its field"
    look("panel-errors")
    page.get_by_label("Disks (DRV)").fill("")
    memory.fill("300M")
    page.locator("code", has_text=re.compile("^-m 300M")).wait_for()

    start.click()
    screen = page.locator(".acon-console .xterm-rows")
    page.locator(".acon-console .xterm-screen").click()  # into view: xterm.js draws nothing that is not seen
    screen.get_by_text("root@vm").first.wait_for()
    page.keyboard.type("echo guest-$((6*7))\n")
    screen.get_by_text(re.compile("^guest-42")).wait_for()
    page.get_by_text(re.compile(r"vCPUs: \d+ %")).wait_for()
    page.get_by_text("QEMU's resident set: ").wait_for()
    assert start.is_disabled()
    look("panel-running")

    reload()
    page.locator(".acon-console .xterm-screen").click()
    page.locator(".acon-console .xterm-rows").get_by_text(re.compile("^guest-42")).wait_for()
    page.keyboard.type("echo again-$((7*7))\n")
    page.locator(".acon-console .xterm-rows").get_by_text(re.compile("^again-49")).wait_for()
    page.locator(".jp-CodeCell .cm-content").last.click()
    page.keyboard.press("Shift+Enter")
    page.get_by_text("kernel answers True").wait_for()
    page.locator("button.jupyter-button:enabled", has_text="Stop").click()  # busybox does not hear the power button
    page.get_by_text(re.compile("^stopped by the host after")).wait_for()
    page.locator(".acon-console-state", has_text="ended: stopped by the host").wait_for()

    page.locator("button.jupyter-button:enabled", has_text="Start").click()
    page.locator(".acon-console-state", has_text="running").wait_for()
    page.locator("button.jupyter-button:enabled", has_text="Kill").click()
    page.get_by_text(re.compile("^killed after")).wait_for()
    look("panel-ended")
