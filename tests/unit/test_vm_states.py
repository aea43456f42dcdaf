"""What QEMU reports of a guest that it stopped: each run state and event as an end or a notice."""

from __future__ import annotations

from pathlib import Path

import pytest

from acon_nb.vm import DiskSpec, End, VmSpec
from acon_nb.vm.outcome import name_end
from acon_nb.vm.states import States
from tests.unit import bzimages

# All run states of QEMU 11.1 (qapi/run-state.json), and the end that each is for a guest that nobody resumes
RUN_STATES = {
    "debug": None,
    "inmigrate": None,
    "internal-error": End.QEMU_FAILED,
    "io-error": End.DISK_FAILED,
    "paused": None,
    "postmigrate": None,
    "prelaunch": None,
    "finish-migrate": None,
    "restore-vm": None,
    "running": None,
    "save-vm": None,
    "shutdown": End.POWERED_OFF,
    "suspended": End.SUSPENDED,
    "watchdog": End.WATCHDOG,
    "guest-panicked": End.PANIC,
    "colo": None,
}


@pytest.fixture
def spec(tmp_path: Path) -> VmSpec:
    bzimages.write(tmp_path / "bzImage")
    for name in ("a.raw", "b.qcow2"):
        (tmp_path / name).touch()
    disks = (DiskSpec(path=tmp_path / "a.raw"), DiskSpec(path=tmp_path / "b.qcow2"))
    return VmSpec(kernel=tmp_path / "bzImage", disks=disks)


def io_error(action: str = "stop", **data: object) -> dict[str, object]:
    values = {"device": "disk1", "node-name": "#block1", "operation": "write", "action": action, "reason": "", **data}
    return {"event": "BLOCK_IO_ERROR", "data": values}


@pytest.mark.parametrize(("state", "end"), RUN_STATES.items())
def test_each_run_state_is_an_end_or_none(spec: VmSpec, state: str, end: End | None) -> None:
    halt = States(spec).halt(state)
    assert (halt and halt.end) == end
    assert halt is None or halt.cause


def test_a_disk_without_space_is_named_by_its_image(spec: VmSpec) -> None:
    states = States(spec)
    assert states.take(io_error(nospace=True, reason="No space left on device")) == ""
    halt = states.halt("io-error")
    assert halt is not None
    assert halt.cause == f"no space is left on the host for {spec.disks[1].path}"
    assert halt.resumable


def test_newer_qemus_name_the_device_alone(spec: VmSpec) -> None:
    states = States(spec)
    path = "/machine/peripheral-anon/device[3]/virtio-backend"
    text = states.take(io_error("report", device="disk0", **{"qom-path": path}, reason="Input/output error"))
    assert text == f"the host cannot write {spec.disks[0].path}: Input/output error; the guest gets an I/O error"


def test_an_error_that_comes_a_thousand_times_is_told_once(spec: VmSpec) -> None:
    states = States(spec)
    told = [states.take(io_error("report", reason="Input/output error")) for _ in range(1000)]
    assert len([text for text in told if text]) == 1
    assert len(states.notices) == 1


@pytest.mark.parametrize(("action", "end"), [("reset", End.WATCHDOG), ("inject-nmi", End.RESET), ("none", End.RESET)])
def test_a_reset_by_the_watchdog_is_not_the_guests_own(spec: VmSpec, action: str, end: End) -> None:
    states = States(spec)
    assert "watchdog" in states.take({"event": "WATCHDOG", "data": {"action": action}})
    assert states.end_of(End.RESET) is end
    assert states.end_of(End.POWERED_OFF) is End.POWERED_OFF


def test_a_panic_that_only_the_device_reports_is_a_panic(spec: VmSpec) -> None:
    states = States(spec)
    assert "panicked" in states.take({"event": "GUEST_PANICKED", "data": {"action": "poweroff"}})
    assert states.end_of(name_end("end", 0, "guest-panic", [], at_terminal=False)) is End.PANIC


@pytest.mark.parametrize(
    "event",
    [
        {"event": "MEMORY_FAILURE", "data": {"recipient": "guest", "action": "fatal", "flags": {}}},
        {"event": "GUEST_CRASHLOADED", "data": {"action": "run"}},
        {"event": "SUSPEND_DISK"},
        {"event": "BLOCK_IMAGE_CORRUPTED", "data": {"device": "", "msg": "L2 table", "fatal": True}},
    ],
)
def test_what_else_a_person_should_know_is_a_sentence(spec: VmSpec, event: dict[str, object]) -> None:
    states = States(spec)
    text = states.take(event)
    assert len(text.split()) > 5
    assert states.notices == [text]


@pytest.mark.parametrize("event", [{"event": "RTC_CHANGE"}, {"event": "NEW_IN_QEMU", "data": []}, {"event": "_take"}])
def test_other_events_say_nothing(spec: VmSpec, event: dict[str, object]) -> None:
    assert States(spec).take(event) == ""


def test_an_error_of_the_host_is_not_an_end_by_the_host() -> None:
    assert name_end("end", 0, "host-error", [], at_terminal=False) is End.QEMU_FAILED
    assert name_end("end", 0, "host-signal", [], at_terminal=False) is End.STOPPED
