"""Finds the QEMU of this host and queries its capabilities over QMP."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from acon_nb import process
from acon_nb.errors import CommandFailed, MissingRequirement

_BINARY = "qemu-system-x86_64"
_STRING_FLAGS = ("erms", "fsrm", "fzrm", "fsrs", "fsrc")  # QEMU 7.2 has the first two


@dataclass(frozen=True, kw_only=True)
class QemuInfo:
    """A QEMU binary: version, built-in accelerators, supported types of confidential guests.

    `string_flags` are the CPU's flags for fast string instructions that this QEMU can turn off, `virtio` the types
    of virtio devices that it has, `commands` those of its monitor (QMP).
    """

    path: Path
    version: tuple[int, int, int]
    package: str
    accelerators: tuple[str, ...]
    confidential_types: tuple[str, ...]
    string_flags: tuple[str, ...] = ()
    virtio: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()

    @property
    def version_text(self) -> str:
        """The version as QEMU writes it."""
        return ".".join(str(number) for number in self.version)

    @property
    def text(self) -> str:
        """The version and the package, whose firmware affects a boot too."""
        return " ".join(filter(None, (self.version_text, self.package)))


def find_qemu() -> Path:
    """Return the QEMU binary: `ACON_NB_QEMU` if set, else the first in PATH. Errors: `MissingRequirement`."""
    name = os.environ.get("ACON_NB_QEMU", _BINARY)
    path = shutil.which(name)
    if path is None:
        raise MissingRequirement(name, "running guests", hint="apt-get install qemu-system-x86")
    return Path(path)


@cache
def probe_qemu(path: Path | None = None) -> QemuInfo:
    """Query a QEMU binary for its version, accelerators, CPU flags and confidential-guest types (about 0.2 s)."""
    binary = path or find_qemu()
    commands = [
        {"execute": "qmp_capabilities"},
        {"execute": "qom-list-types", "arguments": {"implements": "confidential-guest-support"}},
        {"execute": "qom-list-types", "arguments": {"implements": "virtio-device"}},
        {"execute": "query-commands"},
        {"execute": "quit"},
    ]
    text = process.output(
        [binary, "-M", "none", "-S", "-display", "none", "-nodefaults", "-qmp", "stdio"],
        stdin="".join(json.dumps(command) + "\n" for command in commands).encode(),
        timeout_s=20,
        hint="this QEMU does not answer on its monitor; try another with ACON_NB_QEMU=/path/to/qemu-system-x86_64",
    )
    replies = [json.loads(line) for line in text.splitlines() if line.strip()]
    greeting = next((reply["QMP"] for reply in replies if "QMP" in reply), None)
    lists = [reply["return"] for reply in replies if isinstance(reply.get("return"), list)]
    types, virtio, known = [*lists, [], [], []][:3]
    if greeting is None:
        raise CommandFailed([str(binary)], 1, tail=text.splitlines(), why="sent no QMP greeting")
    version = greeting["version"]["qemu"]
    accelerators = process.output([binary, "-accel", "help"]).split("\n")[1:]
    flags = process.output([binary, "-cpu", "help"]).split()
    return QemuInfo(
        path=binary,
        version=(version["major"], version["minor"], version["micro"]),
        package=greeting["version"].get("package", ""),
        accelerators=tuple(sorted(name.strip() for name in accelerators if name.strip())),
        confidential_types=tuple(sorted(item["name"] for item in types)),
        virtio=tuple(sorted(item["name"] for item in virtio)),
        commands=tuple(sorted(item["name"] for item in known)),
        string_flags=tuple(flag for flag in _STRING_FLAGS if flag in flags),
    )
