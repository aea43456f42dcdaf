"""The runs of a study that are still to be done, in the plan's order, generated on demand.

Guests on the wall clock come first, then the counted ones, as on one host. A run that must be repeated comes before
all others, on a host where it has not failed yet, if there is one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

from acon_nb.study.plan import Plan, PlannedRun
from acon_nb.study.runner import is_due, run_key
from acon_nb.vm import Clock


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run to do: its place in the plan, its key by content, and the hosts where it failed.

    `attempt` counts all attempts, `tries` those of this driver.
    """

    planned: PlannedRun
    clock: Clock
    key: str
    attempt: int = 1
    tries: int = 1
    failed_on: frozenset[str] = field(default_factory=frozenset)

    def again(self, host: str) -> Job:
        """Return the next attempt, after a failure on `host`."""
        return replace(self, attempt=self.attempt + 1, tries=self.tries + 1, failed_on=self.failed_on | {host})


def jobs_of(
    plan: Plan,
    clocks: Sequence[Clock],
    identities: Sequence[str],
    *,
    kind: str,
    session: str,
    host_class: str,
) -> Iterator[Job]:
    """Yield all runs of a plan on hosts of a class, those of the wall clock first.

    `clocks` and `identities` have one item per cell.
    """
    cells = plan.all_cells
    for wanted in (Clock.WALL, Clock.INSTRUCTIONS):
        if wanted not in clocks:
            continue
        for planned in plan.schedule():
            number, clock = planned.cell, clocks[planned.cell]
            if clock is wanted and is_due(planned, clock):
                key = run_key(kind, cells[number], identities[number], planned, clock, session, host_class)
                yield Job(planned=planned, clock=clock, key=key)


class Backlog:
    """The part of `jobs` that is still to be done."""

    def __init__(self, jobs: Iterator[Job]) -> None:
        self._jobs = jobs
        self._again: deque[Job] = deque()
        self._next: Job | None = next(jobs, None)

    @property
    def empty(self) -> bool:
        """Whether nothing is left."""
        return self._next is None and not self._again

    @property
    def has_again(self) -> bool:
        """Whether a run is waiting to be repeated."""
        return bool(self._again)

    def put_back(self, job: Job) -> None:
        """Add a run that must be repeated."""
        self._again.append(job)

    def take(self, host: str, others: Collection[str], fits: Callable[[Clock], bool]) -> Job | None:
        """Remove and return the next run for a host, if its clock `fits` now; `others` are the hosts that take runs.

        A host that runs counted guests takes no more of them while a run on the wall clock waits for it to become idle.
        """
        for number, job in enumerate(self._again):
            if host in job.failed_on and not job.failed_on.issuperset(others):
                continue
            if not fits(job.clock):
                return None
            del self._again[number]
            return job
        if self._next is None or not fits(self._next.clock):
            return None
        job, self._next = self._next, next(self._jobs, None)
        return job
