"""Real JupyterLab in Chromium: a Lab on a folder of notebooks, and a page."""

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
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium")
XSRF = {"Cookie": "_xsrf=of-the-tests", "X-XSRFToken": "of-the-tests"}  # the server asks that the two agree


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """(address, folder, log) of one Lab for all tests of this process; each test's own folder lies in its folder."""
    folder = tmp_path_factory.getbasetemp()
    place = tmp_path_factory.mktemp("lab")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--ip=127.0.0.1", f"--port={port}", "--IdentityProvider.token=", "--no-browser", "--allow-root"]
    argv = [sys.executable, "-m", "acon_nb.cli", "lab", folder, *options]
    news = place / "settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    news.parent.mkdir(parents=True)
    news.write_text('{"fetchNews": "false"}')  # or a question about news appears when a test types
    environment = {**os.environ, "JUPYTERLAB_SETTINGS_DIR": str(place / "settings"), "ACON_NB_HEADLESS": ""}
    environment["JUPYTERLAB_WORKSPACES_DIR"] = str(place / "workspaces")
    with (place / "log").open("wb") as log:
        process = subprocess.Popen([str(word) for word in argv], stdout=log, stderr=log, env=environment)
    base = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                urllib.request.urlopen(f"{base}/api", timeout=5).close()
                break
            except OSError:
                assert time.monotonic() < deadline, (place / "log").read_text()[-2000:]
                time.sleep(0.2)
        yield base, folder, place / "log"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@pytest.fixture
def lab_log(server):
    """The file that Lab logs to."""
    return server[2]


@pytest.fixture
def lab(request, server, tmp_path):
    """The address in Lab of `test.ipynb`, with the cells of the test module's CELLS; its kernel ends with the test."""
    base, folder, _ = server
    spec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    cells = [
        {"cell_type": "code", "id": f"c{i}", "metadata": {}, "outputs": [], "execution_count": None, "source": source}
        for i, source in enumerate(request.module.CELLS)
    ]
    notebook = {"cells": cells, "metadata": {"kernelspec": spec}, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "test.ipynb").write_text(json.dumps(notebook))
    path = (tmp_path / "test.ipynb").relative_to(folder)
    yield f"{base}/lab/workspaces/auto-{tmp_path.name}/tree/{path}"
    with urllib.request.urlopen(f"{base}/api/kernels", timeout=30) as answer:
        kernels = json.load(answer)
    for kernel in kernels:
        end = urllib.request.Request(f"{base}/api/kernels/{kernel['id']}", method="DELETE", headers=XSRF)
        urllib.request.urlopen(end, timeout=60).close()


@pytest.fixture
def page(request, tmp_path):
    """A page of Chromium; its last look is kept in the folder that ACON_NB_ARTIFACTS names."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is missing (tools/setup.sh test)")
    if CHROMIUM is None:
        pytest.skip("Chromium is missing: apt-get install chromium")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-sync"]
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(600_000)
        yield page
        keep_look(page, request.node.name)
        browser.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Add what the page showed to the report of a failed test."""
    report = yield
    if report.failed and call.when == "call" and "page" in item.funcargs:
        text = item.funcargs["page"].locator("body").inner_text()
        report.sections.append(("Text of the page, its end", text[-4000:]))
    return report


def keep_look(page, name):
    folder = os.environ.get("ACON_NB_ARTIFACTS")
    if folder:
        page.screenshot(path=f"{folder}/{name}.png")


@pytest.fixture
def look(page):
    """`look(name)` keeps a picture of the page, for people."""
    return lambda name: keep_look(page, name)


@pytest.fixture(scope="session")
def axe(tmp_path_factory):
    """`axe(page, selector)`: what axe-core finds there of WCAG 2 A and AA, a line for each; it comes by npm (js/)."""
    if shutil.which("npm") is None:
        pytest.skip("npm is missing: apt-get install npm")
    folder = tmp_path_factory.mktemp("axe")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(Path(__file__).parents[2] / "js" / name, folder)
    install = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run(install, cwd=folder, check=True, timeout=300)
    source = (folder / "node_modules/axe-core/axe.min.js").read_text()

    def faults(page, selector, *, without=()):
        """`without`: rules whose faults are the front end's own."""
        page.evaluate(source)
        tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
        options = {"runOnly": tags, "rules": {name: {"enabled": False} for name in without}}
        result = page.evaluate("([where, options]) => axe.run(where, options)", [selector, options])
        return [f"{one['id']}: {node['html'][:200]}" for one in result["violations"] for node in one["nodes"]]

    return faults


@pytest.fixture
def run_cells(lab, page):
    """Open the notebook and run its first cell once its kernel is idle.

    On a busy host Lab may still move the focus when its kernel is idle, and keys are lost then: until the cell has a
    prompt of its own, it is chosen again and the keys are pressed again.
    """
    page.goto(lab)
    cell = page.locator(".jp-CodeCell").first
    cell.locator(".cm-content").click()
    page.get_by_text("Kernel status: Idle").first.wait_for(state="attached")
    deadline = time.monotonic() + 300
    while cell.locator(".jp-InputPrompt").inner_text().strip() == "[ ]:":
        assert time.monotonic() < deadline, "the first cell was never run"
        cell.locator(".cm-content").click()
        page.keyboard.press("Shift+Enter")
        page.wait_for_timeout(2_000)
    return page


@pytest.fixture
def reload(page, tmp_path):
    """`reload()` saves the notebook with its outputs, and loads the page again."""

    def save_and_load():
        page.locator(".jp-CodeCell .cm-content").first.click()
        page.keyboard.press("Control+s")
        deadline = time.monotonic() + 300
        while "widget-view" not in (tmp_path / "test.ipynb").read_text():
            assert time.monotonic() < deadline, "the notebook was not saved"
            page.wait_for_timeout(100)
        page.reload()

    return save_and_load
