"""A series of patches as files in the order in which they apply, from a mailbox or a folder.

Patches come from others: only their text is used, each is checked for paths that lead out of a tree, and `git am`,
which runs hooks and makes commits, is not needed.
"""

from __future__ import annotations

import email
import email.policy
import gzip
import itertools
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from email.header import decode_header, make_header
from email.message import Message
from pathlib import Path

from acon_nb.cache import Cache, atomic_file, sha256_file
from acon_nb.errors import InvalidInput

_NUMBER = re.compile(r"\[[^\]]*PATCH[^\]]*?\b(\d+)/(\d+)[^\]]*\]", re.IGNORECASE)
_TAG = re.compile(r"^\s*(?:\[[^\]]*\]\s*)+")
_NAMED = re.compile(r"(?:---|\+\+\+|(?:rename|copy) (?:from|to)) (.+)")
_HUNK = re.compile(r"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_FROM_LINE = re.compile(rb"^From \S+ .*\d:\d\d(?::\d\d)? .*\d{4}\r?$", re.MULTILINE)  # as git-mailsplit(1) has it
_QUOTED_FROM = re.compile(rb"^>(>*From )", re.MULTILINE)
_MOST_BYTES = 64 << 20
_MOST_PATCHES = 1000
_LINK_MODE = "new file mode 120000"


@dataclass(frozen=True, kw_only=True)
class PatchFile:
    """A patch: its file, its subject without tags, and its number in a series ([PATCH n/m]; None: not numbered)."""

    path: Path
    subject: str
    number: int | None = None
    count: int | None = None


def read_mbox(path: Path, *, cache: Cache | None = None) -> tuple[PatchFile, ...]:
    """The patches of a mailbox (as of lore.kernel.org), written to the cache; cover letters and replies are omitted.

    Errors: `InvalidInput` (not a mailbox, no patch, one twice or missing, a path that leads out of the tree).
    """
    _require_file("mbox", path)
    folder = (cache or Cache()).workdir("mbox", {"sha256": sha256_file(path)})
    patches = []
    for number, mail in enumerate(_mails(_unpacked(path))):
        message = email.message_from_bytes(mail, policy=email.policy.compat32)
        text = _text_of(message)
        if not _has_diff(text):
            continue
        file = folder / f"{number:04d}.patch"
        with atomic_file(file) as temporary:
            temporary.write_bytes(text)
        patches.append(_described(file, _header(message, "Subject")))
    return _checked(_in_order(patches, path), "mbox", path)


def read_folder(path: Path) -> tuple[PatchFile, ...]:
    """The patches of a folder: as its file `series` lists them (quilt), else its *.patch and *.diff by name.

    Errors: `InvalidInput` (no patch, one that `series` lists and is missing, a path that leads out of the tree).
    """
    if not path.is_dir():
        raise InvalidInput("patches", path, "is not a folder", hint="of files as git format-patch writes them")
    listed = path / "series"
    if listed.is_file():
        lines = (line.split("#")[0].split() for line in listed.read_text(errors="replace").splitlines())
        files = [path / words[0] for words in lines if words]
        if outside := [file for file in files if not file.resolve().is_relative_to(path.resolve())]:
            raise InvalidInput("patches", outside[0], "leads out of the folder of its series", hint="copy it there")
    else:
        files = sorted(file for file in path.iterdir() if file.suffix in (".patch", ".diff"))
    for file in files:
        _require_file("patches", file)
    patches = [_described(file, _subject_in(file)) for file in files if _has_diff(file.read_bytes())]
    return _checked(patches, "patches", path)


def check_paths(path: Path) -> None:
    """Refuse a patch that names a file outside of the tree, or makes a link. Errors: `InvalidInput` with its name."""
    for line in _lines_outside_hunks(path.read_text(errors="replace")):
        if line.startswith(_LINK_MODE):
            raise InvalidInput("patches", path, "makes a symbolic link", hint="remove it from the patch")
        match = _NAMED.match(line)
        if match is None:
            continue
        name = match[1].split("\t")[0].strip().strip('"')
        if name != "/dev/null" and (name.startswith("/") or ".." in name.split("/") or "\\" in name):
            reason = f"names {_CONTROL.sub('?', name)!r}, which may lie outside of the tree"
            raise InvalidInput("patches", path, reason, hint="paths are a/... and b/... in the kernel's tree")


def _checked(patches: Sequence[PatchFile], field: str, path: Path) -> tuple[PatchFile, ...]:
    if not patches:
        raise InvalidInput(field, path, "has no patch", hint="as git format-patch writes them, or an mbox of a series")
    if len(patches) > _MOST_PATCHES:
        raise InvalidInput(field, path, f"has {len(patches)} patches", hint=f"at most {_MOST_PATCHES}")
    for patch in patches:
        check_paths(patch.path)
    return tuple(patches)


def _in_order(patches: Sequence[PatchFile], path: Path) -> list[PatchFile]:
    """Numbered patches by their numbers, each once; others as they come."""
    numbers = [patch.number for patch in patches]
    if not patches or None in numbers:
        return list(patches)
    ordered = sorted(patches, key=lambda patch: patch.number or 0)
    for patch, number in zip(ordered, range(1, len(ordered) + 1), strict=True):
        if patch.number != number:
            twice = numbers.count(patch.number) > 1
            which = f"patch {patch.number} more than once" if twice else f"no patch {number}"
            raise InvalidInput("mbox", path, f"has {which}", hint="give one version of the series, complete")
    if ordered[-1].count != len(ordered):
        reason = f"has {len(ordered)} of {ordered[-1].count} patches"
        raise InvalidInput("mbox", path, reason, hint="give one version of the series, complete")
    return ordered


def _described(path: Path, subject: str) -> PatchFile:
    plain = _CONTROL.sub(" ", subject).strip()
    patch = PatchFile(path=path, subject=_TAG.sub("", plain) or path.name)
    match = _NUMBER.search(plain)
    return patch if match is None else replace(patch, number=int(match[1]), count=int(match[2]))


def _subject_in(path: Path) -> str:
    with path.open("rb") as file:
        return _header(email.message_from_binary_file(file, policy=email.policy.compat32), "Subject")


def _unpacked(path: Path) -> bytes:
    """The bytes of a mailbox, which may be compressed by gzip, as those of lore.kernel.org are."""
    data = path.read_bytes()
    if not data.startswith(b"\x1f\x8b"):
        return data
    try:
        with gzip.open(path) as file:
            data = file.read(_MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidInput("mbox", path, f"cannot be unpacked: {error}", hint="fetch it again") from error
    if len(data) > _MOST_BYTES:
        raise InvalidInput("mbox", path, "is too large unpacked", hint=f"at most {_MOST_BYTES} bytes")
    return data


def _mails(text: bytes) -> list[bytes]:
    """The mails of a mailbox, without the lines that part them; a "From" of a message has no date at its end."""
    starts = [match.start() for match in _FROM_LINE.finditer(text)]
    mails = [text[start:end].partition(b"\n")[2] for start, end in itertools.pairwise([*starts, len(text)])]
    return [_QUOTED_FROM.sub(rb"\1", mail) for mail in mails]


def _header(message: Message, name: str) -> str:
    value = str(message.get(name, ""))
    try:
        return str(make_header(decode_header(value)))
    except (LookupError, ValueError):
        return value


def _text_of(message: Message) -> bytes:
    """The text of a mail, decoded: base64 and quoted-printable too, attached patches after the text."""
    parts = [part for part in message.walk() if part.get_content_maintype() == "text"]
    texts = [payload for part in parts if isinstance(payload := part.get_payload(decode=True), bytes)]
    return b"\n".join(text.replace(b"\r\n", b"\n") for text in texts)


def _has_diff(text: bytes) -> bool:
    return re.search(rb"^--- \S.*\n\+\+\+ \S", text, re.MULTILINE) is not None or b"\ndiff --git " in text


def _lines_outside_hunks(text: str) -> list[str]:
    """The lines of a patch that are not its changes: a removed line "-- ../x" is not a path."""
    lines, old, new = [], 0, 0
    for line in text.splitlines():
        if old > 0 or new > 0:
            old -= line[:1] in ("-", " ", "")
            new -= line[:1] in ("+", " ", "")
            continue
        if match := _HUNK.match(line):
            old, new = (int(number) if number is not None else 1 for number in match.groups())
        lines.append(line)
    return lines


def _require_file(field: str, path: Path) -> None:
    if not path.is_file():
        raise InvalidInput(field, path, "is not a file", hint="as git format-patch writes it")
    if path.stat().st_size > _MOST_BYTES:
        raise InvalidInput(field, path, f"has {path.stat().st_size} bytes", hint=f"at most {_MOST_BYTES}")
