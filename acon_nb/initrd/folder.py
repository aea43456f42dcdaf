"""Trees as folders of the host, to edit by hand: the guide's `bbox/`. No root is needed.

What a plain user cannot make on a disk is kept in a sidecar file of the folder, `.acon-tree.jsonl`: a line for each
such name with its owner, its mode in the image, the mode on disk, and what a placeholder (an empty file) is for. The
disk wins where it was edited: a changed mode, a file in a placeholder's place, a name that is gone. Names that the
sidecar does not know are the user's own and belong to root in the image.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from acon_nb.cache import said_no_space
from acon_nb.errors import InvalidInput, TreeError
from acon_nb.initrd.links import inside
from acon_nb.initrd.tar import NO_XATTRS
from acon_nb.initrd.tree import Content, Entry, FileTree, shown

SIDECAR = ".acon-tree.jsonl"
_VERSION = 1
_ROOT = (0, 0)
_LAST_TIME = 0xFFFFFFFF  # 2106, the last that newc holds
# A name or link's target that is too long, or a link to nothing
_NOT_ON_DISK = (errno.ENAMETOOLONG, errno.ENOENT)


@dataclass(frozen=True, kw_only=True)
class _Record:
    """What the sidecar keeps of a name: as the image has it, and the mode it was given on disk."""

    mode: int
    uid: int
    gid: int
    disk_mode: int
    device: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        for value in (self.mode, self.uid, self.gid, self.disk_mode, *self.device):
            if not isinstance(value, int) or not 0 <= value <= 0xFFFFFFFF:
                raise ValueError(f"{value!r} is no number of 32 bits")


def from_folder(folder: Path, *, owner: tuple[int, int] | None = None) -> FileTree:
    """A tree of a folder of the host: modes, links and devices as they are; symbolic links are not followed.

    Parameters: `owner` is given to what no sidecar names (default: the owner on disk).
    Errors: `TreeError` (no folder, no right to read), `InvalidInput` (a damaged sidecar).
    """
    tree = FileTree()
    if not folder.is_dir():
        raise TreeError(f"{folder} is no folder", hint="give the folder that is to become the initrd")
    records = _read_sidecar(folder)
    pending = [(os.fsencode(folder), b"")]
    while pending:
        path, name = pending.pop()
        for item in sorted(_list(path)):
            below, key = path + b"/" + item, name + b"/" + item if name else item
            if key == SIDECAR.encode():
                continue
            info = os.lstat(below)
            entry = _entry_of(below, info, tree, key)
            if entry is None:
                tree.drop("sockets are left out: newc has no use for them", key)
                continue
            record = records.get(key)
            if record is not None:
                entry = _as_recorded(entry, record)
            elif owner is not None:
                entry = replace(entry, uid=owner[0], gid=owner[1])
            tree.add(key, entry)
            if stat.S_ISDIR(info.st_mode):
                pending.append((below, key))
    return tree


def _list(path: bytes) -> list[bytes]:
    try:
        return os.listdir(path)
    except PermissionError as error:
        raise TreeError(f"{shown(path)} may not be read: {error.strerror}", hint="chmod u+rx it") from error


def _entry_of(path: bytes, info: os.stat_result, tree: FileTree, name: bytes) -> Entry | None:
    if stat.S_ISSOCK(info.st_mode):
        return None
    entry = Entry(
        mode=info.st_mode,
        uid=info.st_uid,
        gid=info.st_gid,
        mtime=int(info.st_mtime),
        device=(os.major(info.st_rdev), os.minor(info.st_rdev)),
    )
    if stat.S_ISREG(info.st_mode):
        with contextlib.suppress(OSError):
            for attribute in os.listxattr(path, follow_symlinks=False):
                tree.drop(NO_XATTRS.format(attribute), name)
        linked = (info.st_dev, info.st_ino) if info.st_nlink > 1 else None
        content = Content(size=info.st_size, path=Path(os.fsdecode(path)))
        return replace(entry, content=content, inode=linked)
    if stat.S_ISLNK(info.st_mode):
        return replace(entry, content=Content.of(os.readlink(path)))  # noqa: PTH115 (a name that is bytes)
    return entry


def _as_recorded(entry: Entry, record: _Record) -> Entry:
    """What the disk holds, with what the sidecar knows of it."""
    placeholder = stat.S_IFMT(record.disk_mode) != stat.S_IFMT(record.mode)
    if stat.S_IFMT(entry.mode) != stat.S_IFMT(record.disk_mode) or (placeholder and entry.content.size):
        return replace(entry, uid=0, gid=0)  # another thing stands there now: the user's
    changed = (entry.mode ^ record.disk_mode) & 0o7777
    entry = replace(entry, mode=record.mode ^ changed, uid=record.uid, gid=record.gid)
    return replace(entry, device=record.device, inode=None) if placeholder else entry


def write_folder(tree: FileTree, folder: Path, *, before: FileTree | None = None) -> None:
    """Write a tree to a folder, so that a plain user can edit it; what is there already is replaced, name by name.

    No name of the tree and no link on the disk is followed out of the folder, nothing gets an owner, a set-id bit or a
    device number on disk: the sidecar keeps those. Links that lead out are written so that they stay inside (they mean
    the same in the guest). Parameters: `before` is the tree that the folder held: only what differs is touched.
    Errors: `NoSpace`, `TreeError`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    writer = _Writer(folder, dict(_read_sidecar(folder)))
    old = dict(before.items()) if before is not None else {}
    with said_no_space(folder):
        for name, entry in tree.items():
            if old.get(name) != entry:
                writer.put(name, entry)
        for name in sorted(old.keys() - dict(tree.items()).keys(), reverse=True):
            writer.remove(name)
        writer.finish(tree)


