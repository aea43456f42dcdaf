from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from acon_nb.errors import InvalidInput
from acon_nb.vm import Clock, DiskSpec, Forward, VmSpec
from tests.unit import bzimages


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    return bzimages.write(tmp_path / "bzImage")


def test_a_spec_is_frozen_and_has_the_guides_defaults(kernel: Path) -> None:
    spec = VmSpec(kernel=kernel)
    assert (spec.machine, spec.vcpus, spec.clock) == ("q35", 1, Clock.WALL)
    with pytest.raises(AttributeError):
        spec.vcpus = 2  # type: ignore[misc]


def test_the_clock_can_be_named_by_text(kernel: Path) -> None:
    assert VmSpec(kernel=kernel, clock="instructions").clock is Clock.INSTRUCTIONS  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="sundial"):
        VmSpec(kernel=kernel, clock="sundial")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "content",
    [b"", b"MZ", bytes(0x2FF), bytes(0x300), b"\x7fELF" + bytes(0x400), b"\x1f\x8b" + bytes(5000), b"#!/bin/sh\n" * 99],
)
def test_a_file_that_is_not_a_bzimage_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=r"vmlinux.*is not a bzImage"):
        VmSpec(kernel=path)


def test_missing_files_are_named(kernel: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"kernel=.*nothing.*is not a file"):
        VmSpec(kernel=tmp_path / "nothing")
    with pytest.raises(InvalidInput, match=r"kernel=.*is not a file"):
        VmSpec(kernel=tmp_path)
    with pytest.raises(InvalidInput, match=r"initrd=.*nothing.*is not a file"):
        VmSpec(kernel=kernel, initrd=tmp_path / "nothing")


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("machine", {"machine": "pc"}),
        ("accelerator", {"accelerator": "xen"}),
        ("vcpus", {"vcpus": 0}),
        ("vcpus", {"clock": Clock.INSTRUCTIONS, "vcpus": 2}),
        ("accelerator", {"clock": Clock.INSTRUCTIONS, "accelerator": "kvm"}),
        ("timeout_s", {"timeout_s": 0}),
        ("append", {"append": "x" * 2048}),
        ("append", {"append": "é" * 1024}),
        ("append", {"append": "quiet\ninit=/bin/sh"}),
        ("append", {"append": "a\0b"}),
        ("forwards", {"forwards": (Forward(host_port=2222, guest_port=22),)}),
        ("memory_bytes", {"memory_bytes": 3 << 20}),
        ("memory_bytes", {"memory_bytes": -1}),
    ],
)
def test_what_cannot_work_is_refused_by_the_name_of_its_field(kernel: Path, field: str, values: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as caught:
        VmSpec(kernel=kernel, **values)
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}=")


def test_a_command_line_of_the_longest_length_is_taken(kernel: Path) -> None:
    assert len(VmSpec(kernel=kernel, append="x" * 2047).append) == 2047


def test_the_memory_that_is_asked_for_is_enough(kernel: Path, tmp_path: Path) -> None:
    initrd = tmp_path / "initrd"
    initrd.write_bytes(bytes(3_000_000))
    with pytest.raises(InvalidInput, match=r"3\.0 MiB cannot hold") as caught:
        VmSpec(kernel=kernel, initrd=initrd, memory_bytes=3 << 20)
    megabytes = int(caught.value.hint.split()[-1].removesuffix("M"))
    assert VmSpec(kernel=kernel, initrd=initrd, memory_bytes=megabytes << 20)


@pytest.mark.parametrize("name", ["disk.img", "disk", "disk.QCOW2", "disk.raw.gz"])
def test_a_disk_of_another_suffix_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(InvalidInput, match=r"neither \.raw nor \.qcow2"):
        DiskSpec(path=tmp_path / name)


def test_a_missing_disk_is_refused_and_a_good_one_has_its_format(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="not a file"):
        DiskSpec(path=tmp_path / "x.raw")
    (tmp_path / "x.qcow2").touch()
    assert DiskSpec(path=tmp_path / "x.qcow2").format == "qcow2"


@pytest.mark.parametrize(
    ("field", "host", "guest"), [("host_port", 0, 22), ("host_port", 65536, 22), ("guest_port", 22, -1)]
)
def test_a_bad_port_is_refused(field: str, host: int, guest: int) -> None:
    with pytest.raises(InvalidInput) as caught:
        Forward(host_port=host, guest_port=guest)
    assert caught.value.field == field


@pytest.mark.parametrize("address", ["localhost", "127.0.0.1,guestfwd=x", "1.2.3.4-:5", "$(id)"])
def test_a_bad_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidInput, match="address"):
        Forward(host_port=2222, guest_port=22, address=address)
