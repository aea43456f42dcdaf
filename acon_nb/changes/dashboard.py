"""A page over all nights of a history: trends, verdicts, what changed when, and any two nights compared in the page.

One file that loads nothing: figures are SVG, the comparison is a script over values that the page holds.
"""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acon_nb.analysis import nightly
from acon_nb.analysis.history import Change, Limits, Series, night_text, series_of
from acon_nb.analysis.nightly import NightlyResult, NightlySpec
from acon_nb.cache import atomic_file, key_of
from acon_nb.errors import InvalidInput
from acon_nb.profile import stored
from acon_nb.results.metrics import metric_on
from acon_nb.results.select import FACTS
from acon_nb.stats.comparison import Verdict
from acon_nb.study.kinds import kind
from acon_nb.units import format_share

if TYPE_CHECKING:
    import pandas as pd

_ALL = 1_000_000
_FILES = Path(__file__).parent
_WIDTH, _HEIGHT, _MARGIN = 640, 120, 8
_FACT_LENGTH = 200
_BAD = (Verdict.WORSE, Verdict.NO_VALUES)


@dataclass(frozen=True, kw_only=True)
class Dashboard:
    """A history: its nights in order, every series over all of them, and the verdict on the last night.

    `facts` are what each night was measured with, `reports` and `profiles` the pages that exist of it.
    """

    nights: tuple[str, ...]
    series: tuple[Series, ...]
    last: NightlyResult
    facts: Mapping[str, Mapping[str, str]]
    reports: Mapping[str, Path] = field(default_factory=dict)
    profiles: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)


def of(
    history: Path, plan: str, *, nights: int = 30, limits: Limits | None = None, accepted: str = "", reports: Path
) -> Dashboard:
    """Read a history; `reports` is the folder whose pages are linked. The last night is judged as `nightly.judge` does,
    by the plans that it ran.

    Errors: `InvalidInput` for a history without nights of the plans.
    """
    loaded = []
    for source, chosen in nightly.plans_of(plan).items():
        rows = nightly.rows_of(history, chosen)
        if not rows.empty:
            loaded.append((source, kind(chosen.study).followed, rows.sort_values("timestamp", kind="stable")))
    if not loaded:
        raise InvalidInput("history", history, f"has no nights of {plan}", hint="acon-nb bench nightly measures one")
    stamps = {
        str(night): str(stamp)
        for _, _, rows in loaded
        for night, stamp in zip(rows["session"], rows["timestamp"], strict=True)
    }
    names = sorted(stamps, key=lambda name: stamps[name])
    series = [
        one
        for _, followed, rows in loaded
        for one in series_of(rows, followed, nights=_ALL, limits=limits, accepted=accepted)
    ]
    ran = {source: rows for source, _, rows in loaded if (rows["session"] == names[-1]).any()}
    spec = NightlySpec(
        history=history,
        plan=",".join(ran),
        night=names[-1],
        nights=nights,
        limits=limits or Limits(),
        accepted=accepted,
    )
    tables = [rows for _, _, rows in loaded]
    return Dashboard(
        nights=tuple(names),
        series=tuple(series),
        last=nightly.judge(spec, ran),
        facts=_facts(tables),
        reports=_reports(reports),
        profiles=_profiles(tables, names, reports),
    )


def write(board: Dashboard, path: Path) -> Path:
    """Write the page; links are relative to it."""
    parts = [
        f"<h1>Nights: {_e(board.last.plan)}</h1>",
        f"<p>{len(board.nights)} nights, {_e(board.nights[0])} to {_e(board.nights[-1])}; host class of the series: "
        f"{_e(board.last.host_class)}.</p>",
        f'<p class="{"good" if board.last.passed else "bad"}"><strong>{_e(board.last.sentences()[0])}</strong></p>',
        *(f"<p>{_e(text)}</p>" for text in board.last.sentences()[1:]),
        "<h2>Trends</h2>",
        '<div class="trends">',
        *(_trend(one, _judged(one, board.last), board.nights) for one in board.series),
        "</div>",
        '<h2 id="compare">Two nights compared</h2>',
        _chooser(board.nights),
        "<h2>Nights, the newest first</h2>",
        _nights_table(board, path.parent),
    ]
    data = json.dumps(_data(board), separators=(",", ":")).replace("<", "\\u003c")
    texts = {
        "TITLE": _e(f"Nights of {board.last.plan}"),
        "BODY": "".join(parts),
        "DATA": data,
        "SCRIPT": (_FILES / "dashboard.js").read_text(encoding="utf-8"),
    }
    template = (_FILES / "dashboard.html").read_text(encoding="utf-8")
    page = re.sub(f"@({'|'.join(texts)})@", lambda match: texts[match[1]], template)
    with atomic_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _judged(one: Series, last: NightlyResult) -> Series:
    """The series as the last night was judged, over fewer nights; itself, if that night does not have it."""
    same = (
        other for other in last.series if (other.cell, other.clock, other.metric) == (one.cell, one.clock, one.metric)
    )
    return next(same, one)