class _Writer:
    """Writes entries below a folder by descriptors of folders, never through a link."""

    def __init__(self, folder: Path, records: dict[bytes, _Record]) -> None:
        self._root = os.fsencode(folder)
        self._records = records
        self._linked: dict[object, bytes] = {}
        self._touched: set[bytes] = set()  # folders whose times writing into them moved

    def put(self, name: bytes, entry: Entry) -> None:
        """Write one entry; its folder was written before it. Errors: `TreeError` for what no disk here can hold."""
        try:
            self._put(name, entry)
        except OSError as error:
            if error.errno not in _NOT_ON_DISK:
                raise
            raise TreeError(
                f"{shown(name)} cannot be written to {os.fsdecode(self._root)}: {error.strerror}",
                hint="remove it from the image; without a folder (acon-nb initrd from) the image can hold it",
            ) from error

    def _put(self, name: bytes, entry: Entry) -> None:
        path = self._root + b"/" + name
        disk_mode = _disk_mode(entry)
        self._touched.add(name.rpartition(b"/")[0])
        if not entry.is_file:
            self._clear(path, keep_folder=entry.is_dir)
        if entry.is_dir:
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, 0o700)  # noqa: PTH102 (a name that is bytes)
            os.chmod(path, stat.S_IMODE(disk_mode))  # noqa: PTH101
            self._touched.add(name)
        elif entry.is_link:
            os.symlink(inside(name, entry.content.read()), path)  # noqa: PTH211
        else:
            self._put_file(path, entry, stat.S_IMODE(disk_mode))
        _set_time(path, entry)
        self._records.pop(name, None)
        if (entry.mode, entry.uid, entry.gid) != (disk_mode, *_ROOT):  # what the disk says by itself needs no record
            self._records[name] = _Record(
                mode=entry.mode, uid=entry.uid, gid=entry.gid, disk_mode=disk_mode, device=entry.device
            )

    def remove(self, name: bytes) -> None:
        """Remove one name; what was below it is gone already."""
        self._clear(self._root + b"/" + name, keep_folder=False)
        self._touched.add(name.rpartition(b"/")[0])

    def finish(self, tree: FileTree) -> None:
        """Set the times of folders, which writing into them moved, and write the sidecar."""
        for name in self._touched:
            if name and name in tree and tree[name].is_dir:
                _set_time(self._root + b"/" + name, tree[name])
        lines = [json.dumps({"acon-tree": _VERSION})]
        for name, record in sorted(self._records.items()):
            if not os.path.lexists(self._root + b"/" + name):
                continue
            lines.append(json.dumps({"name": os.fsdecode(name), **_as_json(record)}, ensure_ascii=True))
        path = Path(os.fsdecode(self._root)) / SIDECAR
        if len(lines) == 1:
            path.unlink(missing_ok=True)
            return
        temporary = path.with_name(f"{SIDECAR}.new")
        temporary.write_text("\n".join(lines) + "\n")
        temporary.replace(path)

    def _put_file(self, path: bytes, entry: Entry, mode: int) -> None:
        first = self._linked.get(entry.inode) if entry.inode is not None else None
        if first is not None:
            self._clear(path, keep_folder=False)
            os.link(first, path, follow_symlinks=False)
            return
        if entry.inode is not None:
            self._linked[entry.inode] = path
        new = self._root + b"/" + SIDECAR.encode() + b".new"  # the content may be that of the file in this place
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)  # noqa: PTH108
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            for chunk in entry.content.chunks():
                if chunk.strip(b"\0"):
                    file.write(chunk)
                else:
                    file.seek(len(chunk), os.SEEK_CUR)  # a hole
            file.truncate(entry.content.size)
            os.fchmod(file.fileno(), mode)
        if stat.S_ISDIR(_mode_of(path)):
            shutil.rmtree(path)
        os.replace(new, path)  # noqa: PTH105

    def _clear(self, path: bytes, *, keep_folder: bool) -> None:
        mode = _mode_of(path)
        if mode and not stat.S_ISDIR(mode):
            os.unlink(path)  # noqa: PTH108
        elif mode and not keep_folder:
            shutil.rmtree(path)


