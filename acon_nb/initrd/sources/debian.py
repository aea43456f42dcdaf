"""A root file system of Debian packages with all their dependencies: `debian+python3-minimal+sqlite3`.

Packages are unpacked whole, onto busybox and merged-usr folders, as apt orders them. Their scripts are not run, since
that needs root and a chroot: what programs need of them is read out of them (alternatives, diversions) or stands in
debian.toml (accounts). For whole systems use an image of a container engine.
"""

from __future__ import annotations

import fnmatch
import functools
import os
import re
import shlex
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from acon_nb.archive import layers, spool, tar
from acon_nb.archive.tree import Entry, FileTree, ImageLimits
from acon_nb.cache import Cache
from acon_nb.host.apt_closure import ClosurePackage, fetched
from acon_nb.progress import OnProgress, silent

_TABLE = Path(__file__).with_name("debian.toml")
_MERGED = ("bin", "sbin", "lib", "lib64")
_SCRIPTS = ("preinst", "postinst")


@functools.cache
def _table() -> dict[str, Any]:
    return tomllib.loads(_TABLE.read_text())


def add_debian(
    tree: FileTree,
    names: Sequence[str],
    *,
    cache: Cache,
    limits: ImageLimits | None = None,
    on_progress: OnProgress = silent,
) -> None:
    """Add Debian packages with all that they depend on to a tree, whole but for documentation.

    Errors: those of `apt_closure.fetched`; `TreeError` (more files or bytes than `limits`).
    """
    omitted = set(_table()["only_for_scripts"]) - set(names)
    packages = [one for one in fetched(names, cache=cache, on_progress=on_progress) if one.name not in omitted]
    diversions = {old: new for one in packages for old, new in _diversions(one)}
    for package in packages:
        _add(tree, package, diversions, limits or ImageLimits())
    alternatives = [choice for one in packages for choice in _alternatives(one)]
    for link, target, _ in sorted(alternatives, key=lambda choice: -choice[2]):  # the highest priority comes first
        _link(tree, link, target)
    for package in packages:
        _add_known(tree, package)


def merged_usr(tree: FileTree) -> None:
    """Make /bin, /sbin, /lib and /lib64 links into /usr, as Debian has them."""
    for name in _MERGED:
        tree.add_dir(f"usr/{name}")
        tree.add_symlink(name, f"usr/{name}")


def _add(tree: FileTree, package: ClosurePackage, diversions: dict[bytes, bytes], limits: ImageLimits) -> None:
    assert package.data is not None
    layer = FileTree()
    content = spool.open_file(package.data)
    layers.add_layer(layer, tar.members(content, package.name, limits=limits, warn=layer.drop), limits=limits)
    unwanted = tuple(os.fsencode(folder) for folder in _table()["omitted"])
    inodes = object()
    for name, entry in layer.items():
        if name.startswith(unwanted) or (entry.is_dir and tree.has_folder(name)):
            continue
        one = replace(entry, inode=(inodes, entry.inode)) if entry.inode is not None else entry
        diverted = diversions.get(name)
        tree.add(diverted if diverted and diverted[:1] != b"/" else name, one)


def _script(package: ClosurePackage) -> Iterator[list[str]]:
    """The commands of a package's scripts, as far as they are literal words: those with variables are not."""
    assert package.control is not None
    for name in _SCRIPTS:
        path = package.control / name
        if not path.is_file():
            continue
        text = re.sub(r"\\\n\s*", " ", path.read_text(errors="replace"))
        for line in text.splitlines():
            if "$" in line or "`" in line:
                continue
            try:
                yield shlex.split(line, comments=True)
            except ValueError:  # a quote that spans lines
                continue


def _alternatives(package: ClosurePackage) -> Iterator[tuple[str, str, int]]:
    """(link, program, priority) of each literal `update-alternatives --install LINK NAME PROGRAM PRIORITY`, --slave."""
    for words in _script(package):
        if "update-alternatives" not in [word.rpartition("/")[2] for word in words[:2]] or "--install" not in words:
            continue
        first = words.index("--install")
        values = words[first + 1 : first + 5]
        if len(values) == 4 and values[3].isdigit():
            yield values[0], values[2], int(values[3])
            rest = words[first + 5 :]
            for place, word in enumerate(rest):
                if word == "--slave" and len(rest) >= place + 4:
                    yield rest[place + 1], rest[place + 3], int(values[3])


def _diversions(package: ClosurePackage) -> Iterator[tuple[bytes, bytes]]:
    """(file of other packages, where it goes) of each literal `dpkg-divert --add`."""
    for words in _script(package):
        if not words or words[0].rpartition("/")[2] != "dpkg-divert" or "--add" not in words:
            continue
        files = [word for word in words[1:] if word.startswith("/")]
        if "--divert" in words and len(files) >= 2:
            target = words[words.index("--divert") + 1]
            source = next((file for file in files if file != target), "")
            yield os.fsencode(source.lstrip("/")), os.fsencode(target.lstrip("/"))


def _link(tree: FileTree, link: str, target: str) -> None:
    """Make an alternative's link, unless a file of a package is there; busybox's are replaced."""
    name = link.lstrip("/")
    taken = name in tree and not (tree[name].is_link and b"busybox" in tree[name].content.read())
    if target.lstrip("/") in tree and not taken:
        tree.add_symlink(name, target)


def _add_known(tree: FileTree, package: ClosurePackage) -> None:
    for row in _table()["links"]:
        if fnmatch.fnmatchcase(package.name, row["packages"]):
            _link_folder(tree, row["folder"], row["into"])
    for row in _table()["accounts"]:
        if fnmatch.fnmatchcase(package.name, row["packages"]):
            _add_account(tree, row)


def _link_folder(tree: FileTree, pattern: str, into: str) -> None:
    for raw, entry in tree.items():
        name = os.fsdecode(raw)
        folder, _, base = name.rpartition("/")
        if fnmatch.fnmatchcase(folder, pattern) and not entry.is_dir and f"{into}/{base}" not in tree:
            tree.add_symlink(f"{into}/{base}", f"/{name}")


def _add_account(tree: FileTree, row: dict[str, Any]) -> None:
    for file, line in (("etc/passwd", row["passwd"]), ("etc/group", row["group"])):
        old = tree[file].content.read() if file in tree else b""
        if not any(one.startswith(line.partition(":")[0].encode() + b":") for one in old.splitlines()):
            tree.add_file(file, old + line.encode() + b"\n")
    if row.get("home"):
        uid, gid, home = (row["passwd"].split(":")[place] for place in (2, 3, 5))
        tree.add(home.lstrip("/"), Entry(mode=0o40700, uid=int(uid), gid=int(gid)))
