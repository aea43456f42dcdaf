"""Modules in profiles of real guests: each instruction is of the function that the guest's own kallsyms names."""

from __future__ import annotations

import bisect
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from acon_nb import boot, initrd, kernel
from acon_nb.boot import BootCell, profiling
from acon_nb.cache import Cache
from acon_nb.profile import Region, sources
from acon_nb.profile.counts import MODULES
from acon_nb.progress import TextProgress
from acon_nb.vm import Clock, Machine, capabilities

pytestmark = [pytest.mark.system, pytest.mark.weekly]
SCRIPT = """#!/bin/sh
for name in /sys/class/virtio-ports/*/name; do
  [ "$(cat $name)" = acon.results ] && port=/dev/$(basename $(dirname $name))
done
modprobe zram
echo 16777216 > /sys/block/zram0/disksize
dd if=/dev/zero of=/dev/zram0 bs=4096 count=8
dd if=/bin/busybox of=/dev/zram0 bs=4096 count=300
dd if=/dev/zram0 of=/dev/null bs=4096 count=300
sed -n 's/\\t/ /; /\\[/ s/.*/{"symbol": "&"}/p' /proc/kallsyms > $port
"""


@pytest.fixture(scope="module")
def with_zram(store: Cache) -> kernel.KernelImage:
    settings = ("MODULES=y", "ZRAM=m", "KALLSYMS=y")
    spec = kernel.BuildSpec(profiles=("guide",), settings=settings)
    return kernel.build(spec, cache=store, on_progress=TextProgress(every_s=30))


def test_instructions_of_modules_are_of_the_functions_that_the_guest_names(
    with_zram: kernel.KernelImage, store: Cache, tmp_path: Path
) -> None:
    files = kernel.module_closure(kernel.built_kernel(with_zram), ["zram"], cache=store)
    made = boot.boot_initrd(tmp_path / "one.cpio", modules=files, release=with_zram.version, store=store)
    tree = initrd.load(made.path)
    tree.add_file("test/run", SCRIPT.encode(), mode=0o755)
    image = initrd.create(tree, tmp_path / "two.cpio").path
    cell = BootCell(name="zram", kernel=with_zram.image, initrd=image, clock=Clock.INSTRUCTIONS, timeout_s=900)
    append = cell.spec().append.replace("rdinit=/acon/init ", "") + " INIT=/test/run"
    spec = replace(cell.spec(), initrd=image, append=append)
    functions = sources.functions(with_zram.image).with_initrds(image)
    with Machine(spec, host=capabilities(), count_by=functions.starts(), programs=True) as machine:
        outcome = machine.wait().check()
    known: dict[int, tuple[str, str]] = {}
    for message in outcome.messages:
        address, kind, name, module = message.data["symbol"].split()
        if kind in "tT":
            known[int(address, 16)] = name, module.strip("[]")
    assert {"zram"} <= {module for _, module in known.values()}
    starts = sorted(known)

    ran = outcome.snapshots[-1].modules
    names = functions.modules.names(ran)
    compared: Counter[str] = Counter()
    for (address, code), (name, path) in names.items():
        at = bisect.bisect_right(starts, address) - 1
        if at >= 0 and address - starts[at] < 1 << 16:  # else it ran as the module was loaded, and is gone
            module = Path(path).name.partition(".")[0].replace("-", "_")
            assert (name, module) == known[starts[at]]
            compared[name] += ran[address, code]
    assert {"zram_submit_bio", "disksize_store"} <= compared.keys()
    named = sum(ran[one] for one in names)
    assert named > 0.99 * sum(ran.values())
    assert sum(compared.values()) > 0.9 * named


def test_a_profile_of_debians_kernel_names_its_modules(store: Cache, tmp_path: Path) -> None:
    distro = kernel.debian_kernel(cache=store)
    files = kernel.module_closure(distro, (*boot.VIRTIO_MODULES, "zram"), cache=store)
    made = boot.boot_initrd(tmp_path / "one.cpio", modules=files, release=distro.version, store=store)
    tree = initrd.load(made.path)
    tree.add_file("etc/modules", tree["etc/modules"].content.read() + b"zram\n")
    image = initrd.create(tree, tmp_path / "two.cpio").path
    cell = BootCell(name="cloud", kernel=distro.image, initrd=image, clock=Clock.INSTRUCTIONS, timeout_s=1800)
    profile = profiling.profile(cell, until="ready", calls=True)
    assert profile.unattributed == 0
    rows = [one for one in profile.functions if one.region is Region.MODULE]
    assert {"zram_add", "virtio_pci_probe"} <= {one.name for one in rows}
    assert all("/lib/modules/" in one.file for one in rows if one.name != MODULES)
    whole = sum(one.self_count for one in rows)
    assert sum(one.self_count for one in rows if one.name == MODULES) < 0.02 * whole
    assert whole == sum(count for stack, count in profile.stacks.items() if stack[-1] == MODULES)
