"""DataFrame in, matplotlib Figure out. Every figure names its clock, its unit and its number of runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from acon_nb.bench.stats import summarise
from acon_nb.cache import atomic_file
from acon_nb.errors import InvalidInput

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by all kinds of sight.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_CLOCK_LABELS = {
    ("wall", "host_ns_init"): "QEMU start to /init / s\n(host's clock, TCG or KVM)",
    ("instructions", "guest_ns_init"): "kernel's first line to /init / s\n(instruction clock)",
    ("instructions", "guest_ns_reset_to_init"): "reset to /init / s\n(instruction clock)",
}


def picture_format(path: Path) -> str:
    """The format that a picture's name asks for. Errors: `InvalidInput` for one that is not known."""
    suffix = path.suffix.removeprefix(".").lower()
    if suffix not in ("png", "svg", "pdf"):
        raise InvalidInput("plot", path, "is no picture's name", hint="FILE.png, FILE.svg or FILE.pdf")
    return suffix


def save(figure: Figure, path: Path) -> None:
    """Write a figure, whole or not at all, in the format of its name."""
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format=picture_format(path), dpi=150, bbox_inches="tight")


def plot_boot(runs: pd.DataFrame) -> Figure:
    """Time to /init of each kernel, one panel a clock: every run a dot, median and 95 % interval beside them.

    `runs` has the columns of `BootRun` (`name`, `clock`, `host_ns_init`, `guest_ns_init`, ...).
    """
    panels = [
        (clock, column)
        for clock, column in _CLOCK_LABELS
        if column in runs and runs.loc[runs["clock"] == clock, column].notna().any()
    ]
    figure, axes = _subplots(len(panels), width=3.7)
    for ax, (clock, column) in zip(axes, panels, strict=True):
        part = runs[(runs["clock"] == clock) & runs[column].notna()]
        _dots(ax, part, "name", column, 1e9)
        ax.set_ylabel(_CLOCK_LABELS[clock, column])
    figure.suptitle("Boot to /init (dots: runs; bars: median and its 95 % interval)")
    return figure


def plot_sizes(parts: pd.DataFrame, *, most: int = 20) -> Figure:
    """The largest parts of a kernel as bars of text, data and bss in KiB (columns as in `kernel.tables.size_table`)."""
    figure, axes = _subplots(1, width=9)
    figure.set_figheight(0.28 * min(most, len(parts)) + 1.2)
    shown = parts.head(most).iloc[::-1]
    start = [0.0] * len(shown)
    for number, column in enumerate(("text_bytes", "data_bytes", "bss_bytes")):
        widths = [float(value) / 1024 for value in shown[column]]
        label = column.removesuffix("_bytes")
        axes[0].barh(list(shown["part"]), widths, left=start, color=COLOURS[number], label=label)
        start = [left + width for left, width in zip(start, widths, strict=True)]
    axes[0].set_xlabel("KiB in the linked kernel")
    axes[0].legend(frameon=False, loc="lower right")
    figure.suptitle(f"Size by part of the source, the largest {len(shown)} of {len(parts)}")
    return figure


def plot_cost(steps: pd.DataFrame) -> Figure:
    """What each group of options adds: a waterfall for image size, memory and instructions (`bench.kernel_cost`)."""
    panels = (
        ("bzimage_bytes", 1 << 20, "bzImage / MiB"),
        ("gone_bytes", 1 << 20, "memory gone at /init / MiB"),
        ("init_ns", 1e6, "10⁶ instructions from reset to /init"),
    )
    figure, axes = _subplots(len(panels), width=4.2)
    figure.set_figheight(0.42 * len(steps) + 1.6)
    names = list(steps["name"])
    places = range(len(names))
    for ax, (column, scale, label) in zip(axes, panels, strict=True):
        totals = [float(value) / scale for value in steps[column]]
        starts = [0.0, *totals[:-1]]
        changes = [total - start for total, start in zip(totals, starts, strict=True)]
        colours = ["0.6", *(COLOURS[1] if change > 0 else COLOURS[2] for change in changes[1:])]
        ax.barh(list(places), changes, left=starts, color=colours)
        for place, (total, start, change) in enumerate(zip(totals, starts, changes, strict=True)):
            text = f"{change:.2f}" if not place else f"{change:+.2f}"
            ax.annotate(text, (max(total, start), place), xytext=(4, 0), textcoords="offset points", va="center")
        ax.set_xlim(0, 1.25 * max(totals))
        ax.set_ylim(len(names) - 0.5, -0.5)
        ax.set_yticks(list(places), names if ax is axes[0] else [""] * len(names))
        ax.set_xlabel(label)
    figure.suptitle("What each group of kernel options adds (one build and one boot a step; instruction clock)")
    return figure


