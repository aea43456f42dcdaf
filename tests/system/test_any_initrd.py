"""Any initrd on any kernel is measured: made by the command or by hand, compressed or not, whatever its init does."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from acon_nb import boot, initrd
from acon_nb.boot import memory
from acon_nb.cli import main
from acon_nb.errors import GuestFailed
from acon_nb.study.kinds import study_of
from acon_nb.study.plan import Plan
from acon_nb.vm import End

pytestmark = pytest.mark.system

# An init that never ends: it is a script, and tells in each way that it is up.
SCRIPT = """#!/bin/sh
[ -e /acon ] && echo "a folder was left"
[ "$$ $0 $*" = "1 $1 single" ] || echo "started as $$ $0 $*"
mkdir -p /proc /sys /dev
mount -t proc proc /proc
[ "$(grep -c acon /proc/mounts)" = 0 ] || echo "a mount was left"
ls /proc/self/fd | grep -q '[4-9]' && echo "a descriptor was left"
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
ifconfig eth0 10.0.2.15
echo "service is up"
for name in /sys/class/virtio-ports/*/name; do
    [ "$(cat $name)" = acon.results ] && echo '{"event":"ready"}' >/dev/$(basename $(dirname $name))
done
mkdir -p /www
httpd -p 8080 -h /www
exec sleep 1000000
"""


@pytest.fixture(scope="module")
def script_initrd(store, tmp_path_factory):
    """The script as /init and as /sbin/myinit, with busybox, and neither an fstab nor a device node."""
    tree = initrd.tree_of("busybox", cache=store)
    for name in ("init", "sbin/myinit"):
        tree.add_file(name, SCRIPT.encode(), mode=0o755)
    return initrd.create(tree, tmp_path_factory.mktemp("script") / "initrd.cpio.zst").path


def test_the_walk_of_a_user_an_initrd_of_the_command_is_measured(guide_kernel, tmp_path):
    image = tmp_path / "i.cpio"
    done = CliRunner().invoke(main, ["initrd", "from", "busybox", "-o", str(image)])
    assert done.exit_code == 0, done.output
    argv = ["bench", "boot", "--kernel", str(guide_kernel.image), "--initrd", str(image), "--clock", "instructions"]
    done = CliRunner().invoke(main, [*argv, "--runs", "2", "--json"])
    assert done.exit_code == 0, done.output
    first, second = json.loads(done.stdout)["runs"]
    assert (first["end"], first["ready"], first["error"]) == ("ready", "init", "")
    assert {"log", "init", "reset_to_log", "reset_to_init"} - {"log"} == set(first["phases_ns"])
    assert first["phases_ns"] == second["phases_ns"]
    assert first["report_ns"] == second["report_ns"] > 0
    assert memory.is_known(first)
    assert first["initrd_bytes"] == image.stat().st_size
    assert first["initrd_sha256"] != first["booted_initrd_sha256"]


def test_the_report_costs_what_comes_before_init_its_unpacking_alone(guide_kernel, boot_initrd):
    """The same initrd as it is, and with the report before it: what differs is an archive of a few files."""
    cells = [
        boot.BootCell(
            name="x",
            kernel=guide_kernel.image,
            initrd=boot_initrd,
            ready=ready,
            clock="instructions",
            timeout_s=300,
        )
        for ready in ("", "init")
    ]
    own, wrapped = map(boot.run, cells)
    assert own.end is End.POWERED_OFF
    assert wrapped.end is End.READY
    assert own.booted_initrd_sha256 == own.initrd_sha256 == wrapped.initrd_sha256
    assert abs(wrapped.guest_ns["reset_to_init"] - own.guest_ns["reset_to_init"]) < 500_000


def test_every_rule_and_an_init_elsewhere(guide_kernel, script_initrd, tmp_path):
    plan = Plan(
        name="rules",
        study="boot",
        cells=[
            {"ready": "console:^service is up"},
            {"ready": "message"},
            {"ready": "port:8080"},
            {"ready": "console:^service is up", "cmdline": "rdinit=/sbin/myinit"},
        ],
        fixed={
            "kernel": str(guide_kernel.image), "initrd": f"file:{script_initrd}", "clock": "wall",
            "append": "console=ttyS0 panic=-1 quiet single",
        },
        runs=1,
        warmups=0,
    )  # fmt: skip
    rows = study_of(plan, tmp_path).run()
    assert list(rows["end"]) == ["ready"] * 4, rows[["cell", "end", "error"]].to_string()
    assert list(rows["ready"]) == [cell["ready"] for cell in plan.cells]
    assert not rows["error"].any()
    for row in rows.to_dict("records"):
        text = (tmp_path / row["log"]).read_text()
        assert "was left" not in text
        assert row["host_ns_kernel_entry"] < row["host_ns_log"] < row["host_ns_init"] < row["host_ns_end"]
        assert row["host_ns_init"] < row["host_ns_ready"] < row["host_ns_end"]
        assert row["report_ns"] > 0


def test_a_kernel_without_a_virtio_console_leaves_columns_empty_and_never_hangs(guide_kernel, script_initrd):
    """On microvm the guide's kernel finds no device: it has no virtio-mmio."""
    cell = boot.BootCell(name="micro", kernel=guide_kernel.image, initrd=script_initrd, machine="microvm")
    row = boot.run(cell)
    assert (row.end, row.ready) == (End.READY, "init")
    assert row.memavailable_bytes is None
    assert row.guest_ns == {}
    assert row.host_ns["kernel_entry"] < row.host_ns["ready"] < row.host_ns["end"]


def test_a_guest_that_does_not_become_ready_says_how_far_it_came(guide_kernel, script_initrd, tmp_path):
    cell = boot.BootCell(
        name="x",
        kernel=guide_kernel.image,
        initrd=script_initrd,
        clock="instructions",
        ready="console:no such line",
        timeout_s=15,
    )
    with pytest.raises(GuestFailed, match=r"hang; reached /init, awaited a line on the console that matches 'no such"):
        boot.run(cell)
    tree = initrd.FileTree()
    tree.add_file("init", b"#!/no/such/shell\n", mode=0o755)
    broken = initrd.create(tree, tmp_path / "broken.cpio").path
    with pytest.raises(GuestFailed, match="panic; /init or its interpreter cannot be executed"):
        boot.run(replace(cell, initrd=broken, ready="init", timeout_s=60))
