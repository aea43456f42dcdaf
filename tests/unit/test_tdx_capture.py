"""Captures: whole ones make RTMR[0] known, all others are refused by the name of what is wrong."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from acon_nb import vm
from acon_nb.cli import main
from acon_nb.errors import InvalidInput
from acon_nb.td.capture import parse_changes
from acon_nb.tdx import BootInputs, compare, expected, parse_expected, predict, reference
from acon_nb.tdx import acpi as acpi_tables
from acon_nb.tdx import smbios as structures_of
from acon_nb.tdx.capture import ACPI_FILES, FW_CFG, MANIFEST, SMBIOS, read_capture
from acon_nb.vm.command import device_words
from tests.unit import captures
from tests.unit.test_tdx_boot import NEW, OLD, bzimage, identity_of, tdvf

FILES = (*ACPI_FILES, SMBIOS, FW_CFG)
TEXTS = ("ACPI DATA", "QEMU FW CFG")
FIRMWARE = tdvf(modules=NEW, texts=TEXTS, version="2026.08-1")


@pytest.fixture
def boot(tmp_path: Path) -> Callable[..., BootInputs]:
    (tmp_path / "OVMF.fd").write_bytes(FIRMWARE)
    (tmp_path / "bzImage").write_bytes(bzimage())
    captures.write(tmp_path / "capture", FIRMWARE)

    def make(**fields: object) -> BootInputs:
        values: dict[str, object] = {
            "firmware": tmp_path / "OVMF.fd",
            "kernel": tmp_path / "bzImage",
            "vcpus": 2,
            "devices": ("virtio-serial-pci",),
            "capture": tmp_path / "capture",
            **fields,
        }
        return BootInputs(**values)  # type: ignore[arg-type]

    return make


Boot = Callable[..., BootInputs]


def test_a_capture_of_this_machine_makes_rtmr0_known(boot: Boot) -> None:
    found = predict(boot(cpuid="c06f2:1fa9fbff"))
    assert found.registers["RTMR[0]"] is not None
    assert found.inputs.qemu == "10.1.3"
    labels = [event.label for event in found.events if event.register == "RTMR[0]"]
    assert labels[:4] == ["TdxTable", "CFV", "BootMenu", "bootorder"]
    digests = {event.label: event.digest for event in found.events}
    assert digests["BootMenu"] == hashlib.sha384(b"\0\0").digest()
    assert digests["bootorder"] == hashlib.sha384(b"/rom@genroms/linuxboot_dma.bin\n\0").digest()


def test_smbios_of_another_cpu_is_not_taken_for_the_td_s(boot: Boot) -> None:
    unknown = predict(boot())
    assert unknown.registers["RTMR[0]"] is None
    assert ["--cpuid" in event.why for event in unknown.unknown] == [True]
    first, second = (predict(boot(cpuid=cpuid)).registers["RTMR[0]"] for cpuid in ("c06f2:1", "c06f2:2"))
    assert first != second


def test_smbios_of_a_release_that_was_not_checked_stays_unknown(boot: Boot, tmp_path: Path) -> None:
    firmware = tdvf(modules=NEW, texts=TEXTS, version="2025.11-1")
    (tmp_path / "OVMF.fd").write_bytes(firmware)
    captures.write(tmp_path / "capture", firmware)
    unknown = predict(boot(cpuid="1:1")).unknown
    assert [event.label for event in unknown] == ["SMBIOS"]
    assert "edk2 202511 leaves out was not checked" in unknown[0].why


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"vcpus": 8}, "vcpus is 8, captured was 2"),
        ({"memory_bytes": 64 << 30}, "memory_bytes is 68719476736, captured was 2147483648"),
        ({"qemu": "7.2"}, "QEMU is 7.2, captured was 10.1.3"),
        ({"qemu": "10.1.2"}, "QEMU is 10.1.2"),
        ({"topology": "threads=2"}, "topology is threads=2, captured was none"),
        ({"devices": ()}, "devices is none, captured was virtio-serial-pci"),
        ({"devices": ("virtio-serial-pci", "virtio-net-pci")}, "devices is virtio-serial-pci virtio-net-pci"),
    ],
)
def test_a_capture_of_another_machine_is_refused(boot: Boot, fields: dict[str, object], named: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        predict(boot(**fields))
    assert caught.value.field == "capture"
    assert named in str(caught.value)


def test_a_capture_of_another_firmware_is_refused(boot: Boot, tmp_path: Path) -> None:
    inputs = boot()
    inputs.firmware.write_bytes(FIRMWARE[:100] + b"\1" + FIRMWARE[101:])
    with pytest.raises(InvalidInput, match="another machine: firmware is"):
        predict(inputs)


def test_a_capture_of_a_qemu_that_starts_no_td_is_refused(boot: Boot, tmp_path: Path) -> None:
    captures.write(tmp_path / "capture", FIRMWARE, qemu="7.2.22", machine="pc-q35-7.2-machine")
    with pytest.raises(InvalidInput, match=r"from QEMU 7\.2\.22, which cannot start a TD"):
        predict(boot())
    assert predict(boot(qemu="7.2", cpuid="1:1")).registers["RTMR[0]"] is not None


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_an_incomplete_or_random_capture_is_refused(boot: Boot, tmp_path: Path, name: str) -> None:
    path = tmp_path / "capture" / name
    raw = path.read_bytes()
    for content in (random.Random(1).randbytes(len(raw)), raw[: len(raw) // 2], bytes((raw[0] ^ 1,)) + raw[1:], b""):
        path.write_bytes(content)
        with pytest.raises(InvalidInput, match=name):
            predict(boot())
    path.unlink()
    with pytest.raises(InvalidInput, match=f"lacks {name}"):
        predict(boot())


def test_files_without_a_manifest_are_no_capture(boot: Boot, tmp_path: Path) -> None:
    """What earlier versions captured says nothing about its machine."""
    for name in (MANIFEST, SMBIOS, FW_CFG):
        (tmp_path / "capture" / name).unlink()
    with pytest.raises(InvalidInput, match=r"lacks manifest\.json"):
        predict(boot())


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("tables", lambda raw: raw.replace(b"MCFG", b"MCFX"), "no table MCFG"),
        ("tables", lambda raw: raw[:68] + b"\xff\xff\0\0" + raw[72:], "impossible length"),
        ("tables", lambda raw: raw[:-1] + b"x", "bytes follow the last table"),
        ("table-loader", lambda raw: raw.rstrip(b"\0")[: -len(b"\x14")].ljust(4096, b"\0"), "no checksum of the rsdp"),
        ("table-loader", lambda raw: raw[:256] + raw[384:], "computes no checksum of this length"),
        ("table-loader", lambda raw: b"\x09" + raw[1:], "does not exist"),
        ("rsdp", lambda raw: b"X" + raw[1:], "signature RSD PTR"),
        ("smbios", lambda raw: raw[:-6], "end marker"),
        ("smbios", lambda raw: raw.replace(b"pc-q35-10.1", b"pc-q35-10.0"), "made by the machine"),
        ("smbios", lambda raw: raw.replace(b"\0\x08\0\0", b"\0\x10\0\0", 1), "bytes of memory"),
    ],
)
def test_tables_are_checked_even_if_their_hashes_fit(
    boot: Boot, tmp_path: Path, name: str, change: Callable[[bytes], bytes], reason: str
) -> None:
    folder = tmp_path / "capture"
    changed = change((folder / name).read_bytes())
    (folder / name).write_bytes(changed)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][name] = hashlib.sha256(changed).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(InvalidInput, match=reason):
        read_capture(folder)


def test_tables_of_fewer_vcpus_than_the_manifest_names_are_refused(boot: Boot, tmp_path: Path) -> None:
    folder = tmp_path / "capture"
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["hardware"]["vcpus"] = 8
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(InvalidInput, match="lists 2 vCPUs, the manifest 8"):
        predict(boot(vcpus=8))


@given(st.binary(max_size=600), st.sampled_from(ACPI_FILES))
def test_any_bytes_for_acpi_files_are_refused_with_a_reason(data: bytes, name: str) -> None:
    files = {**captures.acpi_files(), name: data}
    with pytest.raises(ValueError, match=r"table-loader|rsdp|tables"):
        acpi_tables.processors(acpi_tables.linked_tables(*(files[each] for each in ACPI_FILES)))


@given(st.binary(max_size=300))
def test_any_bytes_for_smbios_are_split_whole_or_refused(data: bytes) -> None:
    try:
        found = structures_of.structures(data)
    except ValueError:
        return
    assert b"".join(each.raw for each in found) == data
    assert len(structures_of.measured(data)) == len(data)


def test_what_identifies_one_machine_is_not_measured() -> None:
    first, second = captures.structures(serial=b"s3cret"), captures.structures(serial=b"public")
    assert structures_of.measured(first) == structures_of.measured(second)
    assert structures_of.measured(first).count(b" " * 6) == 1
    other = captures.structures(memory_bytes=4 << 30)
    assert structures_of.measured(first) != structures_of.measured(other)


def test_real_firmware_hashes_smbios_like_this() -> None:
    """The table of a guest of QEMU 7.2, and the digest that OVMF 2026.08 logged for it (PCR 1)."""
    table = (Path(__file__).parent / "data/smbios-qemu72-ovmf202608.bin").read_bytes()
    logged = "968e040146b474a412f0a15f235579949b8f9219567aac5f702502ee1bf1d50a05c81c23afba78a2e3640b832e97349a"
    assert hashlib.sha384(structures_of.measured(table)).hexdigest() == logged


def test_the_devices_of_a_guest_do_not_name_what_lies_on_the_host(tmp_path: Path) -> None:
    kernel, disk = tmp_path / "bzImage", tmp_path / "a.raw"
    kernel.write_bytes(bzimage())
    disk.write_bytes(b"")
    spec = vm.VmSpec(kernel=kernel, disks=(vm.DiskSpec(path=disk),), network=True, vsock_cid=7, balloon=True)
    found = device_words(spec)
    assert found == ("virtio-serial-pci", "virtio-blk-pci", "virtio-net-pci", "vhost-vsock-pci", "virtio-balloon-pci")


def test_without_a_version_both_values_of_a_register_are_given(boot: Boot, tmp_path: Path) -> None:
    (tmp_path / "OVMF.fd").write_bytes(tdvf(modules=OLD, texts=("ACPI DATA",), version="2024.11-1"))
    inputs = boot(capture=None)
    found = predict(inputs)
    assert found.inputs.qemu == "10.1"
    assert set(found.other_versions) == {"10.2"}
    old, new = (predict(inputs.changed(qemu=version)).registers for version in ("10.1", "10.2"))
    assert found.registers == old
    assert found.other_versions["10.2"].registers == new
    assert old["RTMR[1]"] != new["RTMR[1]"]
    assert any("10.1, the first that can start a TD, is assumed" in note for note in found.notes)
    assert not predict(inputs.changed(qemu="10.1")).other_versions
    out = tmp_path / "values.json"
    argv = ["measure", "predict", str(inputs.kernel), "--firmware", str(inputs.firmware), "--initrd", "-"]
    argv += ["--rvps", str(out), "--only", "mrtd,rtmr1"]
    result = CliRunner().invoke(main, argv, env={"VP": "", "M": "2g"})
    assert result.exit_code == 0, result.output
    assert "(QEMU 10.2 or later)" in result.output
    values = [old["RTMR[1]"], new["RTMR[1]"]]
    assert reference.read_message(out.read_text())["rtmr_1"] == [value.hex() for value in values if value]
    assert "tdvfkernel" not in reference.read_message(out.read_text())  # the policy takes one value, and there are two
    assert reference.reference_values(expected(found))["rtmr_1"] == [value.hex() for value in values[:1] if value]


def test_a_version_that_changes_nothing_gives_one_value(boot: Boot, tmp_path: Path) -> None:
    (tmp_path / "OVMF.fd").write_bytes(tdvf(modules=OLD, texts=("ACPI DATA", "etc/boot/"), version="2025.02-1"))
    found = predict(boot(capture=None))
    assert not found.other_versions
    assert any("what is known does not differ" in note for note in found.notes)


OTHERS = ({"vcpus": 1}, {"vcpus": 4}, {"memory_bytes": 4 << 30}, {"vcpus": 4, "memory_bytes": 4 << 30})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"vcpus": 4}, "the guest has 4 vCPUs, not 2"),
        ({"memory_bytes": 4 << 30}, "the memory is 4 GiB, not 2 GiB"),
        ({"vcpus": 4, "memory_bytes": 4 << 30}, "the guest has 4 vCPUs, not 2 and the memory is 4 GiB, not 2 GiB"),
        ({"vcpus": 1, "append": "console=ttyS0 quiet"}, "has 1 vCPU, not 2 and the command line has 'quiet'"),
    ],
)
def test_other_machines_that_were_captured_explain_a_quote(
    boot: Boot, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    folder = tmp_path / "capture"
    (folder / "also").mkdir()
    for number, fields in enumerate(OTHERS):
        captures.write(folder / "also" / str(number), FIRMWARE, **fields)
    inputs = boot(cpuid="1:1")
    stored = parse_expected(json.dumps(expected(predict(inputs)).as_json()))
    of_machine = {name: value for name, value in change.items() if name != "append"}
    other = folder / "also" / str(OTHERS.index(of_machine))
    found = compare(stored, identity_of(predict(inputs.changed(capture=other, **change))))
    assert found.verdict == "different"
    assert any("everything that can be known" in text and words in text for text in found.explanations)


def test_machines_that_were_not_captured_are_named(boot: Boot) -> None:
    prediction = predict(boot(cpuid="1:1"))
    found = compare(expected(prediction), identity_of(prediction, **{"RTMR[0]": b"\7" * 48}))
    assert any("other numbers of vCPUs were not tried" in text for text in found.explanations)


def test_another_machine_of_another_firmware_is_refused(boot: Boot, tmp_path: Path) -> None:
    (tmp_path / "capture/also").mkdir()
    captures.write(tmp_path / "capture/also/1", FIRMWARE[:-1] + b"\1", vcpus=1)
    with pytest.raises(InvalidInput, match="from another firmware than the capture"):
        predict(boot())


def test_how_another_machine_differs_is_parsed() -> None:
    assert parse_changes("vcpus=2, memory=4G") == {"vcpus": 2, "memory_bytes": 4 << 30}
    for text in ("vcpus=0", "vcpus=", "cpus=2", "", "vcpus=9999"):
        with pytest.raises(InvalidInput, match="also"):
            parse_changes(text)
