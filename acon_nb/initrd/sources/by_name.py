"""Reads an image into a tree by its name: an engine's image, an archive, a tar, or a folder.

Nothing is unpacked to disk, and no container is started.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from acon_nb import process
from acon_nb.archive import layers, spool, tar
from acon_nb.archive.decompress import compression_of
from acon_nb.archive.formats import HEAD_BYTES, recognise
from acon_nb.archive.tree import FileTree, ImageLimits
from acon_nb.cache import Cache
from acon_nb.errors import InvalidInput
from acon_nb.host import apt
from acon_nb.initrd.sources import oci
from acon_nb.initrd.sources.debian import add_debian, merged_usr
from acon_nb.initrd.sources.engine import ContainerBuild, Engine, check_reference
from acon_nb.initrd.sources.existing import from_initrd
from acon_nb.initrd.sources.folder import from_folder
from acon_nb.initrd.sources.packages import add_packages
from acon_nb.progress import CancelToken, OnProgress, silent

KNOWN = (
    "busybox[+PACKAGE...], dir:FOLDER, tar:FILE, docker-archive:PATH, oci:PATH, cpio:FILE, docker:NAME, podman:NAME, "
    "NAME[:TAG], debian+PACKAGE[+PACKAGE...]"
)
_ARCHIVES = ("docker-archive", "oci", "oci-archive")
_PLATFORM = re.compile(r"@(linux/[^@]*)$")
_ENGINES = ("docker", "podman")
PREFIXES = ("busybox", "debian+", *(f"{kind}:" for kind in ("dir", "tar", "cpio", *_ARCHIVES, *_ENGINES)))


def tree_of(
    image: str,
    dirs: Sequence[str] = (),
    *,
    cache: Cache | None = None,
    devices: bool = False,
    limits: ImageLimits | None = None,
    pull: str = "missing",
    platform: str = "",
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> FileTree:
    """Read an image into a tree.

    `busybox` is Debian's busybox-static and needs no engine; `busybox+PACKAGE+...` adds programs of Debian packages
    with their libraries, for self-contained tools; `debian+PACKAGE+...` adds packages whole, with all they depend on;
    `dir:D` is a folder; `tar:F` the tar of a root file system, optionally compressed; `cpio:F` an initrd;
    `docker-archive:P` and `oci:P` what `docker save` and skopeo write (a tar or a folder; `P:NAME`, `P@DIGEST` or `P@0`
    selects one of several images); `docker:NAME`, `podman:NAME` or a plain name is an engine's image (a plain name:
    Docker's, else Podman's).

    Parameters: `dirs` selects folders of the image; `devices` keeps its device nodes; `limits` bounds its unpacked
    size; `pull` is as in `Engine.tree`; `platform` (linux/amd64, linux/amd64/v3, ...) selects a platform of archives
    and engines, as does `@linux/...` at the end of `image`. The tree's `warnings()` list what was omitted.
    Errors: `InvalidInput` (no such source, file or image), `TreeError` (hostile or damaged), `MissingRequirement`.
    """
    name, *packages = image.split("+")
    kind, _, value = image.partition(":")
    limits = limits or ImageLimits()
    if name == "busybox":
        _refuse_platform(image, platform)
        tree = busybox(cache=cache or Cache(), on_progress=on_progress)
        if packages:
            add_packages(tree, packages, cache=cache, on_progress=on_progress)
    elif name == "debian" and packages:
        _refuse_platform(image, platform)
        store = cache or Cache()
        tree = FileTree()
        merged_usr(tree)
        for key, entry in busybox(cache=store, on_progress=on_progress).items():
            if not entry.is_dir:
                tree.add(key, entry)
        add_debian(tree, packages, cache=store, limits=limits, on_progress=on_progress)
    elif value and kind in ("dir", "tar"):
        _refuse_platform(image, platform)
        path = _path(value)
        _check_kind(kind, path)
        tree = from_folder(path) if kind == "dir" else from_tar(path, limits=limits, devices=devices)
        _refuse_archive(tree, kind, value)
    elif value and kind == "cpio":
        _refuse_platform(image, platform)
        _check_kind(kind, _path(value))
        tree = from_initrd(_path(value), limits=limits, devices=devices)
    elif value and kind in _ARCHIVES:
        path, text = _path_and_selector(value)
        tree = oci.from_archive(
            path,
            oci.ImageSelector.parse(text, platform),
            prefix=kind,
            limits=limits,
            devices=devices,
            on_progress=on_progress,
        )
    else:
        tree = _of_engine(image, devices, limits, pull, platform, on_progress, cancel)
    return tree.only(dirs) if dirs else tree


def built(
    spec: ContainerBuild,
    dirs: Sequence[str] = (),
    *,
    devices: bool = False,
    limits: ImageLimits | None = None,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> FileTree:
    """Build a container image in an engine, and read it into a tree; `dirs` and the rest are as in `tree_of`."""
    with Engine() as engine:
        tree = engine.built_tree(spec, limits=limits, devices=devices, on_progress=on_progress, cancel=cancel)
    return tree.only(dirs) if dirs else tree


def _of_engine(
    image: str,
    devices: bool,
    limits: ImageLimits,
    pull: str,
    platform: str,
    on_progress: OnProgress,
    cancel: CancelToken | None,
) -> FileTree:
    kind, _, value = image.partition(":")
    name = value if kind in _ENGINES else image
    match = _PLATFORM.search(name)
    selector = oci.ImageSelector.parse(match[0] if match else "", platform)
    name = name[: match.start()] if match else name
    try:
        check_reference(name)
    except InvalidInput as error:
        raise InvalidInput("image", image, "is not a valid image source", hint=f"one of {KNOWN}") from error
    with Engine(kind if kind in _ENGINES else "") as engine:
        return engine.tree(
            name,
            pull=pull,
            platform=selector.platform,
            limits=limits,
            devices=devices,
            on_progress=on_progress,
            cancel=cancel,
        )


def _refuse_platform(image: str, platform: str) -> None:
    if platform:
        hint = "omit it; images of archives and engines have platforms"
        raise InvalidInput("platform", platform, f"does not apply to {image}", hint=hint)


def _check_kind(kind: str, path: Path) -> None:
    """Check that `dir` is given a folder, and `tar` and `cpio` a file. Errors: `InvalidInput` with the right prefix."""
    if not path.exists():
        what = "folder to pack" if kind == "dir" else "archive"
        raise InvalidInput("image", f"{kind}:{path}", "does not exist", hint=f"give the {what} by its path")
    if path.is_dir() and kind != "dir":
        names = [name for name in ("manifest.json", "index.json") if (path / name).is_file()]
        prefix = {"manifest.json": "docker-archive", "index.json": "oci"}[names[0]] if names else "dir"
        raise InvalidInput("image", f"{kind}:{path}", "is a folder, not a file", hint=f"give {prefix}:{path}")
    if path.is_file() and kind == "dir":
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        form = recognise(head)
        reason = f"is not a folder, but {form.what if form else 'a file'}"
        hint = (
            f"give {' or '.join(f'{each}:{path}' for each in ('tar', 'cpio', *_ARCHIVES[:2]))}, if it is one of these"
        )
        if form is not None and not compression_of(head):
            hint = form.hint
        raise InvalidInput("image", f"dir:{path}", reason, hint=hint)


def _refuse_archive(tree: FileTree, kind: str, value: str) -> None:
    """Refuse an archive of images that was given as a root file system: its blobs would become files of the initrd."""
    prefix = oci.prefix_of(tree)
    if prefix:
        reason = "is an archive of images, not a root file system"
        raise InvalidInput("image", f"{kind}:{value}", reason, hint=f"give {prefix}:{value}")


def _path(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise InvalidInput("image", text, f"has no path: {error}", hint="give the whole path") from error


def _path_and_selector(value: str) -> tuple[Path, str]:
    """Split PATH[:NAME][@...], where the path may contain colons and @ too: it is the longest that exists."""
    ends = [len(value), *(match.start() for match in re.finditer("[:@]", value))]
    for end in sorted(ends, reverse=True):
        if end and os.path.lexists(_path(value[:end])):
            return _path(value[:end]), value[end:]
    return _path(value), ""


def busybox(*, cache: Cache, on_progress: OnProgress = silent) -> FileTree:
    """Make a tree of Debian's busybox-static with a symbolic link for each applet."""
    program = apt.unpack("busybox-static", cache=cache, on_progress=on_progress).path("bin/busybox")
    tree = FileTree()
    tree.add_file("bin/busybox", program, mode=0o755)
    for line in process.output([program, "--list-full"]).split():
        if line not in tree:
            depth = line.count("/")
            tree.add_symlink(line, "busybox" if line.startswith("bin/") else "../" * depth + "bin/busybox")
    tree.add_file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
    tree.add_file("etc/group", b"root:x:0:\ntty:x:5:\n")
    return tree


def from_tar(path: Path, *, limits: ImageLimits | None = None, devices: bool = False) -> FileTree:
    """Read the tar of a root file system (also .gz, .bz2, .xz, .zst) into a tree; contents are read when needed.

    Names that lead out of the tree are refused; device nodes are kept only with `devices`.
    """
    limits = limits or ImageLimits()
    if not path.is_file():
        raise InvalidInput("image", path, "is not a file", hint="give the tar of a root file system")
    tree = FileTree()
    content = spool.plain(spool.open_file(path), path.name, limits)
    layers.add_layer(tree, tar.members(content, path.name, limits=limits, warn=tree.drop), limits=limits)
    if not devices:
        layers.drop_devices(tree)
    return tree
