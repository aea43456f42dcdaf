"""Images as trees, by one name: an engine's, an archive, a tar, a folder. Nothing is unpacked to disk, or started."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from acon_nb import debian, process
from acon_nb.cache import Cache
from acon_nb.errors import InvalidInput
from acon_nb.initrd import archive, spool, tar
from acon_nb.initrd.engine import Engine, check_reference
from acon_nb.initrd.folder import from_folder
from acon_nb.initrd.packages import add_packages
from acon_nb.initrd.tree import Content, FileTree, Limits
from acon_nb.progress import CancelToken, OnProgress, silent

KNOWN = (
    "busybox[+PACKAGE...], dir:FOLDER, tar:FILE, docker-archive:PATH, oci:PATH, docker:NAME, podman:NAME, NAME[:TAG]"
)
_ARCHIVES = ("docker-archive", "oci", "oci-archive")
_ENGINES = ("docker", "podman")


def tree_of(
    image: str,
    dirs: Sequence[str] = (),
    *,
    cache: Cache | None = None,
    devices: bool = False,
    limits: Limits | None = None,
    pull: str = "missing",
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> FileTree:
    """The tree of an image.

    `busybox` is Debian's busybox-static, without an engine; `busybox+PACKAGE+...` has programs of Debian packages too;
    `dir:D` a folder; `tar:F` a root file system's tar, also compressed; `docker-archive:P`, `oci:P` what `docker save`
    and skopeo write (a tar or a folder; `P:NAME` chooses one of several); `docker:NAME`, `podman:NAME`, or a plain name
    an engine's image (Docker's, else Podman's).

    Parameters: `dirs` chooses folders of the image; `devices` keeps its device nodes; `limits` bounds what it may
    unpack to; `pull` as in `Engine.tree`. What is left out is in the tree's `warnings()`.
    Errors: `InvalidInput` (no such kind, file or image), `TreeError` (hostile or broken), `MissingRequirement`.
    """
    limits = limits or Limits()
    tree = _tree_of(image, cache, devices, limits, pull, on_progress, cancel)
    return tree.only(dirs) if dirs else tree


def _tree_of(
    image: str,
    cache: Cache | None,
    devices: bool,
    limits: Limits,
    pull: str,
    on_progress: OnProgress,
    cancel: CancelToken | None,
) -> FileTree:
    name, *packages = image.split("+")
    if name == "busybox":
        tree = busybox(cache=cache or Cache(), on_progress=on_progress)
        if packages:
            add_packages(tree, packages, cache=cache, on_progress=on_progress)
        return tree
    kind, _, value = image.partition(":")
    if value and kind == "dir":
        return from_folder(Path(value).expanduser())
    if value and kind == "tar":
        return from_tar(Path(value).expanduser(), limits=limits, devices=devices)
    if value and kind in _ARCHIVES:
        path, tag = _path_and_tag(value)
        return archive.from_archive(path, tag, limits=limits, devices=devices, on_progress=on_progress)
    name = value if kind in _ENGINES else image
    try:
        check_reference(name)
    except InvalidInput as error:
        raise InvalidInput("image", image, "is no known kind of image", hint=f"one of {KNOWN}") from error
    with Engine(kind if kind in _ENGINES else "") as engine:
        return engine.tree(name, pull=pull, limits=limits, devices=devices, on_progress=on_progress, cancel=cancel)


def _path_and_tag(value: str) -> tuple[Path, str]:
    """PATH[:NAME], where both may have colons: the path is the shortest that is there."""
    parts = value.split(":")
    for count in range(1, len(parts)):
        path = Path(":".join(parts[:count])).expanduser()
        if path.exists() and not Path(value).expanduser().exists():
            return path, ":".join(parts[count:])
    return Path(value).expanduser(), ""


def busybox(*, cache: Cache, on_progress: OnProgress = silent) -> FileTree:
    """Debian's busybox-static with a symbolic link for each applet."""
    _, artifact = debian.unpack("busybox-static", cache=cache, on_progress=on_progress)
    program = artifact.path / "root/bin/busybox"
    tree = FileTree()
    tree.add_file("bin/busybox", program, mode=0o755)
    for line in process.output([program, "--list-full"]).split():
        if line not in tree:
            depth = line.count("/")
            tree.add_symlink(line, "busybox" if line.startswith("bin/") else "../" * depth + "bin/busybox")
    tree.add_file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
    tree.add_file("etc/group", b"root:x:0:\ntty:x:5:\n")
    return tree


def from_tar(path: Path, *, limits: Limits | None = None, devices: bool = False) -> FileTree:
    """A tree of a tar file (also .gz, .bz2, .xz, .zst); contents stay in the tar until they are read.

    Names that lead out are refused; hard links become links of one file; device nodes are kept with `devices` only.
    """
    limits = limits or Limits()
    if not path.is_file():
        raise InvalidInput("image", path, "is no file", hint="give the tar of a root file system")
    tree = FileTree()
    content = spool.plain(Content(size=path.stat().st_size, path=path), path.name, limits)
    tar.add_layer(tree, tar.members(content, limits=limits), limits=limits, devices=devices)
    return tree
