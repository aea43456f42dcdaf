"""Boot cells: phases that add up, and a clock that repeats to the microsecond however busy the host is."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from click.testing import CliRunner

from acon_nb import boot, initrd, kernel
from acon_nb.boot import unpack
from acon_nb.boot.initrd_trial import try_initrd
from acon_nb.cli import main
from acon_nb.errors import Cancelled, GuestFailed
from acon_nb.progress import CancelToken
from acon_nb.results.store import Store, flat, frame, stamp
from acon_nb.study.host_lock import host_lock
from acon_nb.vm import Clock, End

pytestmark = pytest.mark.system
KINDS = ("ram", "code", "heap", "files", "other")


def run_seen(cell: boot.BootCell) -> boot.BootRun:
    """Boot a cell; again, where QEMU ended before its memory was read, as it may on a busy host."""
    for _ in range(5):
        row = boot.run(cell)
        if row.qemu:
            break
    return row


def test_phases_on_the_hosts_clock_are_in_order(guide_kernel, boot_initrd, tmp_path):
    cell = boot.BootCell(name="guide", kernel=guide_kernel.image, initrd=boot_initrd)
    store = Store(tmp_path)
    rows = [run_seen(cell) for _ in range(2)]
    for row in rows:
        store.add("boot", {**stamp(), **flat(row)})
    assert [row.end for row in rows] == [End.POWERED_OFF] * 2
    for row in rows:
        phases = row.host_ns
        order = ("vmm_start", "kernel_entry", "log", "init", "ready", "end")
        assert sorted(phases, key=phases.__getitem__) == list(order)
        assert phases["vmm_start"] > 0
        assert 0 < row.guest_ns["init"] < row.guest_ns["ready"]
        assert "reset_to_init" not in row.guest_ns
        assert 0 < row.memavailable_bytes < row.memtotal_bytes < cell.memory_bytes
        assert row.memory_line.startswith("Memory: ")
        assert row.qemu["ram_pss_bytes"] > 10 << 20
        assert row.qemu["code_pss_bytes"] > (1 << 20 if row.accelerator == "tcg" else -1)
        assert row.qemu["pss_bytes"] == sum(row.qemu[f"{kind}_pss_bytes"] for kind in KINDS)
        assert sum(row.mem.values()) + row.memavailable_bytes == cell.memory_bytes
        assert abs(row.mem["unsettled_bytes"]) < 1 << 20
        assert row.kernel_release == guide_kernel.version
    loaded = store.load("boot")
    assert len(loaded) == 2
    assert set(loaded["kernel_sha256"]) == {guide_kernel.sha256}
    assert {"host", "cpu_model", "qemu_version", "accelerator", "spec_sha256", "clock", "timestamp"} <= set(loaded)
    assert len(frame([flat(row) for row in rows])) == 2


def test_the_instruction_clock_repeats_with_both_cores_busy(guide_kernel, boot_initrd):
    cell = boot.BootCell(
        name="guide", kernel=guide_kernel.image, initrd=boot_initrd, clock=Clock.INSTRUCTIONS, timeout_s=300
    )
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        first, second = (boot.run(cell) for _ in range(2))
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert first.guest_ns == second.guest_ns
    assert first.guest_ns["init"] % 1000 == 0
    assert first.memory_line == second.memory_line
    assert first.mem == second.mem
    assert sum(first.mem.values()) + first.memavailable_bytes == cell.memory_bytes
    assert first.mem["unsettled_bytes"] == 0


def test_the_seed_is_what_moves_the_random_numbers(guide_kernel, boot_initrd):
    cells = [
        boot.BootCell(
            name=str(seed),
            kernel=guide_kernel.image,
            initrd=boot_initrd,
            clock=Clock.INSTRUCTIONS,
            seed=seed,
            timeout_s=300,
        )
        for seed in (1, 2)
    ]
    first, second = map(boot.run, cells)
    assert first.spec_sha256 != second.spec_sha256
    assert abs(first.guest_ns["init"] - second.guest_ns["init"]) < 5_000_000


def test_debians_own_kernel_boots_with_its_modules(store, tmp_path):
    """Debian 12 has the console's driver as a module, Debian 13 built in; zram is a module in both."""
    distro = kernel.debian_kernel(cache=store)
    modules = kernel.module_closure(distro, (*boot.VIRTIO_MODULES, "zram"), cache=store)
    names = [path.stem for path in modules]
    assert set(boot.VIRTIO_MODULES) <= {*names, *distro.built_in}
    assert names[-1] == "zram"
    made = boot.boot_initrd(tmp_path / "distro.cpio", modules=modules, release=distro.version, store=store)
    tree = initrd.load(made.path)
    tree.add_file("etc/modules", tree["etc/modules"].content.read() + b"zram\n")
    image = initrd.create(tree, tmp_path / "with-zram.cpio")
    row = boot.run(boot.BootCell(name="cloud", kernel=distro.image, initrd=image.path))
    assert row.kernel_release == distro.version
    assert row.host_ns["init"] > 0
    assert any("zram: Added device" in record.text for record in row.log)


