"""A read-only root on a disk: the same bytes every time, a hash tree that holds, a root hash that is measured."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from acon_nb.archive.tree import FileTree
from acon_nb.cli import main
from acon_nb.errors import InvalidInput, MissingRequirement, TreeError
from acon_nb.initrd import root_disk
from acon_nb.initrd.init import FILES
from acon_nb.tdx.kernel_image import load_options

NEEDED = [root_disk.missing_tools(kind) for kind in root_disk.FILESYSTEMS]
needs_tools = pytest.mark.skipif(any(NEEDED), reason=f"missing: {NEEDED} (acon-nb doctor)")


def small() -> FileTree:
    tree = FileTree()
    tree.add_file("init", b"#!/bin/sh\n", mode=0o755)
    tree.add_file("etc/secret", b"for root", mode=0o600)
    tree.add_file("data", bytes(range(256)) * 4096)
    tree.add_symlink("bin/sh", "/bin/busybox")
    tree.add_device("dev/console", 0o020000, 5, 1)
    return tree


@needs_tools
@pytest.mark.parametrize("kind", root_disk.FILESYSTEMS)
def test_two_builds_are_the_same_bytes_and_veritysetup_accepts_them(kind: str, tmp_path: Path) -> None:
    made = [root_disk.create_root(small(), tmp_path / name / "root.raw", kind) for name in ("one", "two")]
    first, second = (disk.path.read_bytes() for disk in made)
    assert first == second
    disk = made[0]
    assert made[1].root_hash == disk.root_hash
    assert disk.root_hash in disk.append
    assert f"rootfstype={kind}" in disk.append
    assert len(first) == disk.bytes > disk.data_bytes
    tool = shutil.which("veritysetup", path="/usr/sbin:/sbin:/usr/bin")
    assert tool is not None
    check = [tool, "verify", str(disk.path), str(disk.path), disk.root_hash, f"--hash-offset={disk.data_bytes}"]
    assert subprocess.run(check, check=False).returncode == 0
    changed = bytearray(first)
    changed[100] ^= 1
    disk.path.write_bytes(changed)
    assert subprocess.run(check, check=False, capture_output=True).returncode != 0
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["root.raw"]  # and nothing else is left


@needs_tools
def test_a_changed_file_changes_the_root_hash_and_what_the_kernel_measures(tmp_path: Path) -> None:
    before = root_disk.create_root(small(), tmp_path / "a.raw", "squashfs")
    tree = small()
    tree.add_file("etc/secret", b"For root", mode=0o600)
    after = root_disk.create_root(tree, tmp_path / "b.raw", "squashfs")
    assert before.root_hash != after.root_hash
    assert load_options(before.append, token="") != load_options(after.append, token="")


@needs_tools
def test_the_table_names_the_blocks_of_the_image(tmp_path: Path) -> None:
    disk = root_disk.create_root(small(), tmp_path / "root.raw", "erofs")
    words = re.search(r'"root,,,ro,(.*?)"', disk.append)
    assert words is not None
    start, sectors, target, version, data, hashes, size, hash_size, blocks, first, algorithm, digest, salt = words[
        1
    ].split()
    assert (start, target, version, data, hashes) == ("0", "verity", "1", "/dev/vda", "/dev/vda")
    assert (size, hash_size, algorithm, digest, salt) == ("4096", "4096", "sha256", disk.root_hash, "-")
    assert int(sectors) * 512 == int(blocks) * 4096 == disk.data_bytes
    assert disk.path.read_bytes()[disk.data_bytes :][:6] == b"verity"  # the superblock, before the tree
    assert int(first) == int(blocks) + 1


@needs_tools
def test_owners_modes_and_devices_are_those_of_the_tree(tmp_path: Path) -> None:
    tree = small()
    entry = tree["data"]
    tree.put(b"data", type(entry)(mode=entry.mode, content=entry.content, uid=1000, gid=1001))
    disk = root_disk.create_root(tree, tmp_path / "root.raw", "squashfs")
    listing = subprocess.run(
        ["unsquashfs", "-lln", str(disk.path)], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert any(re.match(r"-rw-r--r-- 1000/1001 +1048576 .*/data$", line) for line in listing)
    assert any(re.match(r"crw------- 0/0 +5, +1 .*/dev/console$", line) for line in listing)
    assert any(re.match(r"-rw------- 0/0 .*/etc/secret$", line) for line in listing)


def test_the_first_disk_is_the_root_so_the_encrypted_swap_of_the_default_fstab_is_the_second() -> None:
    tree = small()
    tree.add_file("etc/fstab", (FILES / "fstab").read_bytes())
    root_disk.adapt(tree)
    text = tree["etc/fstab"].content.read().decode()
    assert "/dev/mapper/vdb@" in text
    assert "/dev/mapper/vda@" not in text
    assert tree["etc/resolv.conf"].content.read() == b"/proc/net/pnp"
    own = small()
    own.add_file("etc/fstab", b"/dev/mapper/vda@ none swap sw 0 0\n")
    own.add_file("etc/resolv.conf", b"nameserver 192.0.2.1\n")
    root_disk.adapt(own)
    assert own["etc/fstab"].content.read() == b"/dev/mapper/vda@ none swap sw 0 0\n"
    assert own["etc/resolv.conf"].is_file


def test_wrong_names_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"root\.cpio"):
        root_disk.require(tmp_path / "root.cpio", "erofs")
    with pytest.raises(InvalidInput, match="ext4"):
        root_disk.require(tmp_path / "root.raw", "ext4")
    (tmp_path / "folder.raw").mkdir()
    with pytest.raises(InvalidInput, match="not a regular file"):
        root_disk.require(tmp_path / "folder.raw", "erofs")


def test_a_missing_program_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(root_disk, "_which", lambda name: None)
    with pytest.raises(MissingRequirement, match="sqfstar, veritysetup") as caught:
        root_disk.require(tmp_path / "root.raw", "squashfs")
    assert "apt-get install squashfs-tools cryptsetup-bin" in caught.value.hint


@needs_tools
def test_a_root_without_an_init_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TreeError, match="no executable init"):
        root_disk.create_root(FileTree(), tmp_path / "root.raw", "squashfs")
    assert list(tmp_path.iterdir()) == []


@needs_tools
def test_the_command_prints_what_boots_it(tmp_path: Path) -> None:
    source = tmp_path / "tree"
    (source / "bin").mkdir(parents=True)
    shutil.copy("/bin/true", source / "bin/sh")
    argv = ["initrd", "from", f"dir:{source}", "-o", str(tmp_path / "root.raw"), "--root", "squashfs"]
    shown = CliRunner().invoke(main, argv)
    assert shown.exit_code == 0, shown.output
    assert "RD=- DRV=" in shown.output
    answer = json.loads(CliRunner().invoke(main, [*argv, "--json"]).stdout)
    assert answer["root_hash"] in answer["append"]
    assert answer["append"] in shown.output
    refused = CliRunner().invoke(main, [*argv[:-4], "-o", str(tmp_path / "root.cpio"), "--root", "squashfs"])
    assert refused.exit_code == 2
