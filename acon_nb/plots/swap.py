"""Figures of the swap question."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acon_nb.plots.style import COLOURS, subplots

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def plot_swap(runs: pd.DataFrame) -> Figure:
    """The swap question: pages read back a second, latencies, and what the pool saves (one guest a bar)."""
    figure, axes = subplots(3, width=3.6)
    names = list(runs["name"])
    positions = range(len(names))
    colours = [COLOURS[i % len(COLOURS)] for i in positions]
    axes[0].bar(positions, runs["read_pages_per_s"].fillna(0), color=colours)
    axes[0].set_ylabel("4 KiB pages read back / s\n(instruction clock, n = 1)")
    for offset, (share, mark) in enumerate((("p50", "o"), ("p90", "s"), ("p99", "^"))):
        values = runs[f"read_{share}_ns"] / 1e3
        axes[1].plot([p + 0.18 * (offset - 1) for p in positions], values, mark, color=COLOURS[offset], label=share)
    axes[1].set_yscale("log")
    axes[1].set_ylabel("latency of a read / µs\n(instruction clock)")
    axes[1].set_xlim(-0.5, len(names) - 0.5)
    axes[1].set_ylim(top=3 * float(runs["read_p99_ns"].max()) / 1e3)
    axes[1].legend(frameon=False, ncols=3, loc="upper center")
    for column, label, colour in (
        ("pool_stored_bytes", "pages kept in the pool", COLOURS[5]),
        ("pool_bytes", "RAM that the pool takes", COLOURS[1]),
    ):
        shift = -0.2 if column == "pool_stored_bytes" else 0.2
        heights = runs[column].astype(float).fillna(0) / (1 << 20)
        axes[2].bar([p + shift for p in positions], heights, width=0.4, color=colour, label=label)
    axes[2].set_ylabel("MiB after the fill")
    axes[2].set_ylim(top=1.25 * max(1.0, float(runs["pool_stored_bytes"].astype(float).max()) / (1 << 20)))
    axes[2].legend(frameon=False, loc="upper center")
    for ax in axes:
        ax.set_xticks(list(positions), names)
    for position, end in enumerate(runs["end"]):
        if end != "powered off":
            axes[0].annotate(end, (position, 0), rotation=90, ha="center", va="bottom")
    figure.suptitle("Reading back a tmpfs of 1.5 times the memory" if _is_default(runs) else "Reading back a tmpfs")
    return figure


def _is_default(runs: pd.DataFrame) -> bool:
    return "fill_factor" in runs and bool((runs["fill_factor"] == 1.5).all())
