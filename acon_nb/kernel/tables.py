"""Presents kernels as tables; pandas is imported only here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from acon_nb.kernel.build import BuildSpec, KernelImage
from acon_nb.kernel.difference import difference
from acon_nb.kernel.dotconfig import OptionResult
from acon_nb.kernel.features import catalogue
from acon_nb.kernel.sizes import of_image
from acon_nb.units import format_bytes, format_seconds

if TYPE_CHECKING:
    import pandas as pd


def spec_table(spec: BuildSpec) -> pd.DataFrame:
    """Return the fields of a spec."""
    import pandas as pd

    rows = {
        "source": spec.source,
        "profiles": ", ".join(spec.profiles),
        "settings": " ".join(spec.settings),
        "patches": ", ".join(map(str, spec.patches)),
        "start": str(spec.config or "make tinyconfig"),
    }
    return pd.DataFrame([[name, text] for name, text in rows.items() if text], columns=["field", "value"])


def image_text(image: KernelImage) -> str:
    """Describe a built kernel: release, file, size, and whether it was cached; its hash; the folder of its modules."""
    state = "from the cache" if image.cached else f"built in {format_seconds(image.seconds)}"
    size = format_bytes(image.image.stat().st_size)
    modules = f"\nmodules: {image.modules}" if image.modules is not None else ""
    return f"{image.version}: {image.image} ({size}, {state})\nsha256 {image.sha256}{modules}"


def group_table(rows: Sequence[OptionResult]) -> pd.DataFrame:
    """Count the requested and the applied options of each group."""
    import pandas as pd

    groups = dict.fromkeys(row.group for row in rows)
    return pd.DataFrame(
        {
            "group": group,
            "requested": sum(row.group == group for row in rows),
            "applied": sum(row.group == group and row.ok for row in rows),
        }
        for group in groups
    )


def failed_table(rows: Sequence[OptionResult]) -> pd.DataFrame:
    """List the requests that were not applied, with the reason and the further options they need."""
    import pandas as pd

    columns = ["option", "wanted", "is", "optional", "why"]
    failed = [row for row in rows if not row.ok]
    return pd.DataFrame(
        [[row.option, row.wanted, row.got, "yes" if row.optional else "no", row.why] for row in failed], columns=columns
    )


def option_table(rows: Sequence[OptionResult]) -> pd.DataFrame:
    """List every requested option with its value and the catalogue's note."""
    import pandas as pd

    notes = {(feature.group, feature.rule_text or feature.option): feature.text for feature in catalogue()}
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


def rule_table(rows: Sequence[OptionResult]) -> pd.DataFrame:
    """List the options that each rule of the catalogue matched in the source tree and the configuration offers."""
    import pandas as pd

    rules = dict.fromkeys((row.group, row.rule) for row in rows if row.rule)
    matches = []
    for group, rule in rules:
        matched = [row for row in rows if (row.group, row.rule) == (group, rule)]
        values = sorted({row.wanted for row in matched})
        options = ", ".join(row.option for row in matched)
        matches.append([rule, group, "/".join(values), len(matched), options])
    return pd.DataFrame(matches, columns=["rule", "group", "wanted", "matched", "options"])


def diff_table(left: str, right: str, version: tuple[int, int]) -> pd.DataFrame:
    """List the options that differ between two profiles (for that kernel version) or .config files."""
    import pandas as pd

    rows = difference(left, right, f"{version[0]}.{version[1]}")
    return pd.DataFrame([[row.option, row.left, row.right] for row in rows], columns=["option", left, right])


def size_table(image: KernelImage) -> pd.DataFrame:
    """List the parts of a kernel in bytes, the largest first (`part`, `text_bytes`, `data_bytes`, `bss_bytes`)."""
    import pandas as pd

    return pd.DataFrame(vars(part) for part in of_image(image.image))
