"""The files that make a tree boot: /init, /etc/fstab, /etc/profile; and kernel modules where a kernel needs them."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path

from acon_nb.initrd.tree import FileTree

FILES = Path(__file__).with_name("files")
_MOUNT_POINTS = ("dev", "proc", "sys", "tmp", "run", "root", "shared")
# What /init calls: utility -> the feature that lacks it
_NEEDED = {
    "sh": "everything",
    "mount": "mounting /etc/fstab",
    "mkdir": "mounting /etc/fstab",
    "setsid": "starting the shell or INIT",
    "ln": "/dev/fd and /etc/resolv.conf",
    "grep": "swap",
    "swapon": "swap",
    "modprobe": "loading /etc/modules",
}
_BIN = ("bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin", "usr/local/sbin")


def gen_init(tree: FileTree, *, force: bool = False) -> list[str]:
    """Add /init and its files to `tree`; those that exist are kept unless `force` (the guide's `F`).

    Returns warnings: utilities that /init needs and the tree lacks, each with the feature that is lost.
    Source: the guide, `gen_init` in implicit mode.
    """
    for name, mode in (("init", 0o755), ("etc/fstab", 0o644), ("etc/profile", 0o644)):
        if force or name not in tree:
            tree.add_file(name, (FILES / Path(name).name).read_bytes(), mode=mode)
    if force:
        tree.remove("etc/resolv.conf")  # /init links it to the kernel's DHCP answer
    for name in _MOUNT_POINTS:
        if name not in tree:
            tree.add_dir(name, mode=0o1777 if name == "tmp" else 0o700 if name == "root" else 0o755)
    # Without it the kernel cannot open an initial console before /init mounts devtmpfs.
    if "dev/console" not in tree:
        tree.add_device("dev/console", stat.S_IFCHR, 5, 1)
    if "dev/null" not in tree:
        tree.add_device("dev/null", stat.S_IFCHR, 1, 3, mode=0o666)
    return missing_utilities(tree)


def missing_utilities(tree: FileTree) -> list[str]:
    """A warning for each utility of /init that is nowhere in the tree's PATH."""
    return [
        f"{name} is missing in the image: {feature} will not work"
        for name, feature in _NEEDED.items()
        if not any(f"{folder}/{name}" in tree for folder in _BIN)
    ]


def add_modules(tree: FileTree, release: str, modules: Sequence[Path], load: Sequence[str]) -> None:
    """Add kernel modules, each file after those it needs, with a modules.dep; /etc/modules loads `load` at boot."""
    folder = f"lib/modules/{release}"
    lines = []
    for number, path in enumerate(modules):
        tree.add_file(f"{folder}/{path.name}", path)
        needed = " ".join(earlier.name for earlier in reversed(modules[:number]))
        lines.append(f"{path.name}: {needed}".rstrip())
    tree.add_file(f"{folder}/modules.dep", ("\n".join(lines) + "\n").encode())
    present = {path.stem.replace("-", "_") for path in modules}
    wanted = [name for name in load if name.replace("-", "_") in present]
    tree.add_file("etc/modules", ("\n".join(wanted) + "\n").encode())
