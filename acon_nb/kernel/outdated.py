"""Removes from a build folder what was made of files that changed since, whatever their times say.

make compares times, so an edit that keeps a file's time, or an older version copied over it with its own, would go
unnoticed. A record of each file's digest stays in the build folder; the objects whose saved commands name a file that
differs are removed, so that make compiles them again.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from acon_nb.cache import atomic_file
from acon_nb.kernel.source import SourceTree

_RECORD = "sources.json"
# Files whose change needs nothing removed: kbuild reads them anew each time, or compiles nothing of them
_READ_ANEW = re.compile(
    r"(?:.*/)?(?:Kconfig|Makefile|Kbuild)[^/]*|.*\.(?:c|h|S|dts|dtsi|rst|txt|yaml|json|config|rs)|localversion[^/]*"
    r"|(?:Documentation|samples|LICENSES|tools/testing)/.*|(?:.*/)?(?:MAINTAINERS|CREDITS|COPYING|README|\.[^/]*)"
)


def remove(work: Path, tree: SourceTree) -> None:
    """Remove what in the build folder `work` was made of files of `tree` that changed, and record what it has now.

    A file that changed, is named by no saved command and may be a script or a table from which something was generated
    empties the folder, unless its time is later than the record's: make then notices. Without a record of a folder
    that was built in, the folder is emptied, too.
    """
    if not tree.files:
        return
    record = work / _RECORD
    try:
        before = json.loads(record.read_text())
        recorded_ns = record.stat().st_mtime_ns
    except (OSError, ValueError):
        before, recorded_ns = None, 0
    if before is None:
        if (work / "include/generated").exists():
            _empty(work)
    elif changed := {name for name in {*before, *tree.files} if _bytes(before, name) != _bytes(tree.files, name)}:
        named = _remove_users(work, tree.path, changed)
        if any(_unnoticed(tree.path / name, recorded_ns) for name in changed - named if not _READ_ANEW.fullmatch(name)):
            _empty(work)
    if before != dict(tree.files):
        with atomic_file(record) as temporary:
            temporary.write_text(json.dumps(dict(tree.files)))


def _bytes(files: Mapping[str, str], name: str) -> str:
    """A file's digest without its mode; "" for a file that is not there."""
    digest = files.get(name, "")
    return digest if digest.startswith("link ") else digest.rpartition(" ")[2]


def _unnoticed(path: Path, recorded_ns: int) -> bool:
    """Whether make, by a file's time, would take what was made of it for up to date."""
    try:
        return path.stat().st_mtime_ns <= recorded_ns
    except OSError:
        return True


def _remove_users(work: Path, tree: Path, changed: Iterable[str]) -> set[str]:
    """Remove what was made of `changed` files, by the saved commands; return the files that any of them named."""
    paths = {os.fsencode(tree / name): name for name in changed}
    named: set[str] = set()
    for command in work.rglob(".*.cmd"):
        uses = paths.keys() & set(command.read_bytes().replace(b"\\", b" ").split())
        if uses:
            named |= {paths[path] for path in uses}
            command.with_name(command.name[1 : -len(".cmd")]).unlink(missing_ok=True)
    return named


def _empty(work: Path) -> None:
    """Remove all of a build folder but its .config."""
    for path in work.iterdir():
        if path.name == ".config":
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
