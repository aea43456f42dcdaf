"""Guests of real parts."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from acon_nb import boot, initrd, kernel, vm
from acon_nb.cache import Cache
from acon_nb.progress import TextProgress


@pytest.fixture(scope="session")
def boot_initrd(store: Cache) -> Path:
    return boot.default_initrd(store)


@pytest.fixture(scope="session")
def host() -> vm.Capabilities:
    return vm.capabilities()


@pytest.fixture(scope="session")
def study_kernel(store: Cache) -> kernel.KernelImage:
    """The kernel of swap studies, built before any time is counted."""
    spec = kernel.BuildSpec(profiles=("guide", "delay-disk", "study"))
    return kernel.build(spec, cache=store, on_progress=TextProgress(every_s=30))


@pytest.fixture(scope="session")
def sharing_kernel(store: Cache) -> kernel.KernelImage:
    """The guide's kernel with 9p over virtio."""
    settings = ("NETWORK_FILESYSTEMS=y", "NET_9P=y", "NET_9P_VIRTIO=y", "9P_FS=y")
    return kernel.build(kernel.BuildSpec(settings=settings), cache=store, on_progress=TextProgress(every_s=30))


@pytest.fixture(scope="session")
def tiny_kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny.S, assembled."""
    folder = tmp_path_factory.mktemp("tiny")
    source = Path(__file__).with_name("tiny.S")
    subprocess.run(["gcc", "-c", "-m32", "-o", folder / "tiny.o", source], check=True)
    argv = ["objcopy", "-O", "binary", "-j", ".text", folder / "tiny.o", folder / "vmlinuz"]
    subprocess.run(argv, check=True)
    return folder / "vmlinuz"


Scripted = Callable[..., vm.VmSpec]


@pytest.fixture
def scripted(guide_kernel: kernel.KernelImage, store: Cache, tmp_path: Path) -> Scripted:
    """A guest whose INIT is a shell script; `$port` is the results port, `report TEXT` writes a line to it."""

    def make(script: str, *, suffix: str = "cpio", **fields: object) -> vm.VmSpec:
        tree = initrd.tree_of("busybox", cache=store)
        initrd.gen_init(tree)
        lines = tree["etc/fstab"].content.read().splitlines(keepends=True)
        # without the default's encrypted swap, whose failure (busybox has no dmsetup) the guest would report
        tree.add_file("etc/fstab", b"".join(line for line in lines if b"vda@" not in line))
        head = (
            "#!/bin/sh\nfor name in /sys/class/virtio-ports/*/name; do\n"
            '  [ "$(cat $name)" = acon.results ] && port=/dev/$(basename $(dirname $name))\ndone\n'
            'report() { echo "$1" > $port; }\n'
        )
        tree.add_file("test/run", (head + script).encode(), mode=0o755)
        image = initrd.create(tree, tmp_path / f"guest.{suffix}")
        values: dict[str, object] = {
            "kernel": guide_kernel.image,
            "initrd": image.path,
            "append": "console=ttyS0 panic=-1 quiet INIT=/test/run",
            "memory_bytes": 256 << 20,
            **fields,
        }
        return vm.VmSpec(**values)  # type: ignore[arg-type]

    return make
