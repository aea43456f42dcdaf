"""Adds to a tree the files that make it boot: /init, /etc/fstab, /etc/profile."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from acon_nb.archive.tree import Entry, FileTree
from acon_nb.errors import InvalidInput, TreeError
from acon_nb.initrd import fstab

FILES = Path(__file__).with_name("files")
NAMES = ("init", "profile", "fstab", "resolv.conf", "udhcpc")
IMPLICIT = ("init", "profile", "fstab", "resolv.conf")
_MOUNT_POINTS = ("dev", "proc", "sys", "tmp", "run", "root", "shared")
BIN_FOLDERS = ("bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin", "usr/local/sbin")
_UDHCPC_SCRIPT = "usr/share/udhcpc/default.script"  # the default, if the program does not contain the path
_SCRIPT_IN_PROGRAM = re.compile(rb"/[\w./-]*udhcpc[\w./-]*\.script")
# Utilities that /init calls in every image: utility -> the feature that needs it
_ALWAYS = {
    "sh": "everything",
    "mount": "mounting /etc/fstab",
    "mkdir": "mounting /etc/fstab",
    "ln": "/dev/fd and /etc/resolv.conf",
    "setsid": "job control of the shell or INIT",
}


def gen_init(tree: FileTree, names: Sequence[str] = (), *, force: bool = False) -> list[str]:
    """Add the files to `tree` that make it boot; return warnings about missing utilities that /init needs.

    Without `names` (implicit mode) /init, /etc/profile and /etc/fstab are added unless they exist; with `force` (the
    guide's `F`) they are overwritten and /etc/resolv.conf is removed, so that /init links it to the kernel's DHCP
    answer. With names from `NAMES` (explicit mode) only those are generated, overwriting existing ones. Implicit mode
    adds nothing to the tree of an initrd with its own /init, unless `force` is set.
    Errors: `InvalidInput` for another name. Source: the guide, `gen_init`.
    """
    for name in names:
        if name not in NAMES:
            raise InvalidInput("gen_init", name, "is not a known file", hint=f"one of {', '.join(NAMES)}")
    if tree.is_initrd and "init" in tree and not names and not force:
        return []
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
    # Without it the kernel cannot open the initial console; `docker export` writes an empty file of that name, at whose
    # end the shell of /init would exit at once, which is a panic.
    for name, numbers, mode in (("dev/console", (5, 1), 0o600), ("dev/null", (1, 3), 0o666)):
        if name not in tree or not stat.S_ISCHR(tree[name].mode):
            tree.add_device(name, stat.S_IFCHR, *numbers, mode=mode)


def missing_utilities(tree: FileTree) -> list[str]:
    """Return a warning for each utility that /init would call but is not in the tree's PATH, naming the feature."""
    needed = utilities(lambda name: text_of(tree, name), lambda name: _has(tree, name))
    return [
        f"{name} is missing in the image: {'; '.join(features)} will not work"
        for name, features in needed.items()
        if not _has(tree, name)
    ]


def utilities(text: Callable[[str], str], has: Callable[[str], bool]) -> dict[str, list[str]]:
    """Return the utilities that /init would call, with the features that need each.

    They depend on the image: its /etc/fstab, its /etc/modules (read by `text`), and whether it has an sshd (`has`).
    """
    needed: dict[str, list[str]] = {}
    for name, feature in (*_ALWAYS.items(), *_modules(text), *_fstab(text), *_sshd(has)):
        features = needed.setdefault(name, [])
        if feature not in features:
            features.append(feature)
    return needed


def _modules(text: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    if text("etc/modules").strip():
        yield "modprobe", "loading /etc/modules"


def _fstab(text: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    for line in fstab.parse(text("etc/fstab"))[0]:
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
            yield "blkdiscard", f"quick formatting of {line.device} (it is overwritten instead), discard"


def _sshd(has: Callable[[str], bool]) -> Iterator[tuple[str, str]]:
    if has("sshd"):
        yield "ssh-keygen", "sshd (its host key)"
        yield "rm", "sshd (its host key)"
        yield "cat", "reporting why sshd does not start"


def _has(tree: FileTree, name: str) -> bool:
    return any(f"{folder}/{name}" in tree for folder in BIN_FOLDERS)


def text_of(tree: FileTree, name: str) -> str:
    """Return the text of a file of a tree, following links; "" if it does not exist."""
    entry = _resolved(tree, name)
    return entry.content.read().decode(errors="replace") if entry is not None else ""


def udhcpc_script(tree: FileTree) -> str:
    """Return where the tree's udhcpc looks for its script; the path is read from the program without running it."""
    for folder in BIN_FOLDERS:
        entry = _resolved(tree, f"{folder}/udhcpc")
        if entry is None:
            continue
        match = _SCRIPT_IN_PROGRAM.search(entry.content.read())
        if match and b".." not in match[0].split(b"/"):
            return match[0].decode().lstrip("/")
    return _UDHCPC_SCRIPT


def _resolved(tree: FileTree, name: str) -> Entry | None:
    """Return the regular file that a name resolves to inside the tree, following links; None if there is none."""
    try:
        target = tree.find(name)
    except TreeError:  # a loop of links
        return None
    return tree[target] if target and tree[target].is_file else None
