"""The notebooks that come with the package, and JupyterLab on a copy of them."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from acon_nb.errors import InvalidInput, MissingRequirement

# It makes consoles respond faster. Off: --ServerApp.jpserver_extensions=acon_nb.jupyter.server_extension=False
LAB_SERVER = "acon_nb.jupyter.server_extension"
LOOPBACK = "127.0.0.1"
# An option that says where JupyterLab is reachable, and its value; given twice, JupyterLab does not start
_ADDRESS = re.compile(r"--(?:ServerApp\.|NotebookApp\.)?ip\b=?(.*)")
_LOOPBACK = (LOOPBACK, "localhost", "::1")


def folder() -> Path:
    """Return the notebooks' folder: next to the package in a checkout, inside it if installed from a wheel."""
    package = Path(__file__).parents[1]
    for path in (package / "notebooks", package.parent / "notebooks"):
        if any(path.glob("*.ipynb")):
            return path
    raise MissingRequirement("notebooks", "this command", hint="reinstall acon-nb")


def named(name: str) -> Path:
    """Return a notebook of the package by its file's name, with or without number and .ipynb: "tour" is 00_tour.ipynb.

    Errors: `InvalidInput` that lists the names.
    """
    by_name = {re.sub(r"^\d+_", "", path.stem): path for path in sorted(folder().glob("*.ipynb"))}
    short = re.sub(r"^\d+_", "", name.removesuffix(".ipynb"))
    if short not in by_name:
        hint = f"a path, or one of {', '.join(by_name)}; acon-nb notebooks DIR copies them"
        raise InvalidInput("notebook", name, "is neither a file nor a notebook of this package", hint=hint)
    return by_name[short]


def copy(directory: Path) -> list[tuple[Path, bool]]:
    """Copy the notebooks to a folder; return each path and whether it was copied (False: an existing file was kept)."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(
            "directory", directory, error.strerror or "cannot be created", hint="choose another"
        ) from error
    copies = []
    for source in sorted(folder().glob("*.ipynb")):
        target = directory / source.name
        missing = not target.exists()
        if missing:
            shutil.copyfile(source, target)
        copies.append((target, missing))
    return copies


def lab_argv(directory: Path, options: Sequence[str], *, root: bool) -> list[str]:
    """Return the command that runs JupyterLab on `directory`, on 127.0.0.1 unless `options` (last) say where.

    JupyterLab refuses to start as root unless it is allowed to; it is allowed on loopback, where tests, containers and
    `make lab` as root use it. Parameters: `root` says whether root starts it.
    """
    argv = [sys.executable, "-m", "jupyterlab", f"--notebook-dir={directory}"]
    argv.append(f"--ServerApp.jpserver_extensions={LAB_SERVER}=True")
    addresses = [match[1] for option in options if (match := _ADDRESS.fullmatch(option))]
    if not addresses:
        argv.append(f"--ServerApp.ip={LOOPBACK}")
    if root and all(address in _LOOPBACK for address in addresses):
        argv.append("--allow-root")
    return [*argv, *options]


def exec_lab(argv: Sequence[str]) -> None:
    """Replace this process by JupyterLab with `argv` (see `lab_argv`). Errors: `MissingRequirement` without it."""
    try:
        import jupyterlab  # noqa: F401
    except ImportError as error:
        raise MissingRequirement("jupyterlab", "acon-nb lab", hint="pip install 'acon-nb[lab]', or make lab") from error
    os.execv(argv[0], list(argv))
