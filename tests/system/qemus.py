"""QEMUs of Debian's later suites, for tests that compare versions: fetched by apt, unpacked in the user's cache."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from acon_nb.cache import Cache, default_root

SUITES = {"trixie": 10, "sid": 11}  # the suite's QEMU is of this version or later


def fetch_qemu(suite: str) -> Path:
    """A suite's QEMU, unpacked with its libraries in the cache, anew each week; returns a script that runs it."""
    folder = default_root() / "test-qemus" / f"{suite}-{time.strftime('%G-%V')}"
    with Cache().lock(f"test-qemus-{suite}"):
        if not (folder / "qemu").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            _fetch(suite, folder)
    return folder / "qemu"


def _fetch(suite: str, folder: Path) -> None:
    """Unpack with apt and dpkg-deb below `folder`; nothing is installed."""
    uris = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    mirror = next((line.removeprefix("Debian ") for line in uris if line.startswith("Debian ")), None)
    if mirror is None:
        pytest.skip("apt of this host has no source labelled Debian")
    for name in (
        "etc/apt/trusted.gpg.d",
        "var/lib/apt/lists/partial",
        "var/cache/apt/archives/partial",
        "var/lib/dpkg",
    ):
        (folder / name).mkdir(parents=True)
    (folder / "var/lib/dpkg/status").touch()
    keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
    (folder / "etc/apt/sources.list").write_text(f"deb [signed-by={keys}] {mirror} {suite} main\n")
    settings = {
        "Dir::State": folder / "var/lib/apt", "Dir::State::status": folder / "var/lib/dpkg/status",
        "Dir::Cache": folder / "var/cache/apt", "Dir::Etc::sourcelist": folder / "etc/apt/sources.list",
        "Dir::Etc::sourceparts": "/dev/null", "APT::Sandbox::User": "root", "APT::Install-Recommends": "false",
        "Acquire::Languages": "none",
    }  # fmt: skip
    apt = ["apt-get", "-q", *(f"-o{name}={value}" for name, value in settings.items())]
    packages = ["qemu-system-x86", "seabios", "libc6"]
    for command in (["update"], ["-y", "--download-only", "install", *packages]):
        done = subprocess.run([*apt, *command], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"{suite} cannot be fetched: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
    root = folder / "root"
    for package in (folder / "var/cache/apt/archives").glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, root], check=True)
    libraries = root / "usr/lib/x86_64-linux-gnu"
    script = folder / "qemu"
    script.write_text(
        f"#!/bin/sh\nexport QEMU_MODULE_DIR={libraries}/qemu\n"
        f"exec {libraries}/ld-linux-x86-64.so.2 --library-path {libraries}"
        f' {root}/usr/bin/qemu-system-x86_64 -L {root}/usr/share/qemu -L {root}/usr/share/seabios "$@"\n'
    )
    script.chmod(0o755)
