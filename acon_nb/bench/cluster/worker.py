"""What a worker of the cluster does: it says what its host is, and runs a cell as the driver says, by content.

Nothing here knows Dask. A cell comes as a `Ticket`: a plan of that cell alone, the hashes of its files, and what its
identity must then be, so that what is booted here is what the driver means, to the byte.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from acon_nb.bench.cluster import artifacts
from acon_nb.bench.host_lock import host_lock
from acon_nb.bench.plan import Plan, Setting, Turn
from acon_nb.bench.runner import Experiment, console_tail
from acon_nb.errors import AconError, Cancelled, MissingRequirement, NoSpace
from acon_nb.host import Environment, boot_id, environment, probe_kvm, probe_qemu
from acon_nb.progress import CancelToken
from acon_nb.vm import Clock, End

INCARNATION = uuid.uuid4().hex  # of this process: a worker that comes back at the same address is another one
RESTARTED = "the worker was restarted"
_running: dict[str, str] = {}
_lock = threading.Lock()


class Portable(Experiment, Protocol):
    """An experiment whose cells can be run on another host."""

    def parts(self, setting: Setting) -> Mapping[str, Path]:
        """The files that a cell needs, by name; after `prepare`."""
        ...

    def findings(self, setting: Setting) -> Mapping[str, Any]:
        """What else `prepare` found out for a cell (a calibration): plain values, the same for all its runs."""
        ...

    def adopt(self, setting: Setting, parts: Mapping[str, Path], findings: Mapping[str, Any]) -> None:
        """Take a cell's files and findings, in place of `prepare`."""
        ...


@dataclass(frozen=True, kw_only=True)
class HostReport:
    """What a worker says of its host.

    `boot_id` is the kernel's: workers of one kernel share its CPUs, whatever containers they are in. `place` is their
    user cache: workers of one place share its files.
    """

    incarnation: str
    boot_id: str
    place: str
    environment: Environment
    qemu: str
    kvm: bool


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """One run to do. `make` is the experiment's class, `plan` has its cell alone; `parts` are files' hashes by name.

    `study` is the driver's id of its run, `incarnation` the process that it means.
    """

    study: str
    incarnation: str
    make: Callable[[Plan], Portable]
    plan: Plan
    turn: Turn
    identity: str
    parts: Mapping[str, str]
    findings: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a run gave: as `Measured`, with the console's last MiB, the seconds, and the host as it was then.

    With `stale` the run did not begin: those files are not (or no longer) what they should be on this host.
    """

    row: Mapping[str, Any] = field(default_factory=dict)
    end: str = End.QEMU_FAILED
    error: str = ""
    host_fault: str = ""
    console: bytes = b""
    kernel_log: str = ""
    seconds: float = 0.0
    host: Environment
    stale: tuple[str, ...] = ()


def report() -> HostReport:
    """What this host is. Errors: `MissingRequirement` (no QEMU)."""
    found = environment()
    place = artifacts.folder()
    inode = place.stat()
    return HostReport(
        incarnation=INCARNATION,
        boot_id=boot_id() or found.host,
        place=f"{found.host} {place} {inode.st_dev} {inode.st_ino}",
        environment=found,
        qemu=qemu_text(),
        kvm=probe_kvm().usable,
    )


def qemu_text() -> str:
    """This host's QEMU by version and package: its firmware decides a boot too."""
    found = probe_qemu()
    return " ".join(filter(None, (found.version_text, found.package)))


def run(ticket: Ticket, cancel: CancelToken) -> Reply:
    """Run a cell once.

    What is wrong with this host alone (no space, no QEMU, a file that is gone) is a reply with `host_fault`; any other
    error is raised.
    """
    if ticket.incarnation != INCARNATION:
        return Reply(host_fault=RESTARTED, error=RESTARTED, host=environment())
    with _noted(ticket):
        try:
            return _run(ticket, cancel)
        except Cancelled:
            raise
        except (NoSpace, MissingRequirement, OSError) as error:
            what = error.what if isinstance(error, AconError) else str(error)
            return Reply(host_fault=what, error=what, host=environment())


def running(study: str) -> int:
    """How many runs of a study this worker is at."""
    with _lock:
        return sum(one == study for one in _running.values())


def _run(ticket: Ticket, cancel: CancelToken) -> Reply:
    files = {name: artifacts.find(digest) for name, digest in ticket.parts.items()}
    parts = {name: path for name, path in files.items() if path is not None}
    if stale := tuple(ticket.parts[name] for name in files if name not in parts):
        return Reply(stale=stale, host_fault="files of the study are gone from its cache", host=environment())
    experiment = ticket.make(ticket.plan)
    (setting,) = ticket.plan.settings
    experiment.adopt(setting, parts, ticket.findings)
    if experiment.identity(setting) != ticket.identity:
        what = "what it would boot is not what the driver means"
        return Reply(host_fault=what, error=what, host=environment())
    with host_lock(shared=experiment.clock(setting) is not Clock.WALL, cancel=cancel):
        started = time.monotonic()
        measured = experiment.run(setting, ticket.turn, cancel)
        seconds = time.monotonic() - started
    cancel.check()  # a cancel kills the guest: that is no result
    return Reply(
        row=dict(measured.row),
        end=measured.end,
        error=measured.error,
        host_fault=measured.host_fault,
        console=console_tail(measured.console),
        kernel_log=measured.kernel_log,
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
