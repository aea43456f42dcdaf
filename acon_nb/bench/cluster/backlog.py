"""The runs of a study that are still to do, in the plan's order, made as they are asked for.

Guests on the wall clock come first, then the counted ones, as on one host. A run that must be done again comes before
all others, on another host than those where it failed, if there is one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

from acon_nb.bench.plan import Plan, Turn
from acon_nb.bench.runner import is_due, turn_key
from acon_nb.vm import Clock


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run to do: its turn, its key by content, and the hosts where it failed.

    `attempt` counts from its first one ever, `tries` from the first of this driver.
    """

    turn: Turn
    clock: Clock
    key: str
    attempt: int = 1
    tries: int = 1
    failed_on: frozenset[str] = field(default_factory=frozenset)

    def again(self, host: str) -> Job:
        """The next attempt, elsewhere."""
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
    """All runs of a plan on hosts of a class, those of the wall clock first; clocks and identities are the cells'."""
    settings = plan.settings
    for wanted in (Clock.WALL, Clock.INSTRUCTIONS):
        if wanted not in clocks:
            continue
        for turn in plan.turns():
            number, clock = turn.setting, clocks[turn.setting]
            if clock is wanted and is_due(turn, clock):
                key = turn_key(kind, settings[number], identities[number], turn, clock, session, host_class)
                yield Job(turn=turn, clock=clock, key=key)


class Backlog:
    """What is left to do of `jobs`."""

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
        """Whether a run waits to be done again."""
        return bool(self._again)

    def put_back(self, job: Job) -> None:
        """A run must be done again."""
        self._again.append(job)

    def take(self, host: str, others: Collection[str], fits: Callable[[Clock], bool]) -> Job | None:
        """The next run for a host, if `fits` its clock now; `others` are the hosts that could take one as well.

        A host that has counted guests takes no more of them while a run on the wall clock waits for it to be idle.
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
