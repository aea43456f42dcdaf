"""Tar archives: read by their headers, with contents that refer to the archive, and written from trees."""

from __future__ import annotations

from acon_nb.archive.tar.read import Member, members
from acon_nb.archive.tar.write import write

__all__ = ["Member", "members", "write"]
