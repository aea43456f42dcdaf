"""An initrd as one spec: an image, the user's own files, fstab lines and keys, packed in one go.

What the notebook's form edits and its parameters fill.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from acon_nb.cache import Cache
from acon_nb.errors import InvalidInput
from acon_nb.initrd import fstab
from acon_nb.initrd.compress import SUFFIXES
from acon_nb.initrd.container import tree_of
from acon_nb.initrd.folder import overlay
from acon_nb.initrd.image import DEFAULT_MTIME, InitrdImage, create
from acon_nb.initrd.init import gen_init
from acon_nb.initrd.tree import FileTree, clean_name
from acon_nb.progress import CancelToken, OnProgress, silent

_KEYS = "root/.ssh/authorized_keys"
_KEY_KINDS = ("ssh-", "ecdsa-", "sk-")


@dataclass(frozen=True, kw_only=True)
class InitrdSpec:
    """An initrd to make.

    `image` and `dirs` are as of `tree_of`; `fstab` are lines added to /etc/fstab; `files` are the user's own, each
    "NAME=HOSTFILE"; `keys` are public keys that may log in as root; `edits` are folders laid over the image; `force`
    regenerates the image's own /init, profile and fstab (the guide's F); `devices` keeps the image's device nodes;
    `pull` is missing, always or never, for engines; `compression` is a suffix, "" for none.
    Errors: `InvalidInput` at construction.
    """

    image: str = "busybox"
    dirs: tuple[str, ...] = ()
    fstab: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    keys: tuple[Path, ...] = ()
    edits: tuple[Path, ...] = ()
    force: bool = False
    devices: bool = False
    pull: str = "missing"
    compression: str = ""

    def __post_init__(self) -> None:
        if not self.image:
            raise InvalidInput("image", "", "names no image", hint="such as busybox, or alpine of a Docker Engine")
        if self.compression not in ("", *SUFFIXES):
            hint = f"one of {', '.join(SUFFIXES)}, or nothing"
            raise InvalidInput("compression", self.compression, "is not known", hint=hint)
        if self.pull not in ("missing", "always", "never"):
            raise InvalidInput("pull", self.pull, "is not known", hint="missing, always or never")
        _, problems = fstab.parse("\n".join(self.fstab))
        for problem in problems:
            raise InvalidInput("fstab", problem.text, problem.why, hint=problem.hint or "one line a device")
        for pair in self.files:
            _own_file(pair)
        for key in self.keys:
            _public_key(key)
        for folder in self.edits:
            if not folder.is_dir():
                raise InvalidInput("edits", folder, "is no folder", hint="a folder of your own files")

    def file_name(self, stem: str) -> str:
        """The name of the image for a stem: initrd-STEM.cpio, with the suffix of the compression."""
        return f"initrd-{stem}.cpio" + (f".{self.compression}" if self.compression else "")


@dataclass(frozen=True, kw_only=True)
class Made:
    """What came of a spec: the image, its tree, and what was dropped or is missing, in words."""

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
    """The tree of a spec and its warnings; nothing is written. Errors: those of `tree_of`."""
    tree = tree_of(
        spec.image,
        spec.dirs,
        cache=cache,
        devices=spec.devices,
        pull=spec.pull,
        on_progress=on_progress,
        cancel=cancel,
    )
    for folder in spec.edits:
        overlay(tree, folder)
    gen_init(tree, force=spec.force)
    for pair in spec.files:
        name, path = _own_file(pair)
        if name in tree and tree[name].is_dir:
            raise InvalidInput("files", pair, "would take the place of a folder", hint="name the file in it")
        tree.add_file(name, path, mode=0o755 if path.stat().st_mode & 0o111 else 0o644)
    if spec.fstab:
        place = tree.find("etc/fstab")  # where a link leads, if the image has one
        old = tree[place].content.read().rstrip(b"\n") if place and tree[place].is_file else b""
        tree.add_file("etc/fstab", old + b"\n" + "\n".join(spec.fstab).encode() + b"\n")
    if spec.keys:
        tree.add_dir("root/.ssh", mode=0o700)
        tree.add_file(_KEYS, b"".join(_public_key(key) for key in spec.keys), mode=0o600)
    return tree, (*tree.warnings(), *gen_init(tree))


def make(
    spec: InitrdSpec,
    path: Path,
    *,
    mtime: int | None = DEFAULT_MTIME,
    cache: Cache | None = None,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> Made:
    """Make the initrd of a spec at `path`. Errors: those of `plan` and `create`."""
    tree, warnings = plan(spec, cache=cache, on_progress=on_progress, cancel=cancel)
    image = create(tree, path, mtime=mtime, owner=None, on_progress=on_progress, cancel=cancel)
    return Made(image=image, tree=tree, warnings=warnings)


@dataclass(frozen=True, kw_only=True)
class FolderSize:
    """A folder of a tree: bytes of the files in it and below, hard links counted once, and how many names."""

    name: str
    bytes: int
    names: int


def folder_sizes(tree: FileTree, *, depth: int = 2) -> tuple[FolderSize, ...]:
    """The folders of a tree down to `depth`, the largest first; what lies deeper counts to the folder above it."""
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
    """The largest files of a tree, as (name, bytes); of hard links the first name."""
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
        raise InvalidInput("files", pair, "is not NAME=HOSTFILE", hint="such as etc/motd=my-motd")
    if not path.is_file():
        raise InvalidInput("files", host, "is no file", hint="give a file of this host")
    if not clean_name(name):
        raise InvalidInput("files", pair, "names no file of the image", hint="such as etc/motd=my-motd")
    return clean_name(name), path


def _public_key(path: Path) -> bytes:
    """The line of a public key. Errors: `InvalidInput` for what is none, above all for a private key."""
    try:
        text = path.expanduser().read_text(errors="replace").strip()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        why = getattr(error, "strerror", None) or "cannot be read"
        raise InvalidInput("keys", path, why, hint="a file such as id.pub") from error
    if "PRIVATE KEY" in text:
        raise InvalidInput("keys", path, "is a private key, which must not leave the host", hint=f"{path}.pub")
    if not text.startswith(_KEY_KINDS) or "\n" in text:
        raise InvalidInput("keys", path, "is no public key of SSH", hint="ssh-keygen -t ecdsa -b 521 -f id-test -N ''")
    return text.encode() + b"\n"
