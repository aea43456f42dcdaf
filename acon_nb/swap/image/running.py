"""What is run of an image: its own command, or the user's, as the image's configuration says that it be run.

Source: the OCI image specification (config.md), Docker's reference of Dockerfiles (ENTRYPOINT and CMD, USER, WORKDIR).
"""

from __future__ import annotations

import os
import posixpath
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from acon_nb.archive.tree import FileTree
from acon_nb.errors import InvalidInput, TreeError
from acon_nb.initrd import text_of
from acon_nb.units import format_bytes

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_WORDS = 1000  # guest/src/image_run.h has room for 1,024
_WORD_BYTES = (128 << 10) - 1  # the kernel's MAX_ARG_STRLEN, the NUL among it
_MOST_BYTES = 255 << 10  # guest/src/image_root.c reads 256 KiB of a description
_SAMPLE_PAGES = 4096  # 16 MiB
_WINDOW_NS = 500_000_000


@dataclass(frozen=True, kw_only=True)
class Running:
    """A program of an image as the guest runs it, with its root in the image.

    `argv`, `environment` (NAME=VALUE), `folder`, and the numbers of its user and groups. `driver` is a second command,
    which starts when the first is `ready` ("port:N" of the guest's loopback, or a text that it writes), and with which
    the run ends; after `for_ns` of the guest's time it ends anyway (0: never).
    """

    argv: tuple[str, ...]
    environment: tuple[str, ...] = ()
    folder: str = "/"
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    driver: tuple[str, ...] = ()
    ready: str = ""
    for_ns: int = 0

    def description(self, *, limit_ns: int = 0) -> bytes:
        """The run as the guest's program reads it; `limit_ns` is when it gives up (0: never)."""
        numbers = {"uid": self.uid, "gid": self.gid, "for_ns": self.for_ns, "limit_ns": limit_ns}
        numbers |= {"window_ns": _WINDOW_NS, "sample_pages": _SAMPLE_PAGES}
        pairs = [("arg", word) for word in self.argv]
        pairs += [("env", word) for word in self.environment]
        pairs += [("driver", word) for word in self.driver]
        pairs += [("group", str(number)) for number in self.groups]
        pairs += [(name, str(number)) for name, number in numbers.items()]
        pairs += [("cwd", self.folder), *([("ready", self.ready)] if self.ready else [])]
        return b"".join(f"{name}=".encode() + os.fsencode(value) + b"\0" for name, value in pairs)


def running_of(
    tree: FileTree,
    *,
    command: Sequence[str] = (),
    argv: Sequence[str] = (),
    environment: Sequence[str] = (),
    driver: Sequence[str] = (),
    ready: str = "",
    for_ns: int = 0,
) -> Running:
    """What is run of an image's tree: `command` in place of its own CMD, behind its ENTRYPOINT, as `docker run` does.

    `argv` is all of the command, in place of both.

    Errors: `InvalidInput` for an image without a command, a user that it does not have, or words that no program can
    be given.
    """
    config = tree.config
    whole = [*argv] or [*_words(config, "Entrypoint"), *(command or _words(config, "Cmd"))]
    if not whole:
        raise InvalidInput("command", "", "is missing: the image names none", hint="--command PROGRAM ARGUMENT...")
    own = dict(word.partition("=")[::2] for word in (_PATH, *_words(config, "Env")))
    given = dict(_variable(word).partition("=")[::2] for word in environment)
    user = config.get("User")
    uid, gid, groups, home = _user(tree, user if isinstance(user, str) else "")
    variables = {"HOME": home, "HOSTNAME": "acon", **own, **given}
    run = Running(
        argv=tuple(whole), environment=tuple(f"{name}={value}" for name, value in variables.items() if name),
        folder=_folder(tree),
        uid=uid, gid=gid, groups=groups, driver=tuple(driver), ready=ready, for_ns=for_ns,
    )  # fmt: skip
    for field, words in (("command", run.argv), ("driver", run.driver), ("environment", run.environment)):
        if len(words) > _WORDS:
            raise InvalidInput(field, words[0], f"has {len(words)} words", hint=f"at most {_WORDS}")
        if any("\0" in word for word in words):
            raise InvalidInput(field, words[0], "has a NUL character, which no program can be given", hint="remove it")
    for field, argv in (("command", run.argv), ("driver", run.driver)):
        if argv and not argv[0]:
            hint = "its first word is the program; shells and scripts make an empty one of a variable that is not set"
            raise InvalidInput(field, shlex.join(argv), "names no program: its first word is empty", hint=hint)
    _check_size(run)
    return run


