from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from acon_nb.initrd import FileTree, add_modules, gen_init

FILES = ("init", "etc/fstab", "etc/profile")


def shell_tree() -> FileTree:
    tree = FileTree()
    tree.add_file("bin/busybox", b"", mode=0o755)
    for name in ("bin/sh", "bin/mount", "bin/mkdir", "usr/bin/setsid", "bin/ln", "bin/grep", "sbin/swapon"):
        tree.add_symlink(name, "/bin/busybox")
    tree.add_symlink("sbin/modprobe", "/bin/busybox")
    return tree


def test_an_empty_tree_becomes_bootable() -> None:
    tree = FileTree()
    gen_init(tree)
    assert tree.has_init()
    assert tree["init"].content.read().startswith(b"#!/bin/sh\n")
    assert tree["dev/console"].mode == stat.S_IFCHR | 0o600
    assert tree["dev/console"].device == (5, 1)
    assert tree["dev/null"].device == (1, 3)
    assert all(tree[name].is_dir for name in ("dev", "proc", "sys", "tmp", "run", "root"))
    assert tree["tmp"].mode & 0o7777 == 0o1777


@pytest.mark.parametrize("name", FILES)
def test_what_is_there_is_kept_unless_forced(name: str) -> None:
    tree = FileTree()
    tree.add_file(name, b"mine", mode=0o700)
    gen_init(tree)
    assert tree[name].content.read() == b"mine"
    gen_init(tree, force=True)
    assert tree[name].content.read() != b"mine"


def test_force_takes_resolv_conf_away_so_that_dhcp_can_answer() -> None:
    tree = FileTree()
    tree.add_file("etc/resolv.conf", b"nameserver 10.0.0.1\n")
    gen_init(tree)
    assert "etc/resolv.conf" in tree
    gen_init(tree, force=True)
    assert "etc/resolv.conf" not in tree


def test_folders_and_devices_of_the_image_are_kept() -> None:
    tree = FileTree()
    tree.add_dir("root", mode=0o750)
    tree.add_device("dev/console", stat.S_IFCHR, 5, 1, mode=0o622)
    gen_init(tree, force=True)
    assert tree["root"].mode & 0o777 == 0o750
    assert tree["dev/console"].mode & 0o777 == 0o622


def test_a_whole_image_gives_no_warning() -> None:
    assert gen_init(shell_tree()) == []


@pytest.mark.parametrize(
    ("path", "feature"), [("bin/sh", "everything"), ("sbin/swapon", "swap"), ("bin/mount", "fstab")]
)
def test_a_missing_utility_is_warned_of_with_what_is_lost(path: str, feature: str) -> None:
    tree = shell_tree()
    tree.remove(path)
    (warning,) = gen_init(tree)
    assert warning.startswith(f"{Path(path).name} is missing")
    assert feature in warning


def test_init_is_a_sound_shell_script() -> None:
    tree = FileTree()
    gen_init(tree)
    for name in ("init", "etc/profile"):
        subprocess.run(["sh", "-n"], input=tree[name].content.read(), check=True)


def test_fstab_rows_have_six_fields() -> None:
    tree = FileTree()
    gen_init(tree)
    rows = [line.split() for line in tree["etc/fstab"].content.read().decode().splitlines()]
    rows = [row for row in rows if row and not row[0].startswith("#")]
    assert rows
    assert all(4 <= len(row) <= 6 and row[1].startswith("/") for row in rows)


def test_modules_are_listed_with_what_they_need(tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.ko" for name in ("virtio", "virtio_ring", "virtio-pci")]
    for file in files:
        file.write_bytes(b"module")
    tree = FileTree()
    add_modules(tree, "6.12.1", files, ["virtio_pci", "built_in"])
    assert tree["etc/modules"].content.read() == b"virtio_pci\n"
    lines = tree["lib/modules/6.12.1/modules.dep"].content.read().decode().splitlines()
    assert lines == ["virtio.ko:", "virtio_ring.ko: virtio.ko", "virtio-pci.ko: virtio_ring.ko virtio.ko"]
    assert tree["lib/modules/6.12.1/virtio.ko"].content.read() == b"module"
