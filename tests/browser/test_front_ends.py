"""A form in Jupyter Notebook 7 and in Voila: it follows its fields, shows errors, and its buttons work."""

from __future__ import annotations

import json
import os
import site
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import acon_nb

pytestmark = [pytest.mark.system, pytest.mark.weekly]
CELL = """
from pathlib import Path
from acon_nb import initrd, widgets
form = widgets.initrd_form(initrd.InitrdSpec(), Path("made"))
form
"""
COMMANDS = {
    "notebook": ["jupyter-notebook", "--no-browser", "--ip=127.0.0.1", "--allow-root", "--IdentityProvider.token="],
    "voila": ["voila", "test.ipynb", "--no-browser", "--Voila.ip=127.0.0.1"],
}
PAGES = {"notebook": "notebooks/test.ipynb", "voila": ""}


@pytest.fixture(scope="module")
def front_ends(tmp_path_factory):
    """The programs of an environment of their own: they need not be installed where acon_nb is.

    The packages that serve files to the page are installed there, too: Voila serves no links to files elsewhere.
    """
    ready = os.environ.get("ACON_NB_FRONT_ENDS")
    if ready:
        return Path(ready) / "bin"
    folder = tmp_path_factory.mktemp("front-ends")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    packages = ["notebook>=7,<8", "voila>=0.5.13", "anywidget", "ipywidgets", "jupyterlab", "ipykernel"]
    constraints = Path(__file__).parents[2] / "constraints.txt"
    pip = [folder / "bin/python", "-m", "pip", "install", "-q", "--no-compile", "-c", constraints, *packages]
    done = subprocess.run(pip, capture_output=True, text=True, timeout=900)
    if done.returncode:
        pytest.skip(f"notebook and voila cannot be installed: {done.stderr.strip()[-300:]}")
    (others,) = (folder / "lib").glob("python*/site-packages")
    (others / "zz-others.pth").write_text("\n".join(site.getsitepackages()))
    return folder / "bin"


@pytest.fixture(params=COMMANDS)
def address(request, front_ends, tmp_path):
    """The page of the notebook in a front end that runs in its folder."""
    spec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    cell = {"cell_type": "code", "id": "c", "metadata": {}, "outputs": [], "execution_count": None, "source": CELL}
    notebook = {"cells": [cell], "metadata": {"kernelspec": spec}, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "test.ipynb").write_text(json.dumps(notebook))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    name, *options = COMMANDS[request.param]
    environment = {**os.environ, "ACON_NB_HEADLESS": "", "PYTHONPATH": str(Path(acon_nb.__file__).parents[1])}
    environment["PATH"] = f"{front_ends}{os.pathsep}{environment['PATH']}"
    with (tmp_path / "log").open("wb") as log:
        argv = [front_ends / name, *options, f"--port={port}"]
        process = subprocess.Popen(argv, cwd=tmp_path, stdout=log, stderr=log, env=environment)
    try:
        deadline = time.monotonic() + 180
        while True:
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, (tmp_path / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()[-2000:]
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/{PAGES[request.param]}"
    finally:
        process.terminate()
        process.wait(30)


def run_first_cell(page):
    """Run the cell of a front end that has cells; keys are lost until the kernel is there, so they are repeated."""
    prompt = page.locator(".jp-CodeCell .jp-InputPrompt").first
    deadline = time.monotonic() + 180
    prompt.wait_for()
    while prompt.inner_text().strip() == "[ ]:":
        assert time.monotonic() < deadline, "the cell was never run"
        page.locator(".jp-CodeCell .cm-content").first.click()
        page.keyboard.press("Shift+Enter")
        page.wait_for_timeout(2_000)


def test_a_form_follows_its_fields_shows_errors_and_works(address, page, look):
    page.set_default_timeout(180_000)
    page.goto(address)
    if "notebooks/" in address:
        run_first_cell(page)
    page.get_by_label("scheme").select_option("@+ae")
    page.get_by_text("Each write uses a new random IV").wait_for()
    keys = page.get_by_placeholder("public keys that may log in as root")
    keys.fill("/etc/hostname")
    page.get_by_text("is not a public SSH key").wait_for()
    keys.fill("")
    button = page.locator("button.jupyter-button", has_text="Look inside")
    button.focus()
    page.keyboard.press("Enter")
    page.get_by_text("/bin/busybox").first.wait_for()
    page.locator("img.acon-figure:visible").wait_for()
    page.wait_for_function("one => document.activeElement === one", arg=button.element_handle(), timeout=20_000)
    look(f"front-end-{'notebook' if 'notebooks/' in address else 'voila'}")
