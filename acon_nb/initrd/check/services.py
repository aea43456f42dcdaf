"""What acon_nb's own /init needs of an image and a kernel: commands, the lines of /etc/fstab, modules, a console."""

from __future__ import annotations

import functools
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from acon_nb.initrd import fstab
from acon_nb.initrd.check.command_line import Start
from acon_nb.initrd.check.files import Files, executable
from acon_nb.initrd.check.findings import Severity, Trouble
from acon_nb.initrd.check.programs import Programs
from acon_nb.initrd.init import BIN_FOLDERS, utilities

_WARNING = Severity.WARNING
_MARK = b"each_line /etc/fstab mount_plain"  # in every version of our /init
_BEFORE_PROC = ("mount", "mkdir", "modprobe")  # what /init runs before /proc is mounted
_NEEDED_MOUNTS = {"/proc": "proc", "/dev": "devtmpfs", "/sys": "sysfs"}
_CONSOLES = {"hvc": "VIRTIO_CONSOLE", "ttyS": "SERIAL_8250_CONSOLE", "tty": "VT_CONSOLE"}
_CIPHERS = {"xts": "CRYPTO_XTS", "cbc": "CRYPTO_CBC"}
_HASHES = {
    "crc32c": "CRYPTO_CRC32C",
    "sha224": "CRYPTO_SHA256",
    "sha256": "CRYPTO_SHA256",
    "sha384": "CRYPTO_SHA512",
    "sha512": "CRYPTO_SHA512",
    "cmac": "CRYPTO_CMAC",
}


def is_ours(text: bytes) -> bool:
    """Whether an init is the /init that `gen_init` adds."""
    return _MARK in text


def find_command(files: Files, name: str) -> bytes | None:
    """Return the path of a command in the PATH that /init sets; None if it is not there."""
    if "/" in name:
        path = name.encode(errors="surrogateescape")
        entry = files.file(path)
        return path if entry is not None and executable(entry) else None
    for folder in BIN_FOLDERS:
        path = f"/{folder}/{name}".encode(errors="surrogateescape")
        entry = files.file(path)
        if entry is not None and executable(entry):
            return path
    return None


def troubles(files: Files, programs: Programs, start: Start) -> Iterator[Trouble]:
    """Yield what keeps our /init from doing all that it would do."""
    lines, problems = fstab.parse(files.text(b"/etc/fstab"))
    used = [line for line in lines if "noauto" not in line.options]
    proc = any((line.type, line.point) == ("proc", "/proc") for line in used)
    yield from _last_program_troubles(files, programs, start, proc)
    yield from _command_troubles(files, programs, proc)
    for problem in problems:
        what = f"line {problem.number} of /etc/fstab, {problem.text.strip()!r}, is not valid"
        yield Trouble(severity=_WARNING, what=what, why=problem.why, fix=problem.hint)
    yield from _mount_troubles(used)
    for line in used:
        yield from _line_troubles(files, line)


def _last_program_troubles(files: Files, programs: Programs, start: Start, proc: bool) -> Iterator[Trouble]:
    """What /init becomes in the end: INIT or a login shell, in a session of its own if there is setsid."""
    ends = "/init ends, and the kernel panics"
    words = start.program.split()
    name = words[0] if words else "sh"
    path = find_command(files, name)
    if path is None and words:
        why = "/init starts a shell instead"
        yield Trouble(
            severity=_WARNING, what=f"INIT={name} is not in the image", why=why, fix=f"add {name}, or change INIT"
        )
        name, words = "sh", []
        path = find_command(files, name)
    if path is None:
        yield Trouble(severity=Severity.ERROR, what=f"{name} is not in the image", why=ends, fix="add a shell")
        return
    yield from programs.troubles(path, Severity.ERROR, f"it is what /init runs in the end, so {ends}", proc=proc)
    setsid = find_command(files, "setsid")
    if setsid is not None:
        purpose = f"/init runs everything else by setsid, so {ends}"
        yield from programs.troubles(setsid, Severity.ERROR, purpose, proc=proc)
    if not words:
        yield _console_trouble(start)
    yield from _console_node_troubles(files, interactive=not words)


def _console_node_troubles(files: Files, *, interactive: bool) -> Iterator[Trouble]:
    """An image may put a file in the place of the kernel's own /dev/console, as `docker export` does."""
    node = files.find(b"/dev/console")
    if node is not None and stat.S_ISCHR(node.entry.mode) and node.entry.device == (5, 1):
        return
    why = "the shell that /init runs in the end reads it and ends, and the kernel panics"
    severity = Severity.ERROR if interactive else _WARNING
    why = why if interactive else "what init prints is lost"
    fix = "remove it, or make it the device 5:1"
    yield Trouble(severity=severity, what="/dev/console is not the console's device", why=why, fix=fix)


