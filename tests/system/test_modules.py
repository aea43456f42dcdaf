"""The lists of kernel modules in an initrd: as depmod writes them, and as kmod's modprobe reads them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from acon_nb import boot, initrd, kernel
from acon_nb.cache import Cache
from acon_nb.host import apt
from acon_nb.initrd import module_index
from acon_nb.vm import End

pytestmark = pytest.mark.system
MODULES = ("virtio_pci", "virtio_console", "zram", "dm_integrity", "vsock", "loop", "fuse", "tun")
LISTS = ("modules.alias", "modules.softdep", "modules.devname")


class Kmod:
    """kmod's programs, from its Debian packages."""

    def __init__(self, store: Cache) -> None:
        roots = [apt.unpack(name, cache=store).root for name in ("kmod", "libkmod2")]
        self._program = next(path for name in ("bin/kmod", "usr/bin/kmod") if (path := roots[0] / name).exists())
        libraries = {path.parent for path in roots[1].rglob("libkmod.so.2")}
        self._environment = {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries))}

    def run(self, name: str, *arguments: str | Path) -> str:
        """Run one of them, which it knows by argv[0]."""
        argv = [name, *map(str, arguments)]
        options = {"capture_output": True, "text": True, "check": True, "env": self._environment}
        return str(subprocess.run(argv, executable=self._program, **options).stdout)


@pytest.fixture(scope="module")
def distro(store: Cache) -> kernel.DistroKernel:
    return kernel.debian_kernel(cache=store)


def needs(line: bytes) -> set[bytes]:
    return {*line.split()[1:]}


def test_modprobe_and_depmod_of_kmod_agree_with_the_lists(store: Cache, distro: kernel.DistroKernel, tmp_path: Path):
    kmod = Kmod(store)
    tree = initrd.FileTree()
    modules = kernel.module_closure(distro, MODULES, cache=store)
    initrd.add_modules(tree, distro.version, modules, MODULES)
    folders = {}
    for who in ("ours", "depmod"):
        folders[who] = tmp_path / who / "lib/modules" / distro.version
        folders[who].mkdir(parents=True)
        for name, entry in tree.items():
            file = name.decode().rpartition("/")[2]
            if b"/modules/" in name and entry.is_file and (who == "ours" or file.endswith(".ko")):
                (folders[who] / file).write_bytes(entry.content.read())
    kmod.run("depmod", "-b", tmp_path / "depmod", distro.version)

    ours, theirs = (
        {
            file: module_index.read((folder / f"{file}.bin").read_bytes())
            for file in ("modules.dep", "modules.alias", "modules.symbols")
        }
        for folder in folders.values()
    )
    assert ours["modules.dep"].keys() == theirs["modules.dep"].keys()
    for name, values in ours["modules.dep"].items():  # the order of those that do not need each other is free
        assert needs(values[0]) == needs(theirs["modules.dep"][name][0])
    assert len(ours["modules.symbols"]) > 50
    for file in ("modules.alias", "modules.symbols"):
        assert ours[file] == theirs[file]
    for file in LISTS:
        lists = [sorted((folder / file).read_text().splitlines()) for folder in folders.values()]
        assert lists[0] == lists[1]

    for name in ("dm_integrity", "dm-integrity", "char-major-10-200", "symbol:vsock_core_register"):
        argv = ("-S", distro.version, "-D", name)
        loads = [kmod.run("modprobe", "-d", tmp_path / who, *argv).replace(f"{tmp_path / who}", "") for who in folders]
        assert sorted(loads[0].split()) == sorted(loads[1].split())
        assert loads[0].split()[-1] == loads[1].split()[-1]


@pytest.mark.weekly
def test_modprobe_of_kmod_loads_modules_in_a_guest(store: Cache, distro: kernel.DistroKernel, tmp_path: Path):
    """busybox+kmod: kmod's modprobe is that of /sbin, and reads only the indexes."""
    modules = kernel.module_closure(distro, (*boot.VIRTIO_MODULES, "zram"), cache=store)
    made = boot.boot_initrd(
        tmp_path / "one.cpio", image="busybox+kmod", modules=modules, release=distro.version, store=store
    )
    tree = initrd.load(made.path)
    tree.add_file("etc/modules", tree["etc/modules"].content.read() + b"zram\n")
    assert tree.find("sbin/modprobe") in (b"bin/kmod", b"usr/bin/kmod")
    image = initrd.create(tree, tmp_path / "two.cpio")
    row = boot.run(boot.BootCell(name="kmod", kernel=distro.image, initrd=image.path, timeout_s=300))
    assert row.end is End.POWERED_OFF
    assert any("zram: Added device" in record.text for record in row.log)
