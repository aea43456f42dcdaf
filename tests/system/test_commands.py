"""The command line on real parts: images, a full disk, the host's examination, JupyterLab."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

pytestmark = pytest.mark.system
ACON_NB = [sys.executable, "-m", "acon_nb.cli"]


def run(*argv: str | Path, **fields) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*ACON_NB, *map(str, argv)], capture_output=True, text=True, timeout=300, **fields)


def test_an_initrd_of_busybox_is_made_and_listed_by_gnu_cpio(tmp_path):
    done = run("initrd", "from", "busybox", "-o", tmp_path / "b.cpio", "--json")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    listed = subprocess.run(["cpio", "-tv"], stdin=open(made["path"], "rb"), capture_output=True, text=True, check=True)  # noqa: PTH123, SIM115
    assert " init\n" in listed.stdout
    assert "dev/console" in listed.stdout


def test_a_folder_without_init_is_refused_and_nothing_is_left(tmp_path):
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    done = run("initrd", "create", tree, env={**os.environ, "C": "xz"})
    assert done.returncode == 1
    assert "no executable init" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tree"]


def test_a_folder_is_packed_under_the_guides_name(tmp_path):
    tree = tmp_path / "bbox"
    tree.mkdir()
    (tree / "init").write_text("#!/bin/sh\n")
    (tree / "init").chmod(0o755)
    done = run("initrd", "create", tree, env={**os.environ, "C": "xz"})
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "initrd-bbox.cpio.xz").read_bytes()[:6] == b"\xfd7zXZ\0"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_named_and_the_next_run_works(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", small], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        done = run("initrd", "from", "busybox", "-o", small / "b.cpio")
        assert done.returncode == 1
        assert "no space left" in done.stderr
        assert str(small) in done.stderr
        assert list(small.iterdir()) == []
        assert run("initrd", "from", "busybox", "-o", small / "b.cpio.xz").returncode == 0
    finally:
        subprocess.run(["umount", small], check=True)


def test_doctor_tells_in_one_screen_and_in_one_object():
    done = run("doctor", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == (0 if found["ok"] else 1)
    whats = {row["what"] for row in found["findings"]}
    assert {"QEMU", "KVM", "TDX host", "build tools", "Docker Engine", "OVMF", "memory", "disk"} <= whats
    for row in found["findings"]:
        assert row["state"] == "ok" or row["feature"]
    text = run("doctor").stdout
    assert len(text.splitlines()) < 50


def test_lab_serves_a_copy_of_the_notebooks_on_127_0_0_1(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--no-browser", f"--ServerApp.port={port}", "--IdentityProvider.token=secret"]
    server = subprocess.Popen([*ACON_NB, "lab", tmp_path / "mine", *options], stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}/api/contents?token=secret"
        names = [item["name"] for item in json.loads(fetch(url))["content"]]
        assert "00_tour.ipynb" in names
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(120)
    again = run("notebooks", tmp_path / "mine")
    assert "(kept)" in again.stdout


def fetch(url: str) -> bytes:
    deadline = time.monotonic() + 300
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.read()
        except OSError:
            assert time.monotonic() < deadline, f"{url} does not answer"
            time.sleep(0.3)
