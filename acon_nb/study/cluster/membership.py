"""The hosts of a study: one that joins is queried, checked and sent the files; one that leaves is reported.

Files are sent before a host's first run, never during one, and once to each cache that workers share.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from acon_nb.errors import AconError
from acon_nb.progress import CancelToken, OnProgress, Progress, silent
from acon_nb.study.cluster import artifacts, hosts
from acon_nb.study.cluster.hosts import Host, Ours
from acon_nb.study.cluster.pool import Pool
from acon_nb.study.cluster.worker import HostReport, report

_log = logging.getLogger(__name__)
_POLL_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The workers of one query: reports by class and by address, and why others cannot measure."""

    classes: Mapping[str, Mapping[str, HostReport]]
    unfit: Mapping[str, str]

    @property
    def hosts(self) -> dict[str, int]:
        """The number of hosts of each class."""
        return {name: len({row.boot_id for row in rows.values()}) for name, rows in self.classes.items()}


@dataclass(frozen=True, kw_only=True)
class Joined:
    """A worker is ready: its host, its slots and its process."""

    address: str
    label: str
    report: HostReport
    slots: int


@dataclass(frozen=True, kw_only=True)
class Left:
    """A worker is gone."""

    address: str


class Membership:
    """The workers of a study. `notify` gets `Joined` and `Left` once `watch` has begun, from a separate thread.

    `files` are the study's, by hash. Errors of the first query (`muster`) are those of `hosts`.
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
        """Query the present workers and choose the class of the study's hosts; return their `host_class`.

        `measured` are the classes of the counted rows in the store.
        """
        seen = look_at(self._pool)
        hosts.require_fit(seen.unfit, skip=self._skip and bool(seen.classes))
        self.unfit = dict(seen.unfit)
        self._label = hosts.choose_class(seen.classes, self._wanted, set(measured))
        return next(iter(seen.classes[self._label].values())).environment.host_class

    def watch(
        self,
        files: Mapping[str, Path],
        notify: Callable[[Joined | Left], None],
        *,
        on_progress: OnProgress = silent,
        cancel: CancelToken | None = None,
    ) -> None:
        """Send the files to the present hosts, then keep watching in a thread until `close`."""
        self._files = dict(files)
        self._look(notify, on_progress, cancel)
        self._thread = threading.Thread(target=self._watch, args=(notify,), name="acon-membership", daemon=True)
        self._thread.start()

    def resend(self, address: str) -> bool:
        """Send a worker the files that its cache has lost; return whether it has them now."""
        host = self._known.get(address)
        return host is not None and not self._ship({address: host}, silent, None)

    def forget(self, address: str) -> None:
        """Query a worker again: it is another process than before."""
        self._known.pop(address, None)

    def close(self) -> None:
        """Stop watching."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self, notify: Callable[[Joined | Left], None]) -> None:
        while not self._stop.wait(_POLL_S):
            try:
                self._look(notify, silent, self._token())
            except AconError as error:
                self.error = error
                return

    def _token(self) -> CancelToken:
        return _Stopped(self._stop)

    def _look(
        self, notify: Callable[[Joined | Left], None], on_progress: OnProgress, cancel: CancelToken | None
    ) -> None:
        workers = self._pool.workers()
        for address in [name for name in list(self._known) if name not in workers]:
            if self._known.pop(address, None) is not None:
                notify(Left(address=address))
        new = {name: slots for name, slots in workers.items() if name not in self._known and slots}
        if not new:
            return
        reports, unfit = _ask(self._pool, new)
        members = {name: row for name, row in reports.items() if hosts.label_of(row) == self._label}
        unfit |= self._ship(members, on_progress, cancel)
        self.unfit |= unfit
        for address in new:
            self._known[address] = members.get(address) if address not in unfit else None
            if address in unfit:
                _log.warning("%s %s: it gets no runs", address, unfit[address])
        for address, row in members.items():
            if address not in unfit:
                notify(Joined(address=address, label=self._label, report=row, slots=new[address]))

    def _ship(
        self, reports: Mapping[str, HostReport], on_progress: OnProgress, cancel: CancelToken | None
    ) -> dict[str, str]:
        """Send missing files to each cache once; return which workers cannot have them, and why."""
        first = {row.cache_id: address for address, row in reversed(list(reports.items()))}
        total = sum(path.stat().st_size for path in self._files.values())
        answers = self._pool.ask(artifacts.missing, list(self._files), total, workers=list(first.values()))
        failed = {name: str(answers.get(name, "does not answer")) for name in first.values() if _bad(answers.get(name))}
        for number, (digest, path) in enumerate(self._files.items()):
            lacking = [name for name, missing in answers.items() if name not in failed and digest in missing]
            on_progress(Progress("send the files to the hosts", number / len(self._files), path.name))
            failed |= self._send(digest, path, lacking, cancel)
        if self._files:
            on_progress(Progress("send the files to the hosts", 1.0, f"{len(first)} hosts"))
        bad = {cache_id: failed[address] for cache_id, address in first.items() if address in failed}
        return {address: bad[row.cache_id] for address, row in reports.items() if row.cache_id in bad}

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
    """Query all workers that offer the resource. Errors: `AconError` if none does, `MissingRequirement` (no QEMU)."""
    workers = pool.workers()
    hosts.require_resource(workers)
    reports, unfit = _ask(pool, {address: number for address, number in workers.items() if number})
    classes: dict[str, dict[str, HostReport]] = defaultdict(dict)
    for address, row in reports.items():
        classes[hosts.label_of(row)][address] = row
    return Seen(classes=dict(classes), unfit=unfit)


def _ask(pool: Pool, slots: Mapping[str, int]) -> tuple[dict[str, HostReport], dict[str, str]]:
    """Return the reports of the workers that can measure, and why others cannot."""
    answers = pool.ask(report, workers=list(slots))
    unfit = hosts.problems(answers, slots, Ours.here())
    return {name: row for name, row in answers.items() if name not in unfit}, unfit


def join(known: dict[str, Host], event: Joined) -> Host:
    """Add a worker to its host; return the host. A retired host stays retired when a worker joins it."""
    key = event.report.boot_id
    host = known.get(key)
    if host is None:
        host = known[key] = Host(key=key, label=event.label, environment=event.report.environment)
    host.slots[event.address] = event.slots
    host.incarnations[event.address] = event.report.incarnation
    return host
