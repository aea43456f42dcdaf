"""What an initrd is made from: engines' images, archives of images, tars, folders, packages, other initrds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acon_nb.initrd.sources.by_name import KNOWN, PREFIXES, built, busybox, from_tar, tree_of
from acon_nb.lazy import submodules

__all__ = ["KNOWN", "PREFIXES", "built", "busybox", "from_tar", "tree_of"]

if not TYPE_CHECKING:
    __getattr__ = submodules(__name__)
