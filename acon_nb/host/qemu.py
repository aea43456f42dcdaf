"""Which QEMU this host has and what its binary can do, asked over QMP."""

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


@dataclass(frozen=True, kw_only=True)
class QemuInfo:
    """A QEMU binary: version, accelerators built in, and the types that can guard a confidential guest."""

    path: Path
    version: tuple[int, int, int]
    package: str
    accelerators: tuple[str, ...]
    confidential_types: tuple[str, ...]

    @property
    def version_text(self) -> str:
        """The version as QEMU writes it."""
        return ".".join(str(number) for number in self.version)


def find_qemu() -> Path:
    """The QEMU binary: `ACON_NB_QEMU` if set, else the first in PATH. Errors: `MissingRequirement`."""
    wanted = os.environ.get("ACON_NB_QEMU", _BINARY)
    found = shutil.which(wanted)
    if found is None:
        raise MissingRequirement(wanted, "running guests", hint="apt-get install qemu-system-x86")
    return Path(found)


@cache
def probe_qemu(path: Path | None = None) -> QemuInfo:
    """Ask a QEMU binary for its version, accelerators and confidential-guest types (about 0.1 s)."""
    binary = path or find_qemu()
    commands = [
        {"execute": "qmp_capabilities"},
        {"execute": "qom-list-types", "arguments": {"implements": "confidential-guest-support"}},
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
    types: list[dict[str, str]] = lists[0] if lists else []
    if greeting is None:
        raise CommandFailed([str(binary)], 1, tail=text.splitlines(), why="gave no QMP greeting")
    version = greeting["version"]["qemu"]
    accelerators = process.output([binary, "-accel", "help"]).split("\n")[1:]
    return QemuInfo(
        path=binary,
        version=(version["major"], version["minor"], version["micro"]),
        package=greeting["version"].get("package", ""),
        accelerators=tuple(sorted(name.strip() for name in accelerators if name.strip())),
        confidential_types=tuple(sorted(item["name"] for item in types)),
    )
