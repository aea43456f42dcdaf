"""Initrd images: an image becomes a tree, the tree becomes a newc archive."""

from acon_nb.initrd.container import tree_of
from acon_nb.initrd.image import DEFAULT_MTIME, InitrdImage, create
from acon_nb.initrd.init import add_modules, gen_init
from acon_nb.initrd.tree import Content, Entry, FileTree, from_folder

__all__ = [
    "DEFAULT_MTIME",
    "Content",
    "Entry",
    "FileTree",
    "InitrdImage",
    "add_modules",
    "create",
    "from_folder",
    "gen_init",
    "tree_of",
]
