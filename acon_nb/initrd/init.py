"""The files that make a tree boot: /init, /etc/fstab, /etc/profile; and kernel modules where a kernel needs them."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from acon_nb.errors import InvalidInput, TreeError
from acon_nb.initrd import fstab
from acon_nb.initrd.tree import Entry, FileTree

FILES = Path(__file__).with_name("files")
NAMES = ("init", "profile", "fstab", "resolv.conf", "udhcpc")
IMPLICIT = ("init", "profile", "fstab", "resolv.conf")
_MOUNT_POINTS = ("dev", "proc", "sys", "tmp", "run", "root", "shared")
_BIN = ("bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin", "usr/local/sbin")
_UDHCPC_SCRIPT = "usr/share/udhcpc/default.script"  # udhcpc's own default, where the program does not tell
_SCRIPT_IN_PROGRAM = re.compile(rb"/[\w./-]*udhcpc[\w./-]*\.script")
# What /init calls whatever the image is: utility -> the feature that needs it
_ALWAYS = {
    "sh": "everything",
    "mount": "mounting /etc/fstab",
    "mkdir": "mounting /etc/fstab",
    "ln": "/dev/fd and /etc/resolv.conf",
    "setsid": "job control of the shell or INIT",
}


def gen_init(tree: FileTree, names: Sequence[str] = (), *, force: bool = False) -> list[str]:
    """Add to `tree` what makes it boot; returns warnings of utilities that /init needs and the tree lacks.

    Without `names` (implicit mode) /init, /etc/profile and /etc/fstab are added and /etc/resolv.conf is removed, so
    that /init links it to the kernel's DHCP answer; files that exist are kept unless `force` (the guide's `F`). With
    names out of `NAMES` (explicit mode) those are made, over any that exist, and nothing else.
    Errors: `InvalidInput` for another name. Source: the guide, `gen_init`.
    """
    for name in names:
        if name not in NAMES:
            raise InvalidInput("gen_init", name, "is no file that it makes", hint=f"one of {', '.join(NAMES)}")
    for name in names or IMPLICIT:
        _MAKERS[name](tree, force or bool(names))
    if not names or "init" in names:
        _add_mount_points(tree)
    return missing_utilities(tree)


def _add_init(tree: FileTree, force: bool) -> None:
    _add(tree, "init", "init", 0o755, force)


def _add_profile(tree: FileTree, force: bool) -> None:
    _add(tree, "etc/profile", "profile", 0o644, force)


def _add_fstab(tree: FileTree, force: bool) -> None:
    _add(tree, "etc/fstab", "fstab", 0o644, force)


def _remove_resolv_conf(tree: FileTree, force: bool) -> None:
    if force:
        tree.remove("etc/resolv.conf")


def _add_udhcpc(tree: FileTree, force: bool) -> None:
    _add(tree, udhcpc_script(tree), "udhcpc", 0o755, force)


_MAKERS: dict[str, Callable[[FileTree, bool], None]] = {
    "init": _add_init,
    "profile": _add_profile,
    "fstab": _add_fstab,
    "resolv.conf": _remove_resolv_conf,
    "udhcpc": _add_udhcpc,
}


def _add(tree: FileTree, name: str, file: str, mode: int, force: bool) -> None:
    if force or name not in tree:
        tree.add_file(name, (FILES / file).read_bytes(), mode=mode)


def _add_mount_points(tree: FileTree) -> None:
    for name in _MOUNT_POINTS:
        if name not in tree:
            tree.add_dir(name, mode=0o1777 if name == "tmp" else 0o700 if name == "root" else 0o755)
    # Without it the kernel cannot open an initial console before /init mounts devtmpfs.
    if "dev/console" not in tree:
        tree.add_device("dev/console", stat.S_IFCHR, 5, 1)
    if "dev/null" not in tree:
        tree.add_device("dev/null", stat.S_IFCHR, 1, 3, mode=0o666)


def missing_utilities(tree: FileTree) -> list[str]:
    """A warning for each utility that /init would call for this tree and that is nowhere in its PATH, with the feature.

    What is called depends on the tree: its /etc/fstab, /etc/modules, and whether it has an sshd.
    """
    needed: dict[str, list[str]] = {}
    for name, feature in (*_ALWAYS.items(), *_modules(tree), *_fstab(tree), *_sshd(tree)):
        features = needed.setdefault(name, [])
        if feature not in features:
            features.append(feature)
    return [
        f"{name} is missing in the image: {'; '.join(features)} will not work"
        for name, features in needed.items()
        if not _has(tree, name)
    ]


def _modules(tree: FileTree) -> Iterator[tuple[str, str]]:
    if text_of(tree, "etc/modules").strip():
        yield "modprobe", "loading /etc/modules"


def _fstab(tree: FileTree) -> Iterator[tuple[str, str]]:
    for line in fstab.parse(text_of(tree, "etc/fstab"))[0]:
        if "noauto" in line.options:
            continue
        device = line.encrypted
        if line.type == "swap":
            yield "swapon", f"swap on {line.device}"
        if device is None:
            continue
        for name in ("dmsetup", "od", "dd", "mkswap" if line.type == "swap" else f"mkfs.{line.type}"):
            yield name, f"encryption of {line.device}"
        if not device.spec.ae:
            yield "blkdiscard", f"quick formatting of {line.device} (it is overwritten instead); discarding"


def _sshd(tree: FileTree) -> Iterator[tuple[str, str]]:
    if _has(tree, "sshd"):
        yield "ssh-keygen", "sshd (its host key)"
        yield "rm", "sshd (its host key)"
        yield "cat", "telling why sshd does not start"


def _has(tree: FileTree, name: str) -> bool:
    return any(f"{folder}/{name}" in tree for folder in _BIN)


def text_of(tree: FileTree, name: str) -> str:
    """The text of a file of a tree, its links followed; "" if it is not there."""
    entry = _resolved(tree, name)
    return entry.content.read().decode(errors="replace") if entry is not None else ""


def udhcpc_script(tree: FileTree) -> str:
    """Where the tree's own udhcpc looks for its script: the path is read out of the program, which is not run."""
    for folder in _BIN:
        entry = _resolved(tree, f"{folder}/udhcpc")
        if entry is None:
            continue
        found = _SCRIPT_IN_PROGRAM.search(entry.content.read())
        if found and b".." not in found[0].split(b"/"):
            return found[0].decode().lstrip("/")
    return _UDHCPC_SCRIPT


def _resolved(tree: FileTree, name: str) -> Entry | None:
    """The regular file that a name leads to inside the tree, its links followed; None if there is none."""
    try:
        place = tree.find(name)
    except TreeError:  # links that go round
        return None
    return tree[place] if place and tree[place].is_file else None


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
