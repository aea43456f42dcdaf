"""Gets files from Debian packages, which are fetched and verified by apt, unpacked, and never installed."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from acon_nb import process
from acon_nb.cache import Cache, atomic_file, default_root, sha256_file
from acon_nb.errors import AconError, CommandFailed, CommandTimeout, InvalidInput, MissingRequirement
from acon_nb.progress import OnProgress, Progress, silent

PACKAGE_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_VERSION = re.compile(r"[0-9][A-Za-z0-9.+:~-]*")
# By default apt drops privileges to a user who cannot write to a folder of ours; hashes are checked in any case
AS_ONESELF = ("-o", "APT::Sandbox::User=root")
_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_RECORD_VERSION = 3  # of the cached answers of apt: 2 has Pre-Depends, 3 only packages of the very name
_QUERY_TIMEOUT_S = 300.0  # a second on an idle host
_DEBIAN_HINT = "give a source folder instead, or use Debian (or a container of it)"


@dataclass(frozen=True, kw_only=True)
class Lists:
    """Lists of packages: the host's, or those of a root of our own (`apt_suites`), which `options` of apt name."""

    suite: str = ""
    options: tuple[str, ...] = ()
    folder: Path = Path("/var/lib/apt/lists")

    def changed_ns(self) -> int:
        """When they, or the host's apt sources, last changed: a query takes apt a second, a look at files does not."""
        paths = [self.folder, *self.folder.glob("*_Packages*")]
        if not self.suite:
            paths += [Path("/var/lib/dpkg/status"), Path("/etc/apt"), *Path("/etc/apt").rglob("*")]
        return max((path.stat().st_mtime_ns for path in paths if path.exists()), default=0)

    def query(self, *argv: str) -> str:
        """Return what `apt-cache` prints. Errors: `CommandFailed`."""
        return process.output(["apt-cache", *self.options, *argv], timeout_s=_QUERY_TIMEOUT_S)


HOST = Lists()


@dataclass(frozen=True, kw_only=True)
class Package:
    """A package as listed by apt: version, SHA-256 of the .deb, and the names of the packages it (pre-)depends on."""

    name: str
    version: str
    sha256: str
    depends: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A version of a package in apt's lists, and the suite that has it ("": installed, or a list without a name)."""

    name: str
    version: str
    suite: str


@dataclass(frozen=True, kw_only=True)
class Unpacked:
    """A package whose files are below the folder `root`."""

    package: Package
    root: Path

    def path(self, name: str) -> Path:
        """Return the path of a file or folder of the package, by its name with or without `usr/`.

        See `merged_usr_alias`. Errors: `AconError` if the package has neither.
        """
        if (path := self.find(name)) is not None:
            return path
        alias = merged_usr_alias(name)
        package = f"{self.package.name} {self.package.version}"
        raise AconError(
            f"the package {package} has no {name}" + (f" and no {alias}" if alias else ""),
            hint=f"apt-get update, then list its files: dpkg-deb -c, or the folder {self.root}",
        )

    def find(self, name: str) -> Path | None:
        """Return what `path` does, or None if the package has no such file or folder."""
        names = (name, merged_usr_alias(name))
        return next((self.root / one for one in names if one and os.path.lexists(self.root / one)), None)


def merged_usr_alias(name: str) -> str | None:
    """Return a file's other name on a merged-usr system, where /bin, /sbin and /lib* are links; None if it has none.

    Packages of Debian 13 have below usr/ what those of Debian 12 have at the root (https://wiki.debian.org/UsrMerge).
    """
    inner = name.removeprefix("usr/")
    if inner.partition("/")[0] not in _MERGED:
        return None
    return inner if inner != name else f"usr/{name}"


def check_name(name: str) -> None:
    """Check that a text can be the name of a package. Errors: `InvalidInput`."""
    if not PACKAGE_NAME.fullmatch(name):
        raise InvalidInput("package", name, "is not a valid package name", hint="such as linux-source-6.12")


def find(name: str, lists: Lists = HOST, *, version: str = "") -> Package:
    """Look up the candidate version of a package in apt's signed lists, or the given one.

    Errors: `InvalidInput` (no such package), `MissingRequirement` (no apt), `AconError` (the lists are empty).
    """
    check_name(name)
    if version and not _VERSION.fullmatch(version):
        raise InvalidInput("version", version, "is not a valid version of a package", hint="such as 6.12.57-1")
    require(f"fetching the Debian package {name}")
    return _cached(f"{name}={version}" if version else name, lists)


