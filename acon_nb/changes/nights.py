"""Nights of a kernel's git tree: each is of its commit, and a regression is bisected to the one that made it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acon_nb.analysis import nightly
from acon_nb.analysis.history import Change, Series
from acon_nb.analysis.nightly import NightlyResult, NightlySpec
from acon_nb.changes.bisection import Bisection, BisectSpec, bisect, text_of
from acon_nb.errors import AconError, Cancelled, InvalidInput
from acon_nb.kernel.git.repository import open_repository
from acon_nb.progress import CancelToken, OnProgress, Progress, silent
from acon_nb.stats.comparison import Verdict
from acon_nb.study.plan import Plan
from acon_nb.vm import Clock

if TYPE_CHECKING:
    import pandas as pd

_SOURCE, _KERNEL, _BUILD = "source", "kernel", "build"
_COMMIT = re.compile(r".*#([0-9a-f]{40,64})")


@dataclass(frozen=True, kw_only=True)
class NightBisection:
    """A regression of a night, and the commit that made it; `reason` says why there is none."""

    cell: str
    metric: str
    night: str
    answer: Bisection | None = None
    reason: str = ""

    def text(self) -> str:
        """The bisection for people."""
        answer = f"not bisected: {self.reason}" if self.answer is None else text_of(self.answer)
        return f"{self.cell}, {self.metric}, since the night {self.night}: {answer}"

    def values(self) -> dict[str, Any]:
        """The bisection as values for JSON."""
        answer = None if self.answer is None else self.answer.values()
        return {
            "cell": self.cell, "metric": self.metric, "night": self.night, "answer": answer, "reason": self.reason,
            "text": self.text(),
        }  # fmt: skip


def measure(
    spec: NightlySpec, *, on_progress: OnProgress = silent, cancel: CancelToken | None = None
) -> list[pd.DataFrame]:
    """Measure a night as `nightly.measure` does; with a git tree, its kernels are those of the tree's `commit`.

    Errors: those of `plans_of` and of `nightly.measure`.
    """
    return nightly.measure(spec, chosen=plans_of(spec), on_progress=on_progress, cancel=cancel)


def plans_of(spec: NightlySpec) -> tuple[Plan, ...]:
    """The plans of a night; with a git tree, their kernels are built of the tree's commit.

    Errors: `InvalidInput` for a tree that is not a kernel's git tree, and for a plan that names a source of its own or
    builds no kernel.
    """
    if spec.tree is None:
        return tuple(spec.plans.values())
    return tuple(_of_tree(spec, spec.tree, chosen) for chosen in spec.plans.values())


def _of_tree(spec: NightlySpec, tree: Path, chosen: Plan) -> Plan:
    repository = open_repository(tree)
    commit = repository.commit(spec.commit, field="commit")
    own = [row.levels.get(_SOURCE) for row in chosen.all_cells if _SOURCE in row.levels]
    if own:
        raise InvalidInput("tree", tree, f"and the plan {chosen.name} names a source, {own[0]}", hint="omit one")
    if all(row.levels.get(_KERNEL, _BUILD) != _BUILD for row in chosen.all_cells):
        raise InvalidInput("tree", tree, f"is not needed: {chosen.name} builds no kernel", hint="omit it")
    if repository.prefix:
        raise InvalidInput("tree", tree, "is a folder of a git tree", hint="give the top of the kernel's own tree")
    return replace(chosen, fixed={**chosen.fixed, _SOURCE: f"{tree.resolve()}#{commit}"})


def bisections(
    spec: NightlySpec,
    result: NightlyResult,
    *,
    bisect_with: Callable[[BisectSpec], Bisection] | None = None,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> list[NightBisection]:
    """Bisect each regression of the instruction clock between the commits of its night and the night before.

    None without a git tree. Wall-clock cells are never bisected. A bisection that was stopped resumes. One that cannot
    be made has a reason in place of an answer, as for a regression that came with another compiler. `bisect_with` takes
    the place of `bisect`. Errors: `Cancelled`.
    """
    if spec.tree is None:
        return []
    sources = {chosen.name: (source, chosen) for source, chosen in spec.plans.items()}
    run = bisect_with or (lambda one: bisect(one, on_progress=on_progress, cancel=cancel))
    worse = [one for one in result.series if one.verdict is Verdict.WORSE and one.clock == Clock.INSTRUCTIONS]
    done = []
    for one in worse:
        step = max(one.changes, key=lambda change: abs(change.ratio - 1))
        on_progress(Progress("bisect", None, f"{one.cell}, {one.metric}, since the night {step.night}"))
        source, chosen = sources[one.plan]
        rows = nightly.rows_of(spec.history, chosen)
        done.append(_bisected(replace(spec, plan=source), one, step, rows, run))
    return done


def _bisected(
    spec: NightlySpec, one: Series, step: Change, rows: pd.DataFrame, run: Callable[[BisectSpec], Bisection]
) -> NightBisection:
    bisection = NightBisection(cell=one.cell, metric=one.metric, night=step.night)
    nights = [night.night for night in one.nights]
    before = nights[nights.index(step.night) - 1]
    good, bad = (_commit_of(rows, night, one.cell) for night in (before, step.night))
    assert spec.tree is not None
    if not good or not bad:
        return replace(
            bisection, reason=f"the kernel of the night {before if not good else step.night} is of no git tree"
        )
    if good == bad:
        also = "; ".join(step.also) or "nothing that is recorded"
        return replace(bisection, reason=f"both nights have the commit {good[:12]}; also changed then: {also}")
    try:
        answer = run(BisectSpec(tree=spec.tree, good=good, bad=bad, metric=one.metric, plan=spec.plan, cell=one.cell))
    except Cancelled:
        raise
    except AconError as error:
        return replace(bisection, reason=str(error))
    return replace(bisection, answer=answer)


def _commit_of(rows: pd.DataFrame, night: str, cell: str) -> str:
    """The commit of a cell's kernel in a night; "" where it was built of something else."""
    column = f"factor_{_SOURCE}"
    if column not in rows:
        return ""
    sources = rows.loc[(rows["session"] == night) & (rows["cell"] == cell), column].dropna().astype(str)
    match = _COMMIT.fullmatch(sources.iloc[-1]) if len(sources) else None
    return match[1] if match else ""
