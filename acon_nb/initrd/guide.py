"""The guide's seven functions by their names, on folders as the scripts have them; see docs/initrd.md.

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

from acon_nb.errors import InvalidInput
from acon_nb.initrd import cpio, folder, image, init, links, tar
from acon_nb.initrd.compress import SUFFIXES
from acon_nb.initrd.container import tree_of
from acon_nb.initrd.image import ALIASES, DEFAULT_MTIME, InitrdImage
from acon_nb.initrd.tree import FileTree
from acon_nb.progress import OnProgress, silent

_OWNER = (0, 0)
_TIME = re.compile(r"(\d{4}|\d{2})?(\d{2})(\d{2})(\d{2})(\d{2})(?:\.(\d{2}))?", re.ASCII)
_VIRTUAL = (b"proc", b"dev", b"sys")


@dataclass(frozen=True)
class Variables:
    """The guide's environment variables: `F` force, `C` the suffix of the compression, `T` every file's time (UTC).

    `time` is touch(1)'s `[[CC]YY]MMDDhhmm[.ss]`, "." for 2000-01-01 00:00, "" to keep each file's own.
    Errors: `InvalidInput` that names the variable.
    """

    force: bool = False
    compression: str = ""
    time: str = ""

    def __post_init__(self) -> None:
        if self.compression not in ("", *SUFFIXES):
            raise InvalidInput("C", self.compression, "is no known compression", hint=f"one of {', '.join(SUFFIXES)}")
        parse_time(self.time)

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] | None = None) -> Variables:
        """From the environment's F, C and T."""
        values = os.environ if environment is None else environment
        suffix = values.get("C", "")
        return cls(force=bool(values.get("F")), compression=ALIASES.get(suffix, suffix), time=values.get("T", ""))

    @property
    def mtime(self) -> int | None:
        """The time in s since 1970, or None to keep each file's own."""
        return parse_time(self.time)


def parse_time(text: str) -> int | None:
    """Seconds since 1970 of touch(1)'s `-t` format in UTC, of "." (2000-01-01 00:00), None of "".

    A year of two digits is 1969 to 2068, no year is this one, as POSIX says. Errors: `InvalidInput`.
    """
    if text in ("", "."):
        return DEFAULT_MTIME if text else None
    match = _TIME.fullmatch(text)
    if match is None:
        raise InvalidInput("T", text, "is no time", hint="[[CC]YY]MMDDhhmm[.ss] in UTC, or . for 2000-01-01 00:00")
    year, month, day, hour, minute, second = match.groups()
    number = int(year) if year else time.gmtime().tm_year
    if year and len(year) == 2:
        number += 1900 if number >= 69 else 2000
    parts = (number, int(month), int(day), int(hour), int(minute), int(second or 0))
    days = calendar.monthrange(number, parts[1])[1] if 1 <= parts[1] <= 12 and number else 0
    if not 1 <= parts[2] <= days or parts[3] > 23 or parts[4] > 59 or parts[5] > 60:
        raise InvalidInput("T", text, "is no day or time that there is", hint="such as 202012310000")
    seconds = calendar.timegm((*parts, 0, 0, 0))
    if not 0 <= seconds < 1 << 32:
        raise InvalidInput(
            "T", text, "is before 1970 or after 2106, which newc cannot hold", hint="such as 202012310000"
        )
    return seconds


def tar_container(container: str, dirs: Sequence[str], stream: BinaryIO, **options: Any) -> FileTree:
    """Write the named folders (none: all) of a container image to a stream as a tar; returns the tree.

    `options` are those of `tree_of`. Errors: those of `tree_of`, `InvalidInput` when the stream is a terminal.
    """
    refuse_terminal(stream)
    tree = tree_of(container, dirs, **options)
    tar.write(tree, stream)
    return tree


def gen_init(tree: Path, names: Sequence[str] = (), *, force: bool = False) -> list[str]:
    """Generate /init and its files in a folder: implicit mode without names, else these, overwritten.

    Returns warnings. Errors: `InvalidInput`, `TreeError`.
    """
    warnings: list[str] = folder.edit_folder(tree, lambda found: _gen_init(found, names, force))
    return warnings


def _gen_init(tree: FileTree, names: Sequence[str], force: bool) -> list[str]:
    options: dict[str, Any] = {"names": tuple(names)} if names else {}
    return init.gen_init(tree, force=force, **options)