def _trend(one: Series, judged: Series, nights: Sequence[str]) -> str:
    """A series as a figure: a dot a night, its levels, the nights of its changes, the band of the limit tonight."""
    measure = metric_on(one.metric, one.clock)
    title = f"{one.cell}: {measure.label} ({one.clock} clock)"
    verdict = night_text(judged.verdict)
    low, high = _range(one, judged)
    place = {name: number for number, name in enumerate(nights)}

    def x(name: str) -> float:
        return round(_MARGIN + (_WIDTH - 2 * _MARGIN) * place[name] / max(1, len(nights) - 1), 1)

    def y(value: float) -> float:
        return round(_HEIGHT - _MARGIN - (_HEIGHT - 2 * _MARGIN) * (value - low) / (high - low), 1)

    top, bottom = y(judged.reference * (1 + one.limit)), y(judged.reference * (1 - one.limit))
    dots = "".join(
        f'<circle cx="{x(night.night)}" cy="{y(night.value)}" r="2"><title>{_e(night.night)}: '
        f"{_e(measure.text(night.value, one.clock))}</title></circle>"
        for night in one.nights
    )
    levels = " ".join(f"{x(night.night)},{y(level)}" for night, level in zip(one.nights, one.levels, strict=True))
    steps = "".join(_step_line(x(step.night), step) for step in one.changes)
    numbers = (measure.text(one.current, one.clock), format_share(one.ratio - 1, sign=True))
    value, share = (text.replace(" ", "\N{NO-BREAK SPACE}") for text in numbers)
    now = f"{value}, {share} since the first night"
    label = f"{title}: {verdict}; {now}; {len(one.changes)} changes"
    mark = f'<span class="{"bad" if judged.verdict in _BAD else "good"}">{_e(verdict)}</span>'
    return (
        f"<figure><figcaption>{_e(title)}: {mark}, {_e(now)}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{_e(label)}">'
        f'<rect class="band" x="0" y="{top}" width="{_WIDTH}" height="{max(0.5, round(bottom - top, 1))}" />'
        f'{steps}<polyline class="level" points="{levels}" />{dots}</svg></figure>'
    )


def _step_line(place: float, step: Change) -> str:
    text = f"{step.night}: {format_share(step.ratio - 1, sign=True)}"
    also = f"; {'; '.join(step.also)}" if step.also else ""
    return f'<line class="step" x1="{place}" x2="{place}" y1="0" y2="{_HEIGHT}"><title>{_e(text + also)}</title></line>'


def _range(one: Series, judged: Series) -> tuple[float, float]:
    values = [night.value for night in one.nights]
    low = min([*values, judged.reference * (1 - one.limit)])
    high = max([*values, judged.reference * (1 + one.limit)])
    return (low, high) if high > low else (low - 1, high + 1)


def _chooser(nights: Sequence[str]) -> str:
    options = "".join(f"<option>{_e(name)}</option>" for name in reversed(nights))
    fields = "".join(
        f'<label>{text} <select id="{name}">{options}</select></label> '
        for name, text in (("before", "Night"), ("after", "compared with night"))
    )
    return f'<p>{fields}</p><div id="compared" role="status"></div>'


