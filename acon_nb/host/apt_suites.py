"""Lists of the packages of any of Debian's suites, in a folder of our own: nothing of the host's apt changes.

The archive and its keys are those that the host's apt uses; only the suite is another.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from acon_nb import process
from acon_nb.cache import Cache, atomic_file
from acon_nb.errors import AconError, CommandFailed, InvalidInput, MissingRequirement
from acon_nb.host import apt
from acon_nb.progress import OnProgress, Progress, silent

# From the oldest with a kernel that is new enough to the newest
SUITES = (
    "bookworm",
    "bookworm-security",
    "bookworm-backports",
    "trixie",
    "trixie-security",
    "trixie-backports",
    "forky",
    "sid",
    "experimental",
)
_SUITE = re.compile(r"[a-z][a-z0-9-]*")
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_FRESH_S = 24 * 3600
_LABELS = {"-security": "Debian-Security"}
_HINT = "one of " + ", ".join(SUITES)


def lists_of(suite: str, cache: Cache, on_progress: OnProgress = silent) -> apt.Lists:
    """Return the lists of a suite; they are fetched if there are none, or if they are older than a day.

    Errors: `InvalidInput` (no such suite), `MissingRequirement` (a host without apt, or whose apt has no Debian),
    `AconError` (the archive cannot be reached, or its signature is wrong).
    """
    if not _SUITE.fullmatch(suite):
        raise InvalidInput("suite", suite, "is not a valid name of a suite", hint=_HINT)
    apt.require(f"packages of Debian's {suite}")
    root = cache.root / "apt-suites" / suite
    lists = apt.Lists(suite=suite, options=_options(root), folder=root / "state/lists")
    with cache.lock(f"apt-suite-{suite}", on_progress=on_progress):
        if not _is_fresh(root):
            _update(suite, root, lists, on_progress)
    return lists


def _options(root: Path) -> tuple[str, ...]:
    places = {
        "Dir::Etc::sourcelist": root / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State": root / "state",
        "Dir::State::status": root / "status",
        "Dir::Cache": root / "cache",
        "Acquire::Languages": "none",
        "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled": "false",
    }
    return tuple(word for name, value in places.items() for word in ("-o", f"{name}={value}"))


def _is_fresh(root: Path) -> bool:
    try:
        return time.time() - (root / "updated").stat().st_mtime < _FRESH_S
    except OSError:
        return False


def _update(suite: str, root: Path, lists: apt.Lists, on_progress: OnProgress) -> None:
    for name in ("state/lists/partial", "cache/archives/partial"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "status").touch()
    archive = _archive(suite)
    signed = f"[signed-by={_KEYRING}] " if _KEYRING.is_file() else ""
    with atomic_file(root / "sources.list") as temporary:
        temporary.write_text(f"deb {signed}{archive} {suite} main\n")
    on_progress(Progress(f"fetch the lists of {suite}", None))
    try:
        process.run(["apt-get", "update", "-q", *lists.options, *apt.AS_ONESELF], env=_environment(), timeout_s=600)
    except CommandFailed as error:
        lines = [line for line in error.details if line.startswith(("E:", "W:"))] or list(error.details)
        if any("does not have a Release file" in line or " 404 " in line for line in (*lines, *error.details)):
            raise InvalidInput("suite", suite, f"is not in {archive}", hint=_HINT) from error
        hint = "check the network, or name a source that is here: a folder or a tarball"
        raise AconError(f"the lists of {suite} cannot be fetched", details=lines, hint=hint) from error
    (root / "updated").touch()


def _environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C"}  # its messages are read


def _archive(suite: str) -> str:
    """The address from which the host's apt fetches Debian, or its security updates."""
    label = next((label for end, label in _LABELS.items() if suite.endswith(end)), "Debian")
    text = process.output(["apt-get", "indextargets", "--format", "$(LABEL)\t$(REPO_URI)", "Created-By: Packages"])
    rows = (line.split("\t", 1) for line in text.splitlines() if "\t" in line)
    archive = next((uri for its_label, uri in rows if its_label == label), None)
    if archive is None:
        hint = "apt-get update on a Debian host, or give another source: a folder, a tarball, a git repository"
        raise MissingRequirement(f"an apt with {label}", f"packages of Debian's {suite}", hint=hint)
    return archive
