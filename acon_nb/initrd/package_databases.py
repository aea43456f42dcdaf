"""Reads the package databases in a tree: dpkg (also distroless images), apk, and rpm's SQLite database.

Nothing of the tree is run. Sources: deb-control(5) and dpkg-query(1) of dpkg, apk's "Apk spec" (installed database),
rpm's header format (docs/manual/format_header.md).
"""

from __future__ import annotations

import re
import sqlite3
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache as memoised

from acon_nb.archive.tree import FileTree, shown
from acon_nb.errors import TreeError

_FILE_LIMIT_BYTES = 256 << 20  # of a database: it is held in memory
_DPKG = "var/lib/dpkg"
_APK = ("lib/apk/db/installed", "usr/lib/apk/db/installed")
_RPM = ("usr/lib/sysimage/rpm", "var/lib/rpm", "usr/share/rpm")
_OS_RELEASE = ("etc/os-release", "usr/lib/os-release")


@dataclass(frozen=True, kw_only=True)
class InstalledPackage:
    """A package that a database lists: `kind` is deb, apk or rpm; `files` are names in the tree, links resolved."""

    kind: str
    name: str
    version: str
    architecture: str = ""
    license: str = ""
    source: str = ""
    files: frozenset[bytes] = frozenset()


@dataclass(frozen=True, kw_only=True)
class InstalledPackages:
    """All packages of a tree, sorted by kind and name; `distribution` is (ID, VERSION_ID) of its os-release.

    `unread` are sentences on databases that exist but were not read.
    """

    packages: tuple[InstalledPackage, ...]
    distribution: tuple[str, str] = ("", "")
    unread: tuple[str, ...] = ()

    def owners(self) -> dict[bytes, InstalledPackage]:
        """Return the package of each file; the first one if several list it."""
        return {name: package for package in reversed(self.packages) for name in package.files}


def installed(tree: FileTree) -> InstalledPackages:
    """Read the package databases of a tree. Errors: `TreeError` for a database that is too large."""
    packages: list[InstalledPackage] = []
    unread: list[str] = []
    for read in (_dpkg, _apk, _rpm):
        packages += read(tree, unread)
    release = _os_release(tree)
    return InstalledPackages(
        packages=tuple(sorted(packages, key=lambda it: (it.kind, it.name, it.architecture, it.version))),
        distribution=(release.get("ID", ""), release.get("VERSION_ID", "")),
        unread=tuple(unread),
    )


def _read(tree: FileTree, name: str | bytes) -> bytes | None:
    """Return the content of a regular file, following links; None if there is none."""
    try:
        key = tree.find(name)
    except TreeError:
        return None
    if not key or not tree[key].is_file:
        return None
    content = tree[key].content
    if content.size > _FILE_LIMIT_BYTES:
        raise TreeError(
            f"{shown(key)} has {content.size} bytes, more than the limit of {_FILE_LIMIT_BYTES} for a database",
            hint="compare with --by folder, which reads no database",
        )
    return content.read()


def _os_release(tree: FileTree) -> dict[str, str]:
    raw = next((raw for name in _OS_RELEASE if (raw := _read(tree, name)) is not None), b"")
    pairs = (line.partition("=") for line in raw.decode(errors="replace").splitlines())
    return {key: value.strip().strip("\"'") for key, equals, value in pairs if equals}


def _resolver(tree: FileTree) -> Callable[[bytes], bytes]:
    """Return a function that resolves the links among a name's folders: databases list /bin/sh, the tree usr/bin/sh."""

    @memoised
    def folder(name: bytes) -> bytes:
        try:
            return tree.find(name) or name
        except TreeError:
            return name

    def resolve(name: bytes) -> bytes:
        parent, slash, base = name.strip(b"/").rpartition(b"/")
        return folder(parent) + slash + base if slash else base

    return resolve


def _dpkg(tree: FileTree, unread: list[str]) -> Iterator[InstalledPackage]:  # noqa: ARG001
    resolve = _resolver(tree)
    for fields in _paragraphs(_read(tree, f"{_DPKG}/status") or b""):
        if fields.get("Status", "").endswith(" installed"):
            name = fields.get("Package", "")
            yield _deb(fields, _listed(tree, name, fields.get("Architecture", "")), resolve)
    folder = tree.find(f"{_DPKG}/status.d")  # distroless images: a file for each package
    for key in sorted(tree.children(folder)) if folder else []:
        if not key.endswith(b".md5sums"):
            sums = _read(tree, key + b".md5sums") or b""
            files = [line.partition(b"  ")[2] for line in sums.splitlines()]
            for fields in _paragraphs(_read(tree, key) or b""):
                yield _deb(fields, files, resolve)


def _listed(tree: FileTree, name: str, architecture: str) -> list[bytes]:
    """Return what dpkg lists for a package; `Multi-Arch: same` packages have the architecture in the file's name."""
    for stem in (f"{name}:{architecture}", name):
        raw = _read(tree, f"{_DPKG}/info/{stem}.list")
        if raw is not None:
            return raw.splitlines()
    return []


