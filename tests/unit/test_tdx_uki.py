"""UKIs: what systemd-stub measures of one, in which order, and what it starts the kernel with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from acon_nb import vm
from acon_nb.cli import main
from acon_nb.errors import InvalidInput
from acon_nb.tdx import BootInputs, Prediction, compare, expected, parse_expected, predict, predict_reference_boot
from acon_nb.tdx.uki.image import is_uki, read_boot_file, require_uki, trimmed
from tests import esp
from tests.unit import captures, ukis
from tests.unit.test_tdx_boot import by_hand, bzimage, identity_of, tdvf

KERNEL = bzimage()
PAYLOAD = (
    (".osrel", b"ID=debian\n"),
    (".cmdline", b" console=ttyS0\tquiet \n"),
    (".initrd", b"the initrd"),
    (".linux", KERNEL),
    (".pcrsig", b'{"sha384":[]}'),
    (".pcrpkey", b"a key"),
)
Boot = Callable[..., BootInputs]


def sha384(data: bytes) -> bytes:
    return hashlib.sha384(data).digest()


def wide(text: str) -> bytes:
    return text.encode("utf-16-le") + b"\0\0"


@pytest.fixture
def boot(tmp_path: Path) -> Boot:
    def make(
        version: str = "257.13-1",
        rows: ukis.Rows = PAYLOAD,
        *,
        cc: bool = True,
        texts: Sequence[str] = (),
        larger: int = 0,
        **fields: object,
    ) -> BootInputs:
        (tmp_path / "OVMF.fd").write_bytes(tdvf())
        image = ukis.pe((*ukis.stub(version, cc=cc, texts=texts), *rows), larger=larger)
        (tmp_path / "uki.efi").write_bytes(image)
        values: dict[str, object] = {"append": "", "qemu": "10.1", **fields}
        return BootInputs(firmware=tmp_path / "OVMF.fd", kernel=tmp_path / "uki.efi", **values)  # type: ignore[arg-type]

    return make


def measured(prediction: Prediction, *registers: str) -> list[tuple[str, bytes | None]]:
    return [(event.label, event.digest) for event in prediction.events if event.register in registers]


def names(name: str, data: bytes) -> list[tuple[str, bytes]]:
    return [(f"section {name}: name", sha384(name.encode() + b"\0")), (f"section {name}: content", sha384(data))]


def file_of(name: str, content: bytes) -> bytes:
    """The archive of one file in /.extra as newc has it, from the fields of the format by name."""

    def entry(path: str, mode: int, inode: int, data: bytes = b"") -> bytes:
        raw = path.encode() + b"\0"
        fields = [inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(raw), 0]
        head = b"070701" + b"".join(b"%08x" % field for field in fields) + raw
        return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)

    end = entry("TRAILER!!!", 0, 0).replace(b"0000000b", b"0000000B")
    return entry(".extra", 0o40555, 1) + entry(f".extra/{name}", 0o100444, 2, content) + end


SECTIONS = [
    *names(".linux", KERNEL),
    *names(".osrel", b"ID=debian\n"),
    *names(".cmdline", PAYLOAD[1][1]),
    *names(".initrd", b"the initrd"),
    *names(".pcrpkey", b"a key"),
]
INITRD = b"the initrd\0\0" + file_of("tpm2-pcr-signature.json", b'{"sha384":[]}')
INITRD += file_of("tpm2-pcr-public-key.pem", b"a key")


def test_a_td_measures_the_sections_then_the_kernel_s_own(boot: Boot) -> None:
    found = predict(boot())
    initrd = INITRD + file_of("os-release", b"ID=debian\n")
    line = ("command line", sha384(wide("console=ttyS0 quiet")))
    assert measured(found, "RTMR[2]") == [*SECTIONS, line, ("initrd", sha384(initrd))]
    applications = [e for e in found.events if e.type_name == "EV_EFI_BOOT_SERVICES_APPLICATION"]
    assert [event.digest for event in applications] == [by_hand(found.material.started), by_hand(KERNEL)]
    assert [event.register for event in applications] == ["RTMR[1]"] * 2
    assert found.registers["RTMR[1]"] is not None
    assert found.registers["RTMR[2]"] is not None


def test_a_tpm_has_the_same_events_in_registers_of_their_own(boot: Boot) -> None:
    inputs = boot(append="debug")
    found, td = predict_reference_boot(inputs), predict(inputs)
    given = ("command line", sha384(wide("debug")))
    assert measured(found, "PCR[11]") == SECTIONS
    assert measured(found, "PCR[12]") == [given]
    assert measured(found, "PCR[9]")[0] == given
    order = measured(td, "RTMR[2]")
    assert order == [*SECTIONS, given, *measured(found, "PCR[9]")]


def test_an_old_stub_knows_fewer_sections_and_files(boot: Boot) -> None:
    rows = (*PAYLOAD, (".uname", b"6.12"), (".sbat", b"sbat,1"))
    found = predict_reference_boot(boot("252.39", rows))
    assert measured(found, "PCR[11]") == SECTIONS
    trimmed_end = ("command line", sha384(wide(" console=ttyS0 quiet")))
    assert measured(found, "PCR[9]") == [trimmed_end, ("initrd", sha384(INITRD))]
    new = predict_reference_boot(boot("257.1", rows))
    assert measured(new, "PCR[11]")[-6:-2] == [*names(".uname", b"6.12"), *names(".sbat", b"sbat,1")]


def test_a_stub_without_the_cc_protocol_measures_no_section_in_a_td(boot: Boot) -> None:
    found = predict(boot("254.1", cc=False))
    assert [label for label, _ in measured(found, "RTMR[2]")] == ["command line", "initrd"]
    assert any("does not support the CC protocol" in note for note in found.notes)


def test_smbios_is_measured_into_a_tpm_alone_without_how_the_machine_was_switched_on(boot: Boot) -> None:
    texts = ("smbios:type1", "smbios:type2", "smbios:type11")
    system = captures.structure(1, bytes(20) + b"\6\0\0", b"QEMU")
    strings = captures.structure(11, b"\1", b"io.systemd.credential:a=b")
    table = system + captures.structure(3, bytes(9)) + strings + captures.structure(127, b"")
    inputs = boot("262.1", texts=texts)
    found = predict_reference_boot(inputs)
    assert [event.why for event in found.unknown if event.register == "PCR[1]"] != []
    events = dict(measured(found.with_hardware({}, table), "PCR[1]"))
    assert events["systemd-stub: smbios:type1"] == sha384(system.replace(b"\6\0\0", b"\0\0\0", 1))
    assert events["systemd-stub: smbios:type11"] == sha384(strings)
    assert "systemd-stub: smbios:type2" not in events
    assert not any("smbios" in event.label for event in predict(inputs).events)


def test_a_newer_stub_starts_the_kernel_itself(boot: Boot) -> None:
    found = predict(boot("258.1"))
    assert len([e for e in found.events if e.type_name == "EV_EFI_BOOT_SERVICES_APPLICATION"]) == 1


def test_sections_are_measured_as_they_are_in_memory(boot: Boot) -> None:
    found = predict_reference_boot(boot(larger=3))
    assert dict(measured(found, "PCR[11]"))["section .osrel: content"] == sha384(b"ID=debian\n\0\0\0")
    assert measured(found, "PCR[9]")[0] == ("command line", sha384(wide("console=ttyS0 quiet")))


def test_an_initrd_alone_is_not_padded(boot: Boot) -> None:
    rows = ((".initrd", b"abc"), (".linux", KERNEL))
    assert measured(predict(boot("252.1", rows)), "RTMR[2]")[-1] == ("initrd", sha384(b"abc"))
    rows = ((".ucode", b"1"), *rows)
    assert measured(predict(boot("257.1", rows)), "RTMR[2]")[-1] == ("initrd", sha384(b"1\0\0\0abc\0"))


def test_a_uki_without_initrd_and_command_line(boot: Boot) -> None:
    rows = ((".linux", KERNEL),)
    assert measured(predict(boot("257.1", rows)), "RTMR[2]") == names(".linux", KERNEL)
    found = predict(boot("257.1", rows, append="ro"))
    assert [label for label, _ in measured(found, "RTMR[2]")][2:] == ["command line", "command line"]


PROFILES = (
    *PAYLOAD[:4],
    (".profile", b"ID=one\n"),
    (".profile", b"ID=two\n"),
    (".cmdline", b"two"),
    (".initrd", b"second"),
)


@pytest.mark.parametrize(
    ("append", "line", "profile", "initrd"),
    [
        ("", "console=ttyS0 quiet", b"ID=one\n", b"the initrd\0\0"),
        ("@0", "console=ttyS0 quiet", b"ID=one\n", b"the initrd\0\0"),
        ("@1", "two", b"ID=two\n", b"second\0\0"),
        ("@1 ro  quiet", "ro  quiet", b"ID=two\n", b"second\0\0"),
        ("@1x", "@1x", b"ID=one\n", b"the initrd\0\0"),
    ],
)
def test_a_profile_is_chosen_by_the_command_line(
    boot: Boot, append: str, line: str, profile: bytes, initrd: bytes
) -> None:
    found = predict_reference_boot(boot("257.1", PROFILES, append=append))
    assert measured(found, "PCR[11]")[-2:] == names(".profile", profile)
    assert measured(found, "PCR[9]")[0] == ("command line", sha384(wide(line)))
    files = file_of("os-release", b"ID=debian\n") + file_of("profile", profile)
    assert measured(found, "PCR[9]")[1] == ("initrd", sha384(initrd + files))
    tagged = [("profile of the UKI", sha384(wide("1")))] if append.startswith("@1") and append != "@1x" else []
    assert measured(found, "PCR[12]")[: len(tagged)] == tagged


def test_a_profile_that_does_not_exist_is_refused(boot: Boot) -> None:
    with pytest.raises(InvalidInput, match="has no such profile"):
        predict(boot("257.1", PROFILES, append="@2"))


@pytest.mark.parametrize("append", ["", "quiet"])
def test_a_console_that_the_stub_adds_is_not_guessed(boot: Boot, append: str) -> None:
    rows = ((".cmdline", b"quiet"), *PAYLOAD[2:])
    texts = ("* console=*",)
    found = predict(boot("262.1", rows, texts=texts, append=append))
    assert found.registers["RTMR[2]"] is None
    assert ["console=" in event.why for event in found.unknown if event.register == "RTMR[2]"] == [True]
    assert predict(boot("262.1", rows, texts=texts, append="console=hvc0")).registers["RTMR[2]"] is not None


def test_a_command_line_that_is_not_utf_8_is_not_guessed(boot: Boot) -> None:
    found = predict(boot(rows=((".cmdline", b"a=\xff"), *PAYLOAD[2:])))
    assert found.registers["RTMR[2]"] is None
    assert any("not UTF-8" in event.why for event in found.unknown)


def test_device_trees_for_the_machine_are_not_guessed(boot: Boot) -> None:
    rows = (*PAYLOAD, (".dtbauto", b"tree"))
    assert measured(predict_reference_boot(boot(rows=rows)), "PCR[11]") == SECTIONS
    found = predict_reference_boot(boot(rows=(*rows, (".hwids", b"ids"))))
    assert found.registers["PCR[11]"] is None


def test_an_initrd_beside_a_uki_is_refused(boot: Boot, tmp_path: Path) -> None:
    (tmp_path / "initrd").write_bytes(b"x")
    with pytest.raises(InvalidInput, match="no initrd with a UKI"):
        predict(boot(initrd=tmp_path / "initrd"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda raw: raw[:-600], "cut off"),
        (lambda raw: raw.replace(b"LoaderInfo", b"loaderInfo"), "systemd-stub did not make it"),
        (lambda raw: raw.replace(b"HdrS", b"HdrX"), "not a bzImage"),
    ],
)
def test_a_damaged_uki_is_refused(boot: Boot, change: Callable[[bytes], bytes], words: str) -> None:
    inputs = boot()
    inputs.kernel.write_bytes(change(inputs.kernel.read_bytes()))
    with pytest.raises(InvalidInput, match=words):
        predict(inputs)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 0x700), st.binary(min_size=1, max_size=4)), min_size=1, max_size=4))
def test_no_damage_to_the_headers_makes_it_fail(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, bytes]]
) -> None:
    raw = bytearray(ukis.pe((*ukis.stub("257.1"), *PAYLOAD)))
    for place, data in changes:
        raw[place : place + len(data)] = data
    path = tmp_path_factory.getbasetemp() / "damaged.efi"
    path.write_bytes(raw)
    try:
        _, uki = read_boot_file(path)
        if uki is not None:
            uki.digests()
    except InvalidInput:
        pass


def test_what_is_a_uki(boot: Boot, tmp_path: Path) -> None:
    inputs = boot()
    assert is_uki(inputs.kernel)
    (tmp_path / "bzImage").write_bytes(KERNEL)
    assert not is_uki(tmp_path / "bzImage")
    assert not is_uki(tmp_path)
    require_uki(inputs.kernel)
    (tmp_path / "text").write_bytes(b"no program\n")
    for name, words in (("bzImage", "is a bzImage, not a UKI"), ("text", "is not a UKI"), ("none", "is not a file")):
        with pytest.raises(InvalidInput, match=f"^uki=.*{words}"):
            require_uki(tmp_path / name)
    assert trimmed("\t a\x7fb \n", both_ends=True) == "a b"
    assert trimmed("\t a\x7fb \n", both_ends=False) == "  a\x7fb"


def test_a_stored_prediction_of_a_uki_is_read_back(boot: Boot) -> None:
    made = expected(predict(boot()))
    assert parse_expected(json.dumps(made.as_json())) == made


def test_the_command_predicts_a_uki_with_its_own_line(boot: Boot, tmp_path: Path) -> None:
    inputs = boot()
    argv = ["measure", "predict", "--firmware", str(inputs.firmware), "--qemu", "10.1", "--json"]
    env = {"RD": str(tmp_path / "no-initrd"), "KA": "kept=out", "VP": "", "M": "2g"}
    for words in (["--uki", str(inputs.kernel)], [str(inputs.kernel)]):
        result = CliRunner().invoke(main, [*argv, *words, "--only", "rtmr1,rtmr2"], env=env)
        assert result.exit_code == 0, result.output
        value = predict(inputs).registers["RTMR[2]"]
        assert value is not None
        assert json.loads(result.stdout)["registers"]["RTMR[2]"] == value.hex()
    (tmp_path / "bzImage").write_bytes(KERNEL)
    result = CliRunner().invoke(main, [*argv, "--uki", str(tmp_path / "bzImage")], env=env)
    assert result.exit_code == 4
    assert "not a UKI" in result.output


def test_a_guest_with_firmware_can_be_given_a_uki(boot: Boot) -> None:
    inputs = boot()
    spec = vm.VmSpec(kernel=inputs.kernel, firmware=inputs.firmware, memory_bytes=512 << 20)
    assert "-kernel" in vm.argument_list(spec, vm.Capabilities(qemu=Path("qemu"), version=(10, 1, 0)))
    with pytest.raises(InvalidInput, match="not a bzImage"):
        vm.VmSpec(kernel=inputs.kernel, memory_bytes=512 << 20)
    with pytest.raises(InvalidInput, match="memory"):
        vm.VmSpec(kernel=inputs.kernel, firmware=inputs.firmware, memory_bytes=16 << 20)


def test_a_uki_on_a_disk_comes_after_ready_to_boot_and_the_partition_table(boot: Boot, tmp_path: Path) -> None:
    inputs = boot()
    image = esp.disk(inputs.kernel.read_bytes())
    (tmp_path / "disk.raw").write_bytes(image)
    found = predict(inputs.changed(disk=tmp_path / "disk.raw", edk2="202502"))
    labels = [event.label for event in found.events if event.register == "RTMR[1]"]
    assert labels == [
        *("Calling EFI Application from Boot Option", "separator", "partition table", "kernel", "kernel in the UKI"),
        *("Exit Boot Services Invocation", "Exit Boot Services Returned with Success"),
    ]
    table = image[512:604] + (1).to_bytes(8, "little") + image[1024 : 1024 + 128]
    assert dict(measured(found, "RTMR[1]"))["partition table"] == sha384(table)
    other = predict(inputs.changed(disk=tmp_path / "disk.raw", edk2="202502", disk_address="3.0"))
    changed = [a.label for a, b in zip(found.events, other.events, strict=True) if a.digest != b.digest]
    assert changed == ["Boot0001"]
    assert found.registers["RTMR[2]"] == predict(inputs).registers["RTMR[2]"]


def test_a_kernel_that_left_the_firmware_at_the_second_try_is_found(boot: Boot, tmp_path: Path) -> None:
    inputs = boot()
    (tmp_path / "disk.raw").write_bytes(esp.disk(inputs.kernel.read_bytes()))
    made = predict(inputs.changed(disk=tmp_path / "disk.raw"))
    value = bytes(48)
    for label, digest in measured(made, "RTMR[1]")[:-1]:
        again = [sha384(b"Exit Boot Services Returned with Failure"), digest] if label.endswith("Invocation") else []
        for each in (digest, *again):
            value = sha384(value + (each or b""))
    value = sha384(value + (measured(made, "RTMR[1]")[-1][1] or b""))
    found = compare(expected(made), identity_of(made, **{"RTMR[1]": value}))
    assert "first call of ExitBootServices failed" in found.explanations[0]


def test_the_secret_of_a_newer_stub_on_a_disk_is_not_guessed(boot: Boot, tmp_path: Path) -> None:
    inputs = boot("262.1", texts=("LoaderBootSecret",))
    (tmp_path / "disk.raw").write_bytes(esp.disk(inputs.kernel.read_bytes()))
    found = predict(inputs.changed(disk=tmp_path / "disk.raw"))
    assert found.registers["RTMR[2]"] is None
    assert ["random secret" in event.why for event in found.unknown if event.register == "RTMR[2]"] == [True]
    assert predict(inputs).registers["RTMR[2]"] is not None


def test_a_disk_that_cannot_be_booted_from_is_refused(boot: Boot, tmp_path: Path) -> None:
    inputs, disk = boot(), tmp_path / "disk.raw"
    image = bytearray(esp.disk(inputs.kernel.read_bytes()))
    for raw, words in (
        (b"", "not a raw disk image"),
        (esp.disk(b"another application" * 999), "does not contain this UKI"),
        (image[: 512 + 72] + b"\xff" * 8 + image[512 + 80 :], "damaged partition table"),
    ):
        disk.write_bytes(raw)
        with pytest.raises(InvalidInput, match=words):
            predict(inputs.changed(disk=disk))
    disk.write_bytes(image)
    with pytest.raises(InvalidInput, match="reaches no UKI"):
        inputs.changed(disk=disk, append="quiet")
    with pytest.raises(InvalidInput, match=r"DEVICE\.FUNCTION"):
        inputs.changed(disk_address="00:02.0")
    (tmp_path / "bzImage").write_bytes(KERNEL)
    with pytest.raises(InvalidInput, match="with a UKI only"):
        predict(inputs.changed(disk=disk, kernel=tmp_path / "bzImage"))