def _nights_table(board: Dashboard, folder: Path) -> str:
    """A row a night: what changed that night, and the pages that exist of it."""
    steps: dict[str, list[str]] = {}
    for one in board.series:
        measure = metric_on(one.metric, one.clock)
        for step in one.changes:
            beyond = abs(step.ratio - 1) >= one.limit
            word = ("worse" if measure.is_worse(step.ratio) else "better") if beyond else "within the limit"
            text = f"{one.cell}, {measure.label}: {format_share(step.ratio - 1, sign=True)} ({word})"
            mark = f'<span class="{"bad" if word == "worse" else "good"}">{_e(text)}</span>'
            steps.setdefault(step.night, []).append(mark)
    rows = []
    for name in reversed(board.nights):
        pages = [("report", board.reports[name])] if name in board.reports else []
        pages += [(f"profile {number}", path) for number, path in enumerate(board.profiles.get(name, ()), 1)]
        links = ", ".join(f'<a href="{_e(_relative(path, folder))}">{text}</a>' for text, path in pages)
        changed = "<br>".join(steps.get(name, []))
        rows.append(f'<tr><td class="night">{_e(name)}</td><td class="steps">{changed}</td><td>{links}</td></tr>')
    heads = "".join(f'<th scope="col">{name}</th>' for name in ("night", "steps", "pages"))
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _data(board: Dashboard) -> dict[str, Any]:
    """What the page's script compares: every value of every night, and what each was measured with, each text once."""
    texts: dict[str, int] = {}
    series = []
    for one in board.series:
        measure = metric_on(one.metric, one.clock)
        counted = measure.counts(one.clock)
        values = {night.night: night.value for night in one.nights}
        series.append(
            {
                "cell": one.cell,
                "label": f"{measure.label} ({one.clock} clock)",
                "unit": "instructions" if counted else measure.unit,
                "scale": 1 if counted else measure.scale,
                "exact": one.exact,
                "values": [values.get(name) for name in board.nights],
            }
        )
    facts = [
        {label: texts.setdefault(text, len(texts)) for label, text in board.facts.get(name, {}).items()}
        for name in board.nights
    ]
    return {"nights": list(board.nights), "series": series, "facts": facts, "texts": list(texts)}


def _facts(tables: Sequence[pd.DataFrame]) -> dict[str, dict[str, str]]:
    """What each night was measured with, by the words for it."""
    values: dict[tuple[str, str], set[str]] = {}
    for rows in tables:
        for column in filter(rows.columns.__contains__, FACTS):
            for night, value in rows[["session", column]].dropna().drop_duplicates().itertuples(index=False):
                text = str(value)[:12] if column.endswith("_sha256") else str(value)
                values.setdefault((str(night), FACTS[column]), set()).update({text} - {""})
    facts: dict[str, dict[str, str]] = {}
    for (night, label), texts in values.items():
        if texts:
            facts.setdefault(night, {})[label] = _short(", ".join(sorted(texts)))
    return facts


def _short(text: str) -> str:
    """A text that is too long to be shown, with a hash that distinguishes it from others."""
    return text if len(text) <= _FACT_LENGTH else f"{text[:_FACT_LENGTH]}... ({key_of({'text': text})[:8]})"


def _reports(folder: Path) -> dict[str, Path]:
    """The reports of nights in a folder, by the nights that their summaries name."""
    pages = {}
    for path in sorted(folder.rglob("*.json")) if folder.is_dir() else ():
        page = path.with_suffix(".html")
        try:
            if page.is_file():
                pages[str(nightly.read(path)["night"])] = page
        except InvalidInput:  # the summary of something else
            continue
    return pages


def _profiles(tables: Sequence[pd.DataFrame], nights: Sequence[str], folder: Path) -> dict[str, tuple[Path, ...]]:
    """The pages of profiles compared with the night before, by night."""
    pages = {path.name: path for path in folder.rglob("profile-*.html")} if folder.is_dir() else {}
    shown: dict[str, tuple[Path, ...]] = {}
    before: dict[str, Path] = {}
    for name in nights if pages else ():
        now: dict[str, Path] = {}
        for rows in tables:
            kept: list[dict[str, Any]] = rows[rows["session"] == name].to_dict("records")  # type: ignore[assignment]
            now |= stored.paths_of(kept, Path())
        files = [stored.page_name(before[cell], path) for cell, path in now.items() if cell in before]
        shown[name] = tuple(pages[file] for file in files if file in pages)
        before |= now
    return shown


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()


def _e(text: str) -> str:
    return html.escape(text, quote=True)
