"""The difference of two boots' profiles: of kernels, which are booted, or of profiles that were saved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from acon_nb import bzimage
from acon_nb.boot import profiling
from acon_nb.boot.cell import BootCell
from acon_nb.errors import InvalidInput
from acon_nb.profile import model
from acon_nb.profile.model import Profile
from acon_nb.progress import CancelToken, OnProgress, silent

_HINT = "give a bzImage, or a profile that --save wrote"


def is_saved(path: Path) -> bool:
    """Whether a file is a saved profile, and not a kernel. Errors: `InvalidInput` for one that is neither."""
    try:
        with path.open("rb") as file:
            head = file.read(bzimage.HEADER_BYTES)
    except OSError as error:
        reason = error.strerror or "cannot be read"
        raise InvalidInput("kernel", path, reason, hint=_HINT) from error
    if not head.startswith(b"{") and not bzimage.is_bzimage(head):
        raise InvalidInput("kernel", path, "is neither a bzImage nor a profile", hint=_HINT)
    return head.startswith(b"{")


def of_path(
    path: Path,
    cell: BootCell,
    *,
    until: str = "init",
    calls: bool = False,
    build: Path | None = None,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> Profile:
    """The profile that a file holds, or that the kernel in it gives in the place of `cell`'s.

    A System.map of `cell` is the one of its own kernel. Errors: those of `model.load` and `profiling.profile`.
    """
    if is_saved(path):
        return model.load(path)
    own = cell if path == cell.kernel else replace(cell, name=path.name, kernel=path, system_map=None)
    return profiling.profile(own, until=until, calls=calls, build=build, on_progress=on_progress, cancel=cancel)
