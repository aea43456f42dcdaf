"""Debian packages as sources of files: fetched and verified by apt, unpacked, never installed."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from acon_nb import process
from acon_nb.cache import Artifact, Cache, atomic_file, default_root, sha256_file
from acon_nb.errors import AconError, CommandFailed, InvalidInput, MissingRequirement
from acon_nb.progress import OnProgress, Progress, silent

_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_DEBIAN_HINT = "give a source folder instead, or use Debian (or a container of it)"


@dataclass(frozen=True, kw_only=True)
class Package:
    """A package as apt's lists name it: version, SHA-256 of the .deb, and what it depends on (names)."""

    name: str
    version: str
    sha256: str
    depends: tuple[str, ...]


def find(name: str) -> Package:
    """The candidate version of a package, from apt's signed lists.

    Errors: `InvalidInput` (no such name), `MissingRequirement` (no apt), `AconError` (the lists are empty).
    """
    if not _NAME.fullmatch(name):
        raise InvalidInput("package", name, "is no name of a Debian package", hint="such as linux-source-6.12")
    if shutil.which("apt-cache") is None:
        raise MissingRequirement("apt", f"fetching the Debian package {name}", hint=_DEBIAN_HINT)
    return _asked(name, _lists_changed_ns())


def _lists_changed_ns() -> int:
    """When apt's lists and sources changed last: asking apt takes a second, looking at its files does not."""
    paths = [Path("/var/lib/apt/lists"), Path("/etc/apt"), Path("/var/lib/dpkg/status")]
    paths += [*Path("/var/lib/apt/lists").glob("*_Packages*"), *Path("/etc/apt").rglob("*")]
    return max((path.stat().st_mtime_ns for path in paths if path.exists()), default=0)


def _asked(name: str, changed_ns: int) -> Package:
    """What apt says of a package, kept until its lists change."""
    kept = default_root() / "apt" / f"{name}.json"
    try:
        row = json.loads(kept.read_text())
        if row.pop("changed_ns") == changed_ns:
            return Package(**{**row, "depends": tuple(row["depends"])})
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        pass  # not kept, or no file of ours
    package = _ask(name)
    with atomic_file(kept) as temporary:
        temporary.write_text(json.dumps({**asdict(package), "changed_ns": changed_ns}))
    return package


def _ask(name: str) -> Package:
    try:
        text = process.output(["apt-cache", "show", "--no-all-versions", name])
    except CommandFailed as error:
        hint = "apt-get update, then: apt-cache search " + name.partition("-")[0]
        raise InvalidInput("package", name, "is not known to apt", hint=hint) from error
    fields = dict(
        line.split(": ", 1) for line in text.split("\n\n")[0].splitlines() if re.match(r"[A-Z][\w-]*: ", line)
    )
    if "SHA256" not in fields:
        raise AconError(f"apt knows no package {name} that it can fetch", hint="apt-get update")
    depends = tuple(part.split()[0] for part in fields.get("Depends", "").split(",") if part.strip())
    return Package(name=fields["Package"], version=fields["Version"], sha256=fields["SHA256"], depends=depends)


def unpack(name: str, *, cache: Cache, on_progress: OnProgress = silent) -> tuple[Package, Artifact]:
    """Fetch a package (apt checks its signature chain and hash) and unpack its files into the cache.

    Returns the package and the artifact whose folder `root/` holds its files.
    """
    package = find(name)

    def make(folder: Path) -> None:
        on_progress(Progress(f"fetch {package.name} {package.version}", 0.0))
        # apt drops its privileges to a user who cannot write here; the hash is checked all the same
        process.run(
            ["apt-get", "download", "-o", "APT::Sandbox::User=root", f"{package.name}={package.version}"],
            cwd=folder,
            timeout_s=900,
            hint="apt-get update, then try again",
        )
        deb = next(folder.glob("*.deb"))
        if sha256_file(deb) != package.sha256:
            raise AconError(f"{deb.name} is not the file that apt's lists name", hint="apt-get update, then try again")
        process.run(["dpkg-deb", "-x", deb, folder / "root"], cwd=folder, timeout_s=300)
        deb.unlink()
        on_progress(Progress(f"fetch {package.name} {package.version}", 1.0))

    inputs = {"package": package.name, "version": package.version, "sha256": package.sha256}
    return package, cache.get("debian", inputs, make)
