"""Show tables and figures in notebooks and reports, without widgets."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

if TYPE_CHECKING:
    import pandas as pd

_DPI = 110
NARROW_PNG = "application/vnd.acon-nb.narrow+png"


class ShownFigure(Figure):
    """A figure that notebooks display as PNG, without pyplot and its global state."""

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
        """The picture, with its title as alternative text, and one for phones, which reports use."""
        from acon_nb.jupyter import narrow

        bundle = {"text/plain": repr(self), "image/png": _base64(png(self))}
        small = narrow.png(self)
        if small is not None:
            bundle[NARROW_PNG] = _base64(small)
        return bundle, {"image/png": {"alt": self.get_suptitle() or ", ".join(ax.get_title() for ax in self.axes)}}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


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
