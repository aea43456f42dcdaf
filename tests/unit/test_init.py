from __future__ import annotations

import re
import shutil
import stat
import subprocess

import pytest

from acon_nb.errors import InvalidInput
from acon_nb.initrd import FileTree, fstab, gen_init
from acon_nb.initrd.init import FILES as FILES_FOLDER

FILES = ("init", "etc/fstab", "etc/profile")


COMMANDS = (
    "sh",
    "mount",
    "mkdir",
    "ln",
    "setsid",
    "modprobe",
    "dd",
    "od",
    "dmsetup",
    "blkdiscard",
    "mkswap",
    "mkfs.ext4",
    "swapon",
    "ssh-keygen",
    "sshd",
    "rm",
    "cat",
)
BUILT_IN = {"echo", "printf", "if", "time", "test", "true"}
FSTAB_EXT4 = b"/dev/mapper/vdb@+ae /ext4 ext4 defaults 0 0\n"


def shell_tree() -> FileTree:
    """A tree with everything that /init may call, and a reason to call it."""
    tree = FileTree()
    tree.add_file("bin/busybox", b"", mode=0o755)
    for name in COMMANDS:
        tree.add_symlink(f"usr/sbin/{name}", "/bin/busybox")
    tree.add_file("etc/modules", b"virtio_blk\n")
    tree.add_file("etc/fstab", (FILES_FOLDER / "fstab").read_bytes() + FSTAB_EXT4)
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
def test_existing_files_are_kept_unless_forced(name: str) -> None:
    tree = FileTree()
    tree.add_file(name, b"mine", mode=0o700)
    gen_init(tree)
    assert tree[name].content.read() == b"mine"
    gen_init(tree, force=True)
    assert tree[name].content.read() != b"mine"


def test_force_removes_resolv_conf_for_dhcp() -> None:
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


def test_the_empty_files_that_docker_export_writes_for_devices_are_replaced() -> None:
    """As /dev/console one is a panic: the shell of /init reads its end, and exits."""
    tree = FileTree()
    for name in ("console", "null"):
        tree.add_file(f"dev/{name}", b"", mode=0o755)
    gen_init(tree)
    assert (tree["dev/console"].mode, tree["dev/console"].device) == (stat.S_IFCHR | 0o600, (5, 1))
    assert (tree["dev/null"].mode, tree["dev/null"].device) == (stat.S_IFCHR | 0o666, (1, 3))


def test_a_complete_image_gives_no_warning() -> None:
    assert gen_init(shell_tree()) == []


@pytest.mark.parametrize(
    ("name", "feature"),
    [
        ("sh", "everything"),
        ("mount", "/etc/fstab"),
        ("modprobe", "/etc/modules"),
        ("swapon", "swap on /dev/mapper/vda@"),
        ("mkswap", "encryption of /dev/mapper/vda@"),
        ("blkdiscard", "quick formatting of /dev/mapper/vda@"),
        ("mkfs.ext4", "encryption of /dev/mapper/vdb@+ae"),
        ("dmsetup", "encryption of /dev/mapper/vda@; encryption of /dev/mapper/vdb@+ae"),
        ("ssh-keygen", "host key"),
    ],
)
def test_a_missing_utility_gives_a_warning_with_the_feature(name: str, feature: str) -> None:
    tree = shell_tree()
    tree.remove(f"usr/sbin/{name}")
    (warning,) = gen_init(tree)
    assert warning.startswith(f"{name} is missing")
    assert feature in warning


def test_an_unused_utility_gives_no_warning() -> None:
    tree = shell_tree()
    for name in (
        "modprobe",
        "swapon",
        "dmsetup",
        "mkswap",
        "mkfs.ext4",
        "blkdiscard",
        "dd",
        "od",
        "sshd",
        "ssh-keygen",
    ):
        tree.remove(f"usr/sbin/{name}")
    tree.add_file("etc/fstab", b"proc /proc proc defaults\n/dev/vda none swap noauto\n")
    tree.add_file("etc/modules", b"")
    assert gen_init(tree) == []


