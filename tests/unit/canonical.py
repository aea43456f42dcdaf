"""Tables, sentences and figures as plain numbers that can be stored and compared, whatever their words and looks."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

_NOT_NUMBERS = re.compile(r"95 %|10[⁰¹²³⁴-⁹]+|\b[0-9a-f]{12,}\b")  # intervals' level, units, hashes
_NUMBER = re.compile(r"(?:(?:(?<=[\s(\[])|^)[-+−])?(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?")
_LONG = 12  # longer series are kept as their digest
_REL = 1e-9


def plain(value: Any) -> Any:
    """A value as JSON has it; what is not known is None."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value)


def records(table: pd.DataFrame, columns: Mapping[str, str] | Sequence[str]) -> list[dict[str, Any]]:
    """The rows of a table, its columns by the names that are stored (name -> column, or equal ones)."""
    names = columns if isinstance(columns, Mapping) else {name: name for name in columns}
    return [
        {name: plain(row[column]) for name, column in names.items()} for row in table.astype(object).to_dict("records")
    ]


def numbers_in(text: object) -> list[float]:
    """The numbers of a text in their order; those within names (lz4, 10⁶) are none."""
    found = _NUMBER.findall(_NOT_NUMBERS.sub(" ", str(text)))
    return [float(word.replace(",", "").replace("−", "-")) for word in found]


def shown(table: pd.DataFrame) -> list[list[float]]:
    """The numbers of a table for people, row by row, whatever its columns are called."""
    return [[number for cell in row for number in numbers_in(_text(cell))] for row in table.to_numpy(dtype=object)]


def sentence(text: str, names: Iterable[str] = ()) -> dict[str, Any]:
    """What a sentence says: its numbers in order, and which of `names` (choices, cells) it is about.

    "The disk" is a device, and "disk" a choice.
    """
    about, rest = [], text
    for name in sorted(filter(None, set(names)), key=len, reverse=True):
        if re.search(rf"(?<![\w-])(?<!the )(?<!a ){re.escape(name)}(?![\w'-])", rest):
            about.append(name)
            rest = rest.replace(name, " ")
    return {"about": sorted(about), "numbers": numbers_in(rest)}


def figure(drawn: Figure, names: Iterable[str] = ()) -> list[dict[str, Any]]:
    """The data of a figure, panel by panel: lines, areas, bars and the numbers that are written in it.

    A series whose label begins with one of `names` (choices, cells) keeps it.
    """
    known = sorted(set(names), key=len, reverse=True)
    panels = []
    for ax in drawn.axes:
        if not ax.get_visible():
            continue
        parts: list[list[Any]] = []
        labels = {id(bars.lines[0]): bars.get_label() for bars in ax.containers if isinstance(bars, ErrorbarContainer)}
        for line in ax.lines:
            label = str(labels.get(id(line), line.get_label()))
            name = next((one for one in known if label.startswith(one)), "")
            parts.append(["line", name, *(series(line.get_data(orig=False)[axis]) for axis in (0, 1))])
        for collection in ax.collections:
            parts += [[kind, "", *(series(part[:, axis]) for axis in (0, 1))] for kind, part in _parts(collection)]
        for patch in ax.patches:
            corners = patch.get_patch_transform().transform_path(patch.get_path()).vertices
            parts.append(["box", "", *([float(side) for side in fold(corners, axis=0)] for fold in (np.min, np.max))])
        texts = sorted(number for text in ax.texts for number in numbers_in(text.get_text()))
        scales = [ax.get_xscale(), ax.get_yscale()]
        panels.append({"scales": scales, "series": sorted(parts, key=_order), "numbers": series(texts)})
    return panels


def differences(expected: Any, now: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Where two stored values differ: the path, and both values. Floats may differ by 1e-9 of themselves."""
    if isinstance(expected, dict) and isinstance(now, dict):
        for name in dict.fromkeys([*expected, *now]):
            if name not in expected or name not in now:
                yield f"{path}/{name}", "is new" if name in now else "is missing"
            else:
                yield from differences(expected[name], now[name], f"{path}/{name}")
    elif isinstance(expected, list) and isinstance(now, list):
        if len(expected) != len(now):
            yield path, f"{len(expected)} values were {expected!r:.300}; {len(now)} are {now!r:.300}"
            return
        for number, (one, other) in enumerate(zip(expected, now, strict=True)):
            yield from differences(one, other, f"{path}/{number}")
    elif not _same(expected, now):
        yield path, f"was {expected!r:.200}, is {now!r:.200}"


def _same(expected: Any, now: Any) -> bool:
    numbers = [isinstance(value, int | float) and not isinstance(value, bool) for value in (expected, now)]
    if all(numbers):
        return bool(expected == now) or math.isclose(expected, now, rel_tol=_REL, abs_tol=1e-15)
    return type(expected) is type(now) and bool(expected == now)


def _text(cell: Any) -> str:
    return "" if cell is None or cell != cell else str(cell)


def _parts(collection: Any) -> list[tuple[str, np.ndarray[Any, Any]]]:
    """The points of what is no line: error bars, areas, dots."""
    if isinstance(collection, LineCollection):
        return [("bar", np.asarray(part)) for part in collection.get_segments()]
    if isinstance(collection, PolyCollection):
        return [("area", path.vertices) for path in collection.get_paths()]
    if isinstance(collection, PathCollection):
        return [("dots", np.asarray(collection.get_offsets()))]
    raise TypeError(f"a figure has a {type(collection).__name__}: say here what its data are")


def series(values: Any) -> list[Any] | dict[str, Any]:
    """A series of numbers; of a long one its ends and what any change of a value or of the order changes."""
    numbers = [float(value) for value in np.ma.filled(np.ma.asarray(values, dtype=float), math.nan)]
    if len(numbers) <= _LONG:
        return [plain(number) for number in numbers]
    known = [(place, number) for place, number in enumerate(numbers, 1) if math.isfinite(number)]
    return {
        "n": len(numbers),
        "known": len(known),
        "first": plain(numbers[0]),
        "last": plain(numbers[-1]),
        "sum_by_place": math.fsum(place * number for place, number in known),
        "sum_of_squares": math.fsum(number * number for _, number in known),
    }


def _order(series: list[Any]) -> str:
    """Drawing order is no data."""
    kind, name, *sides = series
    texts = [f"{value:+.6e}" if isinstance(value, float) else str(value) for side in sides for value in side]
    return "\0".join([kind, name, *texts])
