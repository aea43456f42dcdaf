"""The hosts of a cluster: workers by the kernel they share, which may measure a study, and what each is running.

A host is a kernel (its boot id), not a worker: containers on one machine are one host. All hosts of a study are of one
class (`Environment.host_class`, and whether KVM works), since rows of different classes are never compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import acon_nb
from acon_nb.errors import AconError, InvalidInput
from acon_nb.host import Environment, probe_qemu
from acon_nb.study.cluster.pool import RESOURCE
from acon_nb.study.cluster.worker import HostReport
from acon_nb.vm import Clock

_SHOWN = 8
FAULTS_TO_RETIRE = 3


@dataclass(frozen=True, kw_only=True)
class Ours:
    """The versions of acon_nb and QEMU (with its package), which must be equal on the hosts of driver and workers."""

    acon_nb: str
    qemu: str

    @classmethod
    def here(cls) -> Ours:
        """Return the versions of this host. Errors: `MissingRequirement` (no QEMU)."""
        return cls(acon_nb=acon_nb.__version__, qemu=probe_qemu().text)


@dataclass(kw_only=True)
class Host:
    """A host at work: its workers by address with their slots, what runs there, and its faults in a row.

    `retired` is the reason why it gets no more runs ("": it gets runs).
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
        """Return the worker for a run, or None: a guest on the wall clock runs alone, counted ones fill the slots."""
        if self.retired or self.alone or (clock is Clock.WALL and self.running.total()):
            return None
        free = [(self.running[name], name) for name, slots in self.slots.items() if self.running[name] < slots]
        return min(free)[1] if free else None

    def started(self, address: str, clock: Clock) -> None:
        """Note that a run was sent to a worker."""
        self.running[address] += 1
        self.alone = clock is Clock.WALL

    def ended(self, address: str, *, fault: bool) -> None:
        """Note that a run has ended; three faults of the host in a row retire it."""
        self.running[address] -= 1
        self.alone = False
        self.faults = self.faults + 1 if fault else 0
        if self.faults >= FAULTS_TO_RETIRE:
            self.retired = f"{self.faults} faults in a row"


def label_of(report: HostReport) -> str:
    """Return the label of a host's class, by which users choose it."""
    return report.environment.host_class + (", KVM" if report.kvm else "")


def problems(answers: Mapping[str, Any], slots: Mapping[str, int], ours: Ours) -> dict[str, str]:
    """Return why workers cannot measure, by address. `answers` are reports or errors."""
    reasons = {}
    for address in slots:
        answer = answers.get(address)
        if answer is None:
            reasons[address] = "does not answer"
        elif isinstance(answer, Exception):
            what = answer.what if isinstance(answer, AconError) else f"{type(answer).__name__}: {answer}"
            reasons[address] = f"cannot measure: {what}"
        elif answer.environment.acon_nb_version != ours.acon_nb:
            reasons[address] = f"has acon_nb {answer.environment.acon_nb_version}, the driver {ours.acon_nb}"
        elif answer.qemu != ours.qemu:
            reasons[address] = f"has QEMU {answer.qemu}, the driver {ours.qemu}"
    return reasons


def require_resource(workers: Mapping[str, int]) -> None:
    """Check that a worker offers the resource. Errors: `AconError` if none does: a run would wait for ever."""
    if not any(workers.values()):
        hint = f"start them with it: dask worker SCHEDULER --nthreads 1 --resources {RESOURCE}=1"
        raise AconError(f"none of {len(workers)} workers offers the resource {RESOURCE}", hint=hint)


def require_fit(unfit: Mapping[str, str], *, skip: bool) -> None:
    """Check that all workers can measure, unless `skip`. Errors: `AconError` that names those that cannot."""
    if unfit and not skip:
        raise AconError(
            f"{len(unfit)} workers cannot measure this study",
            details=shown([f"{address} {why}" for address, why in unfit.items()]),
            hint="fix them, or continue without them: skip_unfit=True, --skip-unfit",
        )


def choose_class(classes: Mapping[str, Mapping[str, HostReport]], wanted: str, measured: Collection[str]) -> str:
    """Return the one class of a study's hosts.

    `wanted` is a part of its label. Without it: the only one, or that of the counted rows that are in the store
    and not measured again (`measured`, by `host_class`); the key of a row of the wall clock includes its class.
    Errors: `InvalidInput` with the number of hosts of each class.
    """
    kernels = {name: {row.boot_id for row in rows.values()} for name, rows in classes.items()}
    listed = [f"{len(boot_ids)} hosts: {name}" for name, boot_ids in kernels.items()]
    fit = [name for name in classes if wanted == name] or [name for name in classes if wanted in name]
    if measured:
        fit = [name for name in fit if next(iter(classes[name].values())).environment.host_class in measured]
    if len(fit) == 1:
        return fit[0]
    if measured and not fit:
        reason = f"is not the class of the rows in the store ({'; '.join(sorted(measured))})"
        hint = "use such hosts, another folder, or measure again (--again)"
    else:
        reason = "fits no host" if not fit else "leaves hosts of several classes, which are never pooled"
        hint = "choose one: host_class=..., --host-class TEXT"
    raise InvalidInput("host_class", wanted, f"{reason}; there are: {'; '.join(listed)}", hint=hint)


def shown(lines: Sequence[str]) -> list[str]:
    """Return the first lines, and a last one with the number of those omitted."""
    more = len(lines) - _SHOWN
    return [*lines[:_SHOWN], *([f"and {more} more"] if more > 0 else [])]
