"""Figure of a measured boot: what is measured into which register, and by whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acon_nb.plots.style import COLOURS
from acon_nb.units import format_bytes

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROW, _GAP = 0.36, 0.22  # inches
_WIDTH = 9.6
_LEFT, _MIDDLE, _RIGHT = 0.0, 2.5, 6.9  # who, what, register
_EDGE = "0.25"


def plot_chain(chain: pd.DataFrame) -> Figure:
    """Plot the chain of a measured boot (`tdx.chain.chain_table`), after the guide's figure of TDVF's measurements.

    On the left is who measures, in the middle what, on the right the register with the start of its value. Dashed boxes
    cannot be known offline; thick ones have changed.
    """
    from acon_nb.jupyter.show import ShownFigure

    groups = list(chain.groupby("register", sort=False))
    height = sum(len(part) * _ROW + _GAP for _, part in groups)
    figure = ShownFigure(figsize=(_WIDTH, height + 1.0), layout="constrained")
    ax = figure.add_subplot()
    ax.set_xlim(-0.1, _WIDTH)
    ax.set_ylim(height, -0.55)
    ax.axis("off")
    for left, text in ((_LEFT, "measured by"), (_MIDDLE, "what is hashed"), (_RIGHT, "register (start of its value)")):
        ax.text(left, -0.3, text, fontsize=9, color="0.35")
    makers = list(dict.fromkeys(chain["by"]))
    top = 0.0
    for register, part in groups:
        _group(ax, str(register), part, top, {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(makers)})
        top += len(part) * _ROW + _GAP
    figure.suptitle("What a boot measures, into which register, by whom (SHA-384)")
    return figure


def _group(ax: Axes, register: str, part: pd.DataFrame, top: float, colours: dict[str, str]) -> None:
    """Draw one register with everything that is measured into it."""
    bottom = top + len(part) * _ROW
    middle = (top + bottom) / 2
    known, moved = bool(part["known"].all()), bool(part["moved"].any())
    value = str(part["value"].iloc[0])
    text = f"{register}\n{value[:16]}…" if known and len(value) == 96 else f"{register}\n{value}"
    low = max(bottom - top, 2 * _ROW) - 0.04 if len(part) > 1 else _ROW * 1.2
    _box(ax, (_RIGHT, middle - low / 2), (_WIDTH - _RIGHT - 0.1, low), text, "white", known=known, moved=moved)
    for number, (_, row) in enumerate(part.iterrows()):
        line = top + number * _ROW
        size = f", {format_bytes(row['bytes'])}" if row["bytes"] else ""
        count = f" ({row['events']} events)" if row["events"] > 1 else ""
        label = f"{row['component']}{count}{size}"
        box = (_MIDDLE, line + 0.02), (3.7, _ROW - 0.04)
        _box(ax, *box, label, colours[row["by"]], known=bool(row["known"]), moved=bool(row["moved"]))
        arrow = {"arrowstyle": "-|>", "color": _EDGE, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0}
        ends = (_RIGHT, middle + (line + _ROW / 2 - middle) * 0.6), (_MIDDLE + 3.7, line + _ROW / 2)
        ax.annotate("", xy=ends[0], xytext=ends[1], arrowprops=arrow)
    first = 0
    makers = list(part["by"])
    for number in range(1, len(makers) + 1):
        if number == len(makers) or makers[number] != makers[first]:
            start, end = top + first * _ROW + 0.02, top + number * _ROW - 0.02
            _box(ax, (_LEFT, start), (2.2, end - start), makers[first], colours[makers[first]], known=True, moved=False)
            first = number


def _box(
    ax: Axes,
    corner: tuple[float, float],
    size: tuple[float, float],
    text: str,
    colour: str,
    *,
    known: bool,
    moved: bool,
) -> None:
    from matplotlib.colors import to_rgba
    from matplotlib.patches import Rectangle

    face = to_rgba(colour, 0.22) if colour != "white" else "white"
    edge = COLOURS[1] if moved else _EDGE
    width, line = 2.6 if moved else 0.9, "-" if known else "--"
    ax.add_patch(Rectangle(corner, *size, facecolor=face, edgecolor=edge, linewidth=width, linestyle=line))
    centre = corner[0] + size[0] / 2, corner[1] + size[1] / 2
    ax.text(*centre, text, ha="center", va="center", fontsize=8)
