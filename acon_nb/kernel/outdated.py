"""Removes from a build folder what was made of files that changed since, whatever their times say.

make compares times, so an edit that keeps a file's time, or an older version copied over it with its own, would go
unnoticed. A record of each file's digest stays in the build folder. Where a file differs, what a saved command made of
it is removed, so that make makes it again; where no command tells what was made of it, the folder is emptied.

The record holds what a finished build was made from. While a build runs, and if it fails, what it may have compiled is
uncertain and counts as changed: a file may be edited, compiled and restored with its old time.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acon_nb.cache import atomic_file
from acon_nb.cache import remove as remove_path
from acon_nb.kernel.source import SourceTree

_RECORD = "sources.json"
# Files whose change needs nothing removed: kbuild reads them anew each time, or makes nothing of them
_HARMLESS = re.compile(
    r"(?!scripts/|tools/)(?:.*/)?(?:Kconfig|Makefile|Kbuild)[^/]*|localversion[^/]*|[^/]*"
    r"|.*\.(?:rst|md|yaml|json|config|dts|dtsi|rs)|(?:Documentation|samples|LICENSES)/.*|(?:.*/)?(?:README|\.[^/]*)"
    r"|tools/(?!objtool/|lib/|include/|build/|scripts/|arch/|bpf/resolve_btfids/).*"
    r"|scripts/(?:checkpatch\.pl|get_maintainer\.pl|spelling\.txt|kernel-doc[^/]*|coccinelle/.*)"
)
# Programs that are compiled or run to make other files: no saved command names them by what they made
_PROGRAMS = re.compile(r"(?:scripts|tools)/.*")
_C = re.compile(r".*\.(?:c|h|S|inc)")


@dataclass(frozen=True)
class _Record:
    """What the last builds in a folder were made from; `finished_ns` is None while it is not certain."""

    files: Mapping[str, str]
    uncertain: Set[str]
    written_ns: Mapping[str, int]
    finished_ns: int | None


def remove(work: Path, tree: SourceTree) -> None:
    """Remove what in the build folder `work` was made of files of `tree` that changed; call it before each build.

    A folder that was built in and has no record is emptied. `finish` is called once the build has succeeded.
    """
    if not tree.files:
        return
    record = _read(work / _RECORD)
    if record is None:
        if (work / "include/generated").exists():
            _empty(work)
        changed: set[str] = set()
    else:
        changed = _changed(record, tree)
        named = _remove_users(work, tree.path, changed, added=changed - record.files.keys())
        if changed and _must_empty(work, tree, changed, named, record):
            _empty(work)
    _write(work, tree, uncertain=changed)


def finish(work: Path, tree: SourceTree) -> None:
    """Record that all in `work` is made from the files of `tree`; call it once the build has succeeded."""
    if tree.files:
        _write(work, tree, uncertain=None)


def _read(path: Path) -> _Record | None:
    try:
        saved: dict[str, Any] = json.loads(path.read_text())
        return _Record(
            files=dict(saved["files"]),
            uncertain=frozenset(saved["uncertain"] or ()),
            written_ns=dict(saved["written_ns"]),
            finished_ns=path.stat().st_mtime_ns if saved["uncertain"] is None else None,
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(work: Path, tree: SourceTree, *, uncertain: Set[str] | None) -> None:
    saved = {
        "files": dict(tree.files),
        "uncertain": None if uncertain is None else sorted(uncertain),
        "written_ns": {} if uncertain is None else _written_ns(tree),
    }
    with atomic_file(work / _RECORD) as temporary:
        temporary.write_text(json.dumps(saved))


def _written_ns(tree: SourceTree) -> dict[str, int]:
    """When each file, or what its link leads to, was last written to: the kernel sets that time, no program can."""
    return {name: max(version[4::5]) for name, version in tree.versions.items()}


def _changed(record: _Record, tree: SourceTree) -> set[str]:
    names = {*record.files, *tree.files}
    changed = {name for name in names if _bytes(record.files, name) != _bytes(tree.files, name)}
    if record.finished_ns is None:
        now = _written_ns(tree)
        changed |= record.uncertain | {name for name in names if now.get(name) != record.written_ns.get(name)}
    return changed


def _bytes(files: Mapping[str, str], name: str) -> str:
    """A file's digest without its mode; "" for a file that is not there."""
    digest = files.get(name, "")
    if digest.startswith("link ") and not digest.endswith(" "):
        target, _, content = digest.rsplit(" ", 2)
        return f"{target} {content}"
    return digest if digest.startswith("link ") else digest.rpartition(" ")[2]


