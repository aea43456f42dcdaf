"""Manages the folders in which kernels are configured and compiled; they persist, so builds are incremental.

Each tree has one folder for configurations, and a build folder for each compiler and set of profiles. A new build
folder starts as a copy, times included, of the one of the same tree and compiler whose .config differs least, or of the
tree that this one was patched from: kbuild then compiles only what the differing options and files affect. Files are
copied, never linked, since objtool modifies objects in place.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from acon_nb import process
from acon_nb.cache import Cache, key_of
from acon_nb.kernel import dotconfig, outdated
from acon_nb.kernel.source import SourceTree
from acon_nb.progress import CancelToken, OnProgress, silent

_KIND = "kernel-build"
_CHECK_KIND = "kernel-check"
# Number of build folders to keep, of all trees: 250 to 350 MB each for a kernel of the guide's profiles.
KEPT = 8


@contextlib.contextmanager
def configuring(store: Cache, tree: SourceTree, compiler: Sequence[str]) -> Iterator[Path]:
    """Yield the locked folder in which `tree` is configured for a compiler; only Kconfig itself is compiled there."""
    folder = store.workdir(_CHECK_KIND, {"source": tree.place or tree.identity, "compiler": list(compiler)})
    with store.lock(f"{_CHECK_KIND}-{folder.name}"):
        yield folder


@contextlib.contextmanager
def building(
    store: Cache,
    tree: SourceTree,
    purpose: Mapping[str, Any],
    dot_config: str,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> Iterator[Path]:
    """Yield the locked build folder of `tree` for `purpose` (compiler, profiles and the like), with `dot_config` in it.

    Objects are shared only between folders with the same `purpose["compiler"]`. Other builds of a tree wait for the
    first one to finish, since they start from its objects, and say so. Errors: `Cancelled`.
    """
    hold = functools.partial(store.lock, on_progress=on_progress, cancel=cancel)
    family = _family(tree, purpose)
    folder = store.root / _KIND / f"{family}-{key_of(purpose)[:16]}"
    with hold(_lock_of(folder)), contextlib.ExitStack() as first_of_tree:
        if not folder.is_dir():
            first_of_tree.enter_context(hold(f"{_KIND}-{family}"))
            if _start_from_nearest(store, folder, tree, purpose, dotconfig.parse(dot_config)):
                first_of_tree.close()
        os.utime(folder)
        store.keep_recent(_KIND, KEPT)
        outdated.remove(folder, tree)
        path = folder / ".config"
        if not path.is_file() or path.read_text() != dot_config:
            path.write_text(dot_config)
        yield folder


def _lock_of(folder: Path) -> str:
    return f"{_KIND}-{folder.name}"


def _family(tree: SourceTree, purpose: Mapping[str, Any]) -> str:
    """The name that the build folders of a tree and compiler begin with."""
    return key_of({"source": tree.place or tree.identity, "compiler": purpose["compiler"]})[:16]


def _start_from_nearest(
    store: Cache, folder: Path, tree: SourceTree, purpose: Mapping[str, Any], values: Mapping[str, str]
) -> bool:
    """Create `folder` as a copy of the nearest of the tree and its base, or empty; return whether it is a copy."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    candidates = {
        path.parent: (len(dotconfig.diff(dotconfig.read(path), values)), origin.path)
        for origin in (tree, tree.base)
        if origin is not None
        for path in folder.parent.glob(f"{_family(origin, purpose)}-*/.config")
    }
    nearest_first = sorted(candidates, key=lambda path: (candidates[path][0], path))
    for wait, nearest in itertools.product((False, True), nearest_first):  # one that is being built only if all are
        with store.lock(_lock_of(nearest), wait=wait) as held:
            if held and nearest.is_dir():
                _copy(nearest, folder, candidates[nearest][1], tree.path)
                return True
    folder.mkdir()
    return False


def _copy(source: Path, target: Path, old_tree: Path, new_tree: Path) -> None:
    """Copy a build folder to a temporary one and rename that at the end; an interrupted copy leaves nothing."""
    for stale in target.parent.glob(f".{target.name}.*"):  # left by a killed process: we hold the lock
        shutil.rmtree(stale, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        process.run(["cp", "-a", "--reflink=auto", f"{source}/.", temporary])
        # Commands of the host's tools have an absolute O= path, and those that map paths in debug information
        _rename_in_commands(temporary, source, target)
        if old_tree != new_tree:
            _rename_in_commands(temporary, old_tree, new_tree)
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _rename_in_commands(folder: Path, old: Path, new: Path) -> None:
    """Replace a path in the saved commands below `folder`.

    Otherwise make would see other commands, and build again what they made.
    """
    for path in folder.rglob(".*.cmd"):
        data = path.read_bytes()
        if os.fsencode(old) in data:
            path.write_bytes(data.replace(os.fsencode(old), os.fsencode(new)))
