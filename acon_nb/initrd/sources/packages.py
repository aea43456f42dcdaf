"""Adds programs of Debian packages to a tree with the libraries they need; no engine, root or package scripts involved.

`busybox+dmsetup+e2fsprogs+openssh-server` is the guide's second example without a Docker Engine.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from acon_nb.archive.tree import FileTree
from acon_nb.cache import Cache
from acon_nb.errors import InvalidInput
from acon_nb.host import apt
from acon_nb.initrd.sources.folder import from_folder
from acon_nb.progress import OnProgress, silent

# Of a package's dependencies only libraries are added, and these packages of programs
_ALSO = {"openssh-server": ("openssh-client",)}
_EXCLUDED = ("libpam-modules", "libpam-modules-bin", "libpam-runtime")
_INCLUDED = ("bin/", "sbin/", "lib/x86", "lib64/", "lib/openssh/")
_LOADER = "lib64/"  # the folder of the loader according to all programs, wherever the package has it
# sshd needs a user for privilege separation, and Debian builds it with PAM, whose modules are not included
_SSHD = {
    "etc/passwd": b"sshd:x:100:65534::/run/sshd:/bin/false\n",
    "etc/shadow": b"root:*:19000:0:99999:7:::\n",
    "etc/ssh/sshd_config": b"UsePAM no\n",
}
_MAX_PACKAGES = 200


def add_packages(
    tree: FileTree, names: Sequence[str], *, cache: Cache | None = None, on_progress: OnProgress = silent
) -> None:
    """Add the programs and libraries of Debian packages to `tree`, replacing existing files (busybox's links).

    Documentation, configuration and maintainer scripts are omitted, so this is for self-contained tools.
    Errors: `InvalidInput` (no such package, or too many libraries), `MissingRequirement` (no apt).
    """
    store = cache or Cache()
    for root in _closure(names, store, on_progress):
        add_unpacked(tree, root)
    if "openssh-server" in names:
        for file, text in _SSHD.items():
            old = tree[file].content.read() if file in tree else b""
            tree.add_file(file, old + text, mode=0o600 if file == "etc/shadow" else 0o644)


def add_unpacked(tree: FileTree, root: Path) -> None:
    """Add the programs and libraries of a package that is unpacked in `root`.

    If the tree already has a file's merged-usr alias, that becomes a link to the new file; otherwise busybox's link of
    that name, which may come first in PATH, would still be the program that runs. The loader always gets such a link.
    """
    for raw, entry in from_folder(root, owner=(0, 0)).items():
        name = os.fsdecode(raw)
        if entry.is_dir or not name.removeprefix("usr/").startswith(_INCLUDED) or "/gconv/" in name:
            continue
        alias = apt.merged_usr_alias(name)
        linked = alias is not None and (alias in tree or alias.startswith(_LOADER))
        tree.add(name, entry)
        if alias is not None and linked and tree.find(alias) != tree.find(name):
            tree.add_symlink(alias, "../" * alias.count("/") + name)


def _closure(names: Sequence[str], store: Cache, on_progress: OnProgress) -> list[Path]:
    """Unpack the packages and the libraries they need; return the folders."""
    wanted = {*names, *(also for name in names for also in _ALSO.get(name, ()))}
    roots: dict[str, Path] = {}
    pending = sorted(wanted)
    while pending:
        name = pending.pop()
        if name in roots or name in _EXCLUDED or not (name in wanted or name.startswith(("lib", "zlib"))):
            continue
        if len(roots) >= _MAX_PACKAGES:
            reason = f"needs more than {_MAX_PACKAGES} packages"
            raise InvalidInput("image", "+".join(names), reason, hint="use an image of a container engine")
        unpacked = apt.unpack(name, cache=store, on_progress=on_progress)
        roots[name] = unpacked.root
        pending += unpacked.package.depends
    return [roots[name] for name in sorted(roots)]
