from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from acon_nb import kernel
from acon_nb.cache import Cache
from acon_nb.progress import TextProgress


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that take minutes and hardly ever change their mind run where they are asked for."""
    if os.environ.get("ACON_NB_WEEKLY"):
        return
    for item in items:
        if item.get_closest_marker("weekly"):
            item.add_marker(pytest.mark.skip(reason="once a week: make test-weekly"))


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    place = tmp_path / "small-disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", place], check=False).returncode:
        pytest.skip("this host does not let us mount a small disk")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.fixture(scope="session")
def store() -> Cache:
    """The user cache, in which real parts are built once (a first run compiles a kernel: 5 minutes)."""
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("qemu-system-x86_64 is missing (tools/setup.sh test)")
    return Cache()


@pytest.fixture(scope="session")
def guide_kernel(store: Cache) -> kernel.KernelImage:
    return kernel.build(kernel.BuildSpec(profiles=("guide",)), cache=store, on_progress=TextProgress(every_s=30))
