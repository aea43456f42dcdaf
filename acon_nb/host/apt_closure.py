"""Debian packages with all that they depend on, as apt itself would install them into an empty system; never installed.

apt resolves Pre-Depends, alternatives, virtual packages and conflicts against an empty list of installed packages, and
fetches and verifies each package; dpkg-deb takes them apart. No script of a package is run.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import filelock

from acon_nb import process
from acon_nb.cache import Cache, atomic_file, default_root, key_of, sha256_file, writable_folder
from acon_nb.errors import AconError, CommandFailed, CommandTimeout, InvalidInput, MissingRequirement
from acon_nb.host.apt import HOST, check_name
from acon_nb.progress import OnProgress, Progress, silent

_INSTALLED = re.compile(r"Inst (\S+) \((\S+)")
_UNKNOWN = re.compile(r"Unable to locate package (\S+)|Package '(\S+)' has no installation candidate")
_TIMEOUT_S = 600.0
_VERSION = 1
_AGAIN = "apt-get update, then try again"


@dataclass(frozen=True, kw_only=True)
class ClosurePackage:
    """A package of a closure: its name and version, and the files that `fetched` makes of it (None before)."""

    name: str
    version: str
    data: Path | None = None
    control: Path | None = None


def closure(names: Sequence[str]) -> tuple[ClosurePackage, ...]:
    """The packages that apt would install for `names` into an empty system, in its order; cached until lists change.

    Errors: `InvalidInput` (a name that is not valid, not in apt's lists, or cannot be installed with the others),
    `MissingRequirement` (no apt).
    """
    for name in names:
        check_name(name)
    if shutil.which("apt-get") is None:
        raise MissingRequirement(
            "apt", f"resolving the Debian packages {', '.join(names)}", hint="use Debian, or an image"
        )
    wanted = sorted(set(names))
    changed_ns = HOST.changed_ns()
    path = default_root() / "apt" / f"closure-{key_of({'names': wanted})}.json"
    try:
        kept = json.loads(path.read_text())
        if (kept["changed_ns"], kept["format"]) == (changed_ns, _VERSION):
            return tuple(ClosurePackage(name=str(name), version=str(version)) for name, version in kept["packages"])
    except (OSError, ValueError, TypeError, KeyError):
        pass  # not cached, or written by another version
    packages = _resolve(wanted)
    with atomic_file(path) as temporary:
        rows = [[one.name, one.version] for one in packages]
        temporary.write_text(json.dumps({"changed_ns": changed_ns, "format": _VERSION, "packages": rows}))
    return packages


def _apt(status: Path, *words: str | Path) -> list[str | Path]:
    options = [f"Dir::State::status={status}", "APT::Install-Recommends=false", "Debug::NoLocking=1"]
    return ["apt-get", "-q", "-y", *(word for option in options for word in ("-o", option)), *words]


def _resolve(names: Sequence[str]) -> tuple[ClosurePackage, ...]:
    status = default_root() / "apt" / "empty-status"
    with atomic_file(status) as temporary:
        temporary.write_text("")
    try:
        text = process.output(_apt(status, "--simulate", "install", *names), timeout_s=_TIMEOUT_S)
    except CommandTimeout:
        raise
    except CommandFailed as error:
        match = _UNKNOWN.search(str(error))
        hint = "apt-get update, then: apt-cache policy " + " ".join(names)
        if match:
            raise InvalidInput("package", match[1] or match[2], "is not in apt's lists", hint=hint) from error
        raise InvalidInput("package", " ".join(names), "cannot be installed together", hint=hint) from error
    return tuple(ClosurePackage(name=name, version=version) for name, version in _INSTALLED.findall(text))


def fetched(names: Sequence[str], *, cache: Cache, on_progress: OnProgress = silent) -> tuple[ClosurePackage, ...]:
    """The closure of `names`, fetched (apt verifies signatures and hashes) and taken apart in the cache.

    `data` is the tar of a package's files, `control` the folder of its scripts. Errors: as `closure`, and `AconError`.
    """
    packages = closure(names)
    archives = default_root() / "apt" / "archives"
    writable_folder(archives / "partial")
    with filelock.FileLock(archives / "lock.acon"):  # apt's own would need root
        missing = [one for one in packages if not _deb(archives, one)]
        if missing:
            on_progress(Progress(f"fetch {' '.join(names)}", None, f"{len(missing)} of {len(packages)} packages"))
            _download(archives, packages)
        folders = [_taken_apart(archives, one, cache) for one in packages]
    return tuple(
        replace(one, data=folder / "data.tar", control=folder / "control")
        for one, folder in zip(packages, folders, strict=True)
    )


def _download(archives: Path, packages: Sequence[ClosurePackage]) -> None:
    status = archives / "empty-status"
    status.write_text("")
    options = ("-o", f"Dir::Cache::archives={archives}", "-o", "APT::Sandbox::User=root", "--download-only")
    versions = [f"{one.name}={one.version}" for one in packages]
    process.run(_apt(status, *options, "install", *versions), cwd=archives, timeout_s=1800, hint=_AGAIN)
    if lacking := [one.name for one in packages if not _deb(archives, one)]:
        raise AconError(f"apt fetched no {', '.join(lacking)}", hint=_AGAIN)


def _deb(archives: Path, package: ClosurePackage) -> Path | None:
    version = package.version.replace(":", "%3a")
    return next(iter(sorted(archives.glob(f"{package.name}_{version}_*.deb"))), None)


def _taken_apart(archives: Path, package: ClosurePackage, cache: Cache) -> Path:
    deb = _deb(archives, package)
    assert deb is not None

    def make(folder: Path) -> None:
        with (folder / "data.tar").open("wb") as file:
            file.write(process.run_bytes(["dpkg-deb", "--fsys-tarfile", deb], timeout_s=300))
        process.run(["dpkg-deb", "--control", deb, folder / "control"], cwd=folder, timeout_s=300)

    inputs = {"package": package.name, "version": package.version, "sha256": sha256_file(deb)}
    return cache.get("debian-whole", inputs, make).path