def require(purpose: str) -> None:
    """Raise `MissingRequirement` on a host without apt."""
    if shutil.which("apt-cache") is None:
        raise MissingRequirement("apt", purpose, hint=_DEBIAN_HINT)


def versions(prefix: str, lists: Lists = HOST) -> tuple[Listed, ...]:
    """Return what apt's lists have of the packages whose names begin with `prefix`, the newest version of each first.

    Errors: `MissingRequirement` (no apt).
    """
    check_name(prefix)
    require(f"listing the Debian packages {prefix}*")
    names = sorted(lists.query("pkgnames", prefix).split())
    if not names:
        return ()
    rows = [[part.strip() for part in line.split("|")] for line in lists.query("madison", *names).splitlines()]
    listed = [
        Listed(name=name, version=version, suite=place.split()[1].rpartition("/")[0])
        for name, version, place in (row for row in rows if len(row) == 3)
        if place.endswith(" Packages")
    ]
    return tuple(dict.fromkeys(listed))


def _cached(name: str, lists: Lists) -> Package:
    """Query apt about a package (NAME or NAME=VERSION); the answer is cached until apt's lists change."""
    path = default_root() / "apt" / lists.suite / f"{name}.json"
    changed_ns = lists.changed_ns()
    try:
        row = json.loads(path.read_text())
        if (row.pop("changed_ns"), row.pop("format")) == (changed_ns, _RECORD_VERSION):
            return Package(**{**row, "depends": tuple(row["depends"])})
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        pass  # not cached, or written by another version
    package = _query(name, lists)
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps({**asdict(package), "changed_ns": changed_ns, "format": _RECORD_VERSION}))
    return package


def _query(name: str, lists: Lists) -> Package:
    reason = f"is not in the lists of {lists.suite}" if lists.suite else "is not in apt's lists"
    hint = "apt-get update, then: apt-cache search " + name.partition("-")[0]
    try:
        text = lists.query("show", "--no-all-versions", name)
    except CommandTimeout:  # of a busy host: it says nothing of the package
        raise
    except CommandFailed as error:
        raise InvalidInput("package", name, reason, hint=hint) from error
    fields = dict(
        line.split(": ", 1) for line in text.split("\n\n")[0].splitlines() if re.match(r"[A-Z][\w-]*: ", line)
    )
    wanted = name.partition("=")[0]
    if fields.get("Package", wanted) != wanted:
        # apt takes an unknown name as a regular expression: linux-source-6.1 finds linux-source-6.12
        raise InvalidInput("package", name, reason, hint=hint)
    if not fields and "=" in name:  # apt-cache shows nothing of a version that it does not have, and succeeds
        raise InvalidInput("package", name, reason, hint=hint)
    if "SHA256" not in fields:
        raise AconError(f"apt has no version of {name} that it can fetch", hint="apt-get update")
    needs = ",".join(fields.get(field, "") for field in ("Pre-Depends", "Depends"))
    depends = tuple(part.split()[0] for part in needs.split(",") if part.strip())
    return Package(name=fields["Package"], version=fields["Version"], sha256=fields["SHA256"], depends=depends)


def unpack(
    name: str, lists: Lists = HOST, *, version: str = "", cache: Cache, on_progress: OnProgress = silent
) -> Unpacked:
    """Fetch a package (apt verifies signatures and hash) and unpack its files into the cache."""
    package = find(name, lists, version=version)

    def make(folder: Path) -> None:
        on_progress(Progress(f"fetch {package.name} {package.version}", 0.0))
        process.run(
            ["apt-get", "download", *lists.options, *AS_ONESELF, f"{package.name}={package.version}"],
            cwd=folder,
            timeout_s=900,
            hint="apt-get update, then try again",
        )
        deb = next(folder.glob("*.deb"))
        if sha256_file(deb) != package.sha256:
            raise AconError(f"{deb.name} does not match apt's lists", hint="apt-get update, then try again")
        process.run(["dpkg-deb", "-x", deb, folder / "root"], cwd=folder, timeout_s=300)
        deb.unlink()
        on_progress(Progress(f"fetch {package.name} {package.version}", 1.0))

    inputs = {"package": package.name, "version": package.version, "sha256": package.sha256}
    return Unpacked(package=package, root=cache.get("debian", inputs, make).path / "root")
