"""Our own guest programs (`guest/*.c`): static, built with the host's gcc, cached by content."""

from __future__ import annotations

import shutil
from pathlib import Path

from acon_nb import process
from acon_nb.cache import Cache, sha256_file
from acon_nb.errors import MissingRequirement

_FOLDER = Path(__file__).with_name("guest")
_FLAGS = ("-std=c11", "-O2", "-g0", "-Wall", "-Wextra", "-Werror", "-static", "-march=x86-64-v2")


def guest_script(name: str) -> Path:
    """The path of a shell script among the guest's files."""
    return _FOLDER / name


def guest_program(name: str, *, cache: Cache | None = None) -> Path:
    """Build `guest/NAME.c` with what it shares; returns the path of the static program.

    Errors: `MissingRequirement` (no gcc), `CommandFailed` (it does not compile, or libc.a is missing).
    """
    if shutil.which("gcc") is None:
        raise MissingRequirement("gcc", "building the guest's programs", hint="apt-get install gcc libc6-dev")
    sources = [_FOLDER / "acon.c", _FOLDER / f"{name}.c"]
    inputs = {
        "program": name,
        "sources": [sha256_file(path) for path in (*sources, _FOLDER / "acon.h")],
        "flags": _FLAGS,
        "compiler": process.output(["gcc", "--version"]).splitlines()[0],
    }

    def make(folder: Path) -> None:
        process.run(["gcc", *_FLAGS, "-o", folder / name, *sources], cwd=folder, hint="apt-get install gcc libc6-dev")
        (folder / name).chmod(0o755)

    return (cache or Cache()).get("guest", inputs, make).path / name


def guest_code(name: str, *, bits: int, cache: Cache | None = None) -> bytes:
    """Assemble `guest/NAME.S` for a mode of the CPU (16, 32 or 64 bits); returns its bytes.

    Errors: `MissingRequirement` (no gcc), `CommandFailed`.
    """
    if shutil.which("gcc") is None:
        raise MissingRequirement("gcc", "assembling the guest's code", hint="apt-get install gcc libc6-dev")
    source = _FOLDER / f"{name}.S"
    inputs = {"code": name, "bits": bits, "source": sha256_file(source)}

    def make(folder: Path) -> None:
        process.run(["gcc", "-c", "-m64", f"-DBITS={bits}", "-o", folder / "code.o", source], cwd=folder)
        process.run(["objcopy", "-O", "binary", "-j", ".text", folder / "code.o", folder / "code"], cwd=folder)

    return ((cache or Cache()).get("guest", inputs, make).path / "code").read_bytes()
