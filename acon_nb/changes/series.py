"""`acon-nb bench series`: what a series of patches changes, in the guests of a fixed suite (docs/series.md)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import acon_nb
from acon_nb import kernel
from acon_nb.cache import Cache, sha256_file
from acon_nb.changes import suite, verdict
from acon_nb.changes.builds import CommitBuilds, with_options
from acon_nb.changes.patches import PatchFile, read_folder, read_mbox
from acon_nb.changes.verdict import CellChange, SeriesVerdict
from acon_nb.errors import InvalidInput
from acon_nb.host import probe_qemu
from acon_nb.kernel import BuildSpec
from acon_nb.kernel.features import patches as profile_patches
from acon_nb.kernel.git.checkout import checked_out
from acon_nb.kernel.git.repository import Repository, open_repository
from acon_nb.kernel.toolchain import GCC
from acon_nb.progress import CancelToken, OnProgress, Progress, silent
from acon_nb.results import Store
from acon_nb.validation import OneOf, check_fields

_RANGE = re.compile(r"(?P<base>.*?[^.])\.\.(?P<head>[^.].*)", re.DOTALL)

Rows = Mapping[str, Mapping[str, Any]]
RowsOf = Callable[[Sequence[suite.SuiteCell], Sequence[Path]], Sequence[Rows]]


@dataclass(frozen=True, kw_only=True)
class SeriesSpec:
    """A series of patches: commits of a git tree (`commits` is BASE..HEAD), or patches from a mailbox or a folder.

    Patches apply to `source` (a kernel source such as debian:6.12), or to the commit that `commits` names of `tree`.
    `each` judges every patch, not the series alone. `profile` (names with commas), `settings` (OPT=VAL) and `config`
    take the place of the suite's kernel options. `out` keeps the rows (default: the user cache).
    Errors: `InvalidInput` at construction.
    """

    commits: str = ""
    tree: Path | None = None
    source: str = ""
    mbox: Path | None = None
    patches: Path | None = None
    suite: Annotated[str, OneOf(suite.suites())] = "quick"
    each: bool = False
    profile: str = ""
    settings: tuple[str, ...] = ()
    config: Path | None = None
    out: Path | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.mbox is not None and self.patches is not None:
            raise InvalidInput("patches", self.patches, "cannot be combined with mbox", hint="give one of the two")
        if self.with_patches:
            self._check_patches()
        elif self.tree is None:
            raise InvalidInput("tree", None, "is missing", hint="a git tree, or mbox or patches with a source")
        elif self.source:
            raise InvalidInput("source", self.source, "is for patches", hint="omit it, or give mbox or patches")
        else:
            _ = self.ends
        build = self.build
        kernel.requested_options(build.profiles, (0, 0), settings=build.settings)

    @property
    def with_patches(self) -> bool:
        """Whether the series is one of patches."""
        return self.mbox is not None or self.patches is not None

    @property
    def ends(self) -> tuple[str, str]:
        """The names of the base and the head of a range. Errors: `InvalidInput`."""
        match = _RANGE.fullmatch(self.commits)
        if match is None:
            raise InvalidInput("commits", self.commits, "is not a range", hint="BASE..HEAD, such as v6.12..topic")
        return match["base"], match["head"]

    @property
    def build(self) -> BuildSpec:
        """The options of the kernels."""
        return with_options(suite.build_spec(self.suite), self.profile, self.settings, self.config)

    def _check_patches(self) -> None:
        if self.tree is None and not self.source:
            raise InvalidInput("source", self.source, "is missing", hint="debian:6.12, or tree with a commit")
        if self.tree is not None and (self.source or not self.commits or ".." in self.commits):
            hint = "give tree and BASE, one commit, or source alone"
            raise InvalidInput("commits", self.commits, "is not the commit that the patches apply to", hint=hint)
        if self.tree is None and self.commits:
            raise InvalidInput("commits", self.commits, "needs a tree", hint="give tree, or omit it")


@dataclass(frozen=True, kw_only=True)
class SeriesStep:
    """A kernel of a series: what names it, its subject, its commit ("": of a source), and the patches on it."""

    name: str
    subject: str
    commit: str = ""
    patches: tuple[PatchFile, ...] = ()


@dataclass(frozen=True, kw_only=True)
class StepChange:
    """What one patch changes: the step that it leads to, and each cell compared with the step before."""

    step: SeriesStep
    verdict: SeriesVerdict
    cells: tuple[CellChange, ...]


@dataclass(frozen=True, kw_only=True)
class SeriesReport:
    """What a series changes: each cell at its head compared with its base; with `each`, what each patch changes.

    `environment` has what the numbers depend on, by name. `same_image`: the kernels are the same byte for byte.
    """

    suite: str
    verdict: SeriesVerdict
    base: SeriesStep
    head: SeriesStep
    count: int
    cells: tuple[CellChange, ...]
    each: tuple[StepChange, ...]
    environment: Mapping[str, str]
    same_image: bool

    def values(self) -> dict[str, Any]:
        """The report as values for JSON."""
        return {
            "verdict": self.verdict.value,
            "suite": self.suite,
            "base": {"name": self.base.name, "subject": self.base.subject},
            "head": {"name": self.head.name, "subject": self.head.subject},
            "patches": self.count,
            "cells": [cell.values() for cell in self.cells],
            "each": [
                {
                    "name": one.step.name,
                    "subject": one.step.subject,
                    "verdict": one.verdict.value,
                    "cells": [cell.values() for cell in one.cells],
                }
                for one in self.each
            ],
            "environment": dict(self.environment),
            "same_image": self.same_image,
        }


def judge(
    spec: SeriesSpec,
    *,
    image_of: Callable[[SeriesStep], Path] | None = None,
    rows_of: RowsOf | None = None,
    cache: Cache | None = None,
    jobs: int | None = None,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> SeriesReport:
    """Build the kernels of a series, run the suite with each, and compare. One that was stopped resumes.

    `image_of` builds a step and `rows_of` measures kernels, in place of builds and guests; `jobs` are the compilers at
    a time.
    Errors: `InvalidInput` (as for a patch that does not apply, by its name), those of builds and guests, `Cancelled`.
    """
    store = cache or Cache()
    repository = open_repository(spec.tree) if spec.tree is not None else None
    steps = _steps(spec, repository, store)
    if spec.with_patches and image_of is None:
        _check_applies(spec, repository, steps[-1], store, on_progress, cancel)
    build_step = image_of or _builder(spec, repository, store, jobs, on_progress, cancel)
    shown = steps if spec.each else (steps[0], steps[-1])
    images = []
    for number, step in enumerate(shown):
        on_progress(Progress("series", number / (len(shown) + 1), f"build {step.name}: {step.subject}"))
        images.append(build_step(step))
    digests = [sha256_file(image) for image in images]
    chosen = suite.cells(spec.suite)
    different = dict(zip(digests, images, strict=True))
    rows: dict[str, Rows] = {}
    if len(different) > 1:
        out = Store(spec.out or store.workdir("series", {"suite": spec.suite}))
        measure = rows_of or (
            lambda cells, kernels: suite.rows_of(cells, kernels, out, on_progress=on_progress, cancel=cancel)
        )
        rows = dict(zip(different, measure(chosen, tuple(different.values())), strict=True))
    on_progress(Progress("series", 1.0))

    def changes(before: int, after: int) -> tuple[CellChange, ...]:
        if digests[before] == digests[after]:
            return verdict.same(chosen)
        return verdict.compare(chosen, rows[digests[before]], rows[digests[after]])

    pairs = [(step, changes(number, number + 1)) for number, step in enumerate(shown[1:])] if spec.each else []
    cells = changes(0, len(shown) - 1)
    return SeriesReport(
        suite=spec.suite,
        verdict=verdict.whole(cells),
        base=steps[0],
        head=steps[-1],
        count=len(steps) - 1,
        cells=cells,
        each=tuple(StepChange(step=step, verdict=verdict.whole(one), cells=one) for step, one in pairs),
        environment=_environment(spec),
        same_image=digests[0] == digests[-1],
    )


def _steps(spec: SeriesSpec, repository: Repository | None, store: Cache) -> tuple[SeriesStep, ...]:
    """The kernels of a series: its base, and one for each patch."""
    if spec.with_patches:
        return _patched_steps(spec, repository, store)
    assert repository is not None
    names = spec.ends
    base, head = (repository.commit(name, field="commits") for name in names)
    if base == head or not repository.is_ancestor(base, head):
        reason = "has no commit" if base == head else f"{names[0]} is not in the history of {names[1]}"
        raise InvalidInput("commits", spec.commits, reason, hint="BASE..HEAD, the base first: git rebase the series")
    commits = [base, *repository.between(base, head)]
    return tuple(SeriesStep(name=one[:12], subject=repository.subject(one), commit=one) for one in commits)


def _patched_steps(spec: SeriesSpec, repository: Repository | None, store: Cache) -> tuple[SeriesStep, ...]:
    if spec.mbox is not None:
        files = read_mbox(spec.mbox, cache=store)
    else:
        assert spec.patches is not None
        files = read_folder(spec.patches)
    if repository is None:
        base = SeriesStep(name=spec.source, subject="")
    else:
        commit = repository.commit(spec.commits, field="commits")
        base = SeriesStep(name=commit[:12], subject=repository.subject(commit), commit=commit)
    steps = [
        replace(base, name=f"patch {number}", subject=file.subject, patches=files[:number])
        for number, file in enumerate(files, 1)
    ]
    return (base, *steps)


def _builder(
    spec: SeriesSpec,
    repository: Repository | None,
    store: Cache,
    jobs: int | None,
    on_progress: OnProgress,
    cancel: CancelToken | None,
) -> Callable[[SeriesStep], Path]:
    """The function that builds a step."""

    def image(step: SeriesStep) -> Path:
        paths = tuple(patch.path for patch in step.patches)
        if repository is not None:
            builds = CommitBuilds(repository=repository, spec=spec.build, cache=store, jobs=jobs)
            return builds.image(step.commit, patches=paths, on_progress=on_progress, cancel=cancel).image
        one = replace(spec.build, source=spec.source, patches=paths)
        return kernel.build(one, cache=store, jobs=jobs, on_progress=on_progress, cancel=cancel).image

    return image


def _check_applies(
    spec: SeriesSpec,
    repository: Repository | None,
    last: SeriesStep,
    store: Cache,
    on_progress: OnProgress,
    cancel: CancelToken | None,
) -> None:
    """Apply all patches before anything is built. Errors: `InvalidInput` with the subject of one that fails."""
    paths = (*profile_patches(spec.build.profiles), *(patch.path for patch in last.patches))
    try:
        if repository is None:
            kernel.fetch(spec.source, patches=paths, cache=store, on_progress=on_progress, cancel=cancel)
            return
        with checked_out(repository, last.commit, patches=paths, cache=store, on_progress=on_progress, cancel=cancel):
            return
    except InvalidInput as error:
        of_profiles = [str(path) for path in profile_patches(spec.build.profiles)]
        if error.field == "patches" and str(error.value) in of_profiles:
            hint = "give profiles without this patch, such as --profile guide --suite boot"
            raise InvalidInput("profile", ",".join(spec.build.profiles), error.reason, hint=hint) from error
        patch = next((patch for patch in last.patches if str(patch.path) == str(error.value)), None)
        if error.field != "patches" or patch is None:
            raise
        raise InvalidInput("patches", patch.subject, error.reason, hint=error.hint) from error


def _environment(spec: SeriesSpec) -> dict[str, str]:
    """What the numbers depend on: QEMU, compiler, options."""
    qemu = probe_qemu()
    options = [*spec.build.profiles, *(["a .config"] if spec.config else []), *spec.settings]
    return {
        "guests": f"QEMU {qemu.version_text} (TCG), 1 vCPU, instruction clock",
        "compiler": GCC.versions()[0],
        "options": ", ".join(options),
        "tool": f"acon-nb {acon_nb.__version__}",
    }
