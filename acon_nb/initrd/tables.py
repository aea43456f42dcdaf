"""Initrds as tables for people; pandas loads only here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from acon_nb.initrd import fstab
from acon_nb.initrd.image import InitrdImage
from acon_nb.initrd.recipe import InitrdSpec, folder_sizes, largest_files
from acon_nb.initrd.tree import FileTree
from acon_nb.units import format_bytes

if TYPE_CHECKING:
    import pandas as pd

# The cipher specs of the guide's grammar, as /dev/mapper/vda@SPEC.
SPECS = ("", "cbc", "+hmac_sha512", "xts+cmac", "+crc32c", "+", "+ae", "+sha384+ae", "++ae", "cbc+ae")


def spec_table(spec: InitrdSpec) -> pd.DataFrame:
    """What is to be made."""
    import pandas as pd

    rows = {
        "image": " ".join((spec.image, *spec.dirs)),
        "fstab": "\n".join(spec.fstab),
        "files": "\n".join(spec.files),
        "keys": "\n".join(map(str, spec.keys)),
        "edits": "\n".join(map(str, spec.edits)),
        "compression": spec.compression or "none",
    }
    return pd.DataFrame([[name, text] for name, text in rows.items() if text], columns=["field", "value"])


def folder_table(tree: FileTree, *, depth: int = 2) -> pd.DataFrame:
    """The folders of a tree, the largest first (`name`, `bytes`, `names`)."""
    import pandas as pd

    return pd.DataFrame([vars(row) for row in folder_sizes(tree, depth=depth)], columns=["name", "bytes", "names"])


def file_table(tree: FileTree) -> pd.DataFrame:
    """The largest files of a tree."""
    import pandas as pd

    return pd.DataFrame([[name, format_bytes(size)] for name, size in largest_files(tree)], columns=["file", "size"])


def fstab_table(text: str) -> pd.DataFrame:
    """Each line of an fstab with what /init does with it, or why it does not."""
    import pandas as pd

    lines, problems = fstab.parse(text)
    rows = [[f"{line.device}  {line.point}  {line.type}", " ".join(line.explain())] for line in lines]
    rows += [[problem.text, f"NOT DONE: {problem.why}"] for problem in problems]
    return pd.DataFrame(rows, columns=["line", "what /init does"])


def cipher_table(specs: Iterable[str] = SPECS) -> pd.DataFrame:
    """The cipher specs of the fstab's grammar, in words."""
    import pandas as pd

    found = [(text, fstab.CipherSpec.parse(text)) for text in specs]
    rows = [[f"vda@{text}", spec.cipher, spec.internal_hash, " ".join(spec.explain())] for text, spec in found]
    return pd.DataFrame(rows, columns=["device", "dm-crypt's cipher", "dm-integrity's hash", "what it means"])


def image_text(image: InitrdImage) -> str:
    """A made image in two lines: file, sizes; its hash."""
    return (
        f"{image.path}: {format_bytes(image.bytes)} ({format_bytes(image.archive_bytes)} unpacked)\n"
        f"sha256 {image.sha256}"
    )
