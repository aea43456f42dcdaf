"""Initrd images: an image is read into a tree, and the tree is written as a newc archive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acon_nb.archive.tree import Content, Entry, FileTree, ImageLimits
from acon_nb.initrd.diff import ImageDifference, diff, diff_trees, tree_of_image
from acon_nb.initrd.image import DEFAULT_MTIME, InitrdImage, create, join, load, suffix_of
from acon_nb.initrd.init import gen_init, text_of
from acon_nb.initrd.links import abs2relinks, abs2rellinks, hard2symlinks
from acon_nb.initrd.modules import add_modules
from acon_nb.initrd.sources import tree_of
from acon_nb.initrd.sources.engine import ContainerBuild, Engine
from acon_nb.initrd.sources.folder import from_folder, overlay, write_folder
from acon_nb.initrd.spec import BuiltInitrd, FolderSize, InitrdSpec, folder_sizes, largest_files, make, plan
from acon_nb.lazy import submodules

__all__ = [
    "DEFAULT_MTIME",
    "BuiltInitrd",
    "ContainerBuild",
    "Content",
    "Engine",
    "Entry",
    "FileTree",
    "FolderSize",
    "ImageDifference",
    "ImageLimits",
    "InitrdImage",
    "InitrdSpec",
    "abs2relinks",
    "abs2rellinks",
    "add_modules",
    "create",
    "diff",
    "diff_trees",
    "folder_sizes",
    "from_folder",
    "gen_init",
    "hard2symlinks",
    "join",
    "largest_files",
    "load",
    "make",
    "overlay",
    "plan",
    "suffix_of",
    "text_of",
    "tree_of",
    "tree_of_image",
    "write_folder",
]

if not TYPE_CHECKING:
    __getattr__ = submodules(__name__)
