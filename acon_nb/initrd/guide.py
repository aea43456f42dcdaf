"""The guide's functions under their own names, on folders as in the scripts; see docs/initrd.md.

Source: the guide, "Customizing Initial RAM Disk". The variables F, C and T are the fields of `Variables`.
"""

from __future__ import annotations

import calendar
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from acon_nb.archive import cpio, newc, tar
from acon_nb.archive.compress import SUFFIXES
from acon_nb.archive.tree import FileTree
from acon_nb.errors import InvalidInput
from acon_nb.initrd import image, init, links
from acon_nb.initrd.check import boot_warnings
from acon_nb.initrd.image import ALIASES, DEFAULT_MTIME, InitrdImage
from acon_nb.initrd.sources import folder, tree_of
from acon_nb.initrd.sources.existing import drop_early
from acon_nb.progress import OnProgress, silent

_OWNER = (0, 0)
_TIME = re.compile(r"(\d{4}|\d{2})?(\d{2})(\d{2})(\d{2})(\d{2})(?:\.(\d{2}))?", re.ASCII)
_VIRTUAL = (b"proc", b"dev", b"sys")


@dataclass(frozen=True)
class Variables:
    """The guide's environment variables: `F` force, `C` the suffix of the compression, `T` the time of all files (UTC).

    `time` is in the format `[[CC]YY]MMDDhhmm[.ss]` of touch(1), "." for 2000-01-01 00:00, or "" to keep each file's
    time. Errors: `InvalidInput` that names the variable.
    """

    force: bool = False
    compression: str = ""
    time: str = ""

    def __post_init__(self) -> None:
        if self.compression not in ("", *SUFFIXES):
            hint = f"one of {', '.join(SUFFIXES)}"
            raise InvalidInput("C", self.compression, "is not a known compression", hint=hint)
        parse_time(self.time)

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] | None = None) -> Variables:
        """Read F, C and T from the environment."""
        values = os.environ if environment is None else environment
        suffix = values.get("C", "")
        return cls(force=bool(values.get("F")), compression=ALIASES.get(suffix, suffix), time=values.get("T", ""))

    @property
    def mtime(self) -> int | None:
        """The time in s since 1970, or None to keep each file's time."""
        return parse_time(self.time)


def parse_time(text: str) -> int | None:
    """Parse the format of touch(1) `-t` in UTC into seconds since 1970; "." is 2000-01-01 00:00, "" gives None.

    Two-digit years are 1969 to 2068, and no year is the current one, as in POSIX. Errors: `InvalidInput`.
    """
    if text in ("", "."):
        return DEFAULT_MTIME if text else None
    match = _TIME.fullmatch(text)
    if match is None:
        hint = "[[CC]YY]MMDDhhmm[.ss] in UTC, or . for 2000-01-01 00:00"
        raise InvalidInput("T", text, "is not a valid time", hint=hint)
    year, month, day, hour, minute, second = match.groups()
    number = int(year) if year else time.gmtime().tm_year
    if year and len(year) == 2:
        number += 1900 if number >= 69 else 2000
    parts = (number, int(month), int(day), int(hour), int(minute), int(second or 0))
    days = calendar.monthrange(number, parts[1])[1] if 1 <= parts[1] <= 12 and number else 0
    if not 1 <= parts[2] <= days or parts[3] > 23 or parts[4] > 59 or parts[5] > 60:
        raise InvalidInput("T", text, "does not exist in the calendar", hint="such as 202012310000")
    seconds = calendar.timegm((*parts, 0, 0, 0))
    if not 0 <= seconds < 1 << 32:
        reason = "is out of the range of newc, 1970 to 2106"
        raise InvalidInput("T", text, reason, hint="such as 202012310000")
    return seconds


def tar_container(container: str, dirs: Sequence[str], stream: BinaryIO, **options: Any) -> FileTree:
    """Write the named folders (default: all) of a container image to a stream as a tar; return the tree.

    `options` are those of `tree_of`. Errors: those of `tree_of`, `InvalidInput` if the stream is a terminal.
    """
    refuse_terminal(stream)
    tree = tree_of(container, dirs, **options)
    drop_early(tree)
    tar.write(tree, stream)
    return tree


def gen_init(tree: Path, names: Sequence[str] = (), *, force: bool = False) -> list[str]:
    """Generate /init and its files in a folder; return warnings.

    Without names (implicit mode) the missing files are generated, otherwise those named, which are overwritten.
    Errors: `InvalidInput`, `TreeError`.
    """
    warnings: list[str] = folder.edit_folder(tree, lambda files: _gen_init(files, names, force))
    return warnings


def _gen_init(tree: FileTree, names: Sequence[str], force: bool) -> list[str]:
    options: dict[str, Any] = {"names": tuple(names)} if names else {}
    return init.gen_init(tree, force=force, **options)


def cpio_initrd(tree: Path, stream: BinaryIO, variables: Variables | None = None) -> int:
    """Write a folder to a stream as a newc archive without changing the folder; return the archive's size in bytes.

    Errors: `TreeError` (no init), `InvalidInput` if the stream is a terminal.
    """
    refuse_terminal(stream)
    files = folder.from_folder(tree, owner=_OWNER)
    image.require_init(files, str(tree))
    return cpio.write(files, _Whole(stream), mtime=(variables or Variables()).mtime)


