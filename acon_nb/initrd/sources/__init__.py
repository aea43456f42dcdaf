"""What an initrd is made from: engines' images, archives of images, tars, folders, packages, other initrds."""

from __future__ import annotations

from acon_nb.initrd.sources.by_name import KNOWN, PREFIXES, built, busybox, from_tar, tree_of

__all__ = ["KNOWN", "PREFIXES", "built", "busybox", "from_tar", "tree_of"]