def cpio_initrd(tree: Path, stream: BinaryIO, variables: Variables | None = None) -> int:
    """Write a folder to a stream as a newc archive, the folder itself untouched; returns its bytes.

    Errors: `TreeError` (no init), `InvalidInput` when the stream is a terminal.
    """
    refuse_terminal(stream)
    found = folder.from_folder(tree, owner=_OWNER)
    image.require_init(found, str(tree))
    return cpio.write(found, _Whole(stream), mtime=(variables or Variables()).mtime)


def create_initrd(
    tree: Path, path: Path | None = None, variables: Variables | None = None, *, on_progress: OnProgress = silent
) -> InitrdImage:
    """Pack a folder into an image, by default `TREE/../initrd-DIRNAME.cpio`, compressed as `C` says.

    Files keep the owners that the folder's sidecar knows from the image; the user's own belong to root.
    """
    found = folder.from_folder(tree, owner=_OWNER)
    return _create(found, tree, path, variables or Variables(), on_progress)


def _create(
    found: FileTree, tree: Path, path: Path | None, variables: Variables, on_progress: OnProgress
) -> InitrdImage:
    return image.create(
        found, image_path(tree, path, variables), mtime=variables.mtime, owner=None, on_progress=on_progress
    )


def image_path(tree: Path, path: Path | None, variables: Variables) -> Path:
    """Where `create_initrd` writes: the suffix of `C` is added unless it is there."""
    whole = Path(os.path.abspath(tree))  # noqa: PTH100 ("." has no name, and links stay)
    target = path or whole.parent / f"initrd-{whole.name}.cpio"
    suffix = f".{variables.compression}"
    if variables.compression and target.suffix != suffix:
        target = target.with_name(target.name + suffix)
    return target


@dataclass(frozen=True, kw_only=True)
class Generated:
    """What `gen_initrd` made: the image, the folder to edit, the warnings."""

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
    """Copy a container image's folders to the folder `tree`, generate /init there, and pack the image beside it.

    /proc, /dev, /sys and empty top folders of the image are left out, absolute links become relative. An existing
    folder keeps what the image does not replace. `options` are those of `tree_of`.
    """
    variables = variables or Variables()
    image.suffix_of(image_path(tree, None, variables))
    found = tree_of(container, dirs, on_progress=on_progress, **options)
    prune(found)
    links.abs2rellinks(found)
    warnings = [*found.warnings(), *_gen_init(found, (), variables.force)]
    folder.write_folder(found, tree)
    made = create_initrd(tree, None, variables, on_progress=on_progress)
    return Generated(image=made, tree=tree, warnings=tuple(warnings))


def prune(tree: FileTree) -> None:
    """Leave out /proc, /dev, /sys and empty top-level folders, as `gen_initrd` does."""
    for name in _VIRTUAL:
        tree.remove(name)
    tree.dropped = [(what, name) for what, name in tree.dropped if name.partition(b"/")[0] not in _VIRTUAL]
    full = {name.partition(b"/")[0] for name, _ in tree.items() if b"/" in name}
    for name, entry in tree.items():
        if entry.is_dir and b"/" not in name and name not in full:
            tree.remove(name)


def abs2rellinks(root: Path) -> int:
    """Make the absolute symbolic links below a folder relative, "/" being the folder; returns how many."""
    count: int = folder.edit_folder(root, links.abs2rellinks)
    return count


abs2relinks = abs2rellinks  # the scripts spell it this way too


def hard2symlinks(file: Path, directory: Path | None = None) -> int:
    """Make the other hard links of a file, in a folder (default: the file's) and below, relative links to it."""
    top = directory or file.parent
    if not file.is_file() or file.is_symlink():
        raise InvalidInput("file", file, "is no file", hint="name the one that the others shall point at")
    root = Path(os.path.commonpath([os.path.abspath(top), os.path.abspath(file.parent)]))  # noqa: PTH100
    name, below = (os.path.relpath(path, root) for path in (file, top))
    count: int = folder.edit_folder(root, lambda tree: links.hard2symlinks(tree, name, below))
    return count


def hard2symlinks_all(root: Path) -> int:
    """Make every group of hard links below a folder symbolic links to one of its names; returns how many."""
    count: int = folder.edit_folder(root, links.hard2symlinks)
    return count


def refuse_terminal(stream: BinaryIO) -> None:
    """Errors: `InvalidInput` when an archive would be written to a terminal."""
    if stream.isatty():
        raise InvalidInput(
            "stdout", "a terminal", "is no place for an archive", hint="redirect it: > FILE, or into a pipe"
        )


class _Whole:
    """A stream that takes all bytes, even where its `write` takes only some (a pipe without a buffer)."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, data: bytes) -> int:
        """Take bytes."""
        view = memoryview(data)
        while view:
            view = view[self._stream.write(view) or 0 :]
        return len(data)
