"""The worker's side of the cluster: describes its host, and runs a cell that the driver identifies by content.

Nothing here knows Dask. A cell arrives as a `Ticket`: a plan of that cell alone, the hashes of its files, and the
identity that it must then have, so that what is booted here is exactly what the driver means, to the byte.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from acon_nb.errors import AconError, Cancelled, MissingRequirement, NoSpace
from acon_nb.host import Environment, boot_id, environment, probe_kvm, probe_qemu
from acon_nb.progress import CancelToken
from acon_nb.study.cluster import artifacts
from acon_nb.study.faults import HostFault
from acon_nb.study.host_lock import run_locked
from acon_nb.study.plan import Plan, PlanCell, PlannedRun
from acon_nb.study.runner import Experiment, console_tail
from acon_nb.vm import Clock, End

INCARNATION = uuid.uuid4().hex  # of this process: a worker restarted at the same address has another
_running: dict[str, str] = {}
_lock = threading.Lock()


class Portable(Experiment, Protocol):
    """An experiment whose cells can be run on another host."""

    def parts(self, cell: PlanCell) -> Mapping[str, Path]:
        """Return the files that a cell needs, by name; after `prepare`."""
        ...

    def findings(self, cell: PlanCell) -> Mapping[str, Any]:
        """Return what else `prepare` measured for a cell (a calibration): plain values, the same for all its runs."""
        ...

    def adopt(self, cell: PlanCell, parts: Mapping[str, Path], findings: Mapping[str, Any]) -> None:
        """Use a cell's files and findings instead of calling `prepare`."""
        ...


@dataclass(frozen=True, kw_only=True)
class HostReport:
    """A worker's description of its host.

    `boot_id` is the kernel's: workers of one kernel share its CPUs, whatever containers they are in. `cache_id`
    identifies their user cache: workers with the same one share its files.
    """

    incarnation: str
    boot_id: str
    cache_id: str
    environment: Environment
    qemu: str
    kvm: bool


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """One run to do. `make` is the experiment's class, `plan` has only its cell; `parts` are the files' hashes by name.

    `study` is the id of the driver's run, `incarnation` that of the process that it is meant for.
    """

    study: str
    incarnation: str
    make: Callable[[Plan], Portable]
    plan: Plan
    planned: PlannedRun
    identity: str
    parts: Mapping[str, str]
    findings: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Reply:
    """The result of a run: as `Measured`, with the console's last MiB, the seconds, and the state of the host.

    With `stale` the run did not begin: those files are missing (or no longer intact) on this host.
    """

    row: Mapping[str, Any] = field(default_factory=dict)
    end: str = End.QEMU_FAILED
    error: str = ""
    host_fault: str = ""
    console: bytes = b""
    kernel_log: str = ""
    profile: bytes = b""
    seconds: float = 0.0
    host: Environment
    stale: tuple[str, ...] = ()


def report() -> HostReport:
    """Describe this host. Errors: `MissingRequirement` (no QEMU)."""
    host = environment()
    cache = artifacts.folder()
    inode = cache.stat()
    return HostReport(
        incarnation=INCARNATION,
        boot_id=boot_id() or host.host,
        cache_id=f"{host.host} {cache} {inode.st_dev} {inode.st_ino}",
        environment=host,
        qemu=probe_qemu().text,
        kvm=probe_kvm().usable,
    )


def run(ticket: Ticket, cancel: CancelToken) -> Reply:
    """Run a cell once.

    A fault of this host alone (no space, no QEMU, a missing file) is a reply with `host_fault`; any other error is
    raised.
    """
    if ticket.incarnation != INCARNATION:
        return Reply(host_fault=HostFault.WORKER_RESTARTED, error="the worker was restarted", host=environment())
    with _noted(ticket):
        try:
            return _run(ticket, cancel)
        except Cancelled:
            raise
        except (NoSpace, MissingRequirement, OSError) as error:
            what = error.what if isinstance(error, AconError) else str(error)
            return Reply(host_fault=HostFault.CANNOT_RUN, error=what, host=environment())


def running(study: str) -> int:
    """Return how many runs of a study are under way on this worker."""
    with _lock:
        return sum(one == study for one in _running.values())


def _run(ticket: Ticket, cancel: CancelToken) -> Reply:
    files = {name: artifacts.find(digest) for name, digest in ticket.parts.items()}
    parts = {name: path for name, path in files.items() if path is not None}
    if stale := tuple(ticket.parts[name] for name in files if name not in parts):
        what = "files of the study are gone from the worker's cache"
        return Reply(stale=stale, host_fault=HostFault.FILES_MISSING, error=what, host=environment())
    experiment = ticket.make(ticket.plan)
    (cell,) = ticket.plan.all_cells
    experiment.adopt(cell, parts, ticket.findings)
    if experiment.identity(cell) != ticket.identity:
        what = "the files that the worker has are not those of the driver"
        return Reply(host_fault=HostFault.FILES_DIFFER, error=what, host=environment())
    measured, seconds = run_locked(
        lambda token: experiment.run(cell, ticket.planned, token),
        alone=experiment.clock(cell) is Clock.WALL,
        cancel=cancel,
    )
    return Reply(
        row=dict(measured.row),
        end=measured.end,
        error=measured.error,
        host_fault=measured.host_fault,
        console=console_tail(measured.console),
        kernel_log=measured.kernel_log,
        profile=measured.profile,
        seconds=seconds,
        host=environment(),
    )


@contextlib.contextmanager
def _noted(ticket: Ticket) -> Iterator[None]:
    name = uuid.uuid4().hex
    with _lock:
        _running[name] = ticket.study
    try:
        yield
    finally:
        with _lock:
            del _running[name]
