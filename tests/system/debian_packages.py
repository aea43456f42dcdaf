"""Packages of Debian's suites for tests: fetched by apt, unpacked in the user's cache; nothing is installed."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from acon_nb.cache import Cache, default_root
from acon_nb.host import probe_qemu
from acon_nb.vm import Capabilities

SUITES = {"trixie": 10, "sid": 11}  # the suite's QEMU is of this version or later


def host_of(suite: str) -> Capabilities:
    """A host with a suite's QEMU, which emulates."""
    info = probe_qemu(fetch_qemu(suite))
    assert info.version[0] >= SUITES[suite]
    return Capabilities(qemu=info.path, version=info.version, string_flags=info.string_flags)


def fetch_qemu(suite: str) -> Path:
    """A suite's QEMU with its libraries, anew each week; returns a script that runs it."""
    return fetched(f"qemu-alone-{suite}", suite, ["qemu-system-x86", "seabios", "libc6"], _qemu_script) / "qemu"


def fetch_llvm(version: int) -> Path:
    """LLVM's compiler and tools of this host's release of Debian; returns the folder of scripts that run them."""
    suite = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    packages = [f"{name}-{version}" for name in ("clang", "lld", "llvm")]
    return fetched(f"llvm-{version}-{suite}", suite, packages, lambda folder: _llvm_scripts(folder, version)) / "bin"


def fetched(name: str, suite: str, packages: Sequence[str], finish: Callable[[Path], None]) -> Path:
    """A folder with the packages below `root`, and what `finish` adds to it."""
    if shutil.which("apt-get") is None:
        pytest.skip("packages of Debian come by apt")
    folder = default_root() / "test-packages" / f"{name}-{time.strftime('%G-%V')}"
    with Cache().lock(f"test-packages-{name}"):
        if not (folder / "done").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            _fetch(suite, folder, packages)
            finish(folder)
            (folder / "done").touch()
    return folder


def _fetch(suite: str, folder: Path, packages: Sequence[str]) -> None:
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
    for command in (["update"], ["-y", "--download-only", "install", *packages]):
        done = subprocess.run([*apt, *command], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"{suite} cannot be fetched: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
    root = folder / "root"
    for package in (folder / "var/cache/apt/archives").glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, root], check=True)
    shutil.rmtree(folder / "var")


def _script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def _qemu_script(folder: Path) -> None:
    root, libraries = folder / "root", folder / "root/usr/lib/x86_64-linux-gnu"
    program = root / "usr/bin/qemu-system-x86_64"
    # Asked for its devices it loads all modules, this host's QEMU's too, and aborts: those are of another build
    modules = b"\0/usr/lib/x86_64-linux-gnu/qemu\0"
    program.write_bytes(program.read_bytes().replace(modules, b"\0/nowhere".ljust(len(modules), b"\0")))
    _script(
        folder / "qemu",
        f"export QEMU_MODULE_DIR={libraries}/qemu\n"
        f"exec {libraries}/ld-linux-x86-64.so.2 --library-path {libraries}"
        f' {program} -L {root}/usr/share/qemu -L {root}/usr/share/seabios "$@"',
    )


def _llvm_scripts(folder: Path, version: int) -> None:
    """The packages are of this host's release, so that its C library serves them."""
    home = folder / f"root/usr/lib/llvm-{version}"
    libraries = f"{home}/lib:{folder}/root/usr/lib/x86_64-linux-gnu"
    for tool in (home / "bin").iterdir():
        if os.access(tool, os.X_OK) and tool.name.startswith(("clang", "ld.lld", "llvm-")):
            _script(folder / "bin" / tool.name, f'LD_LIBRARY_PATH={libraries} exec {tool} "$@"')
