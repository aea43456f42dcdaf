"""The simulated disk, by Debian's fio in a guest on the instruction clock: each preset, against the model's formula."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from acon_nb import initrd, vm
from acon_nb.swap.cell import SwapCell
from acon_nb.swap.disk import DiskSpeed
from acon_nb.swap.factors import SwapFactors

pytestmark = pytest.mark.system

DILATION = 12.0
KIB = 1 << 10
# By name: fio's rw, bytes, depth
JOBS = {
    **{f"randread-{depth}": ("randread", 4 * KIB, depth) for depth in (1, 4, 32)},
    **{f"randwrite-{depth}": ("randwrite", 4 * KIB, depth) for depth in (1, 4, 32)},
    "read-32k": ("read", 32 * KIB, 16),  # a cluster of swap's read-ahead
    "read-128k": ("read", 128 * KIB, 16),
    "write-128k": ("write", 128 * KIB, 16),
}
SCRIPT = """#!/bin/sh
for name in /sys/class/virtio-ports/*/name; do
	[ "$(cat $name)" = acon.results ] && port=/dev/$(basename $(dirname $name))
done
if ! fio --output-format=json /test/jobs >/run/out 2>/run/errors; then
	echo "{\\"errors\\":\\"$(tr '"\\n' "' " </run/errors)\\"}" >$port
fi
tr -d '\\n' </run/out >$port
echo >$port
poweroff -f
sleep 9
"""


def requests_per_s(speed: DiskSpeed, rw: str, size: int, depth: int) -> float:
    """What docs/swap.md says that a disk does on hardware."""
    rates = speed.write if "write" in rw else speed.read

    def hold(count: int) -> float:
        gap = 1 / rates.iops if rates.iops else 0.0
        return max(gap, count / rates.bandwidth_bytes_per_s if rates.bandwidth_bytes_per_s else 0.0)

    time = max(rates.latency_ns / 1e9, hold(4096)) - hold(4096) + hold(size)
    if speed.seek:
        return 1 / time if "rand" in rw else rates.bandwidth_bytes_per_s / size
    return min(min(depth, speed.queue) / time, 1 / hold(size) if hold(size) else math.inf)


def jobs_file(speed: DiskSpeed) -> str:
    """fio's jobs, one after another: each long enough for its ms, and for the disk to fill its queue and empty it."""
    lines = ["[global]", "ioengine=libaio", "direct=1", "filename=/dev/delay", "thread=1", "norandommap=1"]
    lines += ["clocksource=clock_gettime", "disable_clat=1", "disable_slat=1", "lat_percentiles=0"]
    for name, (rw, size, depth) in JOBS.items():
        count = math.ceil(max(30 * depth, 0.15 * requests_per_s(speed, rw, size, depth) / DILATION))
        if speed.seek and "rand" not in rw:
            count = (96 << 20) // size  # until the way to the first sector no longer counts
        lines += [f"[{name}]", "stonewall", f"rw={rw}", f"bs={size}", f"iodepth={depth}", f"number_ios={count}"]
    return "\n".join(lines) + "\n"


def fio_of(kernel: Path, factors: SwapFactors, store, folder: Path, host) -> dict[str, dict]:
    """fio's results by job."""
    tree = initrd.tree_of("busybox+fio", cache=store)
    initrd.gen_init(tree)
    tree.add_file(
        "etc/fstab", b"devtmpfs /dev devtmpfs nosuid 0 0\nsysfs /sys sysfs nosuid 0 0\ntmpfs /run tmpfs 0 0\n"
    )
    tree.add_file("test/run", SCRIPT.encode(), mode=0o755)
    tree.add_file("test/jobs", jobs_file(factors.disk_speed).encode())
    image = initrd.create(tree, folder / "fio.cpio")
    cell = SwapCell(factors=factors, kernel=kernel, initrd=image.path, disk_dilation=DILATION)
    words = [word for word in cell.spec(1).append.split() if not word.startswith(("acon_cell=", "INIT="))]
    spec = vm.VmSpec(
        kernel=kernel,
        initrd=image.path,
        append=" ".join([*words, "INIT=/test/run"]),
        memory_bytes=768 << 20,
        clock=vm.Clock.INSTRUCTIONS,
        timeout_s=300,
    )
    outcome = vm.boot(spec, host=host).check()
    said = [message.data for message in outcome.messages]
    assert not [row["errors"] for row in said if "errors" in row]
    return {job["jobname"]: job for row in said if "jobs" in row for job in row["jobs"]}


DISKS = {
    **{name: {"disk_preset": name} for name in ("nvme", "hdd", "nvme-server", "sata-ssd", "cloud-3000", "emmc")},
    "by factors": {"disk_latency": "600us", "disk_iops": 3000, "disk_bandwidth": "40M", "disk_queue": 3},
}
WEEKLY = ("nvme-server", "sata-ssd", "cloud-3000", "emmc")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.weekly) if name in WEEKLY else name for name in DISKS]
)
def test_fio_finds_the_disk_that_is_declared(name, study_kernel, store, tmp_path, host):
    factors = SwapFactors(**DISKS[name], disk_size="128M")
    jobs = fio_of(study_kernel.image, factors, store, tmp_path, host)
    assert set(jobs) == set(JOBS)
    found = {}
    for job, (rw, size, depth) in JOBS.items():
        rate = jobs[job]["write" if "write" in rw else "read"]["iops"] * DILATION
        found[job] = rate / requests_per_s(factors.disk_speed, rw, size, depth)
    assert found == {job: pytest.approx(1, abs=0.05) for job in JOBS}