def create_initrd(
    tree: Path, path: Path | None = None, variables: Variables | None = None, *, on_progress: OnProgress = silent
) -> InitrdImage:
    """Pack a folder into an image, by default `TREE/../initrd-DIRNAME.cpio`, compressed according to `C`.

    Files keep the owners recorded in the folder's sidecar; other files belong to root.
    """
    files = folder.from_folder(tree, owner=_OWNER)
    variables = variables or Variables()
    target = image_path(tree, path, variables)
    return image.create(files, target, mtime=variables.mtime, owner=None, on_progress=on_progress)


def image_path(tree: Path, path: Path | None, variables: Variables) -> Path:
    """Return the path that `create_initrd` writes to; the suffix of `C` is appended if missing."""
    absolute = Path(os.path.abspath(tree))  # noqa: PTH100 ("." has no name, and links stay)
    target = path or absolute.parent / f"initrd-{absolute.name}.cpio"
    suffix = f".{variables.compression}"
    if variables.compression and target.suffix != suffix:
        target = target.with_name(target.name + suffix)
    return target


def xz_initrd(file: Path, *, keep: bool = False, on_progress: OnProgress = silent) -> InitrdImage:
    """Compress an uncompressed image with xz as the kernel needs it (check CRC32), and append `.xz` to its name.

    As with xz(1), FILE.xz takes the place of FILE, unless `keep` is set. Errors: those of `image.compress`.
    """
    made = image.compress(file, "xz", on_progress=on_progress)
    if not keep:
        file.unlink()
    return made


@dataclass(frozen=True, kw_only=True)
class Generated:
    """The result of `gen_initrd`: the image, the folder to edit, the warnings."""

    image: InitrdImage
    tree: Path
    warnings: tuple[str, ...]


def gen_initrd(
    tree: Path,
    container: str,
    dirs: Sequence[str] = (),
    variables: Variables | None = None,
    *,
    on_progress: OnProgress = silent,
    **options: Any,
) -> Generated:
    """Copy folders of a container image to the folder `tree`, generate /init there, and pack it into an image.

    The image is written next to `tree`. /proc, /dev, /sys and empty top-level folders of the container image are
    omitted, and absolute links become relative. Files that already exist in `tree` are kept unless the image replaces
    them. `options` are those of `tree_of`.
    """
    variables = variables or Variables()
    image.suffix_of(image_path(tree, None, variables))
    files = tree_of(container, dirs, on_progress=on_progress, **options)
    drop_early(files)
    prune(files)
    links.abs2rellinks(files)
    init.gen_init(files, force=variables.force)
    warnings = [*files.warnings(), *boot_warnings(files)]
    newc.check_tree(files)  # before hours of writing
    folder.write_folder(files, tree)
    made = create_initrd(tree, None, variables, on_progress=on_progress)
    return Generated(image=made, tree=tree, warnings=tuple(warnings))


def prune(tree: FileTree) -> None:
    """Remove /proc, /dev, /sys and empty top-level folders from a tree."""
    for name in _VIRTUAL:
        tree.remove(name)
    tree.dropped = [(what, name) for what, name in tree.dropped if name.partition(b"/")[0] not in _VIRTUAL]
    not_empty = {name.partition(b"/")[0] for name, _ in tree.items() if b"/" in name}
    for name, entry in tree.items():
        if entry.is_dir and b"/" not in name and name not in not_empty:
            tree.remove(name)


def abs2rellinks(root: Path) -> int:
    """Make the absolute symbolic links below a folder relative, with the folder as "/"; return their number."""
    count: int = folder.edit_folder(root, links.abs2rellinks)
    return count


abs2relinks = abs2rellinks  # the scripts use both spellings


def hard2symlinks(file: Path, directory: Path | None = None) -> int:
    """Replace the other hard links of a file in a folder (default: its own) and below by relative symbolic links."""
    top = directory or file.parent
    if not file.is_file() or file.is_symlink():
        raise InvalidInput("file", file, "is not a regular file", hint="name the file that the links will point to")
    root = Path(os.path.commonpath([os.path.abspath(top), os.path.abspath(file.parent)]))  # noqa: PTH100
    name, below = (os.path.relpath(path, root) for path in (file, top))
    count: int = folder.edit_folder(root, lambda tree: links.hard2symlinks(tree, name, below))
    return count


def hard2symlinks_all(root: Path) -> int:
    """Replace every group of hard links below a folder by symbolic links to one of them; return their number."""
    count: int = folder.edit_folder(root, links.hard2symlinks)
    return count


def refuse_terminal(stream: BinaryIO) -> None:
    """Check that an archive is not written to a terminal. Errors: `InvalidInput`."""
    if stream.isatty():
        hint = "redirect it: > FILE, or into a pipe"
        raise InvalidInput("stdout", "a terminal", "cannot receive an archive", hint=hint)


class _Whole:
    """A stream that writes all bytes, even if the underlying `write` takes only some (an unbuffered pipe)."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, data: bytes) -> int:
        """Write all bytes."""
        view = memoryview(data)
        while view:
            view = view[self._stream.write(view) or 0 :]
        return len(data)
