"""Show tables and figures in notebooks and reports, without widgets."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

if TYPE_CHECKING:
    import pandas as pd

_DPI = 110


class ShownFigure(Figure):
    """A figure that notebooks display as PNG, without pyplot and its global state."""

    def _repr_png_(self) -> tuple[bytes, dict[str, str]]:
        """The picture, with its title as alternative text."""
        return png(self), {"alt": self.get_suptitle()}


def png(figure: Figure) -> bytes:
    """Return a figure as the bytes of a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def table(frame: pd.DataFrame) -> Any:
    """Return a table without its index; text is wrapped, never truncated, and escaped."""
    cells: list[tuple[str, str | float]] = [
        ("text-align", "left"),
        ("white-space", "normal"),
        ("vertical-align", "top"),
    ]
    styler = frame.style.format(escape="html").format_index(escape="html", axis=1).hide(axis="index")
    return styler.set_table_styles([{"selector": "th, td", "props": cells}])
