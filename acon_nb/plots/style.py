"""What all figures share: colours, panels, dots with intervals, files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acon_nb.cache import atomic_file
from acon_nb.errors import InvalidInput
from acon_nb.stats.inference import summarise

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

_DPI = 150
# Okabe and Ito's colours, which all kinds of sight can distinguish.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def picture_format(path: Path) -> str:
    """The format that a picture's name asks for. Errors: `InvalidInput` for one that is not known."""
    suffix = path.suffix.removeprefix(".").lower()
    if suffix not in ("png", "svg", "pdf"):
        raise InvalidInput("plot", path, "is not the name of a picture", hint="FILE.png, FILE.svg or FILE.pdf")
    return suffix


def save(figure: Figure, *paths: Path) -> None:
    """Write a figure to files, each whole or not at all, in the format of its name.

    Several files of a figure are faster together: it is laid out once, not twice for each of them.
    """
    engine, dpi = figure.get_layout_engine(), figure.dpi
    box = _laid_out(figure)
    for path in paths:
        with atomic_file(path) as temporary:
            figure.savefig(temporary, format=picture_format(path), dpi=_DPI, bbox_inches=box)
    figure.set_layout_engine(engine)
    figure.set_dpi(dpi)


def _laid_out(figure: Figure) -> Bbox:
    """Lay a figure out and keep that layout; returns the box, in inches, of what it shows."""
    from matplotlib import rcParams
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(_DPI)
    canvas = FigureCanvasAgg(figure)
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")
    renderer: Any = canvas.get_renderer()  # type: ignore[no-untyped-call]
    return figure.get_tightbbox(renderer).padded(rcParams["savefig.pad_inches"])


def subplots(count: int, *, width: float) -> tuple[Figure, Sequence[Axes]]:
    """`count` panels side by side, each `width` inches wide, in a figure that notebooks show."""
    from acon_nb.jupyter.show import ShownFigure

    figure = ShownFigure(figsize=(width * max(1, count), 3.8), layout="constrained")
    axes = [figure.add_subplot(1, max(1, count), number + 1) for number in range(max(1, count))]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def dots(ax: Axes, part: pd.DataFrame, by: str, column: str, scale: float) -> None:
    """Every run a dot, the median and its interval next to them, a place for each value of `by`."""
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


def bars_of(ax: Axes, part: pd.DataFrame, columns: list[str], labels: list[str], unit: str) -> None:
    """Columns of bytes as bars in MiB, a colour for each `name`."""
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
