"""The files that cells boot, on a worker's host, named by the SHA-256 of their bytes and checked before each use.

They are kept in the user cache of that host (`cluster/`, accessible to its owner only), are sent in pieces, and are
renamed into place when the complete file has the hash in its name. A file with another hash is removed and sent again.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from acon_nb.cache import default_root, raising_no_space, remove, require_space, writable_folder
from acon_nb.errors import AconError

PIECE_BYTES = 4 << 20
_log = logging.getLogger(__name__)
_DIGEST = re.compile(r"[0-9a-f]{64}")
_UPLOAD = re.compile(r"[0-9a-f]{32}")
_STALE_S = 24 * 3600.0
_SPARE_BYTES = 64 << 20
_FOREIGN_BITS = stat.S_IWGRP | stat.S_IWOTH


def folder() -> Path:
    """Return the folder of the files. Errors: `AconError` if others can write to it."""
    path = writable_folder(default_root() / "cluster", 0o700)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & _FOREIGN_BITS:
        raise AconError(f"{path} is not a folder that only its user can write to", hint="inspect it, and remove it")
    return path


def find(digest: str) -> Path | None:
    """Return the file of that hash, its bytes checked; None if it is missing, or had another hash and was removed."""
    path = folder() / _checked(_DIGEST, digest)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:  # such as a link
        _throw_away(path, error.strerror or "cannot be opened")
        return None
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, handle)
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & _FOREIGN_BITS:
            _throw_away(path, "is not a regular file that this user owns")
            return None
        file = stack.enter_context(os.fdopen(handle, "rb", closefd=False))
        if hashlib.file_digest(file, "sha256").hexdigest() != digest:
            _throw_away(path, "does not have the hash in its name")
            return None
    return path


def missing(digests: Sequence[str], total_bytes: int = 0) -> list[str]:
    """Return which of the files must be sent. Errors: `NoSpace` if `total_bytes` do not fit."""
    cache = folder()
    for part in cache.glob(".*.part"):
        if time.time() - part.lstat().st_mtime > _STALE_S:
            part.unlink(missing_ok=True)
    absent = [digest for digest in digests if find(digest) is None]
    if absent:
        require_space(cache, total_bytes + _SPARE_BYTES, "the files of a study")
    return absent


def put(digest: str, upload: str, offset: int, data: bytes, size: int) -> bool:
    """Add a piece to a file of `size` bytes; return True when it was the last and the file is in place.

    `upload` separates the pieces of one sender from those of another. Errors: `AconError` for a piece out of order or
    a complete file with another hash, `NoSpace`.
    """
    part = folder() / f".{_checked(_DIGEST, digest)}.{_checked(_UPLOAD, upload)}.part"
    flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if offset == 0 else 0)
    with raising_no_space(part), os.fdopen(os.open(part, flags, 0o700), "wb") as file:
        if os.fstat(file.fileno()).st_size != offset:
            raise AconError(f"{part.name}: a piece at {offset} is out of order")
        file.seek(offset)
        file.write(data)
    if offset + len(data) < size:
        return False
    with part.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != digest:
        part.unlink()
        raise AconError(f"{digest}: what was received has the hash {actual}", hint="run it again")
    part.chmod(0o500)
    part.replace(part.with_name(digest))
    return True


def pieces(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield a file's pieces with their offsets; one empty piece for an empty file."""
    offset = 0
    with path.open("rb") as file:
        while (data := file.read(PIECE_BYTES)) or not offset:
            yield offset, data
            offset += len(data)
            if not data:
                return


def _throw_away(path: Path, why: str) -> None:
    _log.warning("%s %s: removed", path, why)
    remove(path)


def _checked(form: re.Pattern[str], text: str) -> str:
    if not form.fullmatch(text):
        raise AconError(f"{text!r} is not the name of a file of a study")
    return text
