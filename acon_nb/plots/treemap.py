"""A treemap: rectangles whose areas are exactly proportional to values, in a given frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Rectangle(NamedTuple):
    """A rectangle: its lower left corner, its width and height."""

    x: float
    y: float
    width: float
    height: float

    @property
    def area(self) -> float:
        """Its area."""
        return self.width * self.height


def squarified(values: Sequence[float], frame: Rectangle) -> list[Rectangle]:
    """Divide a frame among positive values, largest first, into rectangles that are as square as possible.

    The result is in the order of the values; their areas are proportional to them and add up to the frame's.
    Algorithm: Bruls, Huizing and van Wijk, "Squarified treemaps" (2000).
    """
    rest = list(values)
    scale = frame.area / sum(rest) if rest else 0.0
    rectangles: list[Rectangle] = []
    while rest:
        side = min(frame.width, frame.height)
        count = 1
        while count < len(rest) and _worst(rest[: count + 1], side, scale) <= _worst(rest[:count], side, scale):
            count += 1
        row, rest = rest[:count], rest[count:]
        frame = _lay(row, frame, scale, rectangles)
    return rectangles


def _worst(row: Sequence[float], side: float, scale: float) -> float:
    """Return the worst ratio of the sides of a row of rectangles along a side."""
    total = sum(row) * scale
    return max(side**2 * max(row) * scale / total**2, total**2 / (side**2 * min(row) * scale))


def _lay(row: Sequence[float], frame: Rectangle, scale: float, rectangles: list[Rectangle]) -> Rectangle:
    """Lay a row of rectangles along the shorter side of a frame; return what is left of it."""
    total = sum(row) * scale
    x, y, width, height = frame
    if width >= height:
        thickness = total / height
        for value in row:
            rectangles.append(Rectangle(x, y, thickness, value * scale / thickness))
            y += value * scale / thickness
        return Rectangle(x + thickness, frame.y, width - thickness, height)
    thickness = total / width
    for value in row:
        rectangles.append(Rectangle(x, y, value * scale / thickness, thickness))
        x += value * scale / thickness
    return Rectangle(frame.x, y + thickness, width, height - thickness)
