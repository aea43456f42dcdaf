"""Our own guest programs (`src/*.c`): static, built with the host's gcc, cached by content."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Sequence
from pathlib import Path

from acon_nb import process
from acon_nb.cache import Cache, sha256_file
from acon_nb.errors import MissingRequirement

_FOLDER = Path(__file__).with_name("src")
_PACKAGES = {"m": "libc6-dev", "lz4": "liblz4-dev", "zstd": "libzstd-dev", "lzo2": "liblzo2-dev"}
_CODEC_LIBRARIES = ("lz4", "zstd", "lzo2")
_FLAGS = ("-std=c11", "-O2", "-g0", "-Wall", "-Wextra", "-Werror", "-static", "-march=x86-64-v2")
# No C library, no stack protector, no vector registers: a few kilobytes that start at once.
_FREESTANDING = (
    "-Os", "-ffreestanding", "-nostdlib", "-fno-stack-protector", "-fcf-protection=none", "-mgeneral-regs-only",
    "-fno-asynchronous-unwind-tables", "-no-pie", "-fno-pic", "-march=x86-64", "-Wl,--build-id=none",
    "-Wl,-z,noseparate-code", "-s",
)  # fmt: skip


def guest_script(name: str) -> Path:
    """The path of a shell script among the guest's files."""
    return _FOLDER / name


def guest_program(
    name: str,
    *,
    libraries: Sequence[str] = (),
    shared: Sequence[str] = ("acon",),
    freestanding: bool = False,
    cache: Cache | None = None,
) -> Path:
    """Build `src/NAME.c` with what it shares; returns the path of the static program.

    `libraries` are linked (their static archives come with Debian's -dev packages), `shared` are the sources next to
    it, each with a header; a `freestanding` program has neither and no C library.
    Errors: `MissingRequirement` (no gcc, no static library), `CommandFailed` (it does not compile).
    """
    if shutil.which("gcc") is None:
        raise MissingRequirement("gcc", "building the guest's programs", hint="apt-get install gcc libc6-dev")
    shared = () if freestanding else shared
    flags = (*_FLAGS, *_FREESTANDING) if freestanding else _FLAGS
    sources = [*(_FOLDER / f"{part}.c" for part in shared), _FOLDER / f"{name}.c"]
    headers = sorted(_FOLDER.glob("*.h"))  # all: which of them a source includes, its text says, not this list
    archives = [_archive(library) for library in libraries]
    inputs = {
        "program": name,
        "sources": [sha256_file(path) for path in (*sources, *headers, *archives)],
        "flags": flags,
        "compiler": process.output(["gcc", "--version"]).splitlines()[0],
    }

    def make(folder: Path) -> None:
        linked = [f"-l{library}" for library in libraries]
        argv: list[str | Path] = ["gcc", *flags, "-o", folder / name, *sources, *linked]
        process.run(argv, cwd=folder, hint="apt-get install gcc libc6-dev")
        (folder / name).chmod(0o755)

    return (cache or Cache()).get("guest", inputs, make).path / name


def guest_code(name: str, *, bits: int, cache: Cache | None = None) -> bytes:
    """Assemble `src/NAME.S` for a mode of the CPU (16, 32 or 64 bits); returns its bytes.

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
    path = _place(library)
    if not path.is_absolute():
        package = f"apt-get install {_PACKAGES.get(library, f'lib{library}-dev')}"
        raise MissingRequirement(f"lib{library}.a", "building the guest's programs", hint=package)
    return path


def load_program(cache: Cache | None = None) -> Path:
    """Build `swap_load`, the workload of swap studies. Errors: those of `guest_program`."""
    shared = (
        "acon", "counters", "groups", "histogram", "load", "pages", "pattern", "program", "reclaim", "redis", "report",
        "stores", "threads", "worker",
    )  # fmt: skip
    return guest_program("swap_load", libraries=("m",), shared=shared, cache=cache)


def codec_program(cache: Cache | None = None) -> Path:
    """Build `codec`: what lzo, lz4 and zstd of Debian's static libraries make of pages. Errors: as `guest_program`."""
    return guest_program("codec", libraries=_CODEC_LIBRARIES, shared=("codecs",), cache=cache)


def classes_program(cache: Cache | None = None) -> Path:
    """Build `classes`, which times each class of a guest's work. Errors: those of `guest_program`."""
    return guest_program("classes", libraries=_CODEC_LIBRARIES, shared=("acon", "codecs", "xts"), cache=cache)


def mark_program(cache: Cache | None = None) -> Path:
    """Build `boot_mark`, which marks that /init is reached. Errors: those of `guest_program`."""
    return guest_program("boot_mark", freestanding=True, cache=cache)


def agent_program(cache: Cache | None = None) -> Path:
    """Build `exec_agent`, which runs commands for the host. Errors: those of `guest_program`."""
    return guest_program("exec_agent", shared=(), cache=cache)


def report_program(cache: Cache | None = None) -> Path:
    """Build `boot_report`, which reports a boot as /init begins or ends. Errors: those of `guest_program`."""
    return guest_program("boot_report", freestanding=True, cache=cache)


@functools.cache
def host_tsc_khz(program: Path | None = None) -> int:
    """The rate of this host's time stamp counter in kHz (0: unknown), which plain TCG passes on to its guests.

    A guest under TCG often fails to calibrate it on a busy host, and then counts its time in 10 ms ticks.
    `program` is `tsc_rate`, built elsewhere (default: built here).
    """
    return int(process.output([program or guest_program("tsc_rate")]))
