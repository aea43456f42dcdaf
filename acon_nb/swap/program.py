"""The program of a swap cell: its arguments, environment, files, input and user, and how they get into the guest.

They are a small archive of their own in front of the shared initrd, below /acon/cell, which the kernel unpacks into the
same root: no character is forbidden, nothing counts against the kernel's command line, and cells share the initrd.
"""

from __future__ import annotations

import functools
import os
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from acon_nb.archive import cpio
from acon_nb.cache import Cache, sha256_file
from acon_nb.errors import InvalidInput
from acon_nb.initrd import DEFAULT_MTIME, FileTree
from acon_nb.units import format_bytes, parse_ns

if TYPE_CHECKING:
    from acon_nb.swap.levels import Levels

FOLDER = "acon/cell"
LIMIT_BYTES = 2 << 30  # of a file: it is in the guest's memory
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,31})?")
_WORDS_LIMIT = 64 << 10  # the kernel takes 128 KiB in one argument, but longer scripts are better files
_HINT_LIST = 'a list, such as ["sh", "-c", "echo \'a, b\'"], or one text with the quotes of a shell'


@dataclass(frozen=True, kw_only=True)
class Program:
    """What a cell runs: `argv`, `environment` (NAME=VALUE), `files` (of the host, by their path in the guest), `stdin`
    (a file of the host; None: nothing to read), the `folder` that it starts in, its `user` ("": root), and the time in
    ns of the guest's clock after which it is stopped (0: never)."""

    argv: tuple[str, ...]
    environment: tuple[str, ...] = ()
    files: tuple[tuple[str, Path], ...] = ()
    stdin: Path | None = None
    folder: str = ""
    user: str = ""
    limit_ns: int = 0


@functools.lru_cache(maxsize=256)
def words_of(field: str, text: str) -> tuple[str, ...]:
    """The words of a text, quoted as in a shell. Errors: `InvalidInput`."""
    if "\0" in text:
        raise InvalidInput(field, text, "has a NUL character, which no program can be given", hint="remove it")
    if len(text) > _WORDS_LIMIT:
        hint = "give a long script as a file (files), or on stdin"
        raise InvalidInput(field, text[:40] + "...", f"has {len(text)} characters: at most {_WORDS_LIMIT}", hint=hint)
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise InvalidInput(field, text, f"is not quoted as in a shell: {error}", hint=_HINT_LIST) from error


def program_of(levels: Levels) -> Program:
    """The program of a cell. Errors: `InvalidInput` for what no guest could be given, and files that are not there."""
    size = str(levels.pages * 4096)
    argv = tuple(word.replace("{bytes}", size) for word in words_of("program", levels.program))
    if not argv or not argv[0]:
        raise InvalidInput("program", levels.program, "names no program", hint=_HINT_LIST)
    if argv[0].startswith("-"):
        hint = "among [factors] a list is one of levels: write [[...], [...]] there, or the program as one text"
        raise InvalidInput("program", levels.program, f"would start {argv[0]}, an option", hint=hint)
    return Program(
        argv=argv,
        environment=tuple(
            _variable(word.replace("{bytes}", size)) for word in words_of("environment", levels.environment)
        ),
        files=tuple(_file(word) for word in words_of("files", levels.files)),
        stdin=_readable("stdin", levels.stdin) if levels.stdin else None,
        folder=_absolute("program_folder", levels.program_folder) if levels.program_folder else "",
        user=_user(levels.program_user),
        limit_ns=_limit_ns(levels.program_time),
    )


def _variable(word: str) -> str:
    if not _VARIABLE.fullmatch(word.partition("=")[0]) or "=" not in word:
        raise InvalidInput("environment", word, "is not NAME=VALUE", hint='such as ["TZ=UTC", "GREETING=a, b"]')
    return word


def _file(word: str) -> tuple[str, Path]:
    host, colon, guest = word.rpartition(":")
    if not colon or not host:
        raise InvalidInput("files", word, "is not HOST:GUEST", hint='such as ["my.conf:/etc/my.conf"]')
    return _absolute("files", guest), _readable("files", host)


def _absolute(field: str, path: str) -> str:
    if not path.startswith("/") or any(part in ("..", ".") for part in path.split("/")):
        raise InvalidInput(field, path, "is not an absolute path of the guest", hint="such as /srv/data, without ..")
    if field == "files" and (path.endswith("/") or path.startswith(("/acon/", "/proc/", "/sys/", "/dev/"))):
        raise InvalidInput(field, path, "cannot be a file of the user's", hint="such as /srv/my.conf")
    return path


def _readable(field: str, text: str) -> Path:
    path = Path(text).expanduser()
    if not path.is_file():
        reason = "is not a regular file" if path.exists() else "does not exist"
        raise InvalidInput(field, text, reason, hint="give the path of a file on this host")
    if not os.access(path, os.R_OK):
        raise InvalidInput(field, text, "cannot be read", hint=f"chmod u+r {path}, or run as its owner")
    if (size := path.stat().st_size) > LIMIT_BYTES:
        hint = f"at most {format_bytes(LIMIT_BYTES)}: it is in the guest's memory"
        raise InvalidInput(field, text, f"has {format_bytes(size)}", hint=hint)
    return path


def _user(text: str) -> str:
    if text and not _USER.fullmatch(text):
        raise InvalidInput("program_user", text, "is not USER or USER:GROUP", hint="such as postgres, or 1000:1000")
    return text


def _limit_ns(text: str) -> int:
    if not text:
        return 0
    ns = parse_ns(text, field="program_time")
    if not ns:
        raise InvalidInput("program_time", text, "is not a time above 0", hint='such as 30s; "" for no limit')
    return ns


def archive(
    program: Program, *, root: str = "", more: Mapping[str, bytes] | None = None, cache: Cache | None = None
) -> Path:
    """The archive of a program, in the user cache: the same bytes for the same program and contents of files.

    `root` is the folder of the guest that is the program's root ("": the guest's own), `more` are further files, by
    their names in the archive's folder.
    """
    parts = [("argv", _texts(program.argv)), ("environment", _texts(program.environment))]
    parts += [("places", _texts(guest for guest, _ in program.files))]
    parts += [(name, os.fsencode(text)) for name, text in _settings(program, root).items() if text]
    parts += (more or {}).items()
    contents = [("stdin", program.stdin)] if program.stdin else []
    contents += [(f"files/{number}", path) for number, (_, path) in enumerate(program.files)]
    inputs = {
        "program": {name: text.hex() for name, text in parts},
        "files": {name: [sha256_file(path), _mode(path)] for name, path in contents},
        "version": 1,
    }

    def make(folder: Path) -> None:
        tree = FileTree()
        for name, text in parts:
            tree.add_file(f"{FOLDER}/{name}", text)
        for name, path in contents:
            tree.add_file(f"{FOLDER}/{name}", path, mode=_mode(path))
        with (folder / "cell.cpio").open("wb") as file:
            cpio.write(tree, file, mtime=DEFAULT_MTIME, owner=(0, 0))

    return (cache or Cache()).get("swap-cell", inputs, make).path / "cell.cpio"


def _settings(program: Program, root: str) -> dict[str, str]:
    return {"folder": program.folder, "user": program.user, "root": root}


def _texts(texts: Iterable[str]) -> bytes:
    return b"".join(os.fsencode(text) + b"\0" for text in texts)


def _mode(path: Path) -> int:
    return 0o755 if os.access(path, os.X_OK) else 0o644
