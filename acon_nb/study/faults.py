"""Faults of the host, for which a run is repeated although its guest did nothing wrong."""

from __future__ import annotations

from enum import StrEnum

from acon_nb.vm import End, Outcome

NOT_BUILT = "not_built"  # the end of a cell without a guest: its kernel does not build
_NO_MEMORY = ("cannot allocate memory", "cannot set up guest memory", "failed to allocate memory")


class HostFault(StrEnum):
    """Why the host, not the guest, spoilt a run: a code for files. A row's `error` has the details."""

    KILLED = "killed_from_outside"
    NO_MEMORY = "host_out_of_memory"
    CANNOT_RUN = "host_cannot_run"
    WORKER_LOST = "worker_lost"
    WORKER_RESTARTED = "worker_restarted"
    FILES_MISSING = "files_missing"
    FILES_DIFFER = "files_differ"

    @property
    def text(self) -> str:
        """The fault as text."""
        return self.value.replace("_", " ")


def host_fault(outcome: Outcome) -> str:
    """Return the fault of the host (`HostFault`) for which a run is repeated, or ""."""
    if outcome.end is End.KILLED:
        return HostFault.KILLED
    errors = " ".join(outcome.stderr).lower()
    if outcome.end is End.QEMU_FAILED and any(words in errors for words in _NO_MEMORY):
        return HostFault.NO_MEMORY
    return ""
