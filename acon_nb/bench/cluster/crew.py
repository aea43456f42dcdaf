"""Keeps the hosts of a study: who comes is asked, checked and given the study's files before the first run; who goes
is noticed.

Files travel before a host's first run, never beside one, and once for each place that has a cache of its own.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from acon_nb.bench.cluster import artifacts, hosts
from acon_nb.bench.cluster.hosts import Host, Ours
from acon_nb.bench.cluster.pool import Pool
from acon_nb.bench.cluster.worker import HostReport, report
from acon_nb.errors import AconError
from acon_nb.progress import CancelToken, OnProgress, Progress, silent

_log = logging.getLogger(__name__)
_POLL_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The workers at a glance: reports by class and by address, and why others cannot measure."""

    classes: Mapping[str, Mapping[str, HostReport]]
    unfit: Mapping[str, str]

    @property
    def hosts(self) -> dict[str, int]:
        """How many hosts there are of each class."""
        return {name: len({row.boot_id for row in rows.values()}) for name, rows in self.classes.items()}


@dataclass(frozen=True, kw_only=True)
class Joined:
    """A worker is ready: its host, its slots, the process it is."""

    address: str
    label: str
    report: HostReport
    slots: int


@dataclass(frozen=True, kw_only=True)
class Left:
    """A worker is gone."""

    address: str


