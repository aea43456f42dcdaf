"""A night: measure a plan into a history, compare it with the nights before, and report it to people and machines."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from acon_nb import results
from acon_nb.analysis import tables
from acon_nb.analysis.history import Limits, Series, night_text, series_of, verdict_table
from acon_nb.cache import atomic_file
from acon_nb.errors import InvalidInput
from acon_nb.progress import CancelToken, OnProgress, silent
from acon_nb.stats.comparison import Verdict
from acon_nb.study.kinds import kind, study_of
from acon_nb.study.plan import Plan, load
from acon_nb.validation import Meta, check_fields

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 2
_NIGHT = re.compile(r"\d{4}-\d\d-\d\d[A-Za-z0-9._:+-]{0,40}")
_FAILED_RUNS = "failed_runs"  # the verdict on a night of which a run was not whole
_BASELINE = "baseline_recorded"  # that on the first night, which nothing was compared with
_SHOWN = (Verdict.WORSE, Verdict.BETTER, Verdict.NO_VALUES, Verdict.BELOW_MINIMUM)


@dataclass(frozen=True, kw_only=True)
class NightlySpec:
    """What a night is.

    `history` is the folder that keeps all nights, `plan` names built-in plans or TOML files, with commas between them,
    `night` this night's name, which begins with its date (default: now, UTC; the name of a night that was stopped
    resumes it). It is compared with
    the last `nights` nights of this host class, within `limits`, from the `accepted` night on (a name or a date;
    default: the first of them). `metrics` are the measures that are followed (default: those of the kind of study).
    With `tree`, a git tree of the kernel, the plan's kernels are built of its `commit` (a branch, a tag or a commit),
    and a regression of the instruction clock is bisected (`changes.nights`).
    Errors: `InvalidInput`.
    """

    history: Path = Path("history")
    plan: str = "quick,tour"
    night: str = ""
    nights: Annotated[int, Meta(ge=2)] = 30
    metrics: Sequence[str] = ()
    limits: Limits = field(default_factory=Limits)
    accepted: str = ""
    tree: Path | None = None
    commit: str = "HEAD"

    def __post_init__(self) -> None:
        name = self.night or dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        if not _NIGHT.fullmatch(name):
            raise InvalidInput("night", name, "is not the name of a night", hint="it begins with a date: 2026-01-31")
        object.__setattr__(self, "night", name)
        object.__setattr__(self, "history", Path(self.history))
        object.__setattr__(self, "tree", Path(self.tree) if self.tree else None)  # a notebook's "" is none
        object.__setattr__(self, "metrics", tuple(self.metrics))
        check_fields(self)

    @property
    def plans(self) -> Mapping[str, Plan]:
        """The plans by the names or files that were given. Errors: `InvalidInput`."""
        return plans_of(self.plan)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> NightlySpec:
        """A spec from plain values, the limits as limit_instructions, limit_wall and limit_memory."""
        limits = {item.name: values[f"limit_{item.name}"] for item in fields(Limits) if f"limit_{item.name}" in values}
        rest = {name: value for name, value in values.items() if not name.startswith("limit_")}
        return cls(**rest, limits=Limits(**limits))


@dataclass(frozen=True, kw_only=True)
class NightlyResult:
    """A judged night: its series, and the runs that were not whole (in words, with the ends of their logs)."""

    night: str
    plan: str
    host_class: str
    nights: int
    series: tuple[Series, ...]
    failures: tuple[str, ...]
    set_aside: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """The worst that this night has, a code: failed_runs, worse, better, no_change, or baseline_recorded."""
        verdicts = {one.verdict for one in self.series}
        if self.failures or Verdict.NO_VALUES in verdicts or not self.series:
            return _FAILED_RUNS
        if self.nights == 1:
            return _BASELINE
        worst = next((one for one in (Verdict.WORSE, Verdict.BETTER) if one in verdicts), Verdict.NO_CHANGE)
        return worst.value

    @property
    def passed(self) -> bool:
        """Whether nobody has to look at it now."""
        return self.verdict not in (_FAILED_RUNS, Verdict.WORSE)

    def sentences(self) -> list[str]:
        """The verdict for people, the first line alone says it all."""
        lines = [one.text() for one in self.series if one.verdict in _SHOWN]
        if self.failures:
            lines.insert(0, f"{len(self.failures)} runs were not whole; the first: {self.failures[0].splitlines()[0]}")
        unsteady = [one for one in self.series if one.exact and one.nights and not one.nights[-1].repeats]
        lines += [
            f"DETERMINISM IS BROKEN: equal runs of {one.cell} gave different values of {one.metric} this night."
            for one in unsteady
        ]
        lines += [f"set aside, damaged: {name}" for name in self.set_aside]
        return [f"{self._verdict_text.upper()}: night {self.night}, {self._compared_with}.", *lines]

    @property
    def _verdict_text(self) -> str:
        codes = {_FAILED_RUNS: "failed runs", _BASELINE: "baseline recorded"}
        return codes.get(self.verdict) or night_text(Verdict(self.verdict))

    @property
    def _compared_with(self) -> str:
        series = f"{len(self.series)} series"
        if self.nights == 1:
            return f"{series} on {self.host_class}, the first night there: nothing was compared"
        return f"{series} over {self.nights} nights on {self.host_class}"

    def markdown(self) -> str:
        """The verdict for the page of a job: in a sentence, then what has to be looked at, then all series."""
        mark = "✅" if self.passed else "❌"
        first, *more = self.sentences()
        lines = [f"## {mark} {first}", "", *(f"* {_escaped(text)}" for text in more)]
        table = verdict_table(self.series)
        lines += ["", f"| {' | '.join(table.columns)} |", f"|{'---|' * len(table.columns)}"] if len(table) else []
        lines += [f"| {' | '.join(_escaped(str(cell)) for cell in row)} |" for row in table.itertuples(index=False)]
        return "\n".join(lines) + "\n"

    def as_dict(self) -> dict[str, Any]:
        """For machines (docs/nightly.md)."""
        return {
            "schema": SCHEMA,
            "night": self.night,
            "plan": self.plan,
            "host_class": self.host_class,
            "nights": self.nights,
            "verdict": self.verdict,
            "passed": self.passed,
            "sentences": self.sentences(),
            "markdown": self.markdown(),
            "failures": list(self.failures),
            "set_aside": list(self.set_aside),
            "series": [{**asdict(one), "ratio": one.ratio, "text": one.text()} for one in self.series],
        }


def _escaped(text: str) -> str:
    """Escape what Markdown or HTML would take as its own."""
    return re.sub(r"([\\|*_`<>\[\]])", r"\\\1", " ".join(text.split()))


def measure(
    spec: NightlySpec,
    *,
    chosen: Sequence[Plan] = (),
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> list[pd.DataFrame]:
    """Run the plans (`chosen`: in their place) and add their rows to the history; returns this night's rows of each.

    Errors: those of `Study.run`.
    """
    rows = []
    for one in chosen or tuple(spec.plans.values()):
        study = study_of(one, spec.history, session=spec.night)
        rows.append(study.run(on_progress=on_progress, cancel=cancel))
        study.store.compact(study.experiment.kind)
    return rows


def plans_of(text: str) -> Mapping[str, Plan]:
    """The plans of a night by the names or files that name them, with commas between. Errors: `InvalidInput`."""
    sources = tuple(filter(None, (word.strip() for word in text.split(","))))
    loaded = {source: load(source) for source in sources}
    names = [one.name for one in loaded.values()]
    if not names or len(set(names)) < len(names):
        raise InvalidInput("plan", text, "names no plan, or one twice", hint="such as quick,tour")
    return loaded


def rows_of(history: Path, chosen: Plan) -> pd.DataFrame:
    """The rows of all nights of a plan. Errors: `InvalidInput` for a history that is not there."""
    if not history.is_dir():
        raise InvalidInput("history", history, "is not a folder", hint="acon-nb bench nightly measures a night into it")
    return results.load(history, chosen.study, chosen.name)


def judge(spec: NightlySpec, rows: Mapping[str, pd.DataFrame] | None = None) -> NightlyResult:
    """Judge the night that is in the history against those before it.

    `rows` are those of each plan (by its source), if they have been read. Errors: `InvalidInput` for a night that is
    not there.
    """
    judged = [
        _judge(spec, chosen, rows_of(spec.history, chosen) if rows is None else rows[source])
        for source, chosen in spec.plans.items()
    ]
    return NightlyResult(
        night=spec.night,
        plan=", ".join(one.plan for one in judged),
        host_class=judged[-1].host_class,
        nights=max(one.nights for one in judged),
        series=tuple(series for one in judged for series in one.series),
        failures=tuple(text for one in judged for text in one.failures),
        set_aside=tuple(dict.fromkeys(name for one in judged for name in one.set_aside)),
    )


def _judge(spec: NightlySpec, chosen: Plan, rows: pd.DataFrame) -> NightlyResult:
    """Judge what a night measured of one plan; `rows` are those of all nights."""
    tonight = rows[rows["session"] == spec.night] if not rows.empty else rows
    if tonight.empty:
        names = ", ".join(dict.fromkeys(rows["session"])) if not rows.empty else "none yet"
        where = f"is not in {spec.history} for the plan {chosen.name}"
        raise InvalidInput("night", spec.night, where, hint=f"one of: {names[-300:]}")
    until = rows[rows["timestamp"] <= tonight["timestamp"].max()]
    known = kind(chosen.study)
    series = series_of(
        until, spec.metrics or known.followed, nights=spec.nights, limits=spec.limits, accepted=spec.accepted
    )
    here = until[until["host_class"] == tonight["host_class"].iloc[-1]]
    failures = () if known.failures_are_results else tables.failures(tonight, spec.history)
    return NightlyResult(
        night=spec.night,
        plan=chosen.name,
        host_class=str(tonight["host_class"].iloc[-1]),
        nights=min(spec.nights, here["session"].nunique()),
        series=tuple(replace(one, plan=chosen.name) for one in series),
        failures=tuple(failures),
        set_aside=tuple(rows.attrs["set_aside"]),
    )


def write(result: NightlyResult, path: Path, bisections: Sequence[Mapping[str, Any]] = ()) -> Path:
    """Write the summary for machines as JSON, with what is known of the regressions' commits."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps({**result.as_dict(), "bisections": list(bisections)}, indent=1) + "\n")
    return path


def read(path: Path) -> dict[str, Any]:
    """A summary that `write` wrote. Errors: `InvalidInput` for what is none."""
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InvalidInput(
            "summary", path, f"is not the summary of a night: {error}", hint="run the night first"
        ) from error
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise InvalidInput("summary", path, "is not the summary of a night", hint="run the night first")
    return data