def start_folder(config: Mapping[str, object]) -> str:
    """The folder that an image's program starts in (WORKDIR), "/" without one."""
    folder = config.get("WorkingDir")
    return posixpath.normpath(folder) if isinstance(folder, str) and folder.startswith("/") else "/"


def _folder(tree: FileTree) -> str:
    """The folder that the program starts in. Errors: `InvalidInput` for a name that leads to something else."""
    folder = start_folder(tree.config)
    for name in (*reversed(PurePosixPath(folder).parents), folder):
        try:
            key = tree.find(str(name))
            right = not key or tree[key].is_dir
        except TreeError:
            right = False
        if not right:
            reason = f"is the folder that the image starts in, but {name} in it is not a folder"
            raise InvalidInput("image", folder, reason, hint="correct the WORKDIR of its Dockerfile")
    return folder


def _check_size(run: Running) -> None:
    """Check that the kernel takes the words, and a guest all of them."""
    given = {"command": run.argv, "environment": run.environment, "driver": run.driver}
    hint = "put it into a file of the image"
    for field, words in given.items():
        word = max(words, key=len, default="")
        if (size := len(os.fsencode(word))) > _WORD_BYTES:
            reason = f"has {format_bytes(size)}, and Linux gives a program words of less than 128 KiB"
            raise InvalidInput(field, f"{word[:40]}...", reason, hint=hint)
    if (whole := len(run.description())) > _MOST_BYTES:
        field = max(given, key=lambda name: sum(map(len, given[name])))
        reason = (
            f"makes {format_bytes(whole)} of command and environment, and a guest is given {format_bytes(_MOST_BYTES)}"
        )
        raise InvalidInput(field, f"{given[field][0][:40]}...", reason, hint=hint)


def _words(config: Mapping[str, object], name: str) -> list[str]:
    value = config.get(name)
    return [word for word in value if isinstance(word, str)] if isinstance(value, list) else []


def _variable(word: str) -> str:
    if not word.partition("=")[0] or "=" not in word:
        raise InvalidInput("environment", word, "is not NAME=VALUE", hint="such as TZ=UTC")
    return word


def _user(tree: FileTree, text: str) -> tuple[int, int, tuple[int, ...], str]:
    """The user's number, group, further groups and home, from the image's own files. Errors: `InvalidInput`."""
    name, _, group = text.partition(":")
    users = [line.split(":") for line in text_of(tree, "etc/passwd").splitlines() if line.count(":") >= 6]
    members = [line.split(":") for line in text_of(tree, "etc/group").splitlines() if line.count(":") >= 3]
    uid, gid, home = 0, 0, "/root"
    groups: tuple[int, ...] = ()
    if name:
        row = next((row for row in users if name in (row[0], row[2])), None)
        if row is None and not name.isdecimal():
            reason = "is the image's user, which its /etc/passwd does not have"
            raise InvalidInput("image", text, reason, hint="correct the USER of its Dockerfile")
        uid, gid, home = (_number(row[2]), _number(row[3]), row[5] or "/") if row else (_number(name), 0, "/")
        groups = tuple(_number(other[2]) for other in members if row and row[0] in other[3].split(","))
    if group:
        entry = next((other for other in members if group in (other[0], other[2])), None)
        if entry is None and not group.isdecimal():
            reason = "is the image's group, which its /etc/group does not have"
            raise InvalidInput("image", text, reason, hint="correct the USER of its Dockerfile")
        gid = _number(entry[2] if entry else group)
    return uid, gid, groups, home


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 10 else 0