def plot_folders(folders: pd.DataFrame, *, most: int = 20) -> Figure:
    """The largest folders of a tree as bars in MiB (`name`, `bytes`, `names`; `initrd.tables.folder_table`)."""
    figure, axes = _subplots(1, width=9)
    shown = folders.head(most).iloc[::-1]
    figure.set_figheight(0.28 * len(shown) + 1.2)
    widths = [float(value) / (1 << 20) for value in shown["bytes"]]
    bars = axes[0].barh(list(shown["name"]), widths, color=COLOURS[0])
    axes[0].bar_label(bars, [f" {count} names" for count in shown["names"]], fontsize=8)
    axes[0].set_xlabel("MiB of files (hard links once)")
    axes[0].set_xlim(0, 1.12 * max(widths, default=1.0))
    figure.suptitle("Where the initrd's bytes are")
    return figure


def plot_unpack(rows: pd.DataFrame) -> Figure:
    """Compressors of an initrd: size, time to make, instructions to unpack (`bench.unpack.measure`)."""
    panels = (
        ("image_bytes", 1 << 20, "image / MiB"),
        ("make_s", 1.0, "time to make / s\n(wall clock, n = 1)"),
        ("added_init_ns", 1e6, "10⁶ instructions to unpack\n(instruction clock, exact)"),
    )
    figure, axes = _subplots(len(panels), width=3.4)
    names = list(rows["compression"])
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(names))]
    for ax, (column, scale, label) in zip(axes, panels, strict=True):
        heights = [float(value) / scale for value in rows[column]]
        bars = ax.bar(range(len(names)), heights, color=colours)
        ax.bar_label(bars, fmt="%.3g", fontsize=8)
        ax.set_xticks(range(len(names)), names)
        ax.set_ylabel(label)
    figure.suptitle("What the initrd's compression costs")
    return figure


def plot_memory(runs: pd.DataFrame) -> Figure:
    """What each kernel leaves of the guest's memory at /init, and the size of its image (MiB)."""
    part = runs.drop_duplicates("name")
    columns = {
        "memory_bytes": "guest's RAM",
        "memtotal_bytes": "MemTotal",
        "memavailable_bytes": "MemAvailable at /init",
    }
    figure, axes = _subplots(2, width=4.4)
    _bars(axes[0], part, list(columns), list(columns.values()), "MiB")
    _bars(axes[1], part, ["kernel_bytes"], ["bzImage"], "MiB")
    figure.suptitle("Memory and image size")
    return figure


def plot_swap(runs: pd.DataFrame) -> Figure:
    """The swap question: pages read back a second, latencies, and what the pool saves (one guest a bar)."""
    figure, axes = _subplots(3, width=3.6)
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


def _subplots(count: int, *, width: float) -> tuple[Figure, Sequence[Axes]]:
    from acon_nb.show import ShownFigure

    figure = ShownFigure(figsize=(width * max(1, count), 3.8), layout="constrained")
    axes = [figure.add_subplot(1, max(1, count), number + 1) for number in range(max(1, count))]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _dots(ax: Axes, part: pd.DataFrame, by: str, column: str, scale: float) -> None:
    names = list(dict.fromkeys(part[by]))
    for position, name in enumerate(names):
        values = [float(value) / scale for value in part.loc[part[by] == name, column]]
        colour = COLOURS[position % len(COLOURS)]
        spread = [position - 0.12 + 0.24 * (i + 0.5) / len(values) for i in range(len(values))]
        ax.plot(spread, values, "o", color=colour, alpha=0.6, markersize=5)
        summary = summarise(values)
        error = [[summary.median - summary.low], [summary.high - summary.median]]
        ax.errorbar([position + 0.25], [summary.median], yerr=error, fmt="_", color=colour, markersize=14, capsize=4)
        note = f"{summary.median:.3f} s" + ("\n(all equal)" if summary.exact else "")
        ax.annotate(note, (position + 0.3, summary.median), xytext=(6, 0), textcoords="offset points", va="center")
    labels = [f"{name}\nn = {int((part[by] == name).sum())}" for name in names]
    ax.set_xticks(range(len(names)), labels)
    ax.set_xlim(-0.4, len(names) - 0.1)
    ax.set_ylim(0, 1.12 * float(part[column].max()) / scale)


def _bars(ax: Axes, part: pd.DataFrame, columns: list[str], labels: list[str], unit: str) -> None:
    names = list(part["name"])
    width = 0.8 / len(names)
    for number, name in enumerate(names):
        row = part[part["name"] == name].iloc[0]
        heights = [float(row[column]) / (1 << 20) for column in columns]
        places = [i - 0.4 + width * (number + 0.5) for i in range(len(columns))]
        bars = ax.bar(places, heights, width=width * 0.95, color=COLOURS[number % len(COLOURS)], label=name)
        ax.bar_label(bars, fmt="%.1f", fontsize=8)
    ax.set_xticks(range(len(labels)), labels)
    ax.set_ylabel(unit)
    ax.set_ylim(top=1.3 * max(float(part[column].max()) for column in columns) / (1 << 20))
    ax.legend(frameon=False, loc="upper center", ncols=len(names))
