"""`acon-nb bench bisect`: the commit that changed a number, found without statistics (docs/series.md)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from acon_nb.cache import Cache, atomic_file, key_of, sha256_file
from acon_nb.changes import functions, measure, search
from acon_nb.changes.builds import CommitBuilds, with_options
from acon_nb.changes.functions import CountChange, KernelChange
from acon_nb.errors import BuildFailed, GuestFailed, InvalidInput, KernelConfigError
from acon_nb.kernel import requested_options
from acon_nb.kernel.git.repository import Repository, open_repository
from acon_nb.kernel.toolchain import GCC
from acon_nb.progress import CancelToken, OnProgress, Progress, silent
from acon_nb.results import Store
from acon_nb.validation import check_fields
from acon_nb.vm import capabilities

_KIND = "bisect"
_STATE = "bisect.json"
_RowOf = Callable[[str, bool], Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class BisectSpec:
    """What to look for: the commit between `good` and `bad` of the git tree `tree` that changed the column `metric`.

    `limit` is the difference that does not matter, in the column's unit or as a share ("1%"; "": none, the clock is
    exact). `plan` and `cell` say what is measured (default: a boot of the guide's kernel); `profile` (names with
    commas), `settings` (OPT=VAL) and `config` take the place of the cell's kernel options. `out` keeps the rows and the
    state (default: the user cache).
    Errors: `InvalidInput` at construction.
    """

    tree: Path
    good: str
    bad: str
    metric: str
    limit: str = ""
    plan: str = ""
    cell: str = ""
    profile: str = ""
    settings: tuple[str, ...] = ()
    config: Path | None = None
    out: Path | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        build = self.measured.build
        requested_options(build.profiles, (0, 0), settings=build.settings)  # refuse names that do not exist
        self.is_equal(0.0, 1.0)

    @property
    def measured(self) -> measure.CellMeasure:
        """The cell and its column, with the kernel options of the spec."""
        one = measure.of_plan(self.metric, self.plan, self.cell)
        return replace(one, build=with_options(one.build, self.profile, self.settings, self.config))

    def is_equal(self, good: float, bad: float) -> bool:
        """Whether the two ends do not differ by more than the limit."""
        text = self.limit.strip()
        try:
            number = float(text.removesuffix("%") or "0")
        except ValueError:
            number = -1.0
        if not 0 <= number < float("inf"):
            raise InvalidInput("limit", self.limit, "is not a difference", hint="such as 1000 or 0.5%")
        return abs(bad - good) <= (abs(good) * number / 100 if text.endswith("%") else number)


@dataclass(frozen=True, kw_only=True)
class Bisection:
    """The commit that was found, its subject, the number before and after it, and what was done to find it.

    `builds` counts the commits that were built between the two ends, which are built and measured in addition;
    `skipped` are those of them that gave no number, with the reason. The profiles of the commit and the one before
    differ by `change` instructions: `functions` are those that differ most, `others` the sum of all others, `layout`
    and `timing` are instructions more that no function's source asks for.
    """

    commit: str
    subject: str
    metric: str
    before: float
    after: float
    builds: int
    good: str
    bad: str
    good_value: float
    bad_value: float
    skipped: Mapping[str, str]
    functions: Sequence[CountChange]
    others: int
    layout: int
    timing: int
    change: int
    text: str

    def values(self) -> dict[str, Any]:
        """The bisection as values for JSON; whole numbers as such."""
        row = {name: value for name, value in asdict(self).items() if name != "text"}
        return {name: _whole(value) for name, value in row.items()}


def bisect(
    spec: BisectSpec,
    *,
    row_of: _RowOf | None = None,
    cache: Cache | None = None,
    jobs: int | None = None,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> Bisection:
    """Find the commit that changed a number; one that was interrupted resumes where it was.

    Both ends are measured first; equal ones are refused. A commit that does not build or boot is skipped. `row_of`
    gives the row of a commit, with its profile or not, in place of a build and a guest; `jobs` are the compilers at a
    time.
    Errors: those of `open_repository` and `search.find`; those of a build or a guest at one of the ends.
    """
    repository = open_repository(spec.tree)
    good, bad = repository.commit(spec.good, field="good"), repository.commit(spec.bad, field="bad")
    store = cache or Cache()
    measured = spec.measured
    identity = _identity(spec.metric, measured, repository, (good, bad))
    folder = spec.out or store.workdir(_KIND, identity)
    if row_of is None:
        builds = CommitBuilds(repository=repository, spec=measured.build, cache=store, jobs=jobs)
        row_of = _Measurements(measured=measured, builds=builds, rows=Store(folder)).of(good, on_progress, cancel)
    session = _Session(measured, row_of, folder / _STATE, key_of(identity), (good, bad), on_progress)
    cause = search.find(
        repository, good, bad, session.value, is_equal=spec.is_equal, on_progress=on_progress, cancel=cancel
    )
    parent = repository.first_parent(cause.commit)
    changes = session.functions(parent, cause.commit)
    return Bisection(
        commit=cause.commit,
        subject=repository.subject(cause.commit),
        metric=spec.metric,
        before=cause.before,
        after=cause.after,
        builds=len(cause.tried),
        good=good,
        bad=bad,
        good_value=cause.good_value,
        bad_value=cause.bad_value,
        skipped=cause.skipped,
        functions=changes.functions,
        others=changes.others,
        layout=changes.layout,
        timing=changes.timing,
        change=changes.change,
        text=measured.text(cause.before, cause.after),
    )


def text_of(answer: Bisection) -> str:
    """A bisection for people."""
    lines = [f"{answer.commit[:12]} {answer.subject}", f"{answer.metric}: {answer.text}"]
    lines.append(f"{answer.builds} builds between {answer.good[:12]} and {answer.bad[:12]}")
    lines += [f"skipped {commit[:12]}: {reason}" for commit, reason in answer.skipped.items()]
    lines += functions.table(answer.functions)
    if answer.others:
        lines.append(f"{answer.others:+,} instructions by other functions")
    if answer.layout:
        lines.append(f"{answer.layout:+,} instructions of layout: the compiler's, the linker's, the image's bytes")
    if answer.timing:
        lines.append(f"{answer.timing:+,} instructions of timing: of when ticks came, and of how long waits took")
    return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class _Measurements:
    """Builds a commit's kernel and measures the cell with it."""

    measured: measure.CellMeasure
    builds: CommitBuilds
    rows: Store

    def of(
        self, first: str, on_progress: OnProgress, cancel: CancelToken | None
    ) -> Callable[[str, bool], Mapping[str, Any]]:
        """A function of commits; with the kernel of `first` it is checked that the number is exact."""

        def row(commit: str, profile: bool) -> Mapping[str, Any]:
            image = self.builds.image(commit, on_progress=on_progress, cancel=cancel).image
            if commit == first and not profile:
                self.measured.check_exact(image, self.rows, on_progress=on_progress, cancel=cancel)
            return self.measured.row(image, self.rows, profile=profile, on_progress=on_progress, cancel=cancel)

        return row


