"""A read-only root on a disk, in place of an initrd: a file system with the hash tree of dm-verity behind it.

The kernel opens it by itself: its command line has the root hash, which a TD therefore measures with it (RTMR[2]).
Sources: mkfs.erofs(1), sqfstar(1), veritysetup(8); Linux Documentation/admin-guide/device-mapper, dm-init and verity.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import tempfile
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from acon_nb import process
from acon_nb.archive import tar
from acon_nb.archive.tree import FileTree
from acon_nb.cache import atomic_file, sha256_file
from acon_nb.errors import CommandFailed, InvalidInput, MissingRequirement
from acon_nb.initrd.image import DEFAULT_MTIME, require_init
from acon_nb.initrd.init import FILES
from acon_nb.progress import CancelToken, OnProgress, Progress, silent

FILESYSTEMS = ("erofs", "squashfs")
_BLOCK_BYTES = 4096
_SECTOR_BYTES = 512
_NO_SALT = "-"
_NAMESPACE = uuid.UUID("6f6d0f0e-4f2b-5d0c-9a43-1c2ab1a0f9d7")
_ROOT_HASH = re.compile(r"Root hash:\s+([0-9a-f]{64})")
PACKAGES: Mapping[str, str] = MappingProxyType(
    {
        "mkfs.erofs": "erofs-utils",
        "sqfstar": "squashfs-tools",
        "veritysetup": "cryptsetup-bin",
        "fakeroot": "fakeroot",
    }
)


@dataclass(frozen=True, kw_only=True)
class RootDisk:
    """A root on a disk: `append` is what the kernel command line needs, and `data_bytes` is the file system's size."""

    path: Path
    filesystem: str
    bytes: int
    data_bytes: int
    sha256: str
    root_hash: str
    append: str

    @property
    def launch(self) -> str:
        """The command that boots it, for a shell."""
        return f"RD=- DRV={shlex.quote(str(self.path))} KA={shlex.quote(self.append)} acon-nb run vmlinuz"


def require(path: Path, filesystem: str) -> None:
    """Check what `create_root` needs before there is a tree. Errors: `InvalidInput`, `MissingRequirement`."""
    if filesystem not in FILESYSTEMS:
        hint = f"one of {', '.join(FILESYSTEMS)}"
        raise InvalidInput("root", filesystem, "is not a file system for a read-only root", hint=hint)
    if path.suffix != ".raw":
        raise InvalidInput("image", path, "is not the name of a raw disk", hint=f"such as {path.stem}.raw")
    if path.exists() and not path.is_file():
        raise InvalidInput("image", path, "exists and is not a regular file", hint="give the name of a file")
    missing = missing_tools(filesystem)
    if missing:
        hint = f"apt-get install {' '.join(missing.values())}"
        raise MissingRequirement(", ".join(missing), "a read-only root on a disk (--root)", hint=hint)


