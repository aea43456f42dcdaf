"""Describes an initrd in one spec (an image, additional files, fstab lines, keys) and builds it.

The notebook's form edits the spec, and its parameters fill it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from acon_nb import user_file
from acon_nb.archive.compress import SUFFIXES
from acon_nb.archive.tree import FileTree, clean_name
from acon_nb.cache import Cache
from acon_nb.errors import InvalidInput, TreeError
from acon_nb.initrd import fstab
from acon_nb.initrd.check import boot_warnings
from acon_nb.initrd.image import DEFAULT_MTIME, InitrdImage, create
from acon_nb.initrd.init import gen_init
from acon_nb.initrd.sources import tree_of
from acon_nb.initrd.sources.folder import overlay
from acon_nb.initrd.sources.oci.platforms import ImagePlatform
from acon_nb.progress import CancelToken, OnProgress, silent
from acon_nb.validation import OneOf, check_fields

_KEYS = "root/.ssh/authorized_keys"
_KEY_KINDS = ("ssh-", "ecdsa-", "sk-")


@dataclass(frozen=True, kw_only=True)
class InitrdSpec:
    """An initrd to build.

    `image` and `dirs` are as in `tree_of`; `fstab` are lines to add to /etc/fstab; `files` are files to add, each
    "NAME=HOSTFILE"; `keys` are public keys that may log in as root; `edits` are folders whose files are added to the
    image, replacing existing ones; `force` overwrites the image's /init, profile and fstab (the guide's F); `devices`
    keeps the image's device nodes; `pull` is missing, always or never (for engines); `platform` is as in `tree_of`;
    `compression` is a suffix, "" for none. Errors: `InvalidInput` at construction.
    """

    image: str = "busybox"
    dirs: tuple[str, ...] = ()
    fstab: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    keys: tuple[Path, ...] = ()
    edits: tuple[Path, ...] = ()
    force: bool = False
    devices: bool = False
    pull: Annotated[str, OneOf(("missing", "always", "never"))] = "missing"
    platform: str = ""
    compression: Annotated[str, OneOf(("", *SUFFIXES))] = ""

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.image:
            raise InvalidInput("image", "", "is empty", hint="such as busybox, or alpine with a Docker Engine")
        if self.platform:
            ImagePlatform.parse(self.platform)
        _, problems = fstab.parse("\n".join(self.fstab))
        for problem in problems:
            raise InvalidInput("fstab", problem.text, problem.why, hint=problem.hint or "one line per device")
        for pair in self.files:
            _own_file(pair)
        for key in self.keys:
            _public_key(key)
        for folder in self.edits:
            if not folder.is_dir():
                raise InvalidInput("edits", folder, "is not a folder", hint="give a folder of files to add")

    def file_name(self, stem: str) -> str:
        """Return the name of the image: initrd-STEM.cpio, with the suffix of the compression."""
        return f"initrd-{stem}.cpio" + (f".{self.compression}" if self.compression else "")


@dataclass(frozen=True, kw_only=True)
class BuiltInitrd:
    """The result of building a spec: the image, its tree, and warnings about omitted or missing files."""

    image: InitrdImage
    tree: FileTree
    warnings: tuple[str, ...]


def plan(
    spec: InitrdSpec,
    *,
    cache: Cache | None = None,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> tuple[FileTree, tuple[str, ...]]:
    """Return the tree of a spec and warnings, without writing anything. Errors: those of `tree_of`."""
    tree = tree_of(
        spec.image,
        spec.dirs,
        cache=cache,
        devices=spec.devices,
        pull=spec.pull,
        platform=spec.platform,
        on_progress=on_progress,
        cancel=cancel,
    )
    for folder in spec.edits:
        overlay(tree, folder)
    gen_init(tree, force=spec.force)
    for pair in spec.files:
        name, path = _own_file(pair)
        try:
            tree.add_file(name, path, mode=0o755 if path.stat().st_mode & 0o111 else 0o644)
        except TreeError as error:
            raise InvalidInput("files", pair, f"does not fit the image: {error.what}", hint=error.hint) from error
    if spec.fstab:
        target = tree.find("etc/fstab")  # through a link, if it is one
        old = tree[target].content.read().rstrip(b"\n") if target and tree[target].is_file else b""
        tree.add_file("etc/fstab", old + b"\n" + "\n".join(spec.fstab).encode() + b"\n")
    if spec.keys:
        tree.add_dir("root/.ssh", mode=0o700)
        tree.add_file(_KEYS, b"".join(_public_key(key) for key in spec.keys), mode=0o600)
    gen_init(tree)
    return tree, (*tree.warnings(), *boot_warnings(tree))


def make(
    spec: InitrdSpec,
    path: Path,
    *,
    mtime: int | None = DEFAULT_MTIME,
    cache: Cache | None = None,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> BuiltInitrd:
    """Build the initrd of a spec at `path`. Errors: those of `plan` and `create`."""
    tree, warnings = plan(spec, cache=cache, on_progress=on_progress, cancel=cancel)
    image = create(tree, path, mtime=mtime, owner=None, on_progress=on_progress, cancel=cancel)
    return BuiltInitrd(image=image, tree=tree, warnings=warnings)


@dataclass(frozen=True, kw_only=True)
class FolderSize:
    """A folder of a tree: the bytes of the files in and below it, hard links counted once, and the number of names."""

    name: str
    bytes: int
    names: int


def folder_sizes(tree: FileTree, *, depth: int = 2) -> tuple[FolderSize, ...]:
    """Return the folders of a tree down to `depth`, the largest first; deeper files count towards those."""
    sizes: dict[str, int] = defaultdict(int)
    names: dict[str, int] = defaultdict(int)
    seen: set[object] = set()
    for name, entry in tree.items():
        if entry.is_dir:
            continue
        folders = name.decode(errors="backslashreplace").split("/")[:-1]
        folder = "/" + "/".join(folders[:depth])
        names[folder] += 1
        if entry.inode is not None and entry.inode in seen:
            continue
        seen.add(entry.inode)
        sizes[folder] += entry.content.size
    rows = (FolderSize(name=name, bytes=sizes[name], names=count) for name, count in names.items())
    return tuple(sorted(rows, key=lambda row: (-row.bytes, row.name)))


def largest_files(tree: FileTree, *, most: int = 20) -> Sequence[tuple[str, int]]:
    """Return the largest files of a tree as (name, bytes); hard links are listed by their first name."""
    seen: set[object] = set()
    rows = []
    for name, entry in tree.items():
        if entry.is_file and (entry.inode is None or entry.inode not in seen):
            seen.add(entry.inode)
            rows.append(("/" + name.decode(errors="backslashreplace"), entry.content.size))
    return sorted(rows, key=lambda row: (-row[1], row[0]))[:most]


def _own_file(pair: str) -> tuple[bytes, Path]:
    name, equals, host = pair.partition("=")
    path = Path(host).expanduser()
    if not equals or not name:
        raise InvalidInput("files", pair, "is not of the form NAME=HOSTFILE", hint="such as etc/motd=my-motd")
    if not path.is_file():
        raise InvalidInput("files", host, "is not a file", hint="give a file of this host")
    if not clean_name(name):
        raise InvalidInput("files", pair, "does not name a file of the image", hint="such as etc/motd=my-motd")
    return clean_name(name), path


def _public_key(path: Path) -> bytes:
    """Read the line of a public key. Errors: `InvalidInput` if it is not one, in particular for a private key."""
    text = user_file.read_text("keys", path, hint="a file such as id.pub", errors="replace").strip()
    if "PRIVATE KEY" in text:
        raise InvalidInput("keys", path, "is a private key, which must not leave the host", hint=f"{path}.pub")
    if not text.startswith(_KEY_KINDS) or "\n" in text:
        hint = "ssh-keygen -t ecdsa -b 521 -f id-test -N ''"
        raise InvalidInput("keys", path, "is not a public SSH key", hint=hint)
    return text.encode() + b"\n"
