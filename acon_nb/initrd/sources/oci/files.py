"""The files of an image's archive, in a tar or in a folder of the host; blobs are verified against their digests.

A link in a folder is followed to wherever it leads if the file is named by its digest, since its size and content are
verified: layouts of Bazel's rules_oci link to a cache outside, that of Debian's official image to files inside. Other
files, such as index.json, must be inside the folder. Only regular files are ever opened.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from acon_nb.archive.spool import OpenFile
from acon_nb.archive.tree import Content, FileTree, clean_name, shown
from acon_nb.errors import TreeError

HINT = "create the archive again: docker save NAME -o FILE, or skopeo copy ... oci:FOLDER"
_JSON_BYTES = 8 << 20
_TARGET_BYTES = 4096
_INDEXES = ("index.json", "manifest.json")
_HASHES = {"sha256": 64, "sha512": 128}
_DIGEST = re.compile(r"([a-z0-9]+(?:[.+_-][a-z0-9]+)*):([a-zA-Z0-9=_-]+)")
_FOLLOWS = "the folder was copied without its links; copy it with cp -a or tar"


class ImageFiles(Protocol):
    """The files of an archive of images."""

    what: str

    def find(self, name: str, *, size: int | None = None) -> Content | None:
        """Return the content of a file, or None if it does not exist.

        Parameters: `size` is given for a file whose digest the caller verifies, which may therefore be anywhere.
        Errors: `TreeError` for a name that leads out of the archive, or something else than a regular file.
        """

    def names(self) -> list[str]:
        """List the names at the top, and index files one level below, for hints."""


class TarFiles:
    """The files of a tar."""

    def __init__(self, tree: FileTree, what: str) -> None:
        self.tree, self.what = tree, what

    def find(self, name: str, *, size: int | None = None) -> Content | None:  # noqa: ARG002
        """See `ImageFiles`."""
        key = self.tree.find(name)
        if key is None and name in self.tree:
            target = self.tree[name].content.read().decode(errors="backslashreplace")
            raise TreeError(
                f"{name!r} of {self.what} is a link to {target[:200]!r}, which the archive does not contain",
                hint="pack the folder with the files that its links lead to: tar --dereference",
            )
        if not key:
            return None
        if not self.tree[key].is_file:
            raise TreeError(f"{name[:200]!r} of {self.what} is not a regular file", hint=HINT)
        return self.tree[key].content

    def names(self) -> list[str]:
        """See `ImageFiles`."""
        return [name.decode(errors="backslashreplace") for name, _ in self.tree.items() if name.count(b"/") < 2]


class FolderFiles:
    """The files of a folder of the host."""

    def __init__(self, folder: Path) -> None:
        self.what = str(folder)
        self._root = os.path.realpath(folder)
        self._inside = os.fsencode(self._root).rstrip(b"/") + b"/"

    def find(self, name: str, *, size: int | None = None) -> Content | None:
        """See `ImageFiles`."""
        path = os.path.join(os.fsencode(self._root), clean_name(name))  # noqa: PTH118 (a name that is bytes)
        content = self._open(path, name, inside=size is None)
        if content is None or size is None or content.size == size or content.size > _TARGET_BYTES:
            return content
        # git stores a link as a file with its target where it may not make links (core.symlinks=false)
        target = os.path.join(os.path.dirname(path), content.read())  # noqa: PTH118, PTH120
        linked = None if b"\0" in target else self._open(target, name, inside=True, maybe=True)
        return linked if linked is not None and linked.size == size else content

    def _open(self, path: bytes, name: str, *, inside: bool, maybe: bool = False) -> Content | None:
        try:
            real = os.path.realpath(path, strict=True)
            if inside and not real.startswith(self._inside):
                if maybe:
                    return None
                reason = f"is a link to {shown(real)}, outside of the folder; only blobs, which are verified, may be"
                raise TreeError(f"{name!r} of {self.what} {reason}", hint="replace the link by the file: cp -L")
            # a FIFO would block, and opening a device can have effects
            if not stat.S_ISREG(os.stat(real).st_mode):  # noqa: PTH116
                raise TreeError(f"{name!r} of {self.what} is not a regular file", hint=HINT)
            descriptor = os.open(real, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        except OSError as error:
            if maybe or (isinstance(error, FileNotFoundError) and not os.path.islink(path)):  # noqa: PTH114
                return None
            if isinstance(error, NotADirectoryError):
                raise TreeError(f"{name!r} of {self.what} is below a file, not a folder", hint=_FOLLOWS) from error
            reason = f"cannot be read: {error.strerror}"
            if isinstance(error, FileNotFoundError):
                reason = f"is a link to {shown(os.readlink(path))}, which does not exist"  # noqa: PTH115
            raise TreeError(f"{name!r} of {self.what} {reason}", hint=HINT) from error
        file = OpenFile(descriptor)
        return Content(size=file.size, source=file)

    def names(self) -> list[str]:
        """See `ImageFiles`."""
        try:
            top = sorted(os.listdir(self._root))
        except OSError:
            return []
        below = [f"{name}/{file}" for name in top for file in _INDEXES]
        return top + [name for name in below if os.path.isfile(os.path.join(self._root, name))]  # noqa: PTH113, PTH118


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """A reference to a file of the archive: its name, and what is known about it.

    `digest` is "" in the archives of `docker save`, whose layers are verified by the configuration alone; `size` is
    None then. `data` is the content itself if the descriptor embeds it, `urls` where it is if it is not distributed.
    """

    name: str
    digest: str = ""
    size: int | None = None
    media_type: str = ""
    data: bytes | None = field(default=None, repr=False)
    urls: tuple[str, ...] = ()

    @classmethod
    def of_descriptor(cls, value: Any, place: str) -> StoredFile:
        """Read a descriptor; `place` is where the archive has its blob. Errors: `TreeError`."""
        descriptor = as_dict(value, "a descriptor")
        digest, size = str(descriptor.get("digest")), descriptor.get("size")
        algorithm, encoded = split_digest(digest)
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise TreeError(f"the size of blob {digest} is {size!r:.40}, not a number of bytes", hint=HINT)
        data = descriptor.get("data")
        return cls(
            name=place.format(algorithm=algorithm, encoded=encoded),
            digest=digest,
            size=size,
            media_type=str(descriptor.get("mediaType") or ""),
            data=None if data is None else _embedded(data, digest),
            urls=tuple(strings(descriptor.get("urls") or [], "urls")),
        )

    @property
    def is_foreign(self) -> bool:
        """Whether it is a layer that is not distributed with its image."""
        return bool(self.urls) or "nondistributable" in self.media_type or ".foreign." in self.media_type

    def find(self, files: ImageFiles) -> Content | None:
        """Return the verified content, or None if the archive does not contain it. Errors: `TreeError`."""
        content = files.find(self.name, size=self.size if self.digest else None)
        if content is None and self.data is not None:
            content = Content.of(self.data)
        if content is None:
            return None
        if self.size is not None and content.size != self.size:
            raise TreeError(f"blob {self.digest} has {content.size} bytes, not {self.size}", hint=HINT)
        if self.digest:
            verify(content, self.digest, self.name)
        return content

    def content(self, files: ImageFiles) -> Content:
        """Return the verified content. Errors: `TreeError` if it is damaged or missing."""
        content = self.find(files)
        if content is None:
            raise TreeError(f"the archive refers to {self.name[:200]!r}, which it does not contain", hint=HINT)
        return content


def _embedded(data: Any, digest: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise TreeError(f"the data embedded for blob {digest} is not base64", hint=HINT) from error


def split_digest(digest: str) -> tuple[str, str]:
    """Split a digest into the algorithm and the hexadecimal number. Errors: `TreeError`."""
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise TreeError(f"the archive refers to a blob by {digest[:80]!r}, which is not a digest", hint=HINT)
    algorithm, encoded = match.groups()
    if algorithm not in _HASHES:
        reason = f"the archive refers to a blob by {digest[:80]!r}: the algorithm {algorithm} is not supported"
        raise TreeError(reason, hint=f"create it with {' or '.join(_HASHES)}")
    if not re.fullmatch(f"[0-9a-f]{{{_HASHES[algorithm]}}}", encoded):
        raise TreeError(f"the archive refers to a blob by {digest[:140]!r}, which is not a {algorithm}", hint=HINT)
    return algorithm, encoded


def verify(content: Content, digest: str, what: str) -> None:
    """Compare a content with its digest. Errors: `TreeError`."""
    algorithm, encoded = split_digest(digest)
    actual = content.digest(algorithm)
    if actual != encoded:
        raise TreeError(f"{what} does not match its digest {digest}: it is {actual}", hint=HINT)


def parsed(content: Content, what: str) -> Any:
    """Parse a content as JSON. Errors: `TreeError`."""
    if content.size > _JSON_BYTES:
        raise TreeError(f"{what} of the archive has {content.size} bytes; the limit is {_JSON_BYTES}", hint=HINT)
    try:
        return json.loads(content.read())
    except (ValueError, RecursionError) as error:
        raise TreeError(f"{what} of the archive is not valid JSON: {error}", hint=HINT) from error


def as_dict(value: Any, what: str) -> Mapping[str, Any]:
    """Return a JSON object. Errors: `TreeError` if it is something else."""
    if not isinstance(value, dict):
        raise TreeError(f"{what} of the archive is not a JSON object", hint=HINT)
    return value


def as_list(value: Any, what: str) -> list[Any]:
    """Return a JSON list. Errors: `TreeError` if it is something else."""
    if not isinstance(value, list):
        raise TreeError(f"{what} of the archive is not a JSON list", hint=HINT)
    return value


def strings(value: Any, what: str) -> list[str]:
    """Return a JSON list of strings. Errors: `TreeError` if it is something else."""
    items = as_list(value, what)
    if not all(isinstance(item, str) for item in items):
        raise TreeError(f"{what} of the archive is not a JSON list of strings", hint=HINT)
    return items