def _deb(fields: Mapping[str, str], files: Sequence[bytes], resolve: Callable[[bytes], bytes]) -> InstalledPackage:
    return InstalledPackage(
        kind="deb",
        name=fields.get("Package", ""),
        version=fields.get("Version", ""),
        architecture=fields.get("Architecture", ""),
        source=fields.get("Source", "").partition(" ")[0],
        files=frozenset(resolve(name) for name in files if name.strip(b"/.")),
    )


def _paragraphs(raw: bytes) -> Iterator[dict[str, str]]:
    """Yield the fields of each paragraph of deb-control(5); continuation lines are omitted."""
    for text in re.split(r"\n[ \t]*\n", raw.decode(errors="replace")):
        pairs = (line.partition(":") for line in text.splitlines() if line[:1] not in (" ", "\t", "#", ""))
        fields = {key: value.strip() for key, colon, value in pairs if colon}
        if fields.get("Package"):
            yield fields


def _apk(tree: FileTree, unread: list[str]) -> Iterator[InstalledPackage]:  # noqa: ARG001
    raw = next((raw for name in _APK if (raw := _read(tree, name)) is not None), b"")
    resolve = _resolver(tree)
    for record in raw.split(b"\n\n"):
        fields: dict[str, str] = {}
        files: list[bytes] = []
        folder = b""
        for line in record.splitlines():
            letter, value = line[:2], line[2:]
            if letter == b"F:":
                folder = value
            elif letter == b"R:":
                files.append(resolve(folder + b"/" + value if folder else value))
            elif letter in (b"P:", b"V:", b"A:", b"L:", b"o:"):
                fields[letter.decode()] = value.decode(errors="replace")
        if "P:" in fields:
            yield InstalledPackage(
                kind="apk",
                name=fields["P:"],
                version=fields.get("V:", ""),
                architecture=fields.get("A:", ""),
                license=fields.get("L:", ""),
                source=fields.get("o:", ""),
                files=frozenset(files),
            )


def _rpm(tree: FileTree, unread: list[str]) -> Iterator[InstalledPackage]:
    resolve = _resolver(tree)
    for folder in _RPM:
        for name, form in (("Packages", "Berkeley DB"), ("Packages.db", "ndb")):
            if f"{folder}/{name}" in tree:
                unread.append(f"rpm: {folder}/{name} was not read: it is in rpm's former format ({form})")
    for folder in _RPM:
        raw = _read(tree, f"{folder}/rpmdb.sqlite")
        if raw is None:
            continue
        try:
            yield from [_rpm_package(blob, resolve) for blob in _rpm_headers(raw)]
        except (sqlite3.Error, struct.error, IndexError, ValueError) as error:
            unread.append(f"rpm: {folder}/rpmdb.sqlite was not read: {error}")
        return  # the other names are links to it


def _rpm_headers(raw: bytes) -> list[bytes]:
    connection = sqlite3.connect(":memory:")
    try:
        if raw[18:20] == b"\2\2":  # WAL mode, which a database in memory cannot have
            raw = raw[:18] + b"\1\1" + raw[20:]
        connection.deserialize(raw)
        rows = connection.execute("SELECT blob FROM Packages").fetchall()
    finally:
        connection.close()
    return [bytes(blob) for (blob,) in rows]


_RPM_TAGS = {
    1000: "name",
    1001: "version",
    1002: "release",
    1003: "epoch",
    1014: "license",
    1022: "arch",
    1044: "source",
    1116: "indexes",
    1117: "bases",
    1118: "folders",
}
_INT32, _STRING, _STRINGS, _TEXT = 4, 6, 8, 9


def _rpm_package(blob: bytes, resolve: Callable[[bytes], bytes]) -> InstalledPackage:
    """Decode a header: the numbers of entries and of bytes of data, then (tag, type, offset, count) for each entry."""
    count, size = struct.unpack_from(">2I", blob)
    start = 8 + 16 * count
    data = blob[start : start + size]
    values: dict[str, list[bytes]] = {}
    for number in range(count):
        tag, kind, offset, items = struct.unpack_from(">4I", blob, 8 + 16 * number)
        label = _RPM_TAGS.get(tag)
        if label is None:
            continue
        if kind == _INT32:
            values[label] = [b"%d" % value for value in struct.unpack_from(f">{items}I", data, offset)]
        elif kind in (_STRING, _STRINGS, _TEXT):
            values[label] = data[offset:].split(b"\0", items)[:items]
    fields = {label: parts[0].decode(errors="replace") for label, parts in values.items() if parts}
    folders = values.get("folders", [])
    pairs = zip(values.get("indexes", []), values.get("bases", []), strict=True)
    files = frozenset(resolve(folders[int(index)] + base) for index, base in pairs)
    epoch = f"{fields['epoch']}:" if fields.get("epoch", "0") != "0" else ""
    return InstalledPackage(
        kind="rpm",
        name=fields.get("name", ""),
        version=f"{epoch}{fields.get('version', '')}-{fields.get('release', '')}",
        architecture=fields.get("arch", ""),
        license=fields.get("license", ""),
        source=fields.get("source", ""),
        files=files,
    )
