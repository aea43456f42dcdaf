"""The report of a series for people: plain text of at most 72 columns for a cover letter, or Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from acon_nb.changes import functions
from acon_nb.changes.plain_text import table_row, wrapped
from acon_nb.changes.series import SeriesReport, SeriesStep, StepChange
from acon_nb.changes.verdict import CellChange, MeasureChange, SeriesVerdict
from acon_nb.profile.diff_text import aside

_NAME_WIDTH = 24
_EXACT = "Counts are exact: equal kernels give equal numbers in every run."
_LAYOUT = "other places of code, bytes of the image, free memory, ticks."
_MOST_NAMES = 8
_MARKS = re.compile(r"([\\`*_<>|\[\]#])")


def plain(report: SeriesReport) -> str:
    """The report as plain text, no line longer than 72 columns."""
    lines = [*wrapped(f"acon-nb bench series, suite {report.suite}: {verdict_text(report)}"), "", *_heads(report)]
    lines += [line for name, text in report.environment.items() for line in _named(name, text)]
    if not report.same_image:
        lines += ["", *_table(report.cells), "", *wrapped(_EXACT), *_notes(report.cells)]
    for cell in report.cells:
        if cell.functions:
            lines += ["", *wrapped(f'Functions of "{cell.name}", instructions:'), *functions.table(cell.functions)]
    for one in report.each:
        lines += ["", *wrapped(f"{one.step.name} {one.step.subject}: {one.verdict.value}"), *_changed(one)]
    return "\n".join(line.rstrip() for line in lines)


def markdown(report: SeriesReport) -> str:
    """The report for a pull request."""
    lines = [f"### acon-nb bench series, suite {report.suite}: {verdict_text(report)}", ""]
    lines += [f"* base: {_code(report.base)}", f"* head: {_code(report.head)} ({_patches(report)})"]
    lines += [f"* {name}: {text}" for name, text in report.environment.items()]
    if not report.same_image:
        lines += ["", "| cell | measure | base | head | difference |", "|---|---|---:|---:|---:|"]
        for cell in report.cells:
            lines += [
                f"| {cell.name} | {one.label} | {_value(one.before)} | {_value(one.after)} | {_change(one)} |"
                for one in _shown(cell)
            ]
        lines += ["", *_notes(report.cells)]
    for cell in report.cells:
        if cell.functions:
            lines += ["", f'Functions of "{cell.name}":', "", "| function | before | after | difference |"]
            lines += ["|---|---:|---:|---:|"]
            lines += [
                f"| `{one.name}` | {_value(one.before)} | {_value(one.after)} | {one.difference:+,} |"
                for one in cell.functions
            ]
    for step in report.each:
        names = ", ".join(cell.name for cell in step.cells if cell.changed) or "no cell"
        lines += ["", f"* {_code(step.step)}: **{step.verdict.value}** ({names})"]
    return "\n".join(lines)


def verdict_text(report: SeriesReport) -> str:
    """The verdict in words."""
    if report.same_image:
        return "equal; the kernels are the same byte for byte"
    if report.verdict is SeriesVerdict.EQUAL and any(cell.verdict is SeriesVerdict.LAYOUT for cell in report.cells):
        return f"equal, but for {_aside(report.cells)}"
    return report.verdict.value


def _aside(cells: Sequence[CellChange]) -> str:
    """The instructions of some cells that are of layout and of timing, in words."""
    timing = [cell.timing_change for cell in cells if cell.timing_change]
    return aside(sum(cell.layout_change for cell in cells), sum(timing) if timing else None)


def _heads(report: SeriesReport) -> Iterator[str]:
    yield from _named("base", f"{report.base.name} {report.base.subject}".strip())
    yield from _named("head", f"{report.head.name} {report.head.subject} ({_patches(report)})")


def _patches(report: SeriesReport) -> str:
    return "1 patch" if report.count == 1 else f"{report.count} patches"


def _table(cells: Sequence[CellChange]) -> Iterator[str]:
    yield from table_row("", ("base", "head", "difference"), name_width=_NAME_WIDTH)
    for cell in cells:
        yield from _rows(cell, _shown(cell))


def _rows(cell: CellChange, measures: Sequence[MeasureChange]) -> Iterator[str]:
    """The rows of a cell: its instructions, and below them what else differs."""
    for number, one in enumerate(measures):
        name = cell.name if number == 0 and one is cell.measures[0] else f"  {one.label}"
        numbers = (_value(one.before), _value(one.after), _change(one))
        yield from table_row(name, numbers, name_width=_NAME_WIDTH)


def _shown(cell: CellChange) -> list[MeasureChange]:
    """The first measure of a cell, and those others that differ."""
    return [one for number, one in enumerate(cell.measures) if number == 0 or one.before != one.after]


def _changed(one: StepChange) -> Iterator[str]:
    for cell in one.cells:
        if cell.changed:
            yield from _rows(cell, _shown(cell))


def _notes(cells: Sequence[CellChange]) -> list[str]:
    """What is of layout and of timing, which guests failed, and what is only shown, cell by cell."""
    lines = []
    for cell in cells:
        if cell.failure:
            lines += wrapped(f"{cell.name}: a guest did not end well: {cell.failure}.")
        text = f"{cell.name}: {_aside([cell])}"
        if cell.verdict is SeriesVerdict.LAYOUT:
            lines += wrapped(f"{text}: {_LAYOUT} All functions do the same.")
        elif cell.layout_change or cell.timing_change:
            lines += wrapped(f"{text}; the others are of functions.")
        if cell.verdict is SeriesVerdict.DIFFERENT and cell.other_code is not None:
            lines += wrapped(f"{cell.name}: {_other_code(cell.other_code)}.")
        lines += [
            line
            for one in cell.shown
            if one.before != one.after
            for line in wrapped(f"{cell.name}: {one.label} {_value(one.before)} -> {_value(one.after)}, not compared.")
        ]
    return lines


def _other_code(names: Sequence[str]) -> str:
    if not names:
        return "no function that ran has other code; the kernels' data differ"
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"of what ran, other code have {', '.join(names[:_MOST_NAMES])}{more}"


def _value(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"


def _change(one: MeasureChange) -> str:
    if one.before == one.after:
        return "="
    return f"{one.change:+,}" if isinstance(one.change, int) else f"{one.change:+,.6g}"


def _named(name: str, text: str) -> list[str]:
    return wrapped(text, first=f"  {name + ':':<10}", rest=" " * 12)


def _code(step: SeriesStep) -> str:
    """A step in Markdown; a subject's own marks are text."""
    subject = _MARKS.sub(r"\\\1", step.subject)
    return f"`{step.name}` {subject}".strip()
