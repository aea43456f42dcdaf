"""An image as a part of a guest's initrd: its tree below /image, where its programs have their root, and what is run.

The guest's own root is Debian's busybox: an image needs no shell, and cannot change how it is measured. Both lie in the
guest's memory (its root is a tmpfs), and so does what the program writes.
"""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

from acon_nb.archive import cpio
from acon_nb.archive.tree import FileTree
from acon_nb.cache import Cache, sha256_file, writable_folder
from acon_nb.errors import InvalidInput, TreeError
from acon_nb.guest.programs import guest_program, guest_script
from acon_nb.initrd import DEFAULT_MTIME, tree_of
from acon_nb.progress import CancelToken, OnProgress, silent
from acon_nb.swap.image.running import start_folder

ROOT = "image"
_FOLDERS = ("proc", "sys", "dev", "run", "tmp", "etc")
_HOSTS = b"127.0.0.1\tlocalhost acon\n::1\tlocalhost\n"
_SCRIPTS = ("image-measure",)


@dataclass(frozen=True, kw_only=True)
class ImageArchive:
    """An image's archive in the cache: `path`, and its bytes as they lie in the guest's memory (whole pages)."""

    path: Path
    memory_bytes: int


def program(cache: Cache | None = None) -> Path:
    """Build `image_run`, which runs a program of an image. Errors: those of `guest_program`."""
    shared = ("acon", "image_root", "image_hold", "image_pages", "image_touched")
    return guest_program("image_run", shared=shared, cache=cache)


def tree(
    image: str, *, cache: Cache | None = None, on_progress: OnProgress = silent, cancel: CancelToken | None = None
) -> FileTree:
    """The tree of an image, of any source that `initrd.tree_of` knows. Errors: those of `tree_of`."""
    if not image:
        raise InvalidInput("image", image, "is empty", hint="such as docker-archive:my.tar, or busybox+PACKAGE")
    return tree_of(image, cache=cache, on_progress=on_progress, cancel=cancel)


def pack(tree: FileTree, *, cache: Cache | None = None) -> ImageArchive:
    """The archive of an image's tree below /image, with the program that runs it; kept in the cache by its content."""
    store = cache or Cache()
    _complete(tree)
    whole = FileTree()
    whole.add_dir(ROOT)
    size = 0
    for name, entry in tree.items():
        whole.put(f"{ROOT}/".encode() + name, entry)
        size += -(-entry.content.size // 4096) * 4096 if entry.is_file else 0
    whole.add_file("acon/image_run", program(store), mode=0o755)
    for script in _SCRIPTS:
        whole.add_file(f"acon/{script}", guest_script(script), mode=0o755)
    with tempfile.TemporaryDirectory(prefix="acon-nb-", dir=_folder(store)) as folder:
        path = Path(folder, "image.cpio")
        with path.open("wb") as file:
            cpio.write(whole, file, mtime=DEFAULT_MTIME)
        inputs = {"image": sha256_file(path), "version": 1}
        made = store.get("swap-image", inputs, lambda target: _move(path, target / "image.cpio"))
    return ImageArchive(path=made.path / "image.cpio", memory_bytes=size)


def _complete(tree: FileTree) -> None:
    """Add what every container finds, where the image has nothing of the name: folders that are mounted over, hosts."""
    for folder in (*_FOLDERS, start_folder(tree.config).strip("/")):  # an engine makes the one that it starts in, too
        if not folder:
            continue
        with contextlib.suppress(TreeError):  # a loop of links, or a file in the way, stays as it is
            if tree.find(folder) is None:
                tree.add_dir(folder, mode=0o1777 if folder == "tmp" else 0o755)
    for name, text in (("etc/hosts", _HOSTS), ("etc/hostname", b"acon\n")):
        with contextlib.suppress(TreeError):
            there = tree.find(name)
            if not there or not tree[there].content.size:
                tree.add_file(name, text)


def _folder(store: Cache) -> Path:
    writable_folder(store.root)
    return store.root


def _move(path: Path, target: Path) -> None:
    path.rename(target)
