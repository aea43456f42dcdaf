"""Where a kernel's source comes from, and what identifies it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from acon_nb import debian, process
from acon_nb.cache import Cache, require_space
from acon_nb.errors import AconError, InvalidInput
from acon_nb.progress import CancelToken, OnProgress, Progress, silent

_DEBIAN = re.compile(r"debian:(\d+\.\d+)")
_TREE_BYTES = 2 << 30


@dataclass(frozen=True, kw_only=True)
class SourceTree:
    """An unpacked kernel tree: its folder, what identifies its content, and its version as (major, minor)."""

    path: Path
    identity: str
    version: tuple[int, int]
    release: str


def fetch(
    source: str, *, cache: Cache | None = None, on_progress: OnProgress = silent, cancel: CancelToken | None = None
) -> SourceTree:
    """Get the source tree that `source` names: `debian:6.12` (a package, verified by apt) or a folder.

    A folder is identified by its path, its version and its newest change; it is never written to.
    Errors: `InvalidInput` (no such source, not a kernel tree), `NoSpace`, `Cancelled`.
    """
    match = _DEBIAN.fullmatch(source)
    if match:
        return _debian(match.group(1), cache or Cache(), on_progress, cancel)
    path = Path(source).expanduser()
    if not path.is_dir():
        raise InvalidInput("source", source, "is neither debian:VERSION nor a folder", hint="such as debian:6.12")
    release = _release(path.absolute(), source)
    newest = max(entry.stat().st_mtime_ns for entry in _walk(path))
    return SourceTree(
        path=path.absolute(), identity=f"dir:{path.absolute()}:{newest}", version=_short(release), release=release
    )


def _debian(series: str, cache: Cache, on_progress: OnProgress, cancel: CancelToken | None) -> SourceTree:
    name = f"linux-source-{series}"
    package = debian.find(name)

    def make(folder: Path) -> None:
        require_space(folder, _TREE_BYTES, "unpacking a kernel's source")
        _, unpacked = debian.unpack(name, cache=cache, on_progress=on_progress)
        task = f"unpack linux-source-{series}"
        on_progress(Progress(task, 0.0))
        tarball = next((unpacked.path / "root/usr/src").glob("*.tar.*"))
        process.run(
            ["tar", "--extract", f"--file={tarball}", f"--directory={folder}", "--strip-components=1"],
            cwd=folder,
            cancel=cancel,
        )
        on_progress(Progress(task, 1.0))

    inputs = {"source": name, "version": package.version, "sha256": package.sha256}
    tree = cache.get("source", inputs, make, hashed=False)
    release = _release(tree.path, name)
    return SourceTree(
        path=tree.path, identity=f"{name}={package.version}:{package.sha256}", version=_short(release), release=release
    )


def _release(path: Path, named: str) -> str:
    """VERSION.PATCHLEVEL.SUBLEVEL of the tree's Makefile."""
    try:
        head = (path / "Makefile").read_text(errors="replace")[:4000]
    except OSError:
        head = ""
    numbers = [re.search(rf"^{word} = (\d+)$", head, re.MULTILINE) for word in ("VERSION", "PATCHLEVEL", "SUBLEVEL")]
    if not all(numbers) or not (path / "Kconfig").is_file():
        raise InvalidInput("source", named, "is not a kernel tree", hint="its Makefile names no kernel version")
    return ".".join(number.group(1) for number in numbers if number)


def _short(release: str) -> tuple[int, int]:
    major, minor = release.split(".")[:2]
    return int(major), int(minor)


def _walk(path: Path) -> list[os.DirEntry[str]]:
    found: list[os.DirEntry[str]] = []
    folders = [str(path)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.name in (".git",) or entry.is_symlink():
                    continue
                if entry.is_dir():
                    folders.append(entry.path)
                else:
                    found.append(entry)
    if not found:
        raise AconError(f"{path} is empty")
    return found
