"""Guests that QEMU stops, and hosts whose KVM fails: ends and notices of real guests."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from acon_nb import vm
from acon_nb.vm import disk

pytestmark = pytest.mark.system
Scripted = Callable[..., vm.VmSpec]
FILL = "dd if=/dev/zero of=/dev/vda bs=64k count=64 oflag=direct; sync; poweroff -f"


@pytest.fixture
def full(scripted: Scripted, small_disk: Path) -> vm.VmSpec:
    """A guest that writes 4 MiB to an image on a file system of 256 KiB, half of which a file takes."""
    image = disk.create(small_disk / "d.qcow2", 64 << 20)
    (small_disk / "ballast").write_bytes(bytes(100 << 10))
    return scripted(FILL, disks=(vm.DiskSpec(path=image.path),), timeout_s=300)


def test_a_full_disk_of_the_host_is_an_end_with_its_cause(full: vm.VmSpec, host: vm.Capabilities) -> None:
    outcome = vm.boot(full, host=host)
    assert outcome.end is vm.End.DISK_FAILED
    assert outcome.notes[0] == f"no space is left on the host for {full.disks[0].path}"
    assert "make room" in outcome.hint


def test_in_front_of_a_person_such_a_guest_waits_and_goes_on(
    scripted: Scripted, host: vm.Capabilities, tmp_path: Path, small_disk: Path
) -> None:
    image = disk.create(small_disk / "d.qcow2", 64 << 20)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(150 << 10))
    script = FILL.replace("count=64", "count=1")
    spec = scripted(script, disks=(vm.DiskSpec(path=image.path),), timeout_s=300)
    notices: list[str] = []
    with vm.Machine(spec, host=host, interactive=True, attended=True, on_notice=notices.append) as machine:
        machine.start()
        deadline = time.monotonic() + 200
        while not notices and machine.running and time.monotonic() < deadline:
            time.sleep(0.05)
        assert "the guest is paused" in notices[0]
        assert str(image.path) in notices[0]
        assert machine.qmp("query-status")["status"] == "io-error"
        ballast.unlink()
        machine.resume()
        assert machine.wait().end is vm.End.POWERED_OFF


@pytest.mark.parametrize("interactive", [False, True], ids=["console in a file", "console in a window"])
@pytest.mark.parametrize(
    ("script", "append", "hint"),
    [("halt -f", "", "poweroff ends it"), ("poweroff -f", " acpi=off", "PCI=y and ACPI=y")],
    ids=["halt", "no ACPI"],
)
def test_a_guest_that_halts_is_ended_by_that_name(
    scripted: Scripted, host: vm.Capabilities, script: str, append: str, hint: str, interactive: bool
) -> None:
    spec = scripted(script, timeout_s=300)
    spec = replace(spec, append=spec.append + append)
    began = time.monotonic()
    with vm.Machine(spec, host=host, interactive=interactive) as machine:
        machine.start()
        outcome = machine.wait()
    assert outcome.end is vm.End.HALTED
    assert outcome.end.text == "halted, without powering off"
    assert hint in outcome.hint
    assert time.monotonic() - began < 150


def test_kvm_that_fails_at_once_gives_way_to_tcg(scripted: Scripted, host: vm.Capabilities) -> None:
    if host.kvm or "opens, but" not in host.kvm_why:
        pytest.skip(f"needs a KVM that opens and cannot run a guest: {host.kvm_why}")
    spec = scripted("report '{\"done\":1}'\npoweroff -f", timeout_s=300)
    outcome = vm.boot(spec, host=replace(host, kvm=True))
    assert outcome.end is vm.End.POWERED_OFF
    assert outcome.accelerator == "tcg"
    assert [message.data for message in outcome.messages] == [{"done": 1}]
    assert "KVM failed" in outcome.notes[0]


def test_kvm_that_is_asked_for_by_name_is_not_replaced(scripted: Scripted, host: vm.Capabilities) -> None:
    if host.kvm or "opens, but" not in host.kvm_why:
        pytest.skip(f"needs a KVM that opens and cannot run a guest: {host.kvm_why}")
    spec = scripted("poweroff -f", accelerator="kvm", timeout_s=60)
    outcome = vm.boot(spec, host=replace(host, kvm=True))
    assert outcome.end is vm.End.QEMU_FAILED
    assert outcome.accelerator == "kvm"
    assert "accelerator=tcg" in outcome.hint
