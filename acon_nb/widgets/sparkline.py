"""Small live plots as SVG, because matplotlib is too slow for a figure per second while a guest runs."""

from __future__ import annotations

import html
from collections.abc import Sequence

from acon_nb.plots import COLOURS

_WIDTH, _HEIGHT = 260, 46


def svg(label: str, shown: str, values: Sequence[float], top: float, *, colour: str = COLOURS[0]) -> str:
    """Return an SVG line of `values` (0 to `top`, the newest at the right) with its label and current value as text."""
    step = _WIDTH / max(len(values) - 1, 1)
    height = [_HEIGHT - 2 - (_HEIGHT - 6) * min(value / top, 1.0) if top else _HEIGHT for value in values]
    points = " ".join(f"{number * step:.1f},{y:.1f}" for number, y in enumerate(height))
    text = f"{html.escape(label)}: <b>{html.escape(shown)}</b>"
    box = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}"'
    return (
        f'<div style="line-height: 1.4">{text}<br><svg {box} role="img" aria-label="{html.escape(label, quote=True)}">'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="none" stroke="#8888" />'
        f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5" /></svg></div>'
    )
