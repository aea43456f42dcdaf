"""Opens what a kernel is built from: a commit of a git tree on this host in the checkout that all its commits share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from acon_nb.cache import Cache
from acon_nb.errors import InvalidInput
from acon_nb.kernel.git.checkout import checked_out
from acon_nb.kernel.git.repository import Repository, open_repository
from acon_nb.kernel.source import SourceTree, fetch
from acon_nb.progress import CancelToken, OnProgress, silent


@contextlib.contextmanager
def opened(
    source: str,
    *,
    patches: Sequence[Path] = (),
    cache: Cache | None = None,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> Iterator[SourceTree]:
    """Yield the tree that `source` names, with `patches`, to build in.

    A commit of a git tree on this host (`DIR#REF`) is checked out where its other commits were, so that make compiles
    what differs; what is not committed does not count. Other sources are those of `fetch`.
    Errors: those of `fetch` and of `checked_out`.
    """
    named = _local(source)
    if named is None:
        yield fetch(source, patches=patches, cache=cache, on_progress=on_progress, cancel=cancel)
        return
    repository, commit = named
    for patch in patches:
        if not patch.is_file():
            raise InvalidInput("patches", patch, "is not a file", hint="give files as git format-patch writes them")
    with checked_out(repository, commit, patches=patches, cache=cache, on_progress=on_progress, cancel=cancel) as tree:
        yield tree


def _local(source: str) -> tuple[Repository, str] | None:
    """The git tree on this host and the commit that a source names, None for another source."""
    folder, _, ref = source.rpartition("#")
    path = Path(folder).expanduser()
    if not folder or not path.is_dir() or Path(source).expanduser().is_dir():
        return None
    repository = open_repository(path, field="source", whole=False)
    return repository, repository.commit(ref, field="source")