def test_every_program_that_init_calls_is_known() -> None:
    """Commands of /init: not a function of it, not built into the shell; all must be warned of when missing."""
    text = re.sub(r"#.*|\"[^\"]*\"", "", (FILES_FOLDER / "init").read_text())
    own = set(re.findall(r"^(\w+)\(\)", text, re.MULTILINE))
    words = set(re.findall(r"(?:^|[;&|!({]|then|do|if|&&|\|\|)\s*([a-z][a-z0-9._-]*)(?= |$)", text, re.MULTILINE))
    called = {word for word in words - own if shutil.which(word)}
    assert called >= {"mount", "mkdir", "dd", "mkswap"}, "the search for commands finds them"
    assert called - set(COMMANDS) - BUILT_IN == set()


def test_explicit_mode_makes_only_the_named_files() -> None:
    tree = FileTree()
    tree.add_file("etc/fstab", b"mine")
    tree.add_file("etc/profile", b"mine")
    gen_init(tree, ["fstab"])
    assert tree["etc/fstab"].content.read() != b"mine"
    assert tree["etc/profile"].content.read() == b"mine"
    assert "init" not in tree
    assert "dev/console" not in tree


def test_an_unknown_name_is_refused_before_writing() -> None:
    tree = FileTree()
    with pytest.raises(InvalidInput, match=r"passwd.*is not a known file") as caught:
        gen_init(tree, ["init", "passwd"])
    assert "resolv.conf" in caught.value.hint
    assert len(tree) == 0


def test_resolv_conf_by_name_is_removed() -> None:
    tree = FileTree()
    tree.add_file("etc/resolv.conf", b"nameserver 10.0.0.1\n")
    gen_init(tree, ["resolv.conf"])
    assert "etc/resolv.conf" not in tree


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (b"\0/etc/udhcpc/default.script\0", "etc/udhcpc/default.script"),
        (b"x\0/usr/share/udhcpc/default.script\0y", "usr/share/udhcpc/default.script"),
        (b"no path", "usr/share/udhcpc/default.script"),
        (b"\0/etc/../../udhcpc/x.script\0", "usr/share/udhcpc/default.script"),
    ],
)
@pytest.mark.parametrize("target", ["/usr/lib/box", "../usr/lib/box", "/bin2/box", "loop"])
def test_the_udhcpc_script_is_where_the_images_udhcpc_looks(program: bytes, expected: str, target: str) -> None:
    tree = FileTree()
    tree.add_file("usr/lib/box", program, mode=0o755)
    tree.add_symlink("bin2", "usr/lib")
    tree.add_symlink("sbin/loop", "loop")
    tree.add_symlink("sbin/udhcpc", target)
    gen_init(tree, ["udhcpc"])
    path = expected if target != "loop" else "usr/share/udhcpc/default.script"
    assert tree[path].content.read().startswith(b"#!/bin/sh")
    assert tree[path].mode & 0o777 == 0o755


def test_init_is_a_valid_shell_script() -> None:
    tree = FileTree()
    gen_init(tree)
    gen_init(tree, ["udhcpc"])
    for name in ("init", "etc/profile", "usr/share/udhcpc/default.script"):
        subprocess.run(["sh", "-n"], input=tree[name].content.read(), check=True)


def test_the_default_fstab_matches_the_guide() -> None:
    tree = FileTree()
    gen_init(tree)
    lines, problems = fstab.parse(tree["etc/fstab"].content.read().decode())
    assert not problems
    assert [line.point for line in lines[:-1]] == ["/proc", "/dev", "/dev/pts", "/sys", "/tmp", "/run", "/shared"]
    assert "size=500%" in lines[4].options
    swap = lines[-1]
    assert str(swap.encrypted) == "/dev/mapper/vda@"
    assert {"sw", "discard", "nofail"} == set(swap.options)
