"""The driver's loop: sends runs to free hosts, writes their rows, and repeats lost runs on another host.

A run whose worker is gone, or whose host was at fault, becomes a row with that fault and is repeated, with three
attempts at most; a host with three faults in a row gets no more runs. An event costs the same in a study of any size.
"""

from __future__ import annotations

import contextlib
import queue
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from acon_nb.cache import sha256_file
from acon_nb.errors import AconError
from acon_nb.progress import CancelToken, OnProgress
from acon_nb.results.store import Store
from acon_nb.study.cluster import worker
from acon_nb.study.cluster.backlog import Backlog, Job, jobs_of
from acon_nb.study.cluster.hosts import Host
from acon_nb.study.cluster.membership import Joined, Left, Membership, join
from acon_nb.study.cluster.pool import Lost, Pool
from acon_nb.study.cluster.resume import Kept
from acon_nb.study.cluster.worker import Portable, Reply, Ticket
from acon_nb.study.faults import HostFault
from acon_nb.study.plan import Plan
from acon_nb.study.runner import ATTEMPTS, Measured, run_row
from acon_nb.study.state import Board
from acon_nb.vm import End, end_text

_POLL_S = 0.2
_STOP_S = 15.0
_GATHERED = 512
_TOGETHER = 256
_TOGETHER_S = 0.2


@dataclass(frozen=True, kw_only=True)
class _Sent:
    """A run that was sent to a worker at `at` (monotonic seconds)."""

    job: Job
    host: Host
    address: str
    at: float


@dataclass(frozen=True, kw_only=True)
class _Ended:
    """A run has ended."""

    handle: Any


