"""Reads images from archives: `docker save`, OCI layouts, and what other tools write as one of these.

Every blob is verified against its digest, and every layer against the `diff_ids` of the image's configuration.
Sources: the OCI image specification (image-layout.md, manifest.md, layer.md), Docker's image specification 1.2.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from acon_nb.archive import spool, tar
from acon_nb.archive.layers import add_layer, drop_devices
from acon_nb.archive.tree import Content, FileTree, ImageLimits
from acon_nb.errors import InvalidInput, TreeError
from acon_nb.initrd.sources.oci.choice import ImageSelector, choose
from acon_nb.initrd.sources.oci.files import (
    HINT,
    FolderFiles,
    ImageFiles,
    StoredFile,
    TarFiles,
    as_dict,
    parsed,
    strings,
    verify,
)
from acon_nb.initrd.sources.oci.manifests import ArchivedImage, images_of
from acon_nb.progress import OnProgress, Progress, silent

__all__ = ["ImageSelector", "from_archive", "from_stream", "prefix_of"]

_ANY = ImageSelector()


def from_archive(
    path: Path,
    selector: ImageSelector = _ANY,
    *,
    prefix: str = "oci",
    limits: ImageLimits,
    devices: bool = False,
    on_progress: OnProgress = silent,
) -> FileTree:
    """Read the tree of an image from an archive of `docker save` or an OCI layout (a folder, or a tar).

    Parameters: `selector` selects one of several images; with the `prefix` docker-archive, positions are those of
    manifest.json, else of index.json, if there are both. The tree's `warnings()` say if the image is for another
    platform than this machine's.
    Errors: `InvalidInput` (not an archive, no such image), `TreeError` (a wrong digest, hostile names, limits).
    """
    files: ImageFiles
    if path.is_dir():
        files = FolderFiles(path)
    else:
        files = _in_tar(spool.plain(spool.open_file(path), path.name, limits), str(path), limits)
    return _from_files(files, selector, prefix, limits, devices, on_progress)


def from_stream(
    content: Content,
    what: str,
    selector: ImageSelector = _ANY,
    *,
    limits: ImageLimits,
    devices: bool,
    on_progress: OnProgress,
) -> FileTree:
    """Read the tree of an image in an archive received from an engine."""
    return _from_files(_in_tar(content, what, limits), selector, "", limits, devices, on_progress)


def prefix_of(tree: FileTree) -> str:
    """Return the prefix of sources with which a tree should be read if it is an archive of images, else ""."""
    files = TarFiles(tree, "the image")
    with contextlib.suppress(TreeError):
        saved = files.find("manifest.json")
        items = parsed(saved, "manifest.json") if saved is not None else None
        if isinstance(items, list) and items and all(isinstance(item, dict) and "Layers" in item for item in items):
            return "docker-archive"
        index = files.find("index.json")
        if index is not None and ("oci-layout" in tree or "blobs" in tree):
            return "oci"
        if isinstance(items, dict) and "version" in tree and ("layers" in items or "manifests" in items):
            return "docker-archive"
    return ""


def _in_tar(content: Content, what: str, limits: ImageLimits) -> ImageFiles:
    files = FileTree()
    # the limit applies to the layers when they are applied; in total they may be larger than the image
    wide = replace(limits, total_bytes=spool.stream_limit(limits))
    add_layer(files, tar.members(content, what, limits=limits, warn=files.drop), limits=wide)
    return TarFiles(files, what)


def _from_files(
    files: ImageFiles,
    selector: ImageSelector,
    prefix: str,
    limits: ImageLimits,
    devices: bool,
    on_progress: OnProgress,
) -> FileTree:
    images = images_of(files, docker_first=prefix in ("", "docker-archive"))
    if images is None:
        raise _not_an_archive(files)
    image, warning = choose(images, selector, f"{prefix}:{files.what}" if prefix else files.what)
    tree = _tree(files, image, limits, devices, on_progress)
    if warning:
        tree.drop(warning, files.what.encode(errors="surrogateescape"))
    return tree


def _tree(
    files: ImageFiles, image: ArchivedImage, limits: ImageLimits, devices: bool, on_progress: OnProgress
) -> FileTree:
    what = files.what
    root = (image.config or {}).get("rootfs")
    if root is None:
        raise TreeError(f"the configuration of the image in {what} has no rootfs, so its layers are unknown", hint=HINT)
    wanted = strings(as_dict(root, "rootfs").get("diff_ids"), "diff_ids")
    if len(wanted) != len(image.layers):
        reason = f"{what} has {len(image.layers)} layers, but its configuration lists {len(wanted)}"
        raise TreeError(reason, hint=HINT)
    tree = FileTree()
    labels = _labels(image.config or {}, len(wanted))
    for number, (stored, diff_id) in enumerate(zip(image.layers, wanted, strict=True), 1):
        name = f"layer {number} of {what}"
        tree.layer = labels[number - 1]
        on_progress(Progress(f"read {what}", (number - 1) / len(wanted), f"layer {number} of {len(wanted)}"))
        blob = stored.find(files)
        if blob is None:
            raise _no_layer(name, stored)
        layer = spool.plain(blob, name, limits)
        if stored.digest != diff_id:  # else it is not compressed, and verified already
            verify(layer, diff_id, name)
        # the digest shows that the layer is complete
        members = tar.members(layer, name, limits=limits, warn=tree.drop, need_end=False)
        add_layer(tree, members, limits=limits, whiteouts=True)
    tree.layer = ""
    running = (image.config or {}).get("config")
    tree.config = dict(running) if isinstance(running, dict) else {}
    if not devices:
        drop_devices(tree)
    on_progress(Progress(f"read {what}", 1.0))
    return tree


def _labels(config: Mapping[str, Any], count: int) -> list[str]:
    """Name each layer by its number and the command that made it, if the configuration has its history."""
    history = config.get("history")
    items = [item for item in history if isinstance(item, dict)] if isinstance(history, list) else []
    made = [str(item.get("created_by", "")) for item in items if not item.get("empty_layer")]
    texts = [" ".join(text.split())[:60] for text in made] if len(made) == count else [""] * count
    return [f"layer {number}: {text}".rstrip(": ") for number, text in enumerate(texts, 1)]


def _no_layer(name: str, stored: StoredFile) -> TreeError:
    if not stored.is_foreign:
        return TreeError(f"the archive does not contain {name}, {stored.name[:200]!r}", hint=HINT)
    where = f"at {', '.join(map(repr, stored.urls))}" if stored.urls else "elsewhere"
    return TreeError(
        f"{name} is a foreign layer, which is not distributed with the image but {where}",
        hint=f"download it to {stored.name[:200]!r} of the archive, or use an image without foreign layers",
    )


def _not_an_archive(files: ImageFiles) -> InvalidInput:
    """Explain what a folder or tar that is not an archive of images may be, and how to read it."""
    reason = "has neither manifest.json nor index.json, so it is not an archive of an image"
    names = files.names()
    inside = next((name.partition("/")[0] for name in names if name.endswith(("/index.json", "/manifest.json"))), "")
    if "repositories" in names:
        return InvalidInput(
            "image", files.what, "was written by Docker before 1.10, whose format is not supported",
            hint="load it with `docker load`, and save it again",
        )  # fmt: skip
    if inside and isinstance(files, TarFiles):
        return InvalidInput(
            "image", files.what, f"{reason}; its folder {inside!r} may be one", hint="pack it again: tar -C FOLDER -c ."
        )
    if inside:
        return InvalidInput("image", files.what, f"{reason}; its folder {inside!r} may be one", hint="give that folder")
    prefix = "tar" if isinstance(files, TarFiles) else "dir"
    hint = f"if it is a root file system, give {prefix}:{files.what}"
    return InvalidInput("image", files.what, reason, hint=hint)
