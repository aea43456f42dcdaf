"""The hosts of a cluster: workers by the kernel they share, which of them may measure a study, and what each is at.

A host is a kernel (its boot id), not a worker: containers on one machine are one host. All hosts of a study are of one
class (`Environment.host_class`, and whether KVM works), since rows of several are never compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import acon_nb
from acon_nb.bench.cluster.pool import RESOURCE
from acon_nb.bench.cluster.worker import HostReport, qemu_text
from acon_nb.errors import AconError, InvalidInput
from acon_nb.host import Environment
from acon_nb.vm import Clock

_SHOWN = 8
FAULTS_TO_RETIRE = 3


@dataclass(frozen=True, kw_only=True)
class Ours:
    """What the workers' hosts must have as the driver's: the versions of acon_nb and QEMU (with its package)."""

    acon_nb: str
    qemu: str

    @classmethod
    def here(cls) -> Ours:
        """This host's. Errors: `MissingRequirement` (no QEMU)."""
        return cls(acon_nb=acon_nb.__version__, qemu=qemu_text())


@dataclass(kw_only=True)
class Host:
    """A host at work: its workers by address with their slots, what runs there, and its faults in a row.

    `retired` says why it gets no more runs ("": it does).
    """

    key: str
    label: str
    environment: Environment
    slots: dict[str, int] = field(default_factory=dict)
    incarnations: dict[str, str] = field(default_factory=dict)
    running: Counter[str] = field(default_factory=Counter)
    alone: bool = False
    faults: int = 0
    retired: str = ""

    @property
    def name(self) -> str:
        """The host's name, as rows have it."""
        return self.environment.host

    def place_for(self, clock: Clock) -> str | None:
        """The worker to send a run to, or None: a guest on the wall clock is alone, counted ones fill the slots."""
        if self.retired or self.alone or (clock is Clock.WALL and self.running.total()):
            return None
        free = [(self.running[name], name) for name, slots in self.slots.items() if self.running[name] < slots]
        return min(free)[1] if free else None

    def started(self, address: str, clock: Clock) -> None:
        """A run was sent to a worker."""
        self.running[address] += 1
        self.alone = clock is Clock.WALL

    def ended(self, address: str, *, fault: bool) -> None:
        """A run has ended; three faults of the host in a row retire it."""
        self.running[address] -= 1
        self.alone = False
        self.faults = self.faults + 1 if fault else 0
        if self.faults >= FAULTS_TO_RETIRE:
            self.retired = f"{self.faults} faults in a row"


def label_of(report: HostReport) -> str:
    """The class of a host as people choose it."""
    return report.environment.host_class + (", KVM" if report.kvm else "")


def problems(answers: Mapping[str, Any], slots: Mapping[str, int], ours: Ours) -> dict[str, str]:
    """Why workers cannot measure, by address. `answers` are reports or errors; workers without the resource do not."""
    found = {}
    for address in slots:
        answer = answers.get(address)
        if answer is None:
            found[address] = "does not answer"
        elif isinstance(answer, Exception):
            what = answer.what if isinstance(answer, AconError) else f"{type(answer).__name__}: {answer}"
            found[address] = f"cannot measure: {what}"
        elif answer.environment.acon_nb_version != ours.acon_nb:
            found[address] = f"has acon_nb {answer.environment.acon_nb_version}, the driver {ours.acon_nb}"
        elif answer.qemu != ours.qemu:
            found[address] = f"has QEMU {answer.qemu}, the driver {ours.qemu}"
    return found


def require_resource(workers: Mapping[str, int]) -> None:
    """Errors: `AconError` when no worker offers the resource: a run would wait for ever, in silence."""
    if not any(workers.values()):
        hint = f"start them with it: dask worker SCHEDULER --nthreads 1 --resources {RESOURCE}=1"
        raise AconError(f"none of {len(workers)} workers offers the resource {RESOURCE}", hint=hint)


def require_fit(found: Mapping[str, str], *, skip: bool) -> None:
    """Errors: `AconError` that names the workers which cannot measure, unless they are to be skipped."""
    if found and not skip:
        raise AconError(
            f"{len(found)} workers cannot measure this study",
            details=shown([f"{address} {why}" for address, why in found.items()]),
            hint="mend them, or go on without them: skip_unfit=True, --skip-unfit",
        )


def choose_class(classes: Mapping[str, Mapping[str, HostReport]], wanted: str, measured: Collection[str]) -> str:
    """The one class of a study's hosts.

    `wanted` is a part of its label. Without it: the only one, or that of the counted rows that are already there and
    will not be measured again (`measured`, by `host_class`); rows of the wall clock are of a class by their key.
    Errors: `InvalidInput` that says how many hosts there are of each.
    """
    kernels = {name: {row.boot_id for row in rows.values()} for name, rows in classes.items()}
    listed = [f"{len(found)} hosts: {name}" for name, found in kernels.items()]
    fit = [name for name in classes if wanted == name] or [name for name in classes if wanted in name]
    if measured:
        fit = [name for name in fit if next(iter(classes[name].values())).environment.host_class in measured]
    if len(fit) == 1:
        return fit[0]
    if measured and not fit:
        reason = f"is not the class of the rows that are there ({'; '.join(sorted(measured))})"
        hint = "use such hosts, another folder, or measure anew (--again)"
    else:
        reason = "fits no host" if not fit else "leaves hosts of several classes, which are never pooled"
        hint = "choose one: host_class=..., --host-class TEXT"
    raise InvalidInput("host_class", wanted, f"{reason}; there are: {'; '.join(listed)}", hint=hint)


def shown(lines: Sequence[str]) -> list[str]:
    """The first lines, and how many there are more."""
    more = len(lines) - _SHOWN
    return [*lines[:_SHOWN], *([f"and {more} more"] if more > 0 else [])]
