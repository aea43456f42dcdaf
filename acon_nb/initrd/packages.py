"""Programs of Debian packages added to a tree, with the libraries that they need: no engine, no root, no scripts run.

`busybox+dmsetup+e2fsprogs+openssh-server` is the guide's second example where there is no Docker Engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from acon_nb import debian
from acon_nb.cache import Cache
from acon_nb.errors import InvalidInput
from acon_nb.initrd.folder import from_folder
from acon_nb.initrd.tree import FileTree
from acon_nb.progress import OnProgress, silent

# Of what a package depends on only libraries are taken, and these: programs split off, or named in Pre-Depends.
_ALSO = {
    "e2fsprogs": ("libext2fs2", "libss2", "libblkid1", "libuuid1", "libcom-err2"),
    "openssh-server": ("openssh-client",),
}
_NOT = ("libpam-modules", "libpam-modules-bin", "libpam-runtime")
_KEPT = (b"bin/", b"sbin/", b"lib/x86", b"lib64/", b"usr/bin/", b"usr/sbin/", b"usr/lib/x86", b"usr/lib/openssh/")
# sshd separates its privileges under a user of its own, and Debian builds it for PAM, whose modules are not here.
_SSHD = {
    "etc/passwd": b"sshd:x:100:65534::/run/sshd:/bin/false\n",
    "etc/shadow": b"root:*:19000:0:99999:7:::\n",
    "etc/ssh/sshd_config": b"UsePAM no\n",
}
_MOST = 200


def add_packages(
    tree: FileTree, names: Sequence[str], *, cache: Cache | None = None, on_progress: OnProgress = silent
) -> None:
    """Add the programs and libraries of Debian packages to `tree`; what the tree has (busybox's links) is replaced.

    Documentation, configuration and maintainer scripts are left out, so this suits self-contained tools.
    Errors: `InvalidInput` (no such package, or too many libraries), `MissingRequirement` (no apt).
    """
    store = cache or Cache()
    for root in _closure(names, store, on_progress):
        for name, entry in from_folder(root, owner=(0, 0)).items():
            if name.startswith(_KEPT) and not entry.is_dir and b"/gconv/" not in name:
                tree.add(name, entry)
    if "openssh-server" in names:
        for file, text in _SSHD.items():
            old = tree[file].content.read() if file in tree else b""
            tree.add_file(file, old + text, mode=0o600 if file == "etc/shadow" else 0o644)


def _closure(names: Sequence[str], store: Cache, on_progress: OnProgress) -> list[Path]:
    """The unpacked folders of the packages and of the libraries that they need."""
    wanted = {*names, *(also for name in names for also in _ALSO.get(name, ()))}
    roots: dict[str, Path] = {}
    pending = sorted(wanted)
    while pending:
        name = pending.pop()
        if name in roots or name in _NOT or not (name in wanted or name.startswith(("lib", "zlib"))):
            continue
        if len(roots) >= _MOST:
            raise InvalidInput("image", "+".join(names), f"needs more than {_MOST} packages", hint="use an engine")
        package, artifact = debian.unpack(name, cache=store, on_progress=on_progress)
        roots[name] = artifact.path / "root"
        pending += package.depends
    return [roots[name] for name in sorted(roots)]