class Crew:
    """The workers of a study. `say` gets `Joined` and `Left` once `watch` has begun, from a thread of its own.

    `files` are the study's, by hash. Errors of the first look (`muster`) are those of `hosts`.
    """

    def __init__(self, pool: Pool, *, host_class: str = "", skip_unfit: bool = False) -> None:
        self._pool = pool
        self._wanted = host_class
        self._skip = skip_unfit
        self._label = ""
        self._known: dict[str, HostReport | None] = {}
        self._files: dict[str, Path] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.unfit: dict[str, str] = {}
        self.error: AconError | None = None

    def muster(self, measured: Iterable[str] = ()) -> str:
        """Look at the workers that are there and choose the class of the study's hosts; returns their `host_class`.

        `measured` are the classes of the counted rows that are there.
        """
        seen = look_at(self._pool)
        hosts.require_fit(seen.unfit, skip=self._skip and bool(seen.classes))
        self.unfit = dict(seen.unfit)
        self._label = hosts.choose_class(seen.classes, self._wanted, set(measured))
        return next(iter(seen.classes[self._label].values())).environment.host_class

    def watch(
        self,
        files: Mapping[str, Path],
        say: Callable[[Joined | Left], None],
        *,
        on_progress: OnProgress = silent,
        cancel: CancelToken | None = None,
    ) -> None:
        """Give the files to the hosts that are there, then keep watching in a thread until `close`."""
        self._files = dict(files)
        self._look(say, on_progress, cancel)
        self._thread = threading.Thread(target=self._watch, args=(say,), name="acon-crew", daemon=True)
        self._thread.start()

    def mend(self, address: str) -> bool:
        """Give a worker the files again that its cache has lost; whether it has them now."""
        found = self._known.get(address)
        return found is not None and not self._ship({address: found}, silent, None)

    def forget(self, address: str) -> None:
        """Ask a worker anew: it is another process than it was."""
        self._known.pop(address, None)

    def close(self) -> None:
        """Stop watching."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self, say: Callable[[Joined | Left], None]) -> None:
        while not self._stop.wait(_POLL_S):
            try:
                self._look(say, silent, self._token())
            except AconError as error:
                self.error = error
                return

    def _token(self) -> CancelToken:
        return _Stopped(self._stop)

    def _look(self, say: Callable[[Joined | Left], None], on_progress: OnProgress, cancel: CancelToken | None) -> None:
        workers = self._pool.workers()
        for address in [name for name in list(self._known) if name not in workers]:
            if self._known.pop(address, None) is not None:
                say(Left(address=address))
        new = {name: slots for name, slots in workers.items() if name not in self._known and slots}
        if not new:
            return
        reports, unfit = _ask(self._pool, new)
        mine = {name: row for name, row in reports.items() if hosts.label_of(row) == self._label}
        unfit |= self._ship(mine, on_progress, cancel)
        self.unfit |= unfit
        for address in new:
            self._known[address] = mine.get(address) if address not in unfit else None
            if address in unfit:
                _log.warning("%s %s: it gets no runs", address, unfit[address])
        for address, found in mine.items():
            if address not in unfit:
                say(Joined(address=address, label=self._label, report=found, slots=new[address]))

    def _ship(
        self, reports: Mapping[str, HostReport], on_progress: OnProgress, cancel: CancelToken | None
    ) -> dict[str, str]:
        """Bring the files that are missing to each place once; returns which workers cannot have them, and why."""
        first = {row.place: address for address, row in reversed(list(reports.items()))}
        total = sum(path.stat().st_size for path in self._files.values())
        answers = self._pool.ask(artifacts.missing, list(self._files), total, workers=list(first.values()))
        failed = {name: str(answers.get(name, "does not answer")) for name in first.values() if _bad(answers.get(name))}
        for number, (digest, path) in enumerate(self._files.items()):
            lacking = [name for name, gone in answers.items() if name not in failed and digest in gone]
            on_progress(Progress("bring the files to the hosts", number / len(self._files), path.name))
            failed |= self._send(digest, path, lacking, cancel)
        if self._files:
            on_progress(Progress("bring the files to the hosts", 1.0, f"{len(first)} hosts"))
        bad = {place: failed[address] for place, address in first.items() if address in failed}
        return {address: bad[row.place] for address, row in reports.items() if row.place in bad}

    def _send(self, digest: str, path: Path, workers: Sequence[str], cancel: CancelToken | None) -> dict[str, str]:
        failed: dict[str, str] = {}
        upload, size = uuid.uuid4().hex, path.stat().st_size
        for offset, data in artifacts.pieces(path) if workers else ():
            if cancel is not None:
                cancel.check()
            going = [name for name in workers if name not in failed]
            answers = self._pool.ask(artifacts.put, digest, upload, offset, data, size, workers=going, large=True)
            failed |= {name: str(answers.get(name, "is gone")) for name in going if _bad(answers.get(name))}
        return {name: f"could not take {path.name}: {why}" for name, why in failed.items()}


class _Stopped(CancelToken):
    """Cancelled with an event."""

    def __init__(self, event: threading.Event) -> None:
        super().__init__()
        self._event = event


def _bad(answer: object) -> bool:
    return answer is None or isinstance(answer, Exception)


def look_at(pool: Pool) -> Seen:
    """Ask all workers that offer the resource. Errors: `AconError` when none does, `MissingRequirement` (no QEMU)."""
    workers = pool.workers()
    hosts.require_resource(workers)
    reports, unfit = _ask(pool, {address: number for address, number in workers.items() if number})
    classes: dict[str, dict[str, HostReport]] = defaultdict(dict)
    for address, found in reports.items():
        classes[hosts.label_of(found)][address] = found
    return Seen(classes=dict(classes), unfit=unfit)


def _ask(pool: Pool, slots: Mapping[str, int]) -> tuple[dict[str, HostReport], dict[str, str]]:
    """The reports of the workers that can measure, and why others cannot."""
    answers = pool.ask(report, workers=list(slots))
    unfit = hosts.problems(answers, slots, Ours.here())
    return {name: row for name, row in answers.items() if name not in unfit}, unfit


def join(there: dict[str, Host], event: Joined) -> Host:
    """Note a worker among the hosts; returns its host. A retired host stays so, whatever worker it brings."""
    key = event.report.boot_id
    host = there.get(key)
    if host is None:
        host = there[key] = Host(key=key, label=event.label, environment=event.report.environment)
    host.slots[event.address] = event.slots
    host.incarnations[event.address] = event.report.incarnation
    return host
