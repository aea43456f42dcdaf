"""Reads an existing initrd (of a distribution, Kata, mkosi) as a source to add to, strip and compare."""

from __future__ import annotations

from pathlib import Path

from acon_nb.archive import segments
from acon_nb.archive.layers import drop_devices
from acon_nb.archive.tree import FileTree, ImageLimits
from acon_nb.errors import InvalidInput

EARLY_LOST = "the early archive (microcode, ACPI tables) is omitted: only initrd from keeps it"
BOOTCONFIG_LOST = "appended parameters are omitted; give them on the command line"
MICROCODE_INSIDE = "microcode among other files: the kernel finds it only in an uncompressed image"


def from_initrd(path: Path, *, limits: ImageLimits | None = None, devices: bool = False) -> FileTree:
    """Read an initrd as the kernel unpacks it (see `image.load`); device nodes are kept only with `devices`.

    Early archives at its start (microcode, ACPI tables) are not part of the tree: they are the tree's `early`, and
    `image.create` writes them first, as they are. Errors: `InvalidInput`, `TreeError`.
    """
    if not path.is_file():
        raise InvalidInput("image", path, "is not a file", hint="give the file of an initrd")
    unpacked = segments.read_whole(path, limits, apart=True)
    tree = unpacked.tree
    tree.early, tree.is_initrd = unpacked.early, True
    if not devices:
        drop_devices(tree)
    for name, entry in tree.items():
        if name.startswith(segments.EARLY) and entry.is_file:
            tree.drop(MICROCODE_INSIDE, name)
    if any(part.compression == segments.BOOTCONFIG for part in unpacked.segments):
        tree.drop(BOOTCONFIG_LOST, path.name.encode(errors="surrogateescape"))
    return tree


def drop_early(tree: FileTree) -> None:
    """Drop the early archives of a tree that is written as something else than an image."""
    if tree.early is not None:
        tree.early = None
        tree.drop(EARLY_LOST, b"kernel")
