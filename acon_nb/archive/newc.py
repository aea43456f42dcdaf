"""What a newc archive and the kernel's unpacker can hold: checked for a whole tree before anything is written.

The kernel loses what it cannot hold without a word. Sources: init/initramfs.c (`do_header`, `do_symlink`), NAME_MAX and
PATH_MAX (include/uapi/linux/limits.h), `new_encode_dev` (include/linux/kdev_t.h), chown(2).
"""

from __future__ import annotations

import stat
from collections.abc import Iterator

from acon_nb.archive.tree import Entry, FileTree, shown
from acon_nb.errors import TreeError

FIELD_LIMIT = 0xFFFFFFFF  # of every number in a header: eight hexadecimal digits
TRAILER = b"TRAILER!!!"
NAME_BYTES = 255  # NAME_MAX, of each part of a path
PATH_BYTES = 4095  # PATH_MAX without the NUL
DEVICE_LIMITS = (0xFFF, 0xFFFFF)  # major, minor
_KINDS = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK)
_SHOWN = 8


def check_tree(tree: FileTree, *, owner: tuple[int, int] | None = None) -> None:
    """Check that the guest's root would hold every name of a tree as it is.

    Parameters: `owner` replaces the owner of every file. Errors: `TreeError` that names the first that do not fit.
    """
    problems = []
    for name, entry in tree.items():
        problems += [f"{_short(name)} {reason}" for reason in _problems(name, entry, owner or (entry.uid, entry.gid))]
        if len(problems) > _SHOWN:
            break
    if problems:
        first, *others = problems
        details = [*others[: _SHOWN - 1], *(["and more"] if len(problems) > _SHOWN else [])]
        raise TreeError(
            first,
            details=details,
            hint="remove it, or select other folders of the image; large files can be on a disk (acon-nb disk create)",
        )


def _problems(name: bytes, entry: Entry, owner: tuple[int, int]) -> Iterator[str]:
    if name == TRAILER:
        yield "has the name that ends an archive"
    if len(name) > NAME_BYTES and (longest := max(map(len, name.split(b"/")))) > NAME_BYTES:
        yield f"has a name of {longest} bytes; Linux allows {NAME_BYTES} for each part of a path"
    if stat.S_IFMT(entry.mode) not in _KINDS:
        yield f"is of no file type that Linux knows (mode {entry.mode:o})"
    if entry.content.size > FIELD_LIMIT:
        yield f"has {entry.content.size} bytes; files in newc are smaller than 4 GiB"
    elif entry.is_link:
        yield from _problems_of_target(entry)
    for field, value in zip(("owner", "group"), owner, strict=True):
        if not 0 <= value < FIELD_LIMIT:  # chown(2) takes the last number for "do not change"
            yield f"has the {field} {value}; Linux has 0 to {FIELD_LIMIT - 1}"
    if entry.is_device:
        for field, value, limit in zip(("major", "minor"), entry.device, DEVICE_LIMITS, strict=True):
            if not 0 <= value <= limit:
                yield f"has the {field} device number {value}; Linux has 0 to {limit}"


def _problems_of_target(entry: Entry) -> Iterator[str]:
    size = entry.content.size
    if not size:
        yield "is a symbolic link without a target"
    elif size > PATH_BYTES:
        yield f"is a symbolic link with a target of {size} bytes; Linux allows {PATH_BYTES}"
    elif b"\0" in entry.content.read():
        yield "is a symbolic link with a NUL byte in its target"


def _short(name: bytes) -> str:
    return shown(name) if len(name) <= 2 * NAME_BYTES else f"{shown(name[:60])}…"
