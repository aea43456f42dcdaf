"""Whether root can log in: its shell, and what sshd needs. Sources: passwd(5), shadow(5), sshd(8), sshd_config(5)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from acon_nb.initrd.check.files import Files, head, plain
from acon_nb.initrd.check.findings import Severity, Trouble
from acon_nb.initrd.check.programs import Programs
from acon_nb.initrd.check.services import find_command

_WARNING = Severity.WARNING
_PROGRAM_BYTES = 8 << 20
_CONFIG = re.compile(rb"(/[!-~]*/sshd_config)\0")
_SESSION = re.compile(rb"(/[!-~]*/sshd-(?:session|auth))\0")
# Folders that sshd makes its root before a login: Debian, Fedora, Alpine and openssh's default
_EMPTY = re.compile(rb"(/run/sshd|/usr/share/empty\.sshd|/var/empty/sshd|/var/empty|/var/lib/empty)\0")
_OURS = (b"/run/sshd",)  # made by our /init
_OTHERS_WRITE = 0o022


def troubles(files: Files, programs: Programs, *, our_init: bool) -> Iterator[Trouble]:
    """Yield what keeps root from logging in."""
    root = _line_of(files, "root", b"/etc/passwd")
    shell = root[6] if len(root) > 6 else ""
    if root:
        path = (shell or "/bin/sh").encode(errors="surrogateescape")
        purpose = "it is root's shell in /etc/passwd, so root cannot log in"
        yield from programs.troubles(path, _WARNING, purpose, proc=True)
    sshd = find_command(files, "sshd")
    if sshd is None or not our_init:
        return
    lost = "sshd does not start"
    yield from programs.troubles(sshd, _WARNING, lost, proc=True)
    entry = files.file(sshd)
    body = b"" if entry is None else head(entry, _PROGRAM_BYTES)
    yield from _parts_troubles(files, programs, body, lost)
    if not root:
        why = "sshd lets nobody in as root"
        yield Trouble(
            severity=_WARNING, what="/etc/passwd has no root", why=why, fix="add root:x:0:0:root:/root:/bin/sh"
        )
    yield from _login_troubles(files, root[5] if len(root) > 5 else "/root", b"libpam" in body)


def _parts_troubles(files: Files, programs: Programs, body: bytes, lost: str) -> Iterator[Trouble]:
    """What sshd reads and runs, at the paths that it is built with."""
    config = _CONFIG.search(body)
    if config is not None and files.file(config[1]) is None:
        what = f"{plain(config[1])} is missing"
        yield Trouble(severity=_WARNING, what=what, why=lost, fix="add it; it may be empty")
    for program in dict.fromkeys(_SESSION.findall(body)):
        yield from programs.troubles(program, _WARNING, "sshd runs it for each login", proc=True)
    if not _line_of(files, "sshd", b"/etc/passwd"):
        fix = "add sshd:x:100:65534::/run/sshd:/usr/sbin/nologin to /etc/passwd"
        yield Trouble(severity=_WARNING, what="/etc/passwd has no user sshd", why=lost, fix=fix)
    for folder in dict.fromkeys(_EMPTY.findall(body)):
        target = files.find(folder)
        if folder in _OURS and target is None:
            continue
        if target is None or not target.entry.is_dir:
            fix = f"add the empty folder {plain(folder)}, owned by root"
            yield Trouble(severity=_WARNING, what=f"{plain(folder)} is missing", why=lost, fix=fix)
        elif target.entry.uid or target.entry.mode & _OTHERS_WRITE:
            what = f"others than root may write to {plain(folder)}"
            yield Trouble(severity=_WARNING, what=what, why=lost, fix=f"chown 0:0 and chmod 755 {plain(folder)}")


def _login_troubles(files: Files, home: str, pam: bool) -> Iterator[Trouble]:
    password = _line_of(files, "root", b"/etc/shadow")[1:2]
    if not pam and password and password[0].startswith("!"):
        why = "sshd without PAM takes the account for locked, and refuses keys too"
        yield Trouble(severity=_WARNING, what="root's password in /etc/shadow begins with !", why=why, fix="use *")
    base = home.rstrip("/").encode(errors="surrogateescape")
    keys = base + b"/.ssh/authorized_keys"
    if files.file(keys) is None:
        fix = "acon-nb notebooks and InitrdSpec take public keys; or add the file (mode 600)"
        why = "nobody can log in as root with a key"
        yield Trouble(severity=Severity.NOTE, what=f"{plain(keys)} is missing", why=why, fix=fix)
        return
    for path in (base or b"/", base + b"/.ssh", keys):
        target = files.find(path)
        if target is not None and (target.entry.uid or target.entry.mode & _OTHERS_WRITE):
            what = f"others than root may write to {plain(path)}"
            why = "sshd ignores its keys (StrictModes)"
            yield Trouble(severity=_WARNING, what=what, why=why, fix=f"chown 0:0 and chmod go-w {plain(path)}")


def _line_of(files: Files, user: str, path: bytes) -> list[str]:
    """Return the fields of a user's line in passwd(5) or shadow(5); empty if there is none."""
    for line in files.text(path).splitlines():
        fields = line.split(":")
        if fields[0] == user:
            return fields
    return []
