"""Container engines and a registry of our own, on private sockets and loopback; they end with the test."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from acon_nb import process
from acon_nb.cache import Cache
from acon_nb.errors import InvalidInput
from acon_nb.host import apt
from acon_nb.initrd import tree_of, write_folder
from tests.unit.image_archives import Descriptor, Layout


@contextlib.contextmanager
def dockerd(folder: Path) -> Iterator[str]:
    """A dockerd on a private socket: no network of its own, no storage but a folder that goes away."""
    if os.geteuid() != 0:
        pytest.skip("dockerd needs root")
    if shutil.which("dockerd") is None:
        pytest.skip("dockerd is missing (tools/setup.sh test installs docker.io)")
    with short_folder("docker") as short:
        host = f"unix://{short}/docker.sock"
        argv = ["dockerd", "--storage-driver=vfs", "--iptables=false", "--bridge=none", f"--host={host}"]
        argv += [f"--data-root={folder}/data", f"--exec-root={short}/exec", f"--pidfile={short}/pid"]
        with (folder / "log").open("wb") as log, process.Child(argv, stdout=log, stderr=log) as daemon:
            deadline = time.monotonic() + 300
            while docker(host, "info", check=False).returncode:
                if daemon.poll() is not None or time.monotonic() > deadline:
                    last = (folder / "log").read_text(errors="replace").splitlines()[-5:]
                    pytest.skip("dockerd does not start here: " + " | ".join(last))
                time.sleep(0.2)
            yield host
        subprocess.run(["umount", "-R", "--lazy", folder / "data"], check=False, capture_output=True)


def docker(host: str, *argv: str, check: bool = True, **fields: Any) -> subprocess.CompletedProcess[bytes]:
    command = ["docker", "--host", host, *argv]
    return subprocess.run(command, check=check, capture_output=True, timeout=600, **fields)


@contextlib.contextmanager
def saved_redis(folder: Path) -> Iterator[tuple[Path, str]]:
    """An image of redis from a Dockerfile in a real engine: its archive by `docker save`, and the engine's address."""
    with dockerd(folder) as host:
        context = folder / "context"
        write_folder(tree_of("busybox+redis-server+redis-tools"), context / "root")
        (context / "Dockerfile").write_text(
            'FROM scratch\nCOPY root /\nENTRYPOINT ["redis-server"]\nCMD ["--save", "", "--appendonly", "no"]\n'
        )
        docker(host, "build", "-t", "my-redis:1", str(context))
        docker(host, "save", "-o", str(folder / "redis.tar"), "my-redis:1")
        yield folder / "redis.tar", host


@contextlib.contextmanager
def podman_service(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., bytes]]:
    """Podman's API on the socket that CONTAINER_HOST names; yields a function that runs its command."""
    if os.geteuid() != 0:
        pytest.skip("a private Podman service is started as root here")
    if shutil.which("podman") is None:
        pytest.skip("podman is missing (tools/setup.sh test installs it)")
    (folder / "registries.conf").write_text("[[registry]]\nlocation = '127.0.0.1'\ninsecure = true\n")
    # Podman 5 raises a step's limits to 1048576, which root without CAP_SYS_RESOURCE (in a container) may not.
    (folder / "containers.conf").write_text('[containers]\ndefault_ulimits = ["nofile=1024", "nproc=4096"]\n')
    # with CONTAINER_HOST the command would be a client
    local = {name: value for name, value in os.environ.items() if name != "CONTAINER_HOST"}
    local["CONTAINERS_REGISTRIES_CONF"] = str(folder / "registries.conf")
    local["CONTAINERS_CONF"] = str(folder / "containers.conf")
    with short_folder("podman") as short:
        base = ["podman", "--root", str(folder / "root"), "--runroot", str(short), "--storage-driver", "vfs"]

        def podman(*argv: str) -> bytes:
            done = subprocess.run([*base, *argv], env=local, capture_output=True, timeout=600)
            if done.returncode and argv[0] in ("info", "import"):
                pytest.skip(f"podman does not work here: {done.stderr.decode(errors='replace')[-300:]}")
            assert done.returncode == 0, done.stderr
            return done.stdout

        monkeypatch.setenv("CONTAINER_HOST", f"unix://{short}/podman.sock")
        argv = [*base, "system", "service", "--time=0", f"unix://{short}/podman.sock"]
        with process.Child(argv, env=local) as service:
            while not (short / "podman.sock").exists() and service.poll() is None:
                time.sleep(0.1)
            yield podman


@contextlib.contextmanager
def short_folder(name: str) -> Iterator[Path]:
    """A folder whose path is short: a socket's path holds 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix=f"acon-nb-{name}-", dir="/run"))  # one for each engine of a process
    try:
        yield folder
    finally:
        for namespace in folder.glob("exec/netns/*"):  # dockerd leaves its network namespace mounted
            subprocess.run(["umount", namespace], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(folder, ignore_errors=True)


class Registry:
    """Debian's docker-registry on a port of loopback."""

    def __init__(self, port: int) -> None:
        self.host = f"127.0.0.1:{port}"
        self._url = f"http://{self.host}/v2"

    def push(self, name: str, tag: str, layout: Layout, *entries: Descriptor) -> str:
        """Push all blobs of a layout, and the last entry as NAME:TAG (or by its digest); return the reference."""
        for path, data in layout.blobs.items():
            digest = path.removeprefix("blobs/").replace("/", ":")
            answer = requests.post(f"{self._url}/{name}/blobs/uploads/", timeout=600)
            put = requests.put(answer.headers["Location"], params={"digest": digest}, data=data, timeout=600)
            assert put.status_code == 201, put.text
        for entry in entries:
            data = layout.blobs["blobs/" + entry["digest"].replace(":", "/")]
            where = tag if entry is entries[-1] else entry["digest"]
            headers = {"Content-Type": entry["mediaType"]}
            put = requests.put(f"{self._url}/{name}/manifests/{where}", data=data, headers=headers, timeout=600)
            assert put.status_code == 201, put.text
        return f"{self.host}/{name}:{tag}"


@contextlib.contextmanager
def registry(folder: Path) -> Iterator[Registry]:
    """A registry from Debian's package, unpacked in the cache."""
    try:
        program = apt.unpack("docker-registry", cache=Cache()).path("usr/bin/docker-registry")
    except InvalidInput as error:
        pytest.skip(f"this distribution has no docker-registry: {error}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    storage = {"filesystem": {"rootdirectory": str(folder / "storage")}}
    config = {"version": "0.1", "storage": storage, "http": {"addr": f"127.0.0.1:{port}"}}
    (folder / "config.yml").write_text(json.dumps(config))  # JSON is YAML
    with (
        (folder / "log").open("wb") as log,
        process.Child([program, "serve", folder / "config.yml"], stdout=log, stderr=log) as server,
    ):
        served = Registry(port)
        deadline = time.monotonic() + 300
        while True:
            with contextlib.suppress(requests.ConnectionError):
                requests.get(f"http://{served.host}/v2/", timeout=10)
                break
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield served