@dataclass(kw_only=True)
class Dispatch:
    """Measures a study from one driver (parameters as in `ClusterStudy`; the experiment is prepared).

    `stored` is what the store had before. `keys` are those of all runs, once `run` has returned.
    """

    plan: Plan
    experiment: Portable
    store: Store
    session: str
    host_class: str
    pool: Pool
    membership: Membership
    stored: Kept
    board: Board
    patience_s: float
    on_progress: OnProgress
    stop: CancelToken
    keys: set[str] = field(init=False, default_factory=set)
    _id: str = field(init=False, default_factory=lambda: uuid.uuid4().hex)
    _events: queue.SimpleQueue[Joined | Left | _Ended] = field(init=False, default_factory=queue.SimpleQueue)
    _hosts: dict[str, Host] = field(init=False, default_factory=dict)
    _host_at: dict[str, Host] = field(init=False, default_factory=dict)
    _active: set[str] = field(init=False, default_factory=set)
    _sent: dict[Any, _Sent] = field(init=False, default_factory=dict)
    _digests: dict[Path, str] = field(init=False, default_factory=dict)
    _identities: list[str] = field(init=False, default_factory=list)
    _written: list[Path] = field(init=False, default_factory=list)
    _fresh: list[tuple[_Sent, Reply, dict[str, Any]]] = field(init=False, default_factory=list)
    _alone_since: float | None = field(init=False, default=None)

    def run(self) -> None:
        """Measure all runs that are not in the store. Errors: those of `ClusterStudy.run`."""
        for cell in self.plan.all_cells:
            self.stop.check()
            self._identities.append(self.experiment.identity(cell))
            for path in self.experiment.parts(cell).values():
                if path not in self._digests:
                    self._digests[path] = sha256_file(path)
        self._backlog = Backlog(self._left())
        if self._backlog.empty:
            return
        files = {digest: path for path, digest in self._digests.items()}
        try:
            self.membership.watch(files, self._events.put, on_progress=self.on_progress, cancel=self.stop)
            self.board.change(phase="running")
            self._tell()
            while not self._backlog.empty or self._sent:
                self.stop.check()
                self._step()
        finally:
            try:
                self._write()  # rows that arrived before another run raised an error
            finally:
                self.membership.close()
                self._end_all()

    def _left(self) -> Iterator[Job]:
        """Yield the runs that are not in the store, and count those that are."""
        jobs = jobs_of(
            self.plan,
            [self.experiment.clock(row) for row in self.plan.all_cells],
            self._identities,
            kind=self.experiment.kind,
            session=self.session,
            host_class=self.host_class,
        )
        for job in jobs:
            self.keys.add(job.key)
            row = self.stored.rows.get(job.key)
            if row is None:
                yield replace(job, attempt=1 + self.stored.faults.get(job.key, 0))
            else:
                self._counts(job, row, kept=True)

    def _step(self) -> None:
        """Handle the events since the last call; rows that arrived together are written together."""
        try:
            self._take(self._events.get(timeout=_POLL_S))
            until = time.monotonic() + _TOGETHER_S  # no row waits longer, however fast others arrive
            while len(self._fresh) < _TOGETHER and time.monotonic() < until:
                self._take(self._events.get_nowait())
        except queue.Empty:
            pass
        at_fault = [sent.host for sent, reply, _ in self._fresh if reply.host_fault]
        self._write()
        if self._backlog.has_again:
            self._fill_all()
        for host in at_fault:
            self._fill(host)
        self._check_hosts()

    def _take(self, event: Joined | Left | _Ended) -> None:
        if isinstance(event, Joined):
            host = self._host_at[event.address] = join(self._hosts, event)
            self._activity(host)
            self._fill(host)
        elif isinstance(event, Left):
            self._worker_left(event.address)
        elif (sent := self._sent.pop(event.handle, None)) is not None:
            self._ended(event.handle, sent)

    def _check_hosts(self) -> None:
        """Check that a host is left. Errors: `AconError` if none has been for too long, or the scheduler is gone."""
        if self.membership.error is not None:
            raise self.membership.error
        if self._active or self._sent:
            self._alone_since = None
            return
        if self._backlog.empty:
            return
        self._alone_since = self._alone_since or time.monotonic()
        if time.monotonic() - self._alone_since > self.patience_s:
            why = [f"{host.name} was left out: {host.retired}" for host in self._hosts.values() if host.retired]
            why += [f"{address} {reason}" for address, reason in self.membership.unfit.items()]
            raise AconError("no host is left to measure on", details=why, hint="start workers and run this again")
        self._tell("no host is left: waiting for workers")

    def _fill(self, host: Host) -> None:
        """Give a host all the runs that it can take now."""
        while job := self._backlog.take(host.key, self._active, lambda clock: host.place_for(clock) is not None):
            address = host.place_for(job.clock)
            assert address is not None
            handle = self.pool.submit(address, self._ticket(job, host, address), self._on_done)
            host.started(address, job.clock)
            self._sent[handle] = _Sent(job=job, host=host, address=address, at=time.monotonic())
            self.board.starts(job.planned.cell)

    def _fill_all(self) -> None:
        for key in list(self._active):
            self._fill(self._hosts[key])

    def _on_done(self, handle: Any) -> None:
        self._events.put(_Ended(handle=handle))

    def _ticket(self, job: Job, host: Host, address: str) -> Ticket:
        number = job.planned.cell
        cell = self.plan.all_cells[number]
        return Ticket(
            study=self._id,
            incarnation=host.incarnations[address],
            make=type(self.experiment),
            plan=plan_of(self.plan, number),
            planned=replace(job.planned, cell=0),
            identity=self._identities[number],
            parts={name: self._digests[path] for name, path in self.experiment.parts(cell).items()},
            findings=self.experiment.findings(cell),
        )

    def _ended(self, handle: Any, sent: _Sent) -> None:
        """Handle a run that ended or was lost. Errors: what it raised, with its worker named."""
        try:
            reply = self.pool.result(handle)
        except Lost:
            self._lost(sent)
            return
        except AconError as error:
            self._back(sent, fault=False)
            where = f"worker: {sent.address} on {sent.host.name}"
            raise AconError(error.what, hint=error.hint, details=[*error.details, where]) from error
        if reply.stale and self.membership.resend(sent.address):
            self._back(sent, fault=False)
            self._backlog.put_back(sent.job)  # it did not start, so this is not an attempt
            self._fill_all()
            return
        if reply.host_fault == HostFault.WORKER_RESTARTED:
            self.membership.forget(sent.address)
            self._host_at.pop(sent.address).slots.pop(sent.address)
        self._keep(sent, reply)

    def _worker_left(self, address: str) -> None:
        """Handle the loss of a worker: its runs are lost, and repeated."""
        host = self._host_at.pop(address, None)
        if host is None:
            return
        host.slots.pop(address, None)
        self._activity(host)
        for handle in [handle for handle, sent in self._sent.items() if sent.address == address]:
            sent = self._sent.pop(handle)
            self.pool.cancel([handle])
            self._lost(sent)
        self._fill_all()

    def _lost(self, sent: _Sent) -> None:
        error = f"the worker {sent.address} was lost"
        seconds = time.monotonic() - sent.at
        fault = HostFault.WORKER_LOST
        reply = Reply(end=End.KILLED, host_fault=fault, error=error, seconds=seconds, host=sent.host.environment)
        self._keep(sent, reply)

    def _keep(self, sent: _Sent, reply: Reply) -> None:
        """Make a run's row, which `_write` then writes, and send the host its next run meanwhile."""
        self._back(sent, fault=bool(reply.host_fault))
        job, cell = sent.job, self.plan.all_cells[sent.job.planned.cell]
        row = run_row(
            Measured(row=reply.row, end=reply.end, console=Path(), host_fault=reply.host_fault, error=reply.error),
            plan=self.plan,
            kind=self.experiment.kind,
            session=self.session,
            key=job.key,
            cell=cell,
            planned=job.planned,
            clock=job.clock,
            attempt=job.attempt,
            seconds=reply.seconds,
            host=reply.host,
        )
        row |= {"worker": sent.address, **self.store.keep_logs(row, reply.console, reply.kernel_log)}
        row |= self.store.keep_profile(reply.profile)
        self._fresh.append((sent, reply, row))
        if not reply.host_fault:
            self._fill(sent.host)

    def _write(self) -> None:
        """Write the rows that are not in the store yet, then count their runs or put them back."""
        fresh, self._fresh = self._fresh, []
        if not fresh:
            return
        self._written += self.store.add_all(self.experiment.kind, [row for _, _, row in fresh])
        if len(self._written) >= _GATHERED:  # many thousands of files would take minutes to read
            self.store.gather(self._written)
            self._written.clear()
        for sent, reply, row in fresh:
            if reply.host_fault and sent.job.tries < ATTEMPTS:
                self._backlog.put_back(sent.job.again(sent.host.key))
            else:
                self._counts(sent.job, row)
            self._tell(f"{row['cell']}: {end_text(reply.host_fault or reply.end)} on {sent.host.name}")

    def _counts(self, job: Job, row: Mapping[str, Any], *, kept: bool = False) -> None:
        """Count a run as done: its row is in the store."""
        self.board.ends(
            job.planned.cell,
            end=str(row["end"]),
            error=str(row["error"]),
            log=self.store.folder / str(row["log"]) if row["log"] else None,
            kept=kept,
            seconds=None if kept else float(row["seconds"]),
        )

    def _back(self, sent: _Sent, *, fault: bool) -> None:
        """Note that a run is no longer under way."""
        self.board.stops(sent.job.planned.cell)
        sent.host.ended(sent.address, fault=fault)
        self._activity(sent.host)

    def _activity(self, host: Host) -> None:
        """Record whether a host takes runs."""
        was = host.key in self._active
        now = bool(host.slots) and not host.retired
        if was != now:
            (self._active.add if now else self._active.discard)(host.key)
            slots = sum(sum(self._hosts[key].slots.values()) for key in self._active)
            self.board.widen(wall=len(self._active), instructions=slots)

    def _end_all(self) -> None:
        """Cancel the runs that are under way and wait until their guests are gone."""
        busy = {sent.address for sent in self._sent.values()}
        self.pool.cancel(list(self._sent))
        for sent in self._sent.values():
            self.board.stops(sent.job.planned.cell)
        self._sent.clear()
        deadline = time.monotonic() + _STOP_S
        with contextlib.suppress(AconError):
            while busy and time.monotonic() < deadline:
                answers = self.pool.ask(worker.running, self._id, workers=list(busy))
                busy = {address for address, count in answers.items() if count}
                time.sleep(_POLL_S if busy else 0)

    def _tell(self, text: str = "") -> None:
        hosts = f"{len(self._active)} host{'' if len(self._active) == 1 else 's'}"
        self.on_progress(self.board.progress(f"{hosts}: {text}" if text else hosts))


def plan_of(plan: Plan, number: int) -> Plan:
    """Return a plan with one cell of `plan`, under the same label."""
    products = len(plan.all_cells) - len(plan.cells)
    names = list(plan.factors) if number < products else list(plan.cells[number - products])
    levels = plan.all_cells[number].levels
    return Plan(
        name=plan.name,
        study=plan.study,
        cells=[{name: levels[name] for name in names if name in levels}],
        fixed={name: levels[name] for name in plan.fixed if name in levels and name not in names},
        runs=1,
        profile=plan.profile,
        calls=plan.calls,
    )
