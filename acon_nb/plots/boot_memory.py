"""Figures of a guest's memory: from its RAM down to MemAvailable, and what its QEMU takes of the host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from acon_nb.boot.memory import memory_table
from acon_nb.plots.style import COLOURS, subplots

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_MIB = 1 << 20
_KINDS = {
    "ram": "guest's RAM, as far as touched",
    "code": "TCG's translated code",
    "heap": "QEMU's heap",
    "files": "QEMU's program and libraries",
    "other": "other allocations, stacks",
}


def plot_memory_parts(row: Mapping[str, Any]) -> Figure:
    """Why each MiB goes where it goes: a waterfall of a row of results, its axis cut at what stays available."""
    table = memory_table(row)
    figure, axes = subplots(1, width=9.5)
    figure.set_figheight(0.27 * len(table) + 1.4)
    ax = axes[0]
    groups = [group for group in dict.fromkeys(table["group"]) if group]
    level = 0.0
    ram, available = (float(table["bytes"].iloc[place]) / _MIB for place in (0, -1))
    left = max(0.0, available - 0.18 * (ram - available))
    for place, line in enumerate(table.to_dict("records")):
        size = float(line["bytes"]) / _MIB
        if not line["group"]:
            level = size
            ax.barh(place, size - left, left=left, color="0.6", height=0.75)
            start, text = size, f"{size:.1f}"
        else:
            ax.barh(place, size, left=level, color=COLOURS[groups.index(line["group"]) % len(COLOURS)], height=0.75)
            level += size
            start, text = level - size, f"{size:+.2f}"
        ax.annotate(text, (start, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)
    ax.set_yticks(range(len(table)), list(table["part"]), fontsize=8)
    ax.set_ylim(len(table) - 0.5, -0.5)
    ax.set_xlim(left, ram + 0.12 * (ram - left))
    ax.set_xlabel(f"MiB (the axis begins at {left:.0f}; one boot, as /init ended)")
    marks = [ax.barh(0, 0, color=COLOURS[number % len(COLOURS)]) for number in range(len(groups))]
    ax.legend(marks, groups, frameon=False, loc="lower right", fontsize=8)
    figure.suptitle("Where the guest's memory goes")
    return figure


def plot_qemu_memory(rows: pd.DataFrame) -> Figure:
    """What QEMU takes of the host's memory by kind, a bar a cell (medians of the proportional set size)."""
    kinds = [kind for kind in _KINDS if f"qemu_{kind}_pss_bytes" in rows]
    medians = rows.groupby("cell", sort=False)[[f"qemu_{kind}_pss_bytes" for kind in kinds]].median() / _MIB
    figure, axes = subplots(1, width=9)
    figure.set_figheight(0.6 * len(medians) + 1.8)
    ax = axes[0]
    starts = [0.0] * len(medians)
    for number, kind in enumerate(kinds):
        widths = [float(value) for value in medians[f"qemu_{kind}_pss_bytes"]]
        ax.barh(range(len(medians)), widths, left=starts, color=COLOURS[number], label=_KINDS[kind], height=0.6)
        for place, (start, width) in enumerate(zip(starts, widths, strict=True)):
            if width > 0.06 * float(medians.sum(axis=1).max()):
                ax.annotate(
                    f"{width:.0f}", (start + width / 2, place), ha="center", va="center", color="white", fontsize=8
                )
        starts = [start + width for start, width in zip(starts, widths, strict=True)]
    ax.set_yticks(range(len(medians)), [f"{cell}\nn = {int((rows['cell'] == cell).sum())}" for cell in medians.index])
    ax.set_ylim(len(medians) - 0.5, -0.5)
    ax.set_xlabel("MiB of the host\n(PSS of QEMU when the guest reported; medians)")
    figure.legend(frameon=False, ncols=3, loc="outside lower center", fontsize=8)
    figure.suptitle("What a guest takes of its host")
    return figure
