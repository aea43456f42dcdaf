"""Any two nights compared: a table of all cells, then each cell's measures, then what differs by function."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acon_nb.analysis import nightly
from acon_nb.cache import atomic_file
from acon_nb.errors import InvalidInput
from acon_nb.profile import diff_text, flame, stored
from acon_nb.profile.diff import Difference, difference
from acon_nb.profile.model import load
from acon_nb.results.metrics import Metric, metric_on
from acon_nb.results.select import changed, newest, usable
from acon_nb.stats import inference
from acon_nb.study.kinds import kind
from acon_nb.units import format_share

if TYPE_CHECKING:
    import pandas as pd

_MOST = 40  # functions of a cell
_STYLE = (
    "body{font:15px/1.45 sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}table{border-collapse:collapse}"
    "th,td{text-align:left;padding:.15rem .8rem;border-bottom:1px solid #ccc;vertical-align:top}"
    "pre{overflow-x:auto;background:#f6f6f6;padding:.6rem}"
)
_HEAD = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
)


@dataclass(frozen=True, kw_only=True)
class NightValue:
    """A measure of a cell in two nights: medians of the runs that count (None: there is none). `is_exact`: any
    difference is real.
    """

    metric: str
    label: str
    before: float | None
    after: float | None
    text: str
    is_exact: bool

    @property
    def differs(self) -> bool:
        """Whether the two nights have other values."""
        return self.before != self.after


@dataclass(frozen=True, kw_only=True)
class CellNights:
    """A cell in two nights: its followed measures first, then the others; what else differs; and its two profiles."""

    cell: str
    clock: str
    followed: tuple[NightValue, ...]
    others: tuple[NightValue, ...]
    also: tuple[str, ...]
    profiles: tuple[Path, Path] | None


@dataclass(frozen=True, kw_only=True)
class NightsCompared:
    """Two nights of a history, cell by cell."""

    names: tuple[str, str]
    plan: str
    cells: tuple[CellNights, ...]

    def text(self) -> str:
        """The table of all cells for a terminal."""
        lines = [f"{self.plan}: night {self.names[0]} -> {self.names[1]}"]
        for one in self.cells:
            lines += [f"{one.cell} ({one.clock} clock), {value.label}: {value.text}" for value in one.followed]
        return "\n".join(lines)

    def values(self) -> dict[str, Any]:
        """The comparison as values for JSON."""
        return {
            "nights": list(self.names),
            "plan": self.plan,
            "cells": [
                {
                    "cell": one.cell,
                    "clock": one.clock,
                    "measures": [asdict(value) for value in (*one.followed, *one.others)],
                    "also": list(one.also),
                    "profiles": [str(path) for path in one.profiles or ()],
                }
                for one in self.cells
            ],
        }


def compare(history: Path, plan: str, before: str, after: str) -> NightsCompared:
    """Compare two nights of a plan's history, of whatever host classes; `before` and `after` are their names.

    The start of a name, such as a date, is enough where one night alone has it.
    Errors: `InvalidInput` for a night that is not there, and for the same one twice.
    """
    chosen = list(nightly.plans_of(plan).values())
    loaded = ((kind(one.study).followed, nightly.rows_of(history, one)) for one in chosen)
    parts = [(followed, rows) for followed, rows in loaded if not rows.empty]
    stamps: dict[str, str] = {}
    for _, rows in parts:
        stamps |= dict(zip(rows["session"], rows["timestamp"], strict=True))
    nights = sorted(stamps, key=lambda name: stamps[name])
    names = (_night(nights, before, history), _night(nights, after, history))
    if names[0] == names[1]:
        raise InvalidInput("compare", after, "is the same night", hint="name two")
    cells = [cell for followed, rows in parts for cell in _cells(rows, names, followed, history)]
    return NightsCompared(names=names, plan=", ".join(one.name for one in chosen), cells=tuple(cells))


def write(compared: NightsCompared, path: Path) -> Path:
    """Write the page, with the flame graphs of the differences next to it.

    Errors: `InvalidInput` for a damaged profile.
    """
    parts = [f"<h1>{_e(compared.plan)}: {_e(compared.names[0])} &rarr; {_e(compared.names[1])}</h1>"]
    heads = ("cell", "clock", "measure", *compared.names, "difference")
    table = [
        [f'<a href="#cell-{number}">{_e(one.cell)}</a>', _e(one.clock), *_value_cells(one.clock, value)]
        for number, one in enumerate(compared.cells)
        for value in one.followed
    ]
    parts.append(_table(heads, table))
    for number, one in enumerate(compared.cells):
        parts.append(f'<h2 id="cell-{number}">{_e(one.cell)}, {_e(one.clock)} clock</h2>')
        if one.also:
            parts.append(f"<p>Also different: {_e('; '.join(one.also))}</p>")
        differing = [value for value in (*one.followed, *one.others) if value.differs]
        rows = [_value_cells(one.clock, value) for value in differing]
        parts.append(
            _table(("measure", *compared.names, "difference"), rows) if rows else "<p>All measures are equal.</p>"
        )
        parts += _profile_parts(one, compared.names, path.parent)
    page = f"{_HEAD}<title>{_e(' and '.join(compared.names))}</title><style>{_STYLE}</style></head><body>"
    with atomic_file(path) as temporary:
        temporary.write_text(f"{page}{''.join(parts)}</body></html>\n", encoding="utf-8")
    return path


def _profile_parts(one: CellNights, names: tuple[str, str], folder: Path) -> list[str]:
    """The difference by function: a sentence and tables, and a link to the flame graph."""
    if one.profiles is None:
        return []
    if one.profiles[0] == one.profiles[1]:
        return ["<p>By function: equal.</p>"]
    before, after = map(load, one.profiles)
    compared: Difference = difference(before, after)
    page = flame.difference(before, after, names=names, title=f"What changed in {one.cell}")
    file = flame.save(page, folder / stored.page_name(*one.profiles))
    text = diff_text.text(compared, _MOST)
    return [f'<p>By function: <a href="{_e(file.name)}">flame graph</a></p><pre>{_e(text)}</pre>']


def _cells(rows: pd.DataFrame, names: tuple[str, str], followed: Sequence[str], history: Path) -> list[CellNights]:
    """The cells of one plan in both nights."""
    sides = [newest(rows[rows["session"] == name])[0] for name in names]
    keys = [dict.fromkeys(zip(side["cell"], side["clock"], strict=True)) for side in sides]
    return [_cell(str(cell), str(clock), sides, followed, history) for cell, clock in {**keys[0], **keys[1]}]


def _cell(cell: str, clock: str, sides: Sequence[pd.DataFrame], followed: Sequence[str], history: Path) -> CellNights:
    parts = [side[(side["cell"] == cell) & (side["clock"] == clock)] for side in sides]
    counted = [usable(part)[0] for part in parts]
    names = list(dict.fromkeys([*followed, *parts[0].columns, *parts[1].columns]))
    values = {name: value for name in names if (value := _value(name, clock, counted)) is not None}
    files = [stored.paths_of(_rows(part), history).get(cell) for part in parts]
    return CellNights(
        cell=cell,
        clock=clock,
        followed=tuple(values[name] for name in followed if name in values),
        others=tuple(value for name, value in values.items() if name not in followed),
        also=tuple(changed(*parts))
        if all(len(part) for part in parts)
        else ("one of the nights does not have the cell",),
        profiles=(files[0], files[1]) if files[0] and files[1] else None,
    )


def _value(name: str, clock: str, parts: Sequence[pd.DataFrame]) -> NightValue | None:
    """A measure in both nights; None for a column that does not exist, or that neither night has."""
    try:
        measure = metric_on(name, clock)
    except InvalidInput:
        return None
    numbers = [_median(part, name) for part in parts]
    if numbers[0] is None and numbers[1] is None:
        return None
    return NightValue(
        metric=name,
        label=measure.label,
        before=numbers[0],
        after=numbers[1],
        text=_text(measure, clock, numbers[0], numbers[1]),
        is_exact=measure.is_exact(clock),
    )


def _rows(part: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in part.to_dict("records")]


def _median(part: pd.DataFrame, name: str) -> float | None:
    numbers = [float(value) for value in part[name].dropna()] if name in part else []
    return inference.median(numbers) if numbers else None


def _text(measure: Metric, clock: str, before: float | None, after: float | None) -> str:
    shown = ["none" if value is None else measure.text(value, clock) for value in (before, after)]
    if before is None or after is None:
        return f"{shown[0]} -> {shown[1]}"
    if before == after:
        return f"{shown[0]}, equal"
    share = f" ({format_share(after / before - 1, sign=True)})" if before else ""
    sign = "+" if after > before else "-"
    return f"{shown[0]} -> {shown[1]}: {sign}{measure.difference_text(after - before, clock)}{share}"


def _value_cells(clock: str, value: NightValue) -> list[str]:
    measure = metric_on(value.metric, clock)
    shown = ["none" if number is None else measure.text(number, clock) for number in (value.before, value.after)]
    change = value.text.rpartition(": ")[2] if value.differs else "="
    note = "" if value.is_exact or not value.differs else ", medians of a measure that is not exact"
    return [_e(text) for text in (value.label, *shown, change + note)]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are HTML already."""
    head = "".join(f"<th>{_e(name)}</th>" for name in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _night(nights: Sequence[str], name: str, history: Path) -> str:
    """The night that a name, or the start of one, means."""
    matching = [name] if name in nights else [night for night in nights if name and night.startswith(name)]
    if len(matching) != 1:
        reason = f"is several nights of {history}" if matching else f"is not in {history}"
        hint = f"one of: {', '.join(matching or nights)[-300:] or 'none yet'}"
        raise InvalidInput("compare", name, reason, hint=hint)
    return matching[0]


def _e(text: str) -> str:
    return html.escape(text, quote=True)
