"""A plan on real workers, processes of their own, with real guests: a worker and a driver are killed, no VM stays."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from acon_nb.results.select import usable
from acon_nb.results.store import Store
from acon_nb.study.cluster import DaskPool, cluster_study_of, connect
from acon_nb.study.kinds import study_of
from acon_nb.study.plan import Plan
from acon_nb.swap.experiment import determinism

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def mark() -> str:
    """In the environment of the workers, and so of their guests."""
    return f"ACON_TEST_CLUSTER={os.getpid()}"


@pytest.fixture(scope="module")
def cluster(mark: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    name, value = mark.split("=")
    env = {name: value, "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("worker-cache"))}
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address=None,
        resources={"vm": 1},
        env=env,
        silence_logs=50,
    ) as made:
        yield made


@pytest.fixture
def pool(cluster: Any) -> Iterator[DaskPool]:
    with connect(cluster.scheduler_address) as client:
        client.wait_for_workers(2, timeout=600)
        yield DaskPool(client)


@pytest.fixture
def hanging(tiny_kernel: Path, boot_initrd: Path) -> Callable[..., Plan]:
    """A plan of guests that hang until their time is up."""

    def make(**values: Any) -> Plan:
        fixed = {"kernel": str(tiny_kernel), "initrd": f"file:{boot_initrd}", "append": "h", "memory": "32M"}
        return Plan(
            name="hanging",
            study="boot",
            fixed={**fixed, "clock": "wall", "timeout_s": 1.0, **values},
            runs=3,
            warmups=0,
        )

    return make


def guests(mark: str) -> set[int]:
    """The QEMUs of the workers."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            ours = mark.encode() in path.read_bytes().split(b"\0")
            if ours and b"qemu" in (path.parent / "cmdline").read_bytes().split(b"\0")[0]:
                found.add(int(path.parent.name))
        except OSError:
            continue
    return found


