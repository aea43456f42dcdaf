"""The notebooks that come with the package, and JupyterLab on a copy of them."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from acon_nb.errors import InvalidInput, MissingRequirement

LAB_SERVER = "acon_nb.lab_server"  # lets a console answer sooner; off with --ServerApp.jpserver_extensions=...=False


def folder() -> Path:
    """Where the notebooks are: beside the package in a checkout, inside it when installed from a wheel."""
    package = Path(__file__).parent
    for place in (package / "notebooks", package.parent / "notebooks"):
        if any(place.glob("*.ipynb")):
            return place
    raise MissingRequirement("notebooks", "this command", hint="reinstall acon-nb")


def copy(directory: Path) -> list[tuple[Path, bool]]:
    """Copy the notebooks to a folder; returns each path and whether it was copied (False: kept as it was)."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput("directory", directory, error.strerror or "cannot be made", hint="choose another") from error
    done = []
    for source in sorted(folder().glob("*.ipynb")):
        target = directory / source.name
        fresh = not target.exists()
        if fresh:
            shutil.copyfile(source, target)
        done.append((target, fresh))
    return done


def exec_lab(directory: Path, options: list[str]) -> None:
    """Become JupyterLab on `directory`, on 127.0.0.1. Errors: `MissingRequirement` without JupyterLab."""
    try:
        import jupyterlab  # noqa: F401
    except ImportError as error:
        raise MissingRequirement("jupyterlab", "acon-nb lab", hint="pip install 'acon-nb[lab]', or make lab") from error
    argv = [sys.executable, "-m", "jupyterlab", f"--notebook-dir={directory}", "--ServerApp.ip=127.0.0.1"]
    argv += [f"--ServerApp.jpserver_extensions={LAB_SERVER}=True", *options]
    os.execv(sys.executable, argv)