def _console_trouble(start: Start) -> Trouble:
    kind = start.console.rstrip("0123456789")
    option = _CONSOLES.get(kind)
    what = f"/dev/console is {start.console} (console={start.console})"
    why = "the shell that /init runs in the end reads it, ends without it, and the kernel panics"
    if option is None:
        why = f"the check does not know what that needs; {why}"
        return Trouble(severity=Severity.NOTE, what=what, why=why)
    fix = f"set {option}=y, or give another console= (KA)"
    return Trouble(severity=Severity.ERROR, what=what, why=why, fix=fix, options=(option,))


def _command_troubles(files: Files, programs: Programs, proc: bool) -> Iterator[Trouble]:
    needed = utilities(
        lambda name: files.text(b"/" + name.encode()), lambda name: find_command(files, name) is not None
    )
    for name, features in needed.items():
        path = find_command(files, name)
        lost = f"{'; '.join(features)} will not work"
        if path is None:
            yield Trouble(severity=_WARNING, what=f"{name} is missing in the image", why=lost, fix=f"add {name}")
        elif name not in ("sh", "setsid"):
            yield from programs.troubles(path, _WARNING, lost, proc=proc and name not in _BEFORE_PROC)


def _mount_troubles(lines: list[fstab.FstabLine]) -> Iterator[Trouble]:
    mounted = {line.point.rstrip("/") for line in lines}
    missing = [point for point in _NEEDED_MOUNTS if point not in mounted]
    if missing:
        what = f"/etc/fstab does not mount {', '.join(missing)}"
        why = (
            "/init mounts only what it lists; without these there are no processes to see, no devices, no results port"
        )
        fix = "F=1 replaces the image's /etc/fstab; or add " + ", ".join(
            f"{_NEEDED_MOUNTS[point]} {point} {_NEEDED_MOUNTS[point]} defaults 0 0" for point in missing
        )
        yield Trouble(severity=_WARNING, what=what, why=why, fix=fix)


def _line_troubles(files: Files, line: fstab.FstabLine) -> Iterator[Trouble]:
    what = f"/etc/fstab has {line.device} of type {line.type}"
    row = _filesystems().get(line.type)
    wanted: list[tuple[tuple[str, ...], str]] = []
    if row is not None:
        wanted.append((tuple(row["options"]), row.get("module", "")))
    elif line.type not in ("none", "auto", "bind", "tmpfs", "ramfs"):
        yield Trouble(severity=Severity.NOTE, what=what, why="the check does not know what of the kernel that needs")
    if line.encrypted is not None:
        wanted += _encryption(line, line.encrypted.spec)
    base = line.device.removeprefix("/dev/").rstrip("0123456789")
    if base in ("zram", "ram", "vd") or (line.device.startswith("/dev/vd") and line.encrypted is None):
        option = {"zram": "ZRAM", "ram": "BLK_DEV_RAM"}.get(base, "VIRTIO_BLK")
        wanted.append(((option,), {"ZRAM": "zram", "BLK_DEV_RAM": "brd"}.get(option, "virtio_blk")))
    for options, module in wanted:
        names = " or ".join(options)
        why = f"it needs CONFIG_{names} of the kernel; /init reports that it cannot use it"
        fix = f"set {options[0]}=y, or omit the line"
        severity = Severity.NOTE if "nofail" in line.options else _WARNING
        loadable = bool(module) and _has_module(files, module)
        yield Trouble(severity=severity, what=what, why=why, fix=fix, options=options, loadable=loadable)


def _encryption(line: fstab.FstabLine, spec: fstab.CipherSpec) -> list[tuple[tuple[str, ...], str]]:
    mac = spec.mac.removeprefix("hmac_")
    wanted = [("DM_CRYPT", "dm_crypt"), ("CRYPTO_AES", ""), (_CIPHERS[spec.mode], "")]
    if spec.tag_bytes or spec.ae:
        wanted.append(("DM_INTEGRITY", "dm_integrity"))
        if not spec.ae and line.meta is not fstab.TagStorage.DISK:
            wanted.append(("BLK_DEV_RAM", "brd") if line.meta is fstab.TagStorage.RAM else ("ZRAM", "zram"))
    if mac in _HASHES:
        wanted.append((_HASHES[mac], ""))
    elif mac.startswith("sha3"):
        wanted.append(("CRYPTO_SHA3", ""))
    if spec.ae and mac:
        wanted.append(("CRYPTO_AUTHENC", ""))
    return [((option,), module) for option, module in wanted]


def _has_module(files: Files, module: str) -> bool:
    """Whether the image has a module (whatever the kernel's release), and modprobe to load it."""
    return module in files.modules and find_command(files, "modprobe") is not None


@functools.cache
def _filesystems() -> dict[str, dict[str, Any]]:
    return tomllib.loads(Path(__file__).with_name("filesystems.toml").read_text())
