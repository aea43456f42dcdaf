"""Writes trees to folders of the host for editing (the guide's `bbox/`) and reads them back, without root.

Properties that an unprivileged user cannot set on disk are stored in a sidecar file of the folder, `.acon-tree.jsonl`:
one line for each such name with its owner, its mode in the image, its mode on disk, and the device that a placeholder
(an empty file) stands for. Edits on disk take precedence: a changed mode, a file that replaces a placeholder, a removed
name. Names that are not in the sidecar were added by the user and belong to root in the image.
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

from acon_nb.archive.tree import NO_XATTRS, Content, Entry, FileTree, shown
from acon_nb.cache import raising_no_space
from acon_nb.errors import InvalidInput, TreeError
from acon_nb.initrd.links import hard_links, inside

SIDECAR = ".acon-tree.jsonl"
_VERSION = 1
_ROOT = (0, 0)
_LAST_TIME = 0xFFFFFFFF  # 2106, the end of newc's range
# A name or a link's target that is too long, or an empty target
_NOT_ON_DISK = (errno.ENAMETOOLONG, errno.ENOENT)


@dataclass(frozen=True, kw_only=True)
class _Record:
    """The sidecar's record of a name: its properties in the image, and its mode on disk when it was written."""

    mode: int
    uid: int
    gid: int
    disk_mode: int
    device: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        for value in (self.mode, self.uid, self.gid, self.disk_mode, *self.device):
            if not isinstance(value, int) or not 0 <= value <= 0xFFFFFFFF:
                raise ValueError(f"{value!r} is not a 32-bit number")


def from_folder(folder: Path, *, owner: tuple[int, int] | None = None) -> FileTree:
    """Read a folder of the host as a tree: modes, links and devices are kept, symbolic links are not followed.

    Parameters: `owner` is the owner of names that are not in the sidecar (default: the owner on disk).
    Errors: `TreeError` (not a folder, no permission), `InvalidInput` (a damaged sidecar).
    """
    tree = FileTree()
    if not folder.is_dir():
        raise TreeError(f"{folder} is not a folder", hint="give the folder to pack")
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
                tree.drop("sockets are omitted: an initrd cannot use them", key)
                continue
            record = records.get(key)
            if record is not None:
                entry = _as_recorded(entry, record)
            elif owner is not None:
                entry = replace(entry, uid=owner[0], gid=owner[1])
            tree.put(key, entry)
            if stat.S_ISDIR(info.st_mode):
                pending.append((below, key))
    _unify(tree, records)
    return tree


def _unify(tree: FileTree, records: Mapping[bytes, _Record]) -> None:
    """Give a hard link that was added on disk what the sidecar has for the file's other names."""
    for names in hard_links(tree).values():
        recorded = [name for name in names if name in records]
        for name in names if recorded else ():
            if name not in records:
                tree.put(name, tree[recorded[0]])


def _list(path: bytes) -> list[bytes]:
    try:
        return os.listdir(path)
    except PermissionError as error:
        raise TreeError(f"{shown(path)} cannot be read: {error.strerror}", hint="chmod u+rx it") from error


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
    """Combine an entry on disk with its record in the sidecar."""
    placeholder = stat.S_IFMT(record.disk_mode) != stat.S_IFMT(record.mode)
    if stat.S_IFMT(entry.mode) != stat.S_IFMT(record.disk_mode) or (placeholder and entry.content.size):
        return replace(entry, uid=0, gid=0)  # the user has replaced it
    changed = (entry.mode ^ record.disk_mode) & 0o7777
    entry = replace(entry, mode=record.mode ^ changed, uid=record.uid, gid=record.gid)
    return replace(entry, device=record.device, inode=None) if placeholder else entry


def write_folder(tree: FileTree, folder: Path, *, before: FileTree | None = None) -> None:
    """Write a tree to a folder that an unprivileged user can edit; existing names are replaced one by one.

    Nothing is written outside the folder through names or links, and no owner, set-id bit or device number is set on
    disk: the sidecar stores those. Links that lead out of the folder are rewritten to stay inside (in the guest they
    mean the same). Parameters: `before` is the previous content of the folder: only differences are written.
    Errors: `NoSpace`, `TreeError`, `InvalidInput` (a folder with contents has the name of a file or link).
    """
    folder.mkdir(parents=True, exist_ok=True)
    if before is None:
        _refuse_loss(tree, os.fsencode(folder))
    writer = _Writer(folder, tree, dict(_read_sidecar(folder)))
    old = dict(before.items()) if before is not None else {}
    with raising_no_space(folder):
        for name, entry in tree.items():
            if old.get(name) != entry:
                writer.put(name, entry)
        for name in sorted(old.keys() - dict(tree.items()).keys(), reverse=True):
            writer.remove(name)
        writer.finish()


