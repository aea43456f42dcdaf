"""The search for the commit that changed a number: `git bisect`'s order over the history, with exact numbers.

A commit whose value is nearer to the bad end's than to the good end's counts as bad, any other as good: between the two
lie the other commits' own, smaller changes, and what is found is the one that crosses the middle.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from acon_nb.errors import AconError, CannotTell, InvalidInput
from acon_nb.progress import CancelToken, OnProgress, Progress, silent

_MOST_NAMED = 12


class Untestable(AconError):
    """A commit that gives no number, such as one that does not build."""


class History(Protocol):
    """What is needed of a repository (`kernel.git.repository.Repository`)."""

    @property
    def path(self) -> Path:
        """Its folder."""
        ...

    def is_ancestor(self, older: str, newer: str) -> bool:
        """Whether a commit is in the history of another one."""
        ...

    def first_parent(self, commit: str) -> str:
        """The first parent of a commit."""
        ...

    def subject(self, commit: str) -> str:
        """The first line of a commit's message."""
        ...

    def halves(self, bad: str, goods: Sequence[str]) -> list[str]:
        """The commits that may be the cause, those that halve them best first."""
        ...


@dataclass(frozen=True, kw_only=True)
class Cause:
    """The commit that changed a number: the number in its first parent and in itself.

    `tried` are the commits that were measured between the ends, in their order, `skipped` those of them that gave no
    number, with the reason. `good_value` and `bad_value` are those of the two ends.
    """

    commit: str
    before: float
    after: float
    good_value: float
    bad_value: float
    tried: tuple[str, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)


def find(
    history: History,
    good: str,
    bad: str,
    measure: Callable[[str], float],
    *,
    is_equal: Callable[[float, float], bool] = lambda good, bad: good == bad,
    on_progress: OnProgress = silent,
    cancel: CancelToken | None = None,
) -> Cause:
    """Find the commit between two at which `measure(commit)` changes.

    `measure` raises `Untestable` for a commit to skip; at one of the ends, that is an error.
    Errors: `InvalidInput` (`good` is not in the history of `bad`), `CannotTell` (the ends are equal, or all commits
    that are left were skipped), `Cancelled`, those of `measure`.
    """
    if good == bad or not history.is_ancestor(good, bad):
        reason = "is the bad commit" if good == bad else f"is not in the history of the bad commit {bad[:12]}"
        hint = f"take the commit that git -C {history.path} merge-base GOOD BAD prints"
        raise InvalidInput("good", good[:12], reason, hint=hint)
    on_progress(Progress("bisect", 0.0, "the good end"))
    good_value = measure(good)
    on_progress(Progress("bisect", 0.0, "the bad end"))
    bad_value = measure(bad)
    if is_equal(good_value, bad_value):
        what = f"cannot tell: {good[:12]} and {bad[:12]} are equal ({good_value:.15g} and {bad_value:.15g})"
        raise CannotTell(what, hint="take another metric, other ends, or a smaller limit")
    values = {good: good_value, bad: bad_value}
    goods, tried, skipped = [good], list[str](), dict[str, str]()
    first = len(history.halves(bad, goods))
    while True:
        left = [commit for commit in history.halves(bad, goods) if commit != bad]
        if not left:
            break
        if cancel is not None:
            cancel.check()
        commit = _next(left, skipped)
        if commit is None:
            raise _all_skipped(history, [bad, *left], skipped)
        text = f"{len(left) + 1} of {first} commits left, about {len(left).bit_length()} builds"
        on_progress(Progress("bisect", 1 - (len(left) + 1) / (first + 1), text))
        tried.append(commit)
        try:
            values[commit] = measure(commit)
        except Untestable as error:
            skipped[commit] = error.what
            continue
        if abs(values[commit] - bad_value) < abs(values[commit] - good_value):
            bad = commit
        else:
            goods.append(commit)
    on_progress(Progress("bisect", 1.0, bad[:12]))
    return Cause(
        commit=bad,
        before=_before(history, bad, values, measure, goods[-1]),
        after=values[bad],
        good_value=good_value,
        bad_value=bad_value,
        tried=tuple(tried),
        skipped=skipped,
    )


def _next(left: Sequence[str], skipped: Mapping[str, str]) -> str | None:
    """The commit to try: the one that halves the rest best, or, after a skip, one away from it.

    Commits that do not build come in rows. Like git bisect, the search then jumps by a random share of what is left,
    towards the better ones (bisect.c, skip_away); the number depends only on what is left.
    """
    open_ones = [commit for commit in left if commit not in skipped]
    if not open_ones or left[0] not in skipped:
        return next(iter(open_ones), None)
    # The share is a random number to the power of 1.5.
    up_to = [number ** (2 / 3) for number in range(1, len(open_ones) + 1)]
    return random.Random(f"{left[0]} {len(open_ones)}").choices(open_ones, cum_weights=up_to)[0]


def _before(
    history: History, commit: str, values: Mapping[str, float], measure: Callable[[str], float], nearest: str
) -> float:
    """The value of a commit's first parent; of the last good commit where that one gives none."""
    parent = history.first_parent(commit)
    try:
        return values[parent] if parent in values else measure(parent)
    except Untestable:
        return values[nearest]


def _all_skipped(history: History, commits: Sequence[str], skipped: Mapping[str, str]) -> CannotTell:
    rows = [f"{commit[:12]} {history.subject(commit)}" for commit in commits[:_MOST_NAMED]]
    if len(commits) > _MOST_NAMED:
        rows.append(f"and {len(commits) - _MOST_NAMED} more")
    reason = next((skipped[commit] for commit in commits if commit in skipped), "")
    what = f"cannot tell which of {len(commits)} commits it is: the others among them gave no number"
    return CannotTell(what, details=rows, hint=f"the first reason: {reason}")
