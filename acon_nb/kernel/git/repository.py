"""A user's git tree, which is only read: names of commits, history, and the commit in the middle of what is left.

Git runs without hooks, file-system monitors, replaced objects and optional locks, so that nothing in the tree changes;
names of refs are never taken for options.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from acon_nb import process
from acon_nb.errors import CommandFailed, InvalidInput, MissingRequirement

_DISTANCE = re.compile(r"([0-9a-f]{40,64}) .*\bdist=(\d+)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SAFE = ("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false")
_LONG_S = 600.0


@dataclass(frozen=True, kw_only=True)
class Repository:
    """A git tree: the folder that the user gave, the repository's own folder, that of its objects, and their format.

    `prefix` is the folder's path in the repository ("": its top), with a slash at its end.
    """

    path: Path
    common: Path
    objects: Path
    object_format: str
    prefix: str = ""

    def commit(self, ref: str, *, field: str) -> str:
        """The commit that a ref names, in full. Errors: `InvalidInput` with `field`."""
        try:
            text = self.git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
        except CommandFailed as error:
            reason = f"does not name a commit of {self.path}"
            raise InvalidInput(field, ref, reason, hint="a branch, a tag or a commit: see git log") from error
        return text.strip().splitlines()[-1]

    def tree_id(self, commit: str) -> str:
        """The identity of a commit's files: git's tree object of the folder. Errors: `InvalidInput`."""
        try:
            return self.git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{commit}:{self.prefix}").strip()
        except CommandFailed as error:
            reason = f"{commit[:12]} has no folder {self.prefix!r}"
            raise InvalidInput("tree", self.path, reason, hint="give the top of the git tree") from error

    def is_ancestor(self, older: str, newer: str) -> bool:
        """Whether a commit is in the history of another one, or that one itself."""
        try:
            self.git("merge-base", "--is-ancestor", older, newer)
        except CommandFailed as error:
            if error.returncode != 1:
                raise
            return False
        return True

    def subject(self, commit: str) -> str:
        """The first line of a commit's message, without control characters."""
        return _CONTROL.sub("?", self.git("log", "-1", "--no-show-signature", "--format=%s", commit).rstrip("\n"))

    def first_parent(self, commit: str) -> str:
        """The first parent of a commit; "" for a commit without any."""
        return next(iter(self.git("rev-list", "--parents", "-1", commit).split()[1:]), "")

    def halves(self, bad: str, goods: Sequence[str]) -> list[str]:
        """The commits of `bad`'s history that are not in that of any of `goods`, those that halve them best first.

        Merges count as `git bisect` counts them (git-rev-list(1), --bisect-all).
        """
        rows = self.git("rev-list", "--bisect-all", bad, *(f"^{good}" for good in goods)).splitlines()
        return [match[1] for row in rows if (match := _DISTANCE.match(row))]

    def between(self, base: str, head: str) -> list[str]:
        """The commits of `head`'s history that are not in `base`'s, the oldest first; of a merge the first parents."""
        return self.git("rev-list", "--reverse", "--first-parent", head, f"^{base}").split()

    def git(self, *argv: str) -> str:
        """The output of a git command that only reads. Errors: `CommandFailed`."""
        return process.output(["git", "-C", self.path, *_SAFE, *argv], env=_environment(), timeout_s=_LONG_S)


def open_repository(path: Path, *, field: str = "tree", whole: bool = True) -> Repository:
    """Open a user's git tree; with `whole` its history must be there, and its files must be those of its commit.

    Errors: `InvalidInput` with `field` (not a git tree, a partial clone; with `whole` a shallow one, uncommitted
    changes), `MissingRequirement`.
    """
    if shutil.which("git") is None:
        raise MissingRequirement("git", "a kernel's history", hint="apt-get install git")
    if not path.is_dir():
        raise InvalidInput(field, path, "is not a folder", hint="give a git work tree of the kernel")
    git: list[str | Path] = ["git", "-C", path, *_SAFE]
    asked = ("--is-bare-repository", "--is-shallow-repository", "--show-object-format", "--path-format=absolute")
    try:
        text = process.output(
            [*git, "rev-parse", *asked, "--git-common-dir", "--git-path", "objects", "--show-prefix"],
            env=_environment(),
        )
    except CommandFailed as error:
        hint = error.details[0] if error.details else "give a git work tree of the kernel"
        raise InvalidInput(field, path, "cannot be read as a git repository", hint=hint) from error
    bare, shallow, object_format, common, objects, prefix = (*text.splitlines(), "")[:6]
    tree = Repository(
        path=path.absolute(),
        common=Path(common),
        objects=Path(objects),
        object_format=object_format,
        prefix=prefix,
    )
    if whole and shallow == "true":
        hint = f"git -C {path} fetch --unshallow"
        raise InvalidInput(field, path, "is a shallow clone: its history is not there", hint=hint)
    if _is_partial(tree):
        hint = f"git -C {path} fetch --refetch --no-filter, in a full clone"
        raise InvalidInput(field, path, "is a partial clone: files of its history are not there", hint=hint)
    if whole and bare != "true":
        _require_clean(tree)
    return tree


def _is_partial(tree: Repository) -> bool:
    try:
        return bool(tree.git("config", "--get-regexp", r"^(extensions\.partialclone|remote\..*\.promisor)$").strip())
    except CommandFailed:
        return False


def _require_clean(tree: Repository) -> None:
    """Refuse uncommitted changes: they would not be measured, and who made them may think that they are."""
    rows = tree.git("status", "--porcelain", "--untracked-files=no", "--ignore-submodules=all").splitlines()
    if rows:
        name = _CONTROL.sub("?", rows[0][3:])
        more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
        reason = f"has changes that are not committed, which would not be measured: {name}{more}"
        raise InvalidInput("tree", tree.path, reason, hint="commit or stash them")


def _environment() -> dict[str, str]:
    """The environment of git commands that read a user's tree: its own variables (of a hook, say) do not count."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return {
        **kept,
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
    }
