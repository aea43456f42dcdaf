"""Presents initrds as tables; pandas is imported only here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from acon_nb.archive.tree import FileTree
from acon_nb.initrd import fstab
from acon_nb.initrd.growth import Growth, SizeChange
from acon_nb.initrd.image import InitrdImage
from acon_nb.initrd.spec import InitrdSpec, folder_sizes, largest_files
from acon_nb.units import format_bytes

if TYPE_CHECKING:
    import pandas as pd

# Examples of cipher specs, as in /dev/mapper/vda@SPEC
SPECS = ("", "cbc", "+hmac_sha512", "xts+cmac", "+crc32c", "+", "+ae", "+sha384+ae", "++ae", "cbc+ae")


def spec_table(spec: InitrdSpec) -> pd.DataFrame:
    """Return the fields of a spec."""
    import pandas as pd

    rows = {
        "image": " ".join((spec.image, *spec.dirs)),
        "platform": spec.platform,
        "fstab": "\n".join(spec.fstab),
        "files": "\n".join(spec.files),
        "keys": "\n".join(map(str, spec.keys)),
        "edits": "\n".join(map(str, spec.edits)),
        "compression": spec.compression or "none",
    }
    return pd.DataFrame([[name, text] for name, text in rows.items() if text], columns=["field", "value"])


def folder_table(tree: FileTree, *, depth: int = 2) -> pd.DataFrame:
    """List the folders of a tree, the largest first (`name`, `bytes`, `names`)."""
    import pandas as pd

    return pd.DataFrame([vars(row) for row in folder_sizes(tree, depth=depth)], columns=["name", "bytes", "names"])


def file_table(tree: FileTree) -> pd.DataFrame:
    """List the largest files of a tree."""
    import pandas as pd

    return pd.DataFrame([[name, format_bytes(size)] for name, size in largest_files(tree)], columns=["file", "size"])


def fstab_table(text: str) -> pd.DataFrame:
    """List the lines of an fstab with what /init does, or why it cannot."""
    import pandas as pd

    lines, problems = fstab.parse(text)
    rows = [[f"{line.device}  {line.point}  {line.type}", " ".join(line.explain())] for line in lines]
    rows += [[problem.text, f"SKIPPED: {problem.why}"] for problem in problems]
    return pd.DataFrame(rows, columns=["line", "what /init does"])


def cipher_table(specs: Iterable[str] = SPECS) -> pd.DataFrame:
    """List cipher specs of the fstab grammar with their meaning."""
    import pandas as pd

    parsed = [(text, fstab.CipherSpec.parse(text)) for text in specs]
    rows = [[f"vda@{text}", spec.cipher, spec.internal_hash, " ".join(spec.explain())] for text, spec in parsed]
    return pd.DataFrame(rows, columns=["device", "dm-crypt's cipher", "dm-integrity's hash", "meaning"])


def growth_object(growth: Growth) -> dict[str, Any]:
    """Return a growth as an object for JSON."""
    return {
        "by": growth.by.value,
        "left_bytes": growth.left_bytes,
        "right_bytes": growth.right_bytes,
        "growth_bytes": growth.right_bytes - growth.left_bytes,
        "rows": [{**asdict(row), "growth_bytes": row.growth_bytes} for row in growth.rows],
        "notes": list(growth.notes),
    }


def growth_text(growth: Growth) -> str:
    """List what changed in size, names or version, and the totals, as a text with columns."""
    total = ("total", growth.left_bytes, growth.right_bytes, "")
    changed = [
        (row.name, row.left_bytes, row.right_bytes, _versions(row))
        for row in growth.rows
        if (row.left_bytes, row.left_names, row.left) != (row.right_bytes, row.right_names, row.right)
    ]
    cells = [("growth", "left", "right", growth.by.value)]
    for name, left, right, versions in (*changed, total):
        cells.append((f"{right - left:+,}", f"{left:,}", f"{right:,}", f"{name}  {versions}".rstrip()))
    widths = [max(len(row[column]) for row in cells) for column in range(3)]
    return "\n".join("  ".join((*map(str.rjust, row[:3], widths), row[3])) for row in cells)


def _versions(row: SizeChange) -> str:
    if row.left == row.right:
        return row.left
    return f"{row.left or 'absent'} -> {row.right or 'absent'}"


def image_text(image: InitrdImage) -> str:
    """Describe an image in two lines: file and sizes; its hash."""
    return (
        f"{image.path}: {format_bytes(image.bytes)} ({format_bytes(image.archive_bytes)} unpacked)\n"
        f"sha256 {image.sha256}"
    )
