"""From a key pressed in JupyterLab's page to its echo on the console's screen, with and without the server extension.

    .venv/bin/python benchmarks/console_latency.py [KEYS]

The console is that of cat on a pseudo-terminal, which echoes by itself, so it is the way through browser,
server and kernel that is timed: from the keydown event to the change of the screen's text, both seen by the page.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import sync_playwright

KEYS = int(sys.argv[1]) if len(sys.argv) > 1 else 60
SHELL = Path(__file__).parents[1] / "tests/browser"
CELL = f"""
import sys; sys.path.insert(0, {str(SHELL)!r})
from shell_machine import ShellMachine
from acon_nb import widgets
widgets.console(ShellMachine("transcript.log", ("cat",)))
"""
WATCH = """() => {
  const rows = document.querySelector(".acon-console .xterm-rows");
  window.times = [];
  let pressed = 0, before = rows.textContent;
  document.addEventListener("keydown", () => { pressed = performance.now(); }, true);
  new MutationObserver(() => {
    if (rows.textContent === before) return;
    before = rows.textContent;
    if (pressed) window.times.push(performance.now() - pressed);
    pressed = 0;
  }).observe(rows, { childList: true, characterData: true, subtree: true });
}"""


def main() -> None:
    for name, enabled in (("with the extension", True), ("without", False)):
        times = measure(enabled)
        tail = statistics.quantiles(times, n=10)[-1]
        print(f"{name}: median {statistics.median(times):.1f} ms, nine of ten under {tail:.1f} ms ({len(times)} keys)")
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")


def measure(enabled: bool) -> list[float]:
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        cell = {"cell_type": "code", "id": "c", "metadata": {}, "outputs": [], "execution_count": None, "source": CELL}
        spec = {"display_name": "Python 3", "language": "python", "name": "python3"}
        book = {"cells": [cell], "metadata": {"kernelspec": spec}, "nbformat": 4, "nbformat_minor": 5}
        Path(folder, "test.ipynb").write_text(json.dumps(book))
        options = [f"--ServerApp.port={port}", "--IdentityProvider.token=", "--no-browser", "--allow-root"]
        options += [f"--ServerApp.jpserver_extensions=acon_nb.jupyter.server_extension={enabled}"]
        argv = [sys.executable, "-m", "acon_nb.cli", "lab", folder, *options]
        with Path(folder, "lab.log").open("wb") as log:
            server = subprocess.Popen(argv, stdout=log, stderr=log)
        try:
            wait_for(f"http://127.0.0.1:{port}/api")
            return press(f"http://127.0.0.1:{port}/lab/workspaces/auto-t/tree/test.ipynb")
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(30)


def press(address: str) -> list[float]:
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.set_default_timeout(60_000)
        page.goto(address)
        page.locator(".jp-CodeCell .cm-content").first.click()
        page.get_by_text("Kernel status: Idle").first.wait_for(state="attached")
        page.keyboard.press("Shift+Enter")
        page.locator(".acon-console-state", has_text="running").wait_for()
        page.locator(".acon-console .xterm-screen").click()
        page.keyboard.type("echo ")
        page.wait_for_timeout(1000)
        page.evaluate(WATCH)
        for number in range(KEYS):
            page.keyboard.press("abcdefghij"[number % 10])
            page.wait_for_timeout(150)
        times: list[float] = page.evaluate("window.times")
        browser.close()
        return times


def wait_for(address: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


if __name__ == "__main__":
    main()
