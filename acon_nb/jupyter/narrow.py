"""A figure drawn again for a phone: panels one below the other, text at its own size; nothing where it cannot fit."""

from __future__ import annotations

import io
import itertools
import textwrap
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.text import Text

WIDTH_IN = 4.3  # what a phone shows of 9 point text so that it can be read
_DPI = 150
_COLOURS = 64
_LINES = (46, 32)  # characters of a title in that width, and next to long names of an axis
_TITLE_POINTS = 9.5
_PANEL_IN = 3.4
_TALLEST_IN = 22.0


def png(figure: Figure) -> bytes | None:
    """Return a figure as PNG for narrow pages; None if it is narrow already, or if its text does not fit there.

    The figure is as it was afterwards.
    """
    width, height = figure.get_size_inches()
    axes: list[Any] = [ax for ax in figure.axes if ax.get_subplotspec() is not None]
    if width <= WIDTH_IN * 1.3 or not axes or len(axes) != len(figure.axes):
        return None
    specs = [ax.get_subplotspec() for ax in axes]
    rows, columns = specs[0].get_gridspec().get_geometry()
    places = list(dict.fromkeys((spec.num1, spec.num2) for spec in specs))
    above = getattr(figure, "_suptitle", None)
    titles = [text for ax in axes for text in (ax.title, ax.xaxis.label, ax.yaxis.label)]
    titles += [above] if above else []
    words = [(text.get_text(), text.get_fontsize()) for text in titles]
    tall = min(_TALLEST_IN, max(height, height / max(1, rows) * len(places)) if columns > 1 else height + 0.6)
    try:
        figure.set_size_inches(WIDTH_IN, max(tall, _PANEL_IN), forward=False)
        if columns > 1:
            grid = GridSpec(len(places), 1, figure=figure)
            for ax, spec in zip(axes, specs, strict=True):
                ax.set_subplotspec(grid[places.index((spec.num1, spec.num2))])
        for length in _LINES:
            for text, (word, size) in zip(titles, words, strict=True):
                text.set_text("\n".join(part for line in word.splitlines() for part in textwrap.wrap(line, length)))
                text.set_fontsize(min(size, _TITLE_POINTS))
            if fits(figure):
                break
        else:
            return None
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=_DPI)
        return _small(buffer)
    finally:
        figure.set_size_inches(width, height, forward=False)
        for ax, spec in zip(axes, specs, strict=True):
            ax.set_subplotspec(spec)
        for text, (word, size) in zip(titles, words, strict=True):
            text.set_text(word)
            text.set_fontsize(size)


def _small(picture: io.BytesIO) -> bytes:
    """Return a picture with few colours, a third of its size: a report holds one more of each figure."""
    from PIL import Image

    smaller = io.BytesIO()
    with Image.open(picture) as image:
        image.convert("RGB").quantize(_COLOURS).save(smaller, "png", optimize=True)
    return smaller.getvalue()


def fits(figure: Figure) -> bool:
    """Whether every text of a figure lies inside its canvas, and no labels of an axis overlap."""
    return not outside(figure) and not _overlap(figure)


def outside(figure: Figure) -> list[str]:
    """Return the texts of a figure that do not lie inside its canvas, drawn as it is."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    renderer: Any = canvas.get_renderer()  # type: ignore[no-untyped-call]
    width, height = figure.bbox.width, figure.bbox.height
    hidden = {id(label) for ax in figure.axes for axis in (ax.xaxis, ax.yaxis) for label in _not_drawn(axis, ax.axison)}
    texts: list[str] = []
    for text in figure.findobj(Text):
        if isinstance(text, Text) and text.get_visible() and text.get_text().strip() and id(text) not in hidden:
            box = text.get_window_extent(renderer)
            if box.x0 < -1 or box.y0 < -1 or box.x1 > width + 1 or box.y1 > height + 1:
                texts.append(text.get_text())
    return texts


def _not_drawn(axis: Any, shown: bool) -> list[Text]:
    """The texts of an axis that are not drawn: it keeps labels of ticks that lie outside its view."""
    ticks: list[Any] = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
    if not (shown and axis.get_visible()):
        return [axis.label, axis.get_offset_text(), *(label for tick in ticks for label in (tick.label1, tick.label2))]
    low, high = sorted(axis.get_view_interval())
    margin = (high - low) * 1e-9
    away = [tick for tick in ticks if not low - margin <= tick.get_loc() <= high + margin]
    return [label for tick in away for label in (tick.label1, tick.label2)]


def _overlap(figure: Figure) -> bool:
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            hidden = {id(label) for label in _not_drawn(axis, ax.axison)}
            labels = [label for label in axis.get_ticklabels() if label.get_text() and id(label) not in hidden]
            boxes = [label.get_window_extent() for label in labels]
            if any(one.overlaps(two) for one, two in itertools.pairwise(boxes)):
                return True
    return False