def until(condition: Callable[[], bool], seconds: float = 300.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def worker_of(guest: int) -> int:
    """The worker process whose child's child a guest is: its supervisor's parent."""
    parent = guest
    for _ in range(2):
        parent = int(Path(f"/proc/{parent}/stat").read_text().rsplit(")", 1)[1].split()[1])
    return parent


def test_counted_runs_on_the_cluster_are_those_of_one_host(
    pool: DaskPool, guide_kernel: Any, boot_initrd: Path, tmp_path: Path
) -> None:
    fixed = {"kernel": str(guide_kernel.image), "initrd": f"file:{boot_initrd}"}
    plan = Plan(name="boots", study="boot", fixed=fixed, runs=3)
    rows = cluster_study_of(plan, tmp_path, pool).run()
    assert list(rows["end"]) == ["powered_off"] * 3
    assert rows["guest_ns_reset_to_init"].nunique() == 1
    assert rows["worker"].nunique() == 2
    more = Plan(name="boots", study="boot", fixed=fixed, runs=4)
    here = study_of(more, tmp_path)
    rows = here.run()
    assert here.state.cells[0].kept == 3
    assert rows["guest_ns_reset_to_init"].nunique() == 1  # the host's own, too


def test_a_swap_study_on_the_cluster_gives_what_one_host_gives_bit_for_bit(pool: DaskPool, tmp_path: Path) -> None:
    """Its files travel: kernel, initrd, the calibration; the workers' cache is another one than the driver's."""
    fixed = {"memory": "64M", "workload": "anon", "accesses": 500, "samples": 5, "data": "like-redis+zero:1"}
    plan = Plan(name="swaps", study="swap", fixed=fixed, factors={"swap": ["disk"]}, runs=1, warmups=0)
    there = cluster_study_of(plan, tmp_path / "there", pool).run()
    assert list(there["end"]) == ["powered_off"] * 3, list(there["error"])
    assert list(there["corrupt_pages"].dropna().unique()) == [0]
    assert there["worker"].nunique() == 2
    assert set(determinism(there)["same"]) == {True}
    here = study_of(plan, tmp_path / "here").run()
    assert sums(here) == sums(there)


def sums(rows: Any) -> dict[str, str]:
    counted = rows[rows["factor_workload"] != "codec"]
    return dict(zip(counted["cell"], counted["counters_sha256"], strict=True))


def test_a_worker_killed_in_mid_run_leaves_no_vm_and_its_run_is_done_again(
    pool: DaskPool, hanging: Callable[..., Plan], mark: str, tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill() -> None:
        until(lambda: len(Store(tmp_path).load("boot")) == 1 and bool(guests(mark)))
        (guest,) = guests(mark)
        os.kill(worker_of(guest), signal.SIGKILL)
        killed.append(guest)

    killer = threading.Thread(target=kill)
    killer.start()
    rows = cluster_study_of(hanging(timeout_s=3.0), tmp_path, pool).run()
    killer.join()
    (lost,) = rows[rows["host_fault"] != ""].to_dict("records")
    assert (lost["host_fault"], lost["error"]) == ("worker_lost", f"the worker {lost['worker']} was lost")
    done = rows[rows["host_fault"] == ""]
    assert (len(done), done["run_key"].nunique(), set(done["end"])) == (3, 3, {"hang"})
    (again,) = done[done["run_key"] == lost["run_key"]].to_dict("records")
    assert (lost["attempt"], again["attempt"]) == (1, 2)
    assert lost["worker"] != again["worker"]
    assert usable(rows)[1].host_faults == 1
    assert killed
    assert until(lambda: not guests(mark))


def test_a_driver_that_is_killed_leaves_no_vm(
    pool: DaskPool, cluster: Any, hanging: Callable[..., Plan], mark: str, tmp_path: Path
) -> None:
    plan = hanging(clock="instructions", timeout_s=300.0)
    text = (
        "import json, sys\nfrom pathlib import Path\n"
        "from acon_nb.study.cluster import *\nfrom acon_nb.study.plan import Plan\n"
        "pool = DaskPool(connect(sys.argv[1]))\n"
        "cluster_study_of(Plan(**json.loads(sys.argv[2])), Path(sys.argv[3]), pool).run()\n"
    )
    asked = json.dumps({"name": "hanging", "study": "boot", "fixed": dict(plan.fixed), "runs": 4})
    argv = [sys.executable, "-c", text, cluster.scheduler_address, asked, str(tmp_path)]
    for number in (signal.SIGKILL, signal.SIGINT):
        # A shell starts what runs in its background with SIGINT ignored, and all below inherit that.
        listens = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        driver = subprocess.Popen(argv, preexec_fn=listens, **silent)
        try:
            # Of its two, the second may wait for a measurement of another test that waits to be alone on the host.
            assert until(lambda: bool(guests(mark)))
            driver.send_signal(number)
            driver.wait(300)
        finally:
            driver.kill()
        assert until(lambda: not guests(mark))


def test_the_command_shows_the_hosts_and_measures(
    cluster: Any, tiny_kernel: Path, boot_initrd: Path, tmp_path: Path
) -> None:
    plan = tmp_path / "resets.toml"
    plan.write_text(
        f'study = "boot"\nruns = 2\n[fixed]\nkernel = "{tiny_kernel}"\ninitrd = "file:{boot_initrd}"\n'
        'clock = "instructions"\nmemory = "32M"\n[factors]\nappend = ["r", "p"]\n'
    )
    argv = [sys.executable, "-m", "acon_nb.cli", "bench", "cluster", plan, "--scheduler", cluster.scheduler_address]
    argv += ["--out", tmp_path / "out", "--json"]
    shown = subprocess.run([*argv, "--dry-run"], capture_output=True, text=True, check=True)
    seen = json.loads(shown.stdout)
    assert list(seen["hosts"].values()) == [1]
    assert [cell["runs"] for cell in seen["cells"]] == [2, 2]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1  # these guests do not report
    found = json.loads(done.stdout)
    assert [row["end"] for row in found["runs"]] == ["reset"] * 2 + ["powered_off"] * 2
    assert found["duplicates"] == 0
    assert "100 %  4 of 4 runs" in done.stderr
