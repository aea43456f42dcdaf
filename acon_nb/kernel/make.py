"""Runs `make`: its variables and environment, required tools, ccache if installed, the log, and progress."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from acon_nb import process
from acon_nb.errors import BuildFailed, CommandFailed, MissingRequirement
from acon_nb.kernel import build_errors, dotconfig, pins
from acon_nb.kernel.source import SourceTree
from acon_nb.kernel.toolchain import GCC, Toolchain
from acon_nb.progress import CancelToken, OnProgress, Progress

_TOOLS = {"gcc": "gcc", "ld": "binutils", "make": "make", "flex": "flex", "bison": "bison", "bc": "bc", "zstd": "zstd"}
_COMPRESSORS = {
    "KERNEL_GZIP": ("gzip", "gzip"),
    "KERNEL_BZIP2": ("bzip2", "bzip2"),
    "KERNEL_LZMA": ("lzma", "xz-utils"),
    "KERNEL_XZ": ("xz", "xz-utils"),
    "KERNEL_LZO": ("lzop", "lzop"),
    "KERNEL_LZ4": ("lz4", "lz4"),
    "KERNEL_ZSTD": ("zstd", "zstd"),
}
_ERROR = re.compile(r"error:|Error \d|No rule to make|fatal:|multiple definition|FAILED|objtool: missing|^\*\*\* ")
_STEP = re.compile(r"^\s+[A-Z][A-Z0-9_]*(?: \[M\])?\s+\S")
_DRY_STEP = re.compile(r"(?:^|; *)(?:set -e; *)?echo '  [A-Z]")
# Build steps per enabled option of the guide's 6.12 kernel: the estimate before the first build of a source.
_STEPS_PER_OPTION = 2.6
# Steps from vmlinux.a to bzImage, which a dry run does not show.
_LINK_STEPS = 60
# Made by the first steps of a build: if it exists, the build is incremental or resumes an interrupted one.
_BEGUN = "include/generated/bounds.h"
# For reproducible builds: Documentation/kbuild/reproducible-builds.rst
PINS: Mapping[str, str] = {
    "KBUILD_BUILD_TIMESTAMP": "Sat Jan  1 00:00:00 UTC 2000",
    "KBUILD_BUILD_USER": "acon",
    "KBUILD_BUILD_HOST": "acon-nb",
    "KBUILD_BUILD_VERSION": "1",
}
_EPOCH_S = "946684800"  # the timestamp above, for what else is started by make
# Kconfig records the version of any Rust compiler it finds, and IKCONFIG puts it into the image.
VARIABLES = ("ARCH=x86_64", "RUSTC=false", "BINDGEN=false")
_INHERITED = ("PATH", "HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "CCACHE_DIR", "CCACHE_CONFIGPATH")


def argument_list(tree: SourceTree, work: Path, toolchain: Toolchain, *, afresh: bool = False) -> list[str]:
    """Return the `make` command for a tree and the build folder `work`, configured or not.

    It uses ccache if that is installed, unless all is to be compiled `afresh`.
    """
    compilers = toolchain.variables(afresh=afresh)
    return ["make", "-C", str(tree.path), f"O={work}", *VARIABLES, *compilers, *pins.variables(tree, work)]


def environment() -> dict[str, str]:
    """Return the environment of `make`: only paths and caches are inherited, so MAKEFLAGS and CFLAGS do not leak in."""
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return {**inherited, "PATH": process.search_path(), **PINS, "SOURCE_DATE_EPOCH": _EPOCH_S, "LC_ALL": "C"}


def compile_image(
    tree: SourceTree,
    work: Path,
    log: Path,
    on_progress: OnProgress,
    cancel: CancelToken | None,
    jobs: int | None = None,
    *,
    toolchain: Toolchain = GCC,
    afresh: bool = False,
) -> None:
    """Build the bzImage in the configured folder `work` with `jobs` parallel jobs (default: the number of CPUs).

    Where an option is m, its modules are built, too. `afresh` takes nothing from ccache.
    Errors: `BuildFailed` with the first errors, `Cancelled`.
    """
    task = f"build kernel {tree.release}"
    expected = _expected_steps(tree, work, toolchain, cancel)
    full_build = not (work / _BEGUN).exists()
    seen = 0

    def take(line: str) -> None:
        nonlocal seen
        seen += bool(_STEP.match(line))
        on_progress(Progress(task, min(0.99, seen / expected), line.strip()))

    on_progress(Progress(task, 0.0, f"log: {log}"))
    targets = ["bzImage", "modules"] if has_modules(work) else ["bzImage"]
    argv = [*argument_list(tree, work, toolchain, afresh=afresh), f"-j{jobs or len(os.sched_getaffinity(0))}", *targets]
    _run(argv, work, log, take, cancel)
    if full_build:  # the estimate for the next full build
        (work / "steps").write_text(f"{seen} {_options_on(work)}")
    on_progress(Progress(task, 1.0))


def has_modules(work: Path) -> bool:
    """Whether an option of the configured folder `work` is m."""
    return "m" in dotconfig.read(work / ".config").values()


def install_modules(
    tree: SourceTree,
    work: Path,
    folder: Path,
    log: Path,
    cancel: CancelToken | None,
    *,
    toolchain: Toolchain = GCC,
) -> None:
    """Write the built modules, if any, stripped, and depmod's lists of them to `folder`/lib/modules/RELEASE.

    Errors: `BuildFailed`, `Cancelled`, `MissingRequirement` (depmod).
    """
    if not has_modules(work):
        return
    require_depmod()
    argv = [
        *argument_list(tree, work, toolchain),
        f"INSTALL_MOD_PATH={folder}",
        "INSTALL_MOD_STRIP=1",
        "modules_install",
    ]
    _run(argv, work, log, lambda _: None, cancel)
    for link in folder.glob("lib/modules/*/build"):  # to this folder, which may go
        link.unlink()


def require_depmod() -> None:
    """Raise `MissingRequirement` if depmod, which lists modules, is missing."""
    if shutil.which("depmod", path=process.search_path()) is None:
        raise MissingRequirement("depmod", "a kernel with modules", hint="apt-get install kmod, or set no option to m")


def configure(argv: Sequence[str], cancel: CancelToken | None) -> None:
    """Run a target of Kconfig: `argv` is an `argument_list` and the target. Errors: `BuildFailed`, `Cancelled`."""
    try:
        process.run(list(argv), env=environment(), timeout_s=300, cancel=cancel)
    except CommandFailed as error:
        raise BuildFailed(
            "the kernel could not be configured: make failed",
            details=error.details,
            hint=build_errors.hint_for(error.details) or error.hint,
        ) from error


def _run(argv: list[str], work: Path, log: Path, take: Callable[[str], None], cancel: CancelToken | None) -> None:
    try:
        process.run(argv, cwd=work, env=environment(), on_line=take, log=log, cancel=cancel)
    except CommandFailed as error:
        lines = _errors_in(log)
        known = build_errors.hint_for(lines)
        raise BuildFailed(
            f"the kernel did not build: {error.what}",
            details=[*lines, f"log: {log}", f"command: {error.command}"],
            hint=known
            or f"the first 'error:' line is the cause; if the build folder is damaged, remove it: rm -r {work}",
        ) from error


def missing_tools() -> list[tuple[str, str]]:
    """Return the missing tools and headers that a kernel build needs, each with its Debian package."""
    missing = [(tool, package) for tool, package in _TOOLS.items() if shutil.which(tool) is None]
    if shutil.which("gcc") is None:
        return missing
    for header, package in (("gelf.h", "libelf-dev"), ("stdlib.h", "libc6-dev")):
        if not _has_header(header):
            missing.append((header, package))
    return missing


def _has_header(name: str) -> bool:
    argv = ["gcc", "-E", "-include", name, "-x", "c", os.devnull, "-o", os.devnull]
    return not process.run(argv, check=False).returncode


def require_tools(toolchain: Toolchain = GCC) -> None:
    """Raise `MissingRequirement` if tools or headers of a kernel build are missing; also as `Toolchain.require`."""
    missing = missing_tools()
    if missing:
        names = ", ".join(name for name, _ in missing)
        packages = " ".join(dict.fromkeys(package for _, package in missing))
        raise MissingRequirement(names, "building a kernel", hint=f"apt-get install {packages}")
    toolchain.require()


def require_for(config: Mapping[str, str]) -> None:
    """Raise `MissingRequirement` if a program or header that only some configurations need is missing.

    Otherwise make would fail at the very end.
    """
    has_keys = "y" in (config.get("SYSTEM_TRUSTED_KEYRING"), config.get("MODULE_SIG"))
    if has_keys and not _has_header("openssl/pem.h"):
        raise MissingRequirement("openssl/pem.h", "a kernel with keys", hint="apt-get install libssl-dev")
    for option, (tool, package) in _COMPRESSORS.items():
        if config.get(option) == "y" and shutil.which(tool) is None:
            raise MissingRequirement(
                tool, f"a kernel with {option}", hint=f"apt-get install {package}, or KERNEL_ZSTD=y"
            )


def compressor(values: Mapping[str, str]) -> str:
    """Return the version of the program that compresses the image of requested options, whose bytes depend on it.

    It is "" for zstd, which `compilers` has, and if the program is missing. Without a request tinyconfig's xz is used.
    """
    chosen = next((option for option in _COMPRESSORS if values.get(option) == "y"), "KERNEL_XZ")
    tool, _ = _COMPRESSORS[chosen]
    if tool == "zstd" or shutil.which(tool) is None:
        return ""
    return next(iter(process.output([tool, "--version"]).splitlines()), tool)


def _expected_steps(tree: SourceTree, work: Path, toolchain: Toolchain, cancel: CancelToken | None) -> int:
    """Estimate the steps of a build: of an incremental one by a dry run, of a full one from the last full one."""
    if (work / _BEGUN).exists():
        return _dry_steps(tree, work, toolchain, cancel)
    enabled = _options_on(work)
    try:
        steps, enabled_before = map(int, (work / "steps").read_text().split())
        return max(1, steps * enabled // enabled_before)
    except (OSError, ValueError, ZeroDivisionError):
        return max(1, int(_STEPS_PER_OPTION * enabled))


def _dry_steps(tree: SourceTree, work: Path, toolchain: Toolchain, cancel: CancelToken | None) -> int:
    """Count the steps of `make -n` once the generated headers exist; the dry run stops where it needs vmlinux.a."""
    count = 0

    def take(line: str) -> None:
        nonlocal count
        count += bool(_DRY_STEP.search(line[:200]))

    argv = argument_list(tree, work, toolchain)
    process.run([*argv, "prepare"], env=environment(), check=False, cancel=cancel)
    process.run([*argv, "-n", "bzImage"], env=environment(), check=False, on_line=take, cancel=cancel)
    return count + _LINK_STEPS


def _options_on(work: Path) -> int:
    return sum(value == "y" for value in dotconfig.read(work / ".config").values())


def _errors_in(log: Path) -> Sequence[str]:
    with log.open(errors="replace") as file:
        lines = [line.rstrip() for line in file if _ERROR.search(line)]
    return lines[:8]
