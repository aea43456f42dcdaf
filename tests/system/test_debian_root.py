"""The README's first command on fresh Debian systems: roots made by debootstrap, as root and as a user without sudo."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools/debian-root.sh"
TOUR_S = 3600
Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = [pytest.mark.system, pytest.mark.weekly]


@pytest.fixture(params=["bookworm", "trixie"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Run]:
    """Runs a command in a root of a release that is kept for the test."""
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        pytest.skip("root and debootstrap make a Debian root (tools/setup.sh weekly)")
    root = tmp_path / "root"

    def run(*argv: str | Path, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
        options, command = argv[: argv.index("--")], argv[argv.index("--") + 1 :]
        whole = [SCRIPT, "--keep", root, *options, request.param, *command]
        return subprocess.run(whole, capture_output=True, text=True, timeout=timeout_s, check=False)

    yield run
    shutil.rmtree(root)


def test_the_tour_runs_on_a_fresh_debian_as_root_and_as_a_user(run: Run, tmp_path: Path) -> None:
    """A user of a fresh system is given the command that root has to run; then both get their report."""
    refused = run("--user", "--", "make", "tour")
    assert refused.returncode != 0
    assert "Have root run this" in refused.stderr
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("    ")]
    assert run("--", "sh", "-c", line).returncode == 0
    for options in ((), ("--user",)):
        done = run("--cache", tmp_path / "cache", *options, "--", "make", "tour", timeout_s=TOUR_S)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "report: reports/tour.html" in done.stdout
        report = run(*options, "--", "cat", "reports/tour.html")
        assert "zswap" in report.stdout


def test_what_runs_in_a_root_ends_with_its_command(run: Run, tmp_path: Path) -> None:
    """Mounts and processes are gone, the status is the command's, and a user is a user who can have a terminal."""
    done = run("--user", "--", "sh", "-c", 'sleep 1234567 & script -q -e -c "id -u" /dev/null; exit 7')
    assert (done.returncode, done.stdout.split()) == (7, ["1000"]), done.stderr
    processes = subprocess.run(["ps", "ax", "-o", "args"], capture_output=True, text=True, check=True)
    assert "sleep 1234567" not in processes.stdout.splitlines()
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
    engine = run("--", "unshare", "--mount", "true")  # what a container engine does first: it needs / to be mounted
    assert engine.returncode == 0, engine.stderr


def test_what_runs_in_a_root_ends_when_the_script_is_ended(tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        pytest.skip("root and debootstrap make a Debian root (tools/setup.sh weekly)")
    argv = [SCRIPT, "trixie", "sh", "-c", "echo began; sleep 7654321"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment) as script:
        assert script.stdout is not None
        assert script.stdout.readline() == "began\n"
        script.terminate()
        assert script.wait(120) == 143
    processes = subprocess.run(["ps", "ax", "-o", "args"], capture_output=True, text=True, check=True)
    assert "sleep 7654321" not in processes.stdout.splitlines()
    assert list(tmp_path.iterdir()) == []
