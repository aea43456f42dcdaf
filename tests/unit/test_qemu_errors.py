"""What QEMU prints when it fails: each example of the table leads to its own cause, through a real launch too."""

from __future__ import annotations

from pathlib import Path

import pytest

from acon_nb.known_errors import KnownError
from acon_nb.vm import Capabilities, End, Machine, VmSpec
from acon_nb.vm.diagnosis import hint_for, qemu_errors
from tests.unit import bzimages

# Lines of public reports that are no example of the table
REPORTS = {
    "qemu-system-x86_64: vm-type tdx not supported by KVM": "kvm_intel.tdx=1",
    "error: internal error: QEMU unexpectedly closed the monitor: VM-TYPE TDX NOT SUPPORTED BY KVM": "kvm_intel.tdx=1",
    "-accel kvm: TDX ioctl KVM_TDX_CAPABILITIES failed, hw_errors: 0x0: Invalid argument": "one source",
    "qemu-system-x86_64: KVM_TDX_INIT_MEM_REGION failed Input/output error": "TDVF of the same release",
    "qemu-system-x86_64: -accel kvm: TDX VM doesn't support PIC": "has no PIC",
    "qemu-system-x86_64: invalid object type: tdx-guest": "10.1",
    "qemu-system-x86_64-tdx: TDVF metadata doesn't specify TD_HOB location. : unknown": "OVMF_CODE.fd",
    "TDX ioctl KVM_TDX_INIT_VM failed, hw_errors: 0xc000010000000000: Operation not supported": "CPU",
}


@pytest.mark.parametrize("row", qemu_errors(), ids=lambda row: row.example[:60])
def test_an_example_is_explained_by_its_own_row(row: KnownError) -> None:
    hint = hint_for(End.QEMU_FAILED, ["something before", row.example])
    assert len(hint) > 20
    matching = [one for one in qemu_errors() if one.match.search(row.example)]
    assert matching[0] is row
    assert "{" not in hint


def test_there_are_as_many_tdx_errors_as_the_table_promises() -> None:
    assert sum("tdx" in f"{row.match.pattern} {row.example} {row.source}".lower() for row in qemu_errors()) >= 25
    assert all(row.source and row.cause and row.hint for row in qemu_errors())


@pytest.mark.parametrize(("line", "words"), REPORTS.items())
def test_lines_of_public_reports_have_a_hint(line: str, words: str) -> None:
    assert words in hint_for(End.QEMU_FAILED, [line])


@pytest.mark.parametrize("row", qemu_errors(), ids=lambda row: row.example[:60])
def test_a_launch_shows_what_qemu_said_and_what_to_do(row: KnownError, tmp_path: Path) -> None:
    qemu = tmp_path / "qemu"
    qemu.write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{row.example}\nEND\nexit 1\n", encoding="utf-8")
    qemu.chmod(0o755)
    bzimages.write(tmp_path / "bzImage")
    spec = VmSpec(kernel=tmp_path / "bzImage", memory_bytes=64 << 20)
    with Machine(spec, host=Capabilities(qemu=qemu), folder=tmp_path / "run") as machine:
        outcome = machine.wait()
    assert outcome.end is End.QEMU_FAILED
    error = outcome.failure("the guest ended")
    assert f"QEMU: {row.example}" in error.details
    assert error.hint.startswith(row.cause.partition("{")[0])
