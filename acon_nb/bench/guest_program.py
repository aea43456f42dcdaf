"""Our own guest programs (`guest/*.c`): static, built with the host's gcc, cached by content."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from acon_nb import process
from acon_nb.cache import Cache, sha256_file
from acon_nb.errors import MissingRequirement

_FOLDER = Path(__file__).with_name("guest")
_PACKAGES = {"m": "libc6-dev", "lz4": "liblz4-dev", "zstd": "libzstd-dev", "lzo2": "liblzo2-dev"}
_FLAGS = ("-std=c11", "-O2", "-g0", "-Wall", "-Wextra", "-Werror", "-static", "-march=x86-64-v2")


def guest_script(name: str) -> Path:
    """The path of a shell script among the guest's files."""
    return _FOLDER / name


def guest_program(
    name: str, *, libraries: Sequence[str] = (), shared: Sequence[str] = ("acon",), cache: Cache | None = None
) -> Path:
    """Build `guest/NAME.c` with what it shares; returns the path of the static program.

    `libraries` are linked (their static archives come with Debian's -dev packages), `shared` are the sources beside
    it, each with a header. Errors: `MissingRequirement` (no gcc, no static library), `CommandFailed` (it does not
    compile).
    """
    if shutil.which("gcc") is None:
        raise MissingRequirement("gcc", "building the guest's programs", hint="apt-get install gcc libc6-dev")
    sources = [*(_FOLDER / f"{part}.c" for part in shared), _FOLDER / f"{name}.c"]
    headers = [_FOLDER / f"{part}.h" for part in shared]
    archives = [_archive(library) for library in libraries]
    inputs = {
        "program": name,
        "sources": [sha256_file(path) for path in (*sources, *headers, *archives)],
        "flags": _FLAGS,
        "compiler": process.output(["gcc", "--version"]).splitlines()[0],
    }

    def make(folder: Path) -> None:
        linked = [f"-l{library}" for library in libraries]
        argv: list[str | Path] = ["gcc", *_FLAGS, "-o", folder / name, *sources, *linked]
        process.run(argv, cwd=folder, hint="apt-get install gcc libc6-dev")
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


def missing_parts() -> dict[str, str]:
    """What building the guest's programs lacks on this host (libzstd.a, gcc), each with the Debian package that has it.

    Without gcc nothing is known of the libraries, and all their packages are named.
    """
    if shutil.which("gcc") is None:
        return {"gcc": " ".join(("gcc", *_PACKAGES.values()))}
    return {f"lib{name}.a": package for name, package in _PACKAGES.items() if not _place(name).is_absolute()}


def _place(library: str) -> Path:
    """Where gcc finds a static library; a name without a folder if it does not."""
    return Path(process.output(["gcc", f"-print-file-name=lib{library}.a"]).strip())


def _archive(library: str) -> Path:
    """The static archive of a library. Errors: `MissingRequirement`."""
    found = _place(library)
    if not found.is_absolute():
        package = f"apt-get install {_PACKAGES.get(library, f'lib{library}-dev')}"
        raise MissingRequirement(f"lib{library}.a", "building the guest's programs", hint=package)
    return found