class _Session:
    """Measures commits, each once: what is known of them is in a file, which an interrupted search resumes from."""

    def __init__(
        self,
        measured: measure.CellMeasure,
        row_of: _RowOf,
        path: Path,
        key: str,
        ends: tuple[str, str],
        on_progress: OnProgress,
    ) -> None:
        self._measured = measured
        self._row_of = row_of
        self._path = path
        self._key = key
        self._ends = ends
        self._on_progress = on_progress
        self._known = self._read()

    def value(self, commit: str) -> float:
        """The number of a commit. Errors: `Untestable`, at an end the error itself."""
        known = self._known.get(commit, {})
        if "value" in known:
            return float(known["value"])
        if commit not in self._ends:
            if "skipped" in known:
                raise search.Untestable(str(known["skipped"]))
            try:
                return self._measure(commit)
            except (BuildFailed, KernelConfigError, GuestFailed, InvalidInput) as error:
                self._on_progress(Progress("bisect", None, f"skip {commit[:12]}: {error.what}", is_log=True))
                self._keep(commit, {"skipped": error.what})
                raise search.Untestable(error.what) from error
        return self._measure(commit)

    def functions(self, before: str, after: str) -> KernelChange:
        """The functions that differ most between two commits, none where one of them gives no row."""
        rows = []
        for commit in (before, after):
            if not commit or "value" not in self._known.get(commit, {}):
                return KernelChange()
            rows.append(self._row_of(commit, True))
        return functions.of_rows(*rows, last_phase=self._measured.last_phase)

    def _measure(self, commit: str) -> float:
        value = self._measured.value(self._row_of(commit, False))
        self._keep(commit, {"value": value})
        return value

    def _read(self) -> dict[str, dict[str, Any]]:
        """What is known of commits; nothing where the file is of another search, or damaged."""
        try:
            state = json.loads(self._path.read_text())
            return dict(state["commits"]) if state["key"] == self._key else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def _keep(self, commit: str, fact: Mapping[str, Any]) -> None:
        self._known[commit] = dict(fact)
        with atomic_file(self._path) as temporary:
            temporary.write_text(json.dumps({"key": self._key, "commits": self._known}, indent=1))


def _identity(
    metric: str, measured: measure.CellMeasure, repository: Repository, ends: tuple[str, str]
) -> dict[str, Any]:
    """What a search is made of: the key of its state."""
    build = measured.build
    return {
        "repository": str(repository.common),
        "prefix": repository.prefix,
        "ends": list(ends),
        "metric": metric,
        "study": measured.plan.study,
        "levels": {name: str(level) for name, level in measured.levels.items()},
        "profiles": list(build.profiles),
        "settings": list(build.settings),
        "config": sha256_file(build.config) if build.config else "",
        "compilers": GCC.versions(),
        "qemu": capabilities().version,
    }


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value
