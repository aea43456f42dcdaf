"""The package as users install it: a wheel made from the sdist, in an environment of its own, far from any checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel made from what the sdist holds, not from the checkout."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run([*build, "-t", "sdist"], cwd=ROOT, capture_output=True, check=True)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (unpacked,) = (path for path in folder.iterdir() if path.is_dir())
    subprocess.run([*build, "-t", "wheel"], cwd=unpacked, capture_output=True, check=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run the `acon-nb` of a new environment, with the libraries of this one, in an empty folder."""
    folder = tmp_path_factory.mktemp("installed")
    environment = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    site = Path(environment, sysconfig.get_path("purelib", vars={"base": ""}).lstrip("/"))
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(environment / "bin/python"), "install", "-q"]
    subprocess.run([*pip, "--no-deps", "--no-index", str(wheel)], check=True, capture_output=True)
    work = folder / "work"
    work.mkdir()
    environ = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}

    def run(
        *arguments: str, program: str = "acon-nb", timeout: int = 120, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [environment / "bin" / program, *arguments],
            cwd=work, env=environ | variables, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done

    place = run("-c", "import acon_nb; print(acon_nb.__file__)", program="python").stdout
    assert place.startswith(str(environment)), place
    return run


def test_its_version_and_what_the_host_can_do(installed: Run) -> None:
    assert installed("--version").stdout.split()[-1].count(".") == 2
    assert json.loads(installed("doctor", "--json").stdout)["ok"]


def test_its_notebooks_are_copied(installed: Run) -> None:
    installed("notebooks", "mine")
    copied = installed("-c", "import os; print(*os.listdir('mine'))", program="python").stdout.split()
    assert sorted(copied) == sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))


def test_its_plans_and_set_ups_are_there(installed: Run) -> None:
    assert "kernel=build" in installed("bench", "study", "kernels", "--dry-run").stdout
    assert "zram-lz4" in installed("bench", "setups").stdout


def test_a_guest_boots_and_is_counted(installed: Run, guide_kernel) -> None:
    """With the programs and the plugin that it compiles from the sources in the wheel."""
    arguments = ["--kernel", str(guide_kernel.image), "--clock", "instructions", "--runs", "1", "--json"]
    (run,) = json.loads(installed("bench", "boot", *arguments).stdout)["runs"]
    assert run["end"] == "powered_off"
    assert run["parts"]["executed"] > 0


def test_a_command_runs_in_a_guest(installed: Run, guide_kernel) -> None:
    installed("initrd", "from", "busybox", "-o", "guest.cpio")
    done = installed("run", str(guide_kernel.image), "--exec", "echo from the guest", RD="guest.cpio")
    assert done.stdout == "from the guest\n"


@pytest.mark.weekly
def test_the_tour_is_walked(installed: Run) -> None:
    done = installed("tour", "-p", "wall_runs", "1", "-p", "instruction_runs", "1", timeout=1800)
    assert "report: reports/tour.html" in done.stdout
