"""A checkout of our own of a user's git tree, in the cache: one for each repository, taken from commit to commit.

Git writes only the files that differ, so that make compiles what a commit changed. The checkout borrows the user's
objects (gitrepository-layout(5), info/alternates) and has a configuration of its own: no hooks, filters or line endings
of anybody. Its repository lies outside the files, so that a kernel's release does not depend on tags.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from acon_nb import process
from acon_nb.cache import Cache, key_of, require_space, sha256_file
from acon_nb.errors import AconError, CommandFailed, InvalidInput
from acon_nb.kernel.git.repository import Repository
from acon_nb.kernel.source import SourceTree, tree_in
from acon_nb.progress import CancelToken, OnProgress, Progress, silent

_KIND = "git-checkout"
_TREE_BYTES = 2 << 30
_POLL_S = 0.5
_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.bare=false",
    "core.autocrlf=false",
    "core.logAllRefUpdates=false",
    "advice.detachedHead=false",
    "gc.auto=0",
)


@contextlib.contextmanager
def checked_out(
    repository: Repository,
    commit: str,
    *,
    patches: Sequence[Path] = (),
    cache: Cache | None = None,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> Iterator[SourceTree]:
    """Yield the kernel tree of a commit with `patches` applied; no other user of the repository changes it meanwhile.

    Errors: `InvalidInput` (not a kernel tree; a patch that does not apply, by its name), `AconError` (git cannot check
    the commit out), `NoSpace`, `Cancelled`.
    """
    store = cache or Cache()
    folder = store.workdir(_KIND, {"repository": str(repository.common)})
    with _held(store, f"{_KIND}-{folder.name}", on_progress, cancel):
        checkout = _Checkout(repository, folder, cancel)
        if not (folder / "ready").is_file():
            require_space(folder, _TREE_BYTES, "a checkout of a kernel")
            checkout.create()
        on_progress(Progress("check out", 0.0, f"{commit[:12]} {repository.subject(commit)}"))
        checkout.take(commit)
        for patch in patches:
            checkout.apply(patch)
        on_progress(Progress("check out", 1.0))
        identity = f"git-tree:{repository.tree_id(commit)}"
        if patches:
            identity += f"+patches:{key_of({'patches': [sha256_file(patch) for patch in patches]})}"
        yield tree_in(checkout.files / repository.prefix, identity=identity, place=f"{_KIND}:{folder.name}")


@contextlib.contextmanager
def _held(store: Cache, name: str, on_progress: OnProgress, cancel: CancelToken | None) -> Iterator[None]:
    """Hold a lock; the wait for it is reported and can be cancelled."""
    while True:
        with store.lock(name, wait=False) as held:
            if held:
                yield
                return
        on_progress(Progress("check out", None, "waiting for another build of this git tree"))
        if cancel is not None:
            cancel.check()
        time.sleep(_POLL_S)


class _Checkout:
    def __init__(self, repository: Repository, folder: Path, cancel: CancelToken | None) -> None:
        self.files = folder / "files"
        self._repository = repository
        self._ready = folder / "ready"
        self._git_dir = folder / "git"
        self._cancel = cancel

    def create(self) -> None:
        """Make an empty repository that borrows the user's objects."""
        objects = str(self._repository.objects)
        if "\n" in objects or objects.startswith(('"', "#")):
            raise InvalidInput("tree", objects, "is a path that git cannot borrow objects from", hint="rename it")
        self.files.mkdir(exist_ok=True)
        self._run("init", "--quiet", "--template=", f"--object-format={self._repository.object_format}")
        (self._git_dir / "objects/info").mkdir(parents=True, exist_ok=True)
        (self._git_dir / "objects/info/alternates").write_text(f"{objects}\n")
        self._ready.touch()

    def take(self, commit: str) -> None:
        """Make the files those of a commit, and nothing else."""
        for stale in ("index.lock", "HEAD.lock"):  # left by a killed process: we hold the lock
            (self._git_dir / stale).unlink(missing_ok=True)
        try:
            self._run("checkout", "--quiet", "--force", "--detach", commit, "--")
            self._run("clean", "-ffdxq")
        except CommandFailed as error:
            what = f"{self._repository.path}: the files of {commit[:12]} cannot be checked out"
            raise AconError(what, details=error.details, hint="git fsck shows whether objects are missing") from error

    def apply(self, patch: Path) -> None:
        """Apply a patch; git refuses paths outside of the files. Errors: `InvalidInput` by the patch's name."""
        directory = [f"--directory={self._repository.prefix}"] if self._repository.prefix else []
        try:
            self._run("apply", "--whitespace=nowarn", *directory, "--", str(patch.absolute()))
        except CommandFailed as error:
            why = next((line for line in error.details if line.startswith("error:")), error.what)
            raise InvalidInput("patches", patch, f"does not apply: {why}", hint="rebase it on the base") from error

    def _run(self, *argv: str) -> None:
        settings = [word for setting in _SETTINGS for word in ("-c", setting)]
        command = ["git", f"--git-dir={self._git_dir}", f"--work-tree={self.files}", *settings, *argv]
        process.run(command, cwd=self.files, env=_environment(), cancel=self._cancel)


def _environment() -> dict[str, str]:
    """The environment of git in our checkout: no configuration of a user or host."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    nothing = dict.fromkeys(("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"), os.devnull)
    more = {"GIT_ATTR_NOSYSTEM": "1", "GIT_NO_REPLACE_OBJECTS": "1", "GIT_NO_LAZY_FETCH": "1", "LC_ALL": "C"}
    return {**kept, **nothing, **more}
