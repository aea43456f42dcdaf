"""Initrd images: an image becomes a tree, the tree becomes a newc archive."""

from acon_nb.initrd.container import tree_of
from acon_nb.initrd.diff import Difference, diff, diff_trees
from acon_nb.initrd.engine import Build, Engine
from acon_nb.initrd.folder import from_folder, overlay, write_folder
from acon_nb.initrd.image import DEFAULT_MTIME, InitrdImage, create, load, suffix_of
from acon_nb.initrd.init import add_modules, gen_init, text_of
from acon_nb.initrd.links import abs2relinks, abs2rellinks, hard2symlinks
from acon_nb.initrd.recipe import FolderSize, InitrdSpec, Made, folder_sizes, largest_files, make, plan
from acon_nb.initrd.tree import Content, Entry, FileTree, Limits

__all__ = [
    "DEFAULT_MTIME",
    "Build",
    "Content",
    "Difference",
    "Engine",
    "Entry",
    "FileTree",
    "FolderSize",
    "InitrdImage",
    "InitrdSpec",
    "Limits",
    "Made",
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
    "largest_files",
    "load",
    "make",
    "overlay",
    "plan",
    "suffix_of",
    "text_of",
    "tree_of",
    "write_folder",
]
