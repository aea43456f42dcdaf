from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from acon_nb import kernel
from acon_nb.cache import Cache
from acon_nb.progress import TextProgress

# What takes longest, the longest first (`pytest --durations=0`, summed by file).
LONGEST = (
    "tests/system/test_swap_study.py",
    "tests/notebooks/test_tour.py",
    "tests/system/test_kernel.py",
    "tests/notebooks/test_memory_compression.py",
    "tests/system/test_cluster.py",
    "tests/browser/test_swap_study.py",
    "tests/system/test_guest.py",
    "tests/system/test_boot_inside.py",
    "tests/system/test_engine.py",
    "tests/system/test_launch.py",
)

# A user's PATH on Debian has no sbin, where mkswap, dockerd and debootstrap are: tests find what is installed.
os.environ["PATH"] = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])

# A shell without job control starts jobs in its background with ^C ignored, and all that they start ignores it, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what runs once a week, and let several workers end at about the same time."""
    if not os.environ.get("ACON_NB_WEEKLY"):
        for item in items:
            if item.get_closest_marker("weekly"):
                item.add_marker(pytest.mark.skip(reason="once a week: make test-weekly"))
    if missing := [name for name in LONGEST if not (config.rootpath / name).is_file()]:
        raise pytest.UsageError(f"tests/conftest.py: LONGEST names {', '.join(missing)}, which does not exist")
    if hasattr(config, "workerinput"):  # a worker of pytest-xdist
        items.sort(key=_start)


def _start(item: pytest.Item) -> int:
    """When a file is begun: a long one that a worker began last would keep it busy while the others are idle."""
    name = item.nodeid.partition("::")[0]
    if name in LONGEST:
        return LONGEST.index(name)
    return len(LONGEST) + (item.get_closest_marker("system") is None)


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