def test_microvm_needs_its_own_options_and_then_boots(guide_kernel, boot_initrd, store):
    cell = boot.BootCell(name="guide", kernel=guide_kernel.image, initrd=boot_initrd, machine="microvm")
    with pytest.raises(GuestFailed, match=r"powered off; reached .*entry, awaited a message"):
        boot.run(cell)
    image = kernel.build(kernel.BuildSpec(profiles=("guide", "microvm")), cache=store)
    assert boot.run(replace(cell, kernel=image.image)).host_ns["ready"] > 0


def test_the_command_gives_one_json_object(guide_kernel):
    argv = ["bench", "boot", "--kernel", str(guide_kernel.image), "--clock", "wall", "--runs", "1", "--json"]
    done = CliRunner().invoke(main, argv)
    assert done.exit_code == 0, done.output
    runs = json.loads(done.stdout)["runs"]
    assert set(runs[0]["phases_ns"]) == {"vmm_start", "kernel_entry", "log", "init", "ready", "end"}
    assert runs[0]["end"] == "powered_off"


def test_a_kernel_that_is_none_is_refused(boot_initrd):
    argv = ["bench", "boot", "--kernel", str(boot_initrd), "--clock", "wall", "--runs", "1"]
    done = CliRunner().invoke(main, argv)
    assert done.exit_code == 2
    assert "not a bzImage" in done.stderr


def test_compressors_are_compared_once_and_never_beside_a_wall_clock(guide_kernel, store, tmp_path):
    tree = initrd.tree_of("busybox", cache=store)
    initrd.gen_init(tree)
    out = Store(tmp_path)
    cancel, waits = CancelToken(), []

    def stop_a_wait(event):
        if event.task.startswith("wait for another measurement"):
            waits.append(event)
            cancel.cancel()

    given = {"compressions": ("zst",), "memory": "512M", "store": store, "out": out}
    with host_lock(shared=False), pytest.raises(Cancelled):
        unpack.measure(tree, guide_kernel.image, **given, on_progress=stop_a_wait, cancel=cancel)
    assert len(waits) == 1
    assert out.load("boot").empty
    rows = unpack.measure(tree, guide_kernel.image, **given)
    assert list(rows["compression"]) == ["zst", "none"], "the smallest first"
    packed, plain = rows.to_dict("records")
    assert 0 < packed["image_bytes"] < plain["image_bytes"] == plain["archive_bytes"] == packed["archive_bytes"]
    assert packed["added_init_ns"] > 1_000_000
    assert plain["added_init_ns"] == 0
    assert packed["make_s"] > 0
    again = unpack.measure(tree, guide_kernel.image, **given)
    assert set(again["run_id"]) == set(rows["run_id"]), "nothing was booted again"


def test_a_trial_of_an_initrd_waits_for_its_turn(guide_kernel):
    cancel, waits = CancelToken(), []

    def stop_a_wait(event):
        if event.task.startswith("wait for another measurement"):
            waits.append(event)
            cancel.cancel()

    spec = initrd.InitrdSpec(image="busybox")
    with host_lock(shared=False), pytest.raises(Cancelled):
        try_initrd(guide_kernel.image, spec, on_progress=stop_a_wait, cancel=cancel)
    assert len(waits) == 1
