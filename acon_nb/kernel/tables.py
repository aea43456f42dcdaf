"""Kernels as tables for people; pandas loads only here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from acon_nb.kernel.build import KernelImage, values_of
from acon_nb.kernel.config import WishResult, diff
from acon_nb.kernel.features import catalogue
from acon_nb.kernel.sizes import of_image

if TYPE_CHECKING:
    import pandas as pd


def group_table(rows: Sequence[WishResult]) -> pd.DataFrame:
    """How many wishes of each group took."""
    import pandas as pd

    groups = dict.fromkeys(row.group for row in rows)
    return pd.DataFrame(
        {
            "group": group,
            "wishes": sum(row.group == group for row in rows),
            "took": sum(row.group == group and row.ok for row in rows),
        }
        for group in groups
    )


def failed_table(rows: Sequence[WishResult]) -> pd.DataFrame:
    """The wishes that did not take, with the reason and what lets them take."""
    import pandas as pd

    columns = ["option", "wanted", "is", "optional", "why"]
    failed = [row for row in rows if not row.ok]
    return pd.DataFrame(
        [[row.option, row.wanted, row.got, "yes" if row.optional else "no", row.why] for row in failed], columns=columns
    )


def option_table(rows: Sequence[WishResult]) -> pd.DataFrame:
    """Every wish with its value and the catalogue's note."""
    import pandas as pd

    notes = {(feature.group, feature.option): feature.note for feature in catalogue()}  # patterns by their text
    return pd.DataFrame(
        {
            "option": row.option,
            "group": row.group,
            "wanted": row.wanted,
            "is": row.got,
            "note": f"matched by {row.rule}: {notes[row.group, row.rule]}"
            if row.rule
            else notes.get((row.group, row.option), ""),
        }
        for row in sorted(rows, key=lambda row: (row.group, row.option))
    )


def diff_table(left: str, right: str) -> pd.DataFrame:
    """What two profiles or .config files set differently."""
    import pandas as pd

    rows = diff(values_of(left), values_of(right))
    return pd.DataFrame([[row.option, row.left, row.right] for row in rows], columns=["option", left, right])


def size_table(image: KernelImage) -> pd.DataFrame:
    """The parts of a kernel in bytes, the largest first (`part`, `text_bytes`, `data_bytes`, `bss_bytes`)."""
    import pandas as pd

    return pd.DataFrame(vars(part) for part in of_image(image.image))
