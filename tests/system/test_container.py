"""The Dockerfile of the workbench, built on a Debian 13 root by a real engine and started as its page says."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system import engines

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.system, pytest.mark.weekly]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An engine with the image `acon_nb`, whose base is made by debootstrap: no registry is needed."""
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        pytest.skip("root and debootstrap make the base image (tools/setup.sh weekly)")
    folder = tmp_path_factory.mktemp("container")
    root, tar = folder / "root", folder / "root.tar"
    subprocess.run([ROOT / "tools/debian-root.sh", "--keep", root, "trixie", "true"], check=True, timeout=1200)
    subprocess.run(["tar", "-C", root, "--one-file-system", "--exclude=./root/acon_nb", "-cf", tar, "."], check=True)
    shutil.rmtree(root)
    with engines.dockerd(folder) as host:
        engines.docker(host, "import", str(tar), "base")
        tar.unlink()
        argv = ["docker", "--host", host, "build", "--network=host", "--build-arg=BASE=base", "-t", "acon_nb", ROOT]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=1800, check=False)
        assert not done.returncode, done.stdout[-3000:] + done.stderr
        yield host


def test_lab_answers_from_the_container_as_a_user(engine: str) -> None:
    name = f"acon_nb-{os.getpid()}"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        "make",
        "lab",
        f"LAB_ARGS=--ip=127.0.0.1 --port={port} --no-browser",
    ]  # the host's network: loopback only
    argv = ["docker", "--host", engine, "run", "--rm", "--name", name, "--network=host", "acon_nb", *command]
    lab = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert lab.stdout is not None
        said = []
        for line in lab.stdout:
            said.append(line)
            if "token=" in line:
                break
        found = re.search(r"token=([0-9a-f]+)", said[-1])
        assert found, "".join(said)
        token = found[1]
        url = f"http://127.0.0.1:{port}/api/contents?token={token}"
        for _ in range(300):
            try:
                with urllib.request.urlopen(url, timeout=10) as answer:
                    names = {entry["name"] for entry in json.load(answer)["content"]}
                break
            except OSError:
                time.sleep(0.2)
        assert "00_tour.ipynb" in names
    finally:
        engines.docker(engine, "stop", "-t", "5", name, check=False)
        lab.wait(60)


def test_it_has_what_the_walk_needs(engine: str) -> None:
    script = "id -un; .venv/bin/acon-nb doctor --json; tools/setup.sh tour"
    done = engines.docker(engine, "run", "--rm", "--network=host", "acon_nb", "sh", "-c", script)
    user, found = done.stdout.decode().split("\n", 1)
    assert user == "workbench"
    states = {finding["what"]: finding["state"] for finding in json.loads(found)["findings"]}
    assert (states["QEMU"], states["build tools"]) == ("ok", "ok"), states
