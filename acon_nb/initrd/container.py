"""Images as trees: Debian's busybox, a folder, a root file system's tar. Nothing is unpacked to disk, or started."""

from __future__ import annotations

import os
import stat
import tarfile
from dataclasses import replace
from pathlib import Path

from acon_nb import debian, process
from acon_nb.cache import Cache
from acon_nb.errors import InvalidInput, TreeError
from acon_nb.initrd.tree import Content, Entry, FileTree, clean_name, from_folder
from acon_nb.progress import OnProgress, silent

KNOWN = "busybox, dir:FOLDER, tar:FILE"


def tree_of(image: str, *, cache: Cache | None = None, on_progress: OnProgress = silent) -> FileTree:
    """The tree of an image: `busybox` (Debian's busybox-static), `dir:D` or `tar:F` (uncompressed).

    Errors: `InvalidInput` (no such kind, no such file), `TreeError` (a hostile or broken archive).
    """
    if image == "busybox":
        return busybox(cache=cache or Cache(), on_progress=on_progress)
    kind, colon, value = image.partition(":")
    if colon and kind == "dir":
        return from_folder(Path(value))
    if colon and kind == "tar":
        return from_tar(Path(value))
    raise InvalidInput("image", image, "is no known kind of image", hint=f"one of {KNOWN}")


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


def from_tar(path: Path) -> FileTree:
    """A tree of an uncompressed tar file; contents stay in the tar until they are read.

    Names that lead out are refused; hard links become links of one file; sockets and the like are left out.
    """
    if not path.is_file():
        raise InvalidInput("image", path, "is no file", hint="give the tar of a root file system")
    tree = FileTree()
    try:
        with tarfile.open(path, "r:") as archive:
            for number, member in enumerate(archive):
                if member.size < 0:  # tarfile would go back and read this member for ever
                    raise TreeError(f"{member.name!r} claims {member.size} bytes")
                _add_member(tree, path, member, number + 1)
            _require_end(path, archive.offset)
    except tarfile.TarError as error:
        raise TreeError(f"{path} is no uncompressed tar, or a damaged one: {error}", hint="unpack .gz first") from error
    return tree


def _require_end(path: Path, offset: int) -> None:
    """tarfile takes a damaged header for the end of the archive; only zeros, or the file's end, are one."""
    with path.open("rb") as file:
        file.seek(offset)
        block = file.read(tarfile.BLOCKSIZE)
    if block.strip(b"\0"):
        raise TreeError(f"{path} is damaged or cut short at byte {offset}", hint="make the tar again")


def _add_member(tree: FileTree, path: Path, member: tarfile.TarInfo, number: int) -> None:
    name = os.fsencode(member.name)
    base = Entry(mode=member.mode & 0o7777, uid=member.uid, gid=member.gid, mtime=int(member.mtime))
    if member.isdir():
        tree.add(name, replace(base, mode=base.mode | stat.S_IFDIR))
    elif member.issym():
        tree.add(name, replace(base, mode=stat.S_IFLNK | 0o777, content=Content.of(os.fsencode(member.linkname))))
    elif member.islnk():
        _add_link(tree, name, os.fsencode(member.linkname), number)
    elif member.isreg():
        if member.sparse is not None:
            raise TreeError(f"{member.name!r} is a sparse file of the tar", hint="write the tar without --sparse")
        if member.offset_data + member.size > path.stat().st_size:
            raise TreeError(f"{member.name!r} claims {member.size} bytes, more than the tar holds")
        content = Content(size=member.size, path=path, offset=member.offset_data)
        tree.add(name, replace(base, mode=base.mode | stat.S_IFREG, content=content))
    elif member.isfifo():
        tree.add(name, replace(base, mode=base.mode | stat.S_IFIFO))
    elif member.isdev():
        kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
        tree.add(name, replace(base, mode=base.mode | kind, device=(member.devmajor, member.devminor)))


def _add_link(tree: FileTree, name: bytes, target: bytes, number: int) -> None:
    if target not in tree:
        raise TreeError(f"{name!r} is a hard link to {target!r}, which is not in the tar before it")
    entry = tree[target]
    if clean_name(target) == clean_name(name):
        return
    if entry.inode is None:
        entry = replace(entry, inode=number)
        tree.add(target, entry)
    tree.add(name, entry)
