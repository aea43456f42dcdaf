"""Show tables and figures in notebooks and reports, without widgets."""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

_DPI = 110
_pngs: WeakKeyDictionary[Figure, bytes] = WeakKeyDictionary()  # of figures that were not changed since
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
        return bundle, {"image/png": {"alt": alt(self)}}


class ShownText:
    """A text that notebooks display literally."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return f'<pre style="font-family: monospace; white-space: pre-wrap">{html.escape(self.text)}</pre>'


def alt(figure: Figure) -> str:
    """Return the alternative text of a figure: its title, else those of its panels."""
    return figure.get_suptitle() or ", ".join(filter(None, (ax.get_title() for ax in figure.axes))) or "figure"


def image(figure: Figure) -> str:
    """Return HTML that holds a figure as a picture with its alternative text."""
    source = f"data:image/png;base64,{_base64(png(figure))}"
    return f'<img class="acon-figure" style="max-width: 100%" src="{source}" alt="{html.escape(alt(figure))}">'


def bundle(parts: Sequence[Any]) -> dict[str, Any]:
    """Return tables, figures and texts as one display bundle; a program that shows no HTML has the first figure."""
    figures = [part for part in parts if isinstance(part, Figure)]
    plain = "\n\n".join(filter(None, map(_plain, parts)))
    markup = "\n".join(image(part) if isinstance(part, Figure) else part._repr_html_() for part in parts)
    picture = {"image/png": _base64(png(figures[0]))} if figures else {}
    return {"text/plain": plain, **({"text/html": markup} if markup else {}), **picture}


def _plain(part: Any) -> str:
    """Return a part as text: a figure's title, a table's columns, or what it says itself; nothing of HTML."""
    if isinstance(part, Figure):
        return f"[{alt(part)}]"
    data = getattr(part, "data", None)
    if isinstance(data, str):
        return ""
    return str(data.to_string(index=False)) if data is not None else repr(part)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def png(figure: Figure) -> bytes:
    """Return a figure as the bytes of a PNG; a figure that was not changed since is not drawn again."""
    last = _pngs.get(figure)
    if last is not None and not figure.stale:
        return last
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    _pngs[figure] = buffer.getvalue()
    figure.stale = False  # saving sets it, by the resolution of the file
    return _pngs[figure]


def table(frame: pd.DataFrame) -> Any:
    """Return a table without its index; text is wrapped, never truncated, and escaped."""
    cells: list[tuple[str, str | float]] = [
        ("text-align", "left"),
        ("white-space", "normal"),
        ("vertical-align", "top"),
    ]
    styler = frame.style.format(escape="html").format_index(escape="html", axis=1).hide(axis="index")
    return styler.set_table_styles([{"selector": "th, td", "props": cells}])
