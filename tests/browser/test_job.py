"""The progress view in real JupyterLab, in Chromium: a bar that moves, and a cancel that works while a cell waits."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is missing (tools/setup.sh test)")
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is missing: apt-get install chromium"),
]
CELL = """
import time
from acon_nb import widgets
from acon_nb.progress import Progress

def slow(*, on_progress, cancel):
    for step in range(600):
        cancel.check()
        on_progress(Progress("slow work", step / 600, f"step {step}"))
        time.sleep(0.1)
    return "never"

await widgets.run(slow)
"""


@pytest.fixture
def lab(tmp_path):
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "outputs": [], "execution_count": None, "source": CELL}
    spec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = {"cells": [cell], "metadata": {"kernelspec": spec}, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "job.ipynb").write_text(json.dumps(notebook))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [f"--ServerApp.port={port}", "--IdentityProvider.token=", "--no-browser", "--allow-root"]
    argv = [sys.executable, "-m", "acon_nb.cli", "lab", tmp_path, *options]
    environment = {**os.environ, "JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings"), "ACON_NB_HEADLESS": ""}
    with (tmp_path / "lab.log").open("wb") as log:
        server = subprocess.Popen([str(word) for word in argv], stdout=log, stderr=log, env=environment)
    base = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{base}/api", timeout=5).close()
                break
            except OSError:
                assert time.monotonic() < deadline, (tmp_path / "lab.log").read_text()[-2000:]
                time.sleep(0.2)
        yield base
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)


@pytest.fixture
def page(tmp_path):
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-sync"]
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(60_000)
        yield page
        folder = os.environ.get("ACON_NB_ARTIFACTS")
        if folder:
            page.screenshot(path=f"{folder}/job.png")
        browser.close()


def test_progress_is_shown_and_cancel_stops_the_cell(lab, page):
    page.goto(f"{lab}/lab/workspaces/auto-test/tree/job.ipynb")
    page.get_by_text("await widgets.run(slow)").first.click()
    page.get_by_text("Kernel status: Idle").first.wait_for(state="attached")
    page.keyboard.press("Shift+Enter")
    page.get_by_text("step 5").first.wait_for()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("cancelled: slow work").wait_for()
    page.locator(".jp-OutputArea-output", has_text="Cancelled").first.wait_for()