def create_root(
    tree: FileTree,
    path: Path,
    filesystem: str,
    *,
    mtime: int | None = DEFAULT_MTIME,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> RootDisk:
    """Write `tree` to the disk image `path` (.raw) as a file system with a hash tree; the same bytes every time.

    The same tree, time and version of the programs give the same bytes. The image must be the guest's first disk.
    Parameters: `filesystem` is erofs or squashfs; all files get the time `mtime` (None: the default). The tree is
    adapted first (`adapt`).
    Errors: `InvalidInput` (suffix, file system), `TreeError` (no init), `MissingRequirement`, `NoSpace`, `Cancelled`.
    """
    require(path, filesystem)
    require_init(tree, path.name)
    adapt(tree)
    task = f"write {path.name}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as image, tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        on_progress(Progress(task, 0.0))
        archive = Path(folder, "tree.tar")
        with archive.open("wb") as stream:
            tar.write(tree, stream)
        on_progress(Progress(task, 0.3))
        _MAKERS[filesystem](archive, image, DEFAULT_MTIME if mtime is None else mtime, cancel)
        archive.unlink()
        on_progress(Progress(task, 0.8))
        data_bytes = _padded(image)
        root_hash = _add_hashes(image, data_bytes, cancel)
        digest, size = sha256_file(image), image.stat().st_size
    on_progress(Progress(task, 1.0))
    return RootDisk(
        path=path,
        filesystem=filesystem,
        bytes=size,
        data_bytes=data_bytes,
        sha256=digest,
        root_hash=root_hash,
        append=append(filesystem, data_bytes, root_hash),
    )


def append(filesystem: str, data_bytes: int, root_hash: str) -> str:
    """Return what the kernel command line needs: the device, its root hash, and the root on it."""
    blocks = data_bytes // _BLOCK_BYTES
    table = (
        f"0 {data_bytes // _SECTOR_BYTES} verity 1 /dev/vda /dev/vda {_BLOCK_BYTES} {_BLOCK_BYTES} "
        f"{blocks} {blocks + 1} sha256 {root_hash} {_NO_SALT}"
    )
    return f'dm-mod.create="root,,,ro,{table}" root=/dev/dm-0 ro rootfstype={filesystem} init=/init'


def missing_tools(filesystem: str) -> dict[str, str]:
    """Return the programs that this host lacks to make such a root, each with its Debian package."""
    maker = "mkfs.erofs" if filesystem == "erofs" else "sqfstar"
    missing = {name: PACKAGES[name] for name in (maker, "veritysetup") if _which(name) is None}
    if filesystem == "erofs" and not missing and not _reads_tar() and _which("fakeroot") is None:
        missing["fakeroot"] = PACKAGES["fakeroot"]
    return missing


def adapt(tree: FileTree) -> None:
    """Adapt a tree to a root that cannot be written to and is the first disk.

    /etc/resolv.conf, if there is none, becomes the link that /init would make; the encrypted swap of the fstab that
    acon_nb generates moves to the second disk.
    """
    if "etc/resolv.conf" not in tree and tree.get(b"etc/resolv.conf") is None:
        tree.add_symlink("etc/resolv.conf", "/proc/net/pnp")
    shipped = (FILES / "fstab").read_bytes()
    target = tree.find("etc/fstab")
    if target and tree[target].is_file and tree[target].content.read() == shipped:
        ours = shipped.replace(b"# The first disk", b"# The second disk").replace(b"mapper/vda@", b"mapper/vdb@")
        tree.add_file("etc/fstab", ours)


def _padded(image: Path) -> int:
    """Extend an image to whole blocks; return its size."""
    size = -(-image.stat().st_size // _BLOCK_BYTES) * _BLOCK_BYTES
    os.truncate(image, size)
    return size


def _add_hashes(image: Path, data_bytes: int, cancel: CancelToken | None) -> str:
    """Append dm-verity's superblock and hash tree; return the root hash."""
    identity = uuid.uuid5(_NAMESPACE, sha256_file(image))
    lines: list[str] = []
    process.run(
        [
            _need("veritysetup"),
            "format",
            f"--data-block-size={_BLOCK_BYTES}",
            f"--hash-block-size={_BLOCK_BYTES}",
            f"--data-blocks={data_bytes // _BLOCK_BYTES}",
            f"--hash-offset={data_bytes}",
            "--hash=sha256",
            f"--salt={_NO_SALT}",
            f"--uuid={identity}",
            image,
            image,
        ],
        on_line=lines.append,
        cancel=cancel,
    )
    match = _ROOT_HASH.search("\n".join(lines))
    if match is None:
        raise CommandFailed(("veritysetup", "format"), 0, tail=lines, hint="its output has no root hash: report this")
    return match[1]


def _squashfs(archive: Path, image: Path, mtime: int, cancel: CancelToken | None) -> None:
    image.unlink()  # it would add to what exists
    times = ("-mkfs-time", str(mtime), "-all-time", str(mtime))
    root = ("-root-mode", "755", "-root-uid", "0", "-root-gid", "0")
    argv: list[str | Path] = [
        _need("sqfstar"),
        "-comp",
        "zstd",
        "-reproducible",
        "-no-xattrs",
        "-no-progress",
        *times,
        *root,
        image,
    ]
    with archive.open("rb") as stream:
        process.run(argv, stdin=stream, env=_environment(), cancel=cancel)


def _erofs(archive: Path, image: Path, mtime: int, cancel: CancelToken | None) -> None:
    identity = uuid.uuid5(_NAMESPACE, sha256_file(archive))
    argv = [_need("mkfs.erofs"), "--quiet", "-zlz4hc", "-x-1", f"-T{mtime}", f"-U{identity}"]
    if _reads_tar():
        process.run([*argv, "--tar=f", image, archive], env=_environment(), cancel=cancel)
        return
    # Before 1.7 it reads only folders, in which no user could create the owners and devices of an image
    fakeroot, state = _need("fakeroot"), archive.with_name("fakeroot")
    folder = archive.with_name("tree")
    folder.mkdir(mode=0o755)
    unpack = [
        "tar",
        "--extract",
        "--preserve-permissions",
        "--numeric-owner",
        f"--directory={folder}",
        f"--file={archive}",
    ]
    try:
        process.run([fakeroot, "-s", state, "--", *unpack], env=_environment(), cancel=cancel)
        process.run([fakeroot, "-i", state, "--", *argv, image, folder], env=_environment(), cancel=cancel)
    finally:
        _make_removable(folder)


_MAKERS: Mapping[str, Callable[[Path, Path, int, CancelToken | None], None]] = MappingProxyType(
    {"erofs": _erofs, "squashfs": _squashfs}
)


def _make_removable(folder: Path) -> None:
    """Let the owner delete folders that the image has without permissions."""
    for parent, names, _ in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if not path.is_symlink():
                path.chmod(0o700)


def _reads_tar() -> bool:
    """Whether mkfs.erofs reads a tar: 1.7 and later."""
    lines: list[str] = []
    process.run([_need("mkfs.erofs"), "--help"], on_line=lines.append, check=False)
    return any("--tar" in line for line in lines)


def _environment() -> dict[str, str]:
    return {"PATH": process.search_path(), "LC_ALL": "C", "TZ": "UTC"}


def _which(name: str) -> str | None:
    return shutil.which(name, path=process.search_path())


def _need(name: str) -> str:
    path = _which(name)
    if path is None:
        hint = f"apt-get install {PACKAGES[name]}"
        raise MissingRequirement(name, "a read-only root on a disk (--root)", hint=hint)
    return path