def _refuse_loss(tree: FileTree, root: bytes) -> None:
    """Check that no folder with contents would be replaced: they may be the user's."""
    for name, entry in tree.items():
        path = root + b"/" + name
        if not entry.is_dir and stat.S_ISDIR(_mode_of(path)) and os.listdir(path):
            there = f"a link to {shown(entry.content.read())}" if entry.is_link else "a file"
            reason = f"is a folder with contents, but in the image it is {there}"
            raise InvalidInput("tree", os.fsdecode(path), reason, hint="move its contents away, or use a new folder")


class _Writer:
    """Writes entries of a tree below a folder, never through a link."""

    def __init__(self, folder: Path, tree: FileTree, records: dict[bytes, _Record]) -> None:
        self._root = os.fsencode(folder)
        self._tree = tree
        self._records = records
        self._linked: dict[object, bytes] = {}
        self._touched: set[bytes] = set()  # folders whose times have changed because files in them were written

    def put(self, name: bytes, entry: Entry) -> None:
        """Write one entry, after its folder. Errors: `TreeError` if the file system cannot hold it."""
        try:
            self._put(name, entry)
        except OSError as error:
            if error.errno not in _NOT_ON_DISK:
                raise
            raise TreeError(
                f"{shown(name)} cannot be written to {os.fsdecode(self._root)}: {error.strerror}",
                hint="remove it from the image, or make the initrd without a folder (acon-nb initrd from)",
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
            os.symlink(inside(self._tree, name, entry.content.read()), path)  # noqa: PTH211
        else:
            self._put_file(path, entry, stat.S_IMODE(disk_mode))
        _set_time(path, entry)
        self._records.pop(name, None)
        if (entry.mode, entry.uid, entry.gid) != (disk_mode, *_ROOT):  # no record if the disk has all of it
            self._records[name] = _Record(
                mode=entry.mode, uid=entry.uid, gid=entry.gid, disk_mode=disk_mode, device=entry.device
            )

    def remove(self, name: bytes) -> None:
        """Remove one name, after everything below it."""
        self._clear(self._root + b"/" + name, keep_folder=False)
        self._touched.add(name.rpartition(b"/")[0])

    def finish(self) -> None:
        """Restore the times of folders that were written to, and write the sidecar."""
        for name in self._touched:
            entry = self._tree.get(name)
            if entry is not None and entry.is_dir:
                _set_time(self._root + b"/" + name, entry)
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
        new = self._root + b"/" + SIDECAR.encode() + b".new"  # the content may come from the file being replaced
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
    """Return the mode of a path, without following links; 0 if it does not exist."""
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        return 0


def _disk_mode(entry: Entry) -> int:
    """Return the mode on disk: readable and writable for the owner, without set-id bits."""
    if entry.is_dir:
        return stat.S_IFDIR | entry.mode & 0o777 | 0o700
    if entry.is_link:
        return stat.S_IFLNK | 0o777
    if entry.is_file:
        return stat.S_IFREG | entry.mode & 0o777 | 0o600
    return stat.S_IFREG | 0o600  # a placeholder for what only root can create


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
                    raise ValueError("the first line does not name a supported version")
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
                "tree", path, f"line {number} is damaged: {error}", hint="fix the line, or remove the file"
            ) from error
    return records


def overlay(tree: FileTree, edits: Path) -> None:
    """Lay the files of a folder over a tree, along its links (`FileTree.add`).

    They belong to root unless in the folder's sidecar; a folder that exists in the tree keeps its owner, mode and time.
    Errors: `InvalidInput` for a file that would replace a folder of the tree, or the other way round.
    """
    mine = from_folder(edits, owner=_ROOT)
    inodes = object()
    for name, entry in mine.items():
        if entry.is_dir and tree.has_folder(name):
            continue
        try:
            tree.add(name, replace(entry, inode=(inodes, entry.inode)) if entry.inode is not None else entry)
        except TreeError as error:
            path = edits / os.fsdecode(name)
            raise InvalidInput("edits", path, f"does not fit the image: {error.what}", hint=error.hint) from error
    tree.dropped += mine.dropped


def edit_folder(folder: Path, change: Callable[[FileTree], Any]) -> Any:
    """Apply `change` to a folder's tree in memory and write the differences; return the result of `change`."""
    tree = from_folder(folder, owner=_ROOT)
    before = FileTree()
    for name, entry in tree.items():
        before.put(name, entry)
    result = change(tree)
    write_folder(tree, folder, before=before)
    return result