def _set_time(path: bytes, entry: Entry) -> None:
    mtime = min(max(0, entry.mtime), _LAST_TIME)
    os.utime(path, (mtime, mtime), follow_symlinks=False)


def _mode_of(path: bytes) -> int:
    """The mode of what stands there, links not followed; 0 for nothing."""
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        return 0


def _disk_mode(entry: Entry) -> int:
    """The mode on disk: what the owner needs to read and edit, nothing that runs as another."""
    if entry.is_dir:
        return stat.S_IFDIR | entry.mode & 0o777 | 0o700
    if entry.is_link:
        return stat.S_IFLNK | 0o777
    if entry.is_file:
        return stat.S_IFREG | entry.mode & 0o777 | 0o600
    return stat.S_IFREG | 0o600  # a placeholder for what only root can make


def _as_json(record: _Record) -> dict[str, Any]:
    fields: dict[str, Any] = {"mode": f"{record.mode:o}", "uid": record.uid, "gid": record.gid}
    fields["disk_mode"] = f"{record.disk_mode:o}"
    if record.device != (0, 0):
        fields["device"] = list(record.device)
    return fields


def _read_sidecar(folder: Path) -> Mapping[bytes, _Record]:
    path = folder / SIDECAR
    if path.is_symlink() or not path.is_file():
        return {}
    records: dict[bytes, _Record] = {}
    for number, line in enumerate(path.read_text("utf-8", "surrogateescape").splitlines(), 1):
        try:
            fields = json.loads(line)
            if number == 1:
                if fields != {"acon-tree": _VERSION}:
                    raise ValueError("its first line does not name a version that is known")
                continue
            major, minor = fields.get("device", (0, 0))
            records[os.fsencode(fields["name"])] = _Record(
                mode=int(fields["mode"], 8),
                uid=fields["uid"],
                gid=fields["gid"],
                disk_mode=int(fields["disk_mode"], 8),
                device=(major, minor),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InvalidInput(
                "tree", path, f"line {number} is damaged: {error}", hint="mend the line, or remove the file"
            ) from error
    return records


def overlay(tree: FileTree, edits: Path) -> None:
    """Lay a folder of the user's own files over a tree; they belong to root unless its sidecar says otherwise."""
    for name, entry in from_folder(edits, owner=_ROOT).items():
        if entry.is_dir and name in tree and tree[name].is_dir:
            continue  # a folder on the way keeps what the image says of it
        tree.add(name, replace(entry, inode=(id(edits), entry.inode)) if entry.inode is not None else entry)


def edit_folder(folder: Path, change: Callable[[FileTree], Any]) -> Any:
    """Change a folder's tree in memory by `change`, write what became different; returns what `change` returned."""
    tree = from_folder(folder, owner=_ROOT)
    before = FileTree()
    for name, entry in tree.items():
        before.add(name, entry)
    result = change(tree)
    write_folder(tree, folder, before=before)
    return result
