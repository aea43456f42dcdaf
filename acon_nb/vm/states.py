"""Why a guest no longer runs although QEMU does: QEMU's run states and events as an end, or as a notice.

Source: QEMU's qapi/run-state.json, qapi/block-core.json.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from acon_nb.vm.diagnosis import End
from acon_nb.vm.spec import VmSpec

_NOTICES_KEPT = 20
# Run states in which the guest stays until its owner does something; `paused` is a pause that the owner asked for
_STATES = {
    "io-error": (End.DISK_FAILED, "a disk failed"),
    "internal-error": (End.QEMU_FAILED, "the accelerator failed inside the guest (internal-error)"),
    "guest-panicked": (End.PANIC, "the guest's kernel panicked (pvpanic)"),
    "watchdog": (End.WATCHDOG, "the guest's watchdog expired"),
    "suspended": (End.SUSPENDED, "the guest suspended itself to memory"),
    "shutdown": (End.POWERED_OFF, "the guest powered off, and QEMU stays (-no-shutdown)"),
}
_RESUMABLE = ("io-error", "watchdog")
# Events after which the guest may continue
_WATCHDOG_ACTIONS = {"none": "is ignored", "debug": "is only reported", "inject-nmi": "sends the guest an NMI"}


@dataclass(frozen=True)
class Halt:
    """A guest that QEMU has stopped: its run state, the end that this is, and the cause in words."""

    state: str
    end: End
    cause: str

    @property
    def resumable(self) -> bool:
        """Whether the guest can continue once the cause is gone."""
        return self.state in _RESUMABLE


@dataclass
class States:
    """What QEMU has reported of a guest so far. `notices` are sentences for people, oldest first."""

    spec: VmSpec
    notices: list[str] = field(default_factory=list)
    expired: bool = False
    panicked: bool = False
    _disk_cause: str = ""

    def take(self, event: Mapping[str, Any]) -> str:
        """Take an event of QMP; return what a person should know of it, "" for nothing (or nothing new)."""
        handler, data = _HANDLERS.get(event["event"]), event.get("data")
        text = "" if handler is None else handler(self, data if isinstance(data, dict) else {})
        return self.note(text)

    def halt(self, state: str) -> Halt | None:
        """What a run state means; None for one in which the guest runs, or was paused by its owner."""
        if state not in _STATES:
            return None
        end, cause = _STATES[state]
        if state == "io-error" and self._disk_cause:
            cause = self._disk_cause
        return Halt(state, end, cause)

    def end_of(self, end: End) -> End:
        """The end of a guest, given what was reported before it ended: a watchdog that reset it, a panic."""
        if end is End.RESET and self.expired:
            return End.WATCHDOG
        if end is End.RESET and self.panicked:
            return End.PANIC
        return end

    def note(self, text: str) -> str:
        """Keep a notice and return it; "" if it is empty, was there before, or is one too many."""
        if not text or text in self.notices or len(self.notices) >= _NOTICES_KEPT:
            return ""
        self.notices.append(text)
        return text

    def _block_io_error(self, data: Mapping[str, Any]) -> str:
        path = self._disk_path(data)
        if data.get("nospace") is True:
            what = f"no space is left on the host for {path}"
        else:
            what = f"the host cannot {data.get('operation', 'access')} {path}: {data.get('reason', 'unknown reason')}"
        if data.get("action") == "stop":
            self._disk_cause = what
            return ""  # the run state tells it
        ignored = data.get("action") == "ignore"
        return f"{what}; the guest {'is not told' if ignored else 'gets an I/O error'}"

    def _block_image_corrupted(self, data: Mapping[str, Any]) -> str:
        fatal = "; QEMU no longer writes to it" if data.get("fatal") is True else ""
        return f"the disk image {self._disk_path(data)} is corrupt: {data.get('msg', '')}{fatal}"

    def _watchdog(self, data: Mapping[str, Any]) -> str:
        action = str(data.get("action", ""))
        self.expired = action not in _WATCHDOG_ACTIONS
        does = _WATCHDOG_ACTIONS.get(action, f"means {action}")
        return f"the guest's watchdog expired, which {does}"

    def _guest_panicked(self, _: Mapping[str, Any]) -> str:
        self.panicked = True
        return _STATES["guest-panicked"][1]

    def _guest_crashloaded(self, _: Mapping[str, Any]) -> str:
        return "the guest's kernel panicked, and continues in its crash kernel"

    def _memory_failure(self, data: Mapping[str, Any]) -> str:
        recipient, action = data.get("recipient", "unknown"), data.get("action", "unknown")
        return f"the host's memory failed under the guest (recipient {recipient}, action {action})"

    def _suspend_disk(self, _: Mapping[str, Any]) -> str:
        return "the guest suspended itself to disk, and QEMU ends"

    def _disk_path(self, data: Mapping[str, Any]) -> str:
        """The image of the disk that an event names: "disk0", or by its device "/machine/peripheral/disk0/..."."""
        names = {str(data.get("device", "")), *str(data.get("qom-path", "")).split("/")}
        for number, disk in enumerate(self.spec.disks):
            if f"disk{number}" in names:
                return str(disk.path)
        if len(self.spec.disks) == 1:
            return str(self.spec.disks[0].path)
        return str(data.get("device") or data.get("node-name") or "a disk")


_HANDLERS: Mapping[str, Callable[[States, Mapping[str, Any]], str]] = {
    "BLOCK_IO_ERROR": States._block_io_error,
    "BLOCK_IMAGE_CORRUPTED": States._block_image_corrupted,
    "WATCHDOG": States._watchdog,
    "GUEST_PANICKED": States._guest_panicked,
    "GUEST_CRASHLOADED": States._guest_crashloaded,
    "MEMORY_FAILURE": States._memory_failure,
    "SUSPEND_DISK": States._suspend_disk,
}