def _remove_users(work: Path, tree: Path, changed: Set[str], *, added: Set[str]) -> set[str]:
    """Remove what saved commands made of `changed` files; return the files that any of them named.

    A new file may take the place of one of the same name that the compiler found elsewhere; that one's users go, too.
    """
    uses = _Uses(tree, changed, added)
    named: set[str] = set()
    for command in work.rglob(".*.cmd") if changed else ():
        names = uses.among(set(command.read_bytes().replace(b"\\", b" ").split()))
        if names:
            named |= names
            command.with_name(command.name[1 : -len(".cmd")]).unlink(missing_ok=True)
    return named


class _Uses:
    """Tells which changed files the words of a command name, by the path that was given or the one behind links."""

    def __init__(self, tree: Path, changed: Set[str], added: Set[str]) -> None:
        self._real_folders: dict[str, str] = {}
        self._files = {str(tree / name): name for name in changed}
        self._files |= {self._real(path): name for path, name in self._files.items()}
        self._shadows = {Path(name).name: name for name in added if _C.fullmatch(name)}
        self._known: dict[bytes, str | None] = {}

    def among(self, words: Set[bytes]) -> set[str]:
        for word in words - self._known.keys():
            self._known[word] = self._name(os.fsdecode(word)) if word.startswith(b"/") else None
        return {name for word in words if (name := self._known[word]) is not None}

    def _name(self, path: str) -> str | None:
        """The changed file that a path leads to, or the link on its way that leads elsewhere now."""
        lexical = (self._files.get(part) for part in (path, *map(str, Path(path).parents)))
        name = next((name for name in lexical if name is not None), None)
        return name or self._files.get(self._real(path)) or self._shadows.get(Path(path).name)

    def _real(self, path: str) -> str:
        folder, _, name = path.rpartition("/")
        if folder not in self._real_folders:
            self._real_folders[folder] = os.path.realpath(folder)
        return f"{self._real_folders[folder]}/{name}"


def _must_empty(work: Path, tree: SourceTree, changed: Set[str], named: Set[str], record: _Record) -> bool:
    """Whether a file changed of which something may have been made that no command names it for."""
    doubtful = {name for name in changed & record.files.keys() if not _HARMLESS.fullmatch(name)}
    if any(_PROGRAMS.fullmatch(name) for name in doubtful):
        return True
    sources = {name for name in doubtful - named if _C.fullmatch(name)}
    if any(_unnoticed(work, tree, name, record) for name in sources):
        return True
    data = doubtful - named - sources
    makefiles = _makefiles(work, tree) if data else ""
    return any(Path(name).name.partition(".")[0] in makefiles for name in data)


def _unnoticed(work: Path, tree: SourceTree, name: str, record: _Record) -> bool:
    """Whether make, by a file's time, would take what was made of it for up to date."""
    try:
        modified_ns = (tree.path / name).stat().st_mtime_ns
    except OSError:
        return False  # make fails where it needs a file that is gone
    if record.finished_ns is not None:
        return modified_ns <= record.finished_ns
    if _written_ns(tree).get(name) == record.written_ns.get(name):
        return False  # make had it before it in the build that did not finish
    return modified_ns <= max(path.stat().st_mtime_ns for path in (work / _RECORD, work / "build.log") if path.exists())


def _makefiles(work: Path, tree: SourceTree) -> str:
    """The text of all that can name a file which no compiler reads: makefiles and the options' values."""
    names = (name for name in tree.files if re.fullmatch(r"(?:.*/)?(?:Makefile|Kbuild)[^/]*", name))
    paths = (*(tree.path / name for name in names), work / ".config")
    return "\n".join(path.read_text(errors="replace") for path in paths if path.is_file())


def _empty(work: Path) -> None:
    """Remove all of a build folder but its .config."""
    for path in work.iterdir():
        if path.name != ".config":
            remove_path(path)
