"""The console in real JupyterLab: order, two views, a page loaded again, a broken channel, a flood, copy, the end."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.system
CELLS = [
    f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from shell_machine import ShellMachine
from acon_nb import widgets
machine = ShellMachine("transcript.log")
console = widgets.console(machine, rows=12)
console
""",
    "console",
    "print('the kernel', 'answers')",
    "machine.close()",
    "import time; from pathlib import Path\nwhile not Path('go-on').exists(): time.sleep(0.1)",
]

KEEP_SOCKETS = """
window.sockets = [];
const Real = WebSocket;
window.WebSocket = class extends Real { constructor(...args) { super(...args); window.sockets.push(this); } };
"""


def screens(page):
    return page.locator(".acon-console .xterm-rows")


def run_cell(page, number):
    page.locator(".jp-CodeCell .cm-content").nth(number).click()
    page.keyboard.press("Shift+Enter")


def type_into(page, number, text):
    page.locator(".acon-console .xterm-screen").nth(number).click()
    page.keyboard.type(text)


def says(page, number, text):
    screens(page).nth(number).get_by_text(text).first.wait_for()


def follows(page):
    """The guest's console has the size of the view, which is shown as "96 × 12"."""
    columns, rows = page.locator(".acon-console-size").first.inner_text().split(" × ")
    type_into(
        page, 0, f'clear; until [ "$(stty size)" = "{rows} {columns}" ]; do sleep 0.1; done; echo fits $((6*7))\n'
    )
    says(page, 0, re.compile("^fits 42"))
    return int(columns)


def test_a_person_types_reads_reloads_reconnects_floods_copies_and_ends(run_cells, look, reload, tmp_path, lab_log):
    page = run_cells
    says(page, 0, "$")
    wide = follows(page)
    page.set_viewport_size({"width": 900, "height": 700})
    page.wait_for_function(f"!document.querySelector('.acon-console-size').textContent.startsWith('{wide} ')")
    assert follows(page) < wide
    page.set_viewport_size({"width": 1280, "height": 720})
    line = "echo $((6*7))-The-quick-brown-fox-jumps-over-the-lazy-dog-0123456789"
    type_into(page, 0, f"{line}\n")
    says(page, 0, "42-The-quick-brown-fox-jumps-over-the-lazy-dog-0123456789")
    run_cell(page, 1)
    says(page, 1, "42-The-quick")
    type_into(page, 1, "echo sec''ond\n")
    says(page, 0, re.compile("^second"))
    look("console-two-views")

    # A question of the guest (where is the cursor?) is answered once, not by each view.
    ask = r"stty -echo; printf '\033[6n'; read -d R -t 9 first; read -d R -t 1 more; stty echo"
    type_into(page, 0, f"{ask}; echo got ${{#first}} ${{#more}}\n")
    says(page, 0, re.compile(r"^got [4-7] 0"))

    page.add_init_script(KEEP_SOCKETS)
    reload()
    says(page, 0, "42-The-quick")
    says(page, 1, "second")
    type_into(page, 0, "echo af''ter\n")
    says(page, 0, re.compile("^after"))
    assert screens(page).first.get_by_text(re.compile("^got")).count() == 1, "nothing is shown twice"

    # A connection that breaks loses nothing: what was said meanwhile is sent again.
    type_into(page, 0, "sleep 1; echo st''ill; sleep 4; echo he''re\n")
    page.evaluate("window.sockets.filter((it) => it.url.includes('/channels')).forEach((it) => it.close())")
    says(page, 0, re.compile("^still"))
    says(page, 0, re.compile("^here"))

    # The direct channel works while the kernel is busy; without it kernel messages are used.
    run_cell(page, 4)
    page.get_by_text("Kernel status: Busy").first.wait_for(state="attached")
    type_into(page, 0, "echo bu''sy\n")
    says(page, 0, re.compile("^busy"))
    (tmp_path / "go-on").touch()
    page.get_by_text("Kernel status: Idle").first.wait_for(state="attached")
    lines = "window.sockets.filter((it) => it.url.includes('/channels/'))"
    assert page.evaluate(f"{lines}.length") >= 2, "each view has a direct channel"
    page.evaluate(f"{lines}.forEach((it) => it.close())")
    type_into(page, 0, "echo with''out\n")
    says(page, 0, re.compile("^without"))

    type_into(page, 0, "head -c 100000000 /dev/zero | tr '\\0' 'x'; echo; echo d''one\n")
    run_cell(page, 2)
    page.get_by_text("the kernel answers").wait_for()
    says(page, 0, re.compile("^done"))
    type_into(page, 0, "echo al''ive\n")
    says(page, 0, re.compile("^alive"))
    assert (tmp_path / "transcript.log").stat().st_size > 100_000_000
    look("console-after-flood")

    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate("navigator.clipboard.writeText('echo pas' + 'ted-$((1+1))')")
    type_into(page, 0, "")
    page.keyboard.press("Control+v")
    page.keyboard.press("Enter")
    says(page, 0, re.compile("^pasted-2"))
    screens(page).first.get_by_text(re.compile("^pasted-2")).first.dblclick(force=True)
    page.keyboard.press("Control+c")
    assert "pasted" in page.evaluate("navigator.clipboard.readText()")

    run_cell(page, 3)
    page.locator(".acon-console-state", has_text="ended").first.wait_for()
    assert "acon_nb.jupyter.server_extension | extension was successfully loaded" in lab_log.read_text()
