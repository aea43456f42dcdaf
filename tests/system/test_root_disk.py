"""A root of dm-verity in guests: it boots without an initrd, leaves the memory free, and a changed byte is EIO."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from acon_nb import initrd, kernel, vm
from acon_nb.cache import Cache
from acon_nb.initrd import root_disk
from acon_nb.progress import TextProgress

pytestmark = [pytest.mark.system, pytest.mark.weekly]

BLOB_BYTES = 32 << 20
SCRIPT = """#!/bin/sh
for name in /sys/class/virtio-ports/*/name; do
	[ "$(cat $name)" = acon.results ] && port=/dev/$(basename $(dirname $name))
done
while read -r name value _; do [ "$name" = MemAvailable: ] && available=$value; done </proc/meminfo
read -r _ point type _ </proc/mounts
sum=$(sha256sum /test/blob 2>/run/errors)
touch /written 2>/dev/null && written=true || written=false
echo "{\\"available_kib\\":$available,\\"type\\":\\"$type\\",\\"written\\":$written,\\"sum\\":\\"${sum%% *}\\",\\
\\"errors\\":\\"$(cat /run/errors)\\"}" >$port
poweroff -f
sleep 9
"""


@pytest.fixture(scope="module")
def image(store: Cache) -> kernel.KernelImage:
    spec = kernel.BuildSpec(profiles=("guide", "verity-root"))
    return kernel.build(spec, cache=store, on_progress=TextProgress(every_s=30))


def tree(store: Cache) -> initrd.FileTree:
    files = initrd.tree_of("busybox", cache=store)
    initrd.gen_init(files)
    files.add_file("test/blob", random.Random(1).randbytes(BLOB_BYTES))
    files.add_file("test/run", SCRIPT.encode(), mode=0o755)
    return files


def boot(image: kernel.KernelImage, append: str, **fields: object) -> dict[str, object]:
    words = f"console=ttyS0 panic=-1 quiet INIT=/test/run {append}".strip()
    spec = vm.VmSpec(kernel=image.image, append=words, memory_bytes=256 << 20, timeout_s=200, **fields)  # type: ignore[arg-type]
    with vm.Machine(spec, host=vm.capabilities()) as machine:
        machine.start()
        outcome = machine.wait().check()
    answers = [message.data for message in outcome.messages if "available_kib" in message.data]
    assert len(answers) == 1, outcome
    return dict(answers[0])


@pytest.mark.parametrize("kind", root_disk.FILESYSTEMS)
def test_it_boots_read_only_and_a_changed_byte_is_an_error(
    kind: str, image: kernel.KernelImage, store: Cache, tmp_path: Path
) -> None:
    if missing := root_disk.missing_tools(kind):
        pytest.skip(f"missing: {', '.join(missing.values())}")
    disk = root_disk.create_root(tree(store), tmp_path / "root.raw", kind)
    answer = boot(image, disk.append, disks=(vm.DiskSpec(path=disk.path),))
    assert (answer["type"], answer["written"], answer["errors"]) == (kind, False, "")

    in_memory = initrd.create(tree(store), tmp_path / "initrd.cpio")
    other = boot(image, "", initrd=in_memory.path)
    assert answer["sum"] == other["sum"]
    saved = (int(str(answer["available_kib"])) - int(str(other["available_kib"]))) << 10
    assert saved > BLOB_BYTES * 0.9, (kind, answer, other)

    raw = disk.path.read_bytes()
    sample = random.Random(1).randbytes(BLOB_BYTES)[BLOB_BYTES // 2 :][:64]
    place = raw.find(sample)
    assert 0 < place < disk.data_bytes
    changed = shutil.copyfile(disk.path, tmp_path / "changed.raw")
    with changed.open("r+b") as file:
        file.seek(place)
        file.write(bytes([sample[0] ^ 1]))
    broken = boot(image, disk.append, disks=(vm.DiskSpec(path=changed),))
    assert broken["sum"] == ""
    assert "Input/output error" in str(broken["errors"])
