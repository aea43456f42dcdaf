"""The vTPM reference boot: firmware measures a kernel into an emulated TPM, and the prediction is compared with that.

Two boots for all: one of the guide's kernel as it is, one with a byte changed in each input. Each change is then also
predicted alone, and the first log must differ from it, in that event and no other. The firmware is the distribution's:
that of Debian 12 reads the UEFI variables of its image and measures no ACPI tables, that of Debian 13 the reverse.
"""

from __future__ import annotations

import json
import shutil
import struct
import uuid
from pathlib import Path

import pytest
from click.testing import CliRunner

from acon_nb import tdx, vm
from acon_nb.cli import main
from acon_nb.errors import Cancelled, GuestFailed, InvalidInput
from acon_nb.kernel import KernelImage
from acon_nb.progress import CancelToken
from acon_nb.td import capture, vtpm
from acon_nb.tdx import smbios
from acon_nb.tdx.acpi import linked_tables, processors
from acon_nb.tdx.capture import read_capture
from acon_nb.tdx.describe import label_of
from acon_nb.tdx.variables import GLOBAL, read_variables

pytestmark = pytest.mark.system
OVMF = Path("/usr/share/ovmf/OVMF.fd")
APPEND = "console=ttyS0 quiet vga=0x317 name=\udce9t\udce9"  # bytes that are no UTF-8 are passed on as they are


@pytest.fixture(scope="module")
def inputs(guide_kernel: KernelImage, tmp_path_factory: pytest.TempPathFactory) -> tdx.BootInputs:
    for program in ("swtpm", "swtpm_setup"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing (tools/setup.sh test)")
    if not OVMF.is_file():
        pytest.skip("ovmf is missing (tools/setup.sh test)")
    folder = tmp_path_factory.mktemp("vtpm")
    (folder / "initrd").write_bytes(bytes(range(256)) * 4096)  # no archive: the kernel starts without it
    return tdx.BootInputs(
        firmware=OVMF,
        kernel=guide_kernel.image,
        initrd=folder / "initrd",
        append=APPEND,
        memory_bytes=512 << 20,
    )


@pytest.fixture(scope="module")
def ran(inputs: tdx.BootInputs) -> vtpm.ReferenceBoot:
    return vtpm.run(inputs)


def reads_variables(ran: vtpm.ReferenceBoot) -> bool:
    return ran.prediction.material.stack.on("secure_boot")


def read(path: Path) -> bytes:
    """A file of /proc, or nothing when its process has gone."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def with_variable(image: bytes) -> bytes:
    """The firmware with a UEFI variable of the name KEK in its store (a PK would switch secure boot on)."""
    store = image.find(uuid.UUID("aaf32c78-947b-439a-a180-2e144ec37792").bytes_le, 0, 4096)
    assert store > 0
    name, value = "KEK".encode("utf-16-le") + b"\0\0", b"\x5a" * 64
    head = struct.pack("<HBBIQ16sIII16s", 0x55AA, 0x3F, 0, 0x27, 0, b"", 0, len(name), len(value), GLOBAL.bytes_le)
    start, new = store + 28, head + name + value
    return image[:start] + new + image[start + len(new) :]


def changed_inputs(inputs: tdx.BootInputs, folder: Path) -> dict[str, tdx.BootInputs]:
    """Each input with a byte changed, and all of them at once."""
    kernel = bytearray(inputs.kernel.read_bytes())
    text = kernel.index(b"(", 0x200 + struct.unpack_from("<H", kernel, 0x20E)[0])  # the header's text: nothing runs it
    kernel[text] = ord("[")
    (folder / "bzImage").write_bytes(kernel)
    assert inputs.initrd is not None
    initrd = bytearray(inputs.initrd.read_bytes())
    initrd[-1] ^= 1
    (folder / "initrd").write_bytes(initrd)
    (folder / "OVMF.fd").write_bytes(with_variable(inputs.firmware.read_bytes()))
    fields: dict[str, dict[str, object]] = {
        "kernel": {"kernel": folder / "bzImage"},
        "initrd": {"initrd": folder / "initrd"},
        "command line": {"append": inputs.append.replace("quiet", "quieT")},
        "KEK": {"firmware": folder / "OVMF.fd"},
    }
    found = {name: inputs.changed(**values) for name, values in fields.items()}
    together = {key: value for values in fields.values() for key, value in values.items()}
    return {**found, "all": inputs.changed(**together)}


def test_what_real_firmware_measures_is_what_was_predicted(ran: vtpm.ReferenceBoot) -> None:
    assert ran.comparison.verdict is tdx.MeasurementVerdict.EQUAL, ran.comparison.headline
    assert [row.register for row in ran.comparison.registers] == list(vtpm.REGISTERS)
    assert all(row.verdict is tdx.MeasurementVerdict.EQUAL for row in ran.comparison.events)
    labels = [label_of(event) for event in ran.log.events]
    assert {"kernel", "command line", "initrd", "SecureBoot", "BootOrder", "Boot0000"} <= set(labels)
    assert labels.count("ACPI DATA") == (4 if ran.prediction.material.stack.on("acpi") else 0)
    assert not ran.prediction.notes


@pytest.mark.parametrize("what", ["kernel", "initrd", "command line", "KEK"])
def test_one_byte_changed_in_an_input_is_found(
    ran: vtpm.ReferenceBoot, inputs: tdx.BootInputs, tmp_path: Path, what: str
) -> None:
    qemu = ran.prediction.inputs.qemu
    wrong = tdx.predict_reference_boot(changed_inputs(inputs, tmp_path)[what].changed(qemu=qemu))
    found = tdx.compare(tdx.expected(wrong), ran.log, only=vtpm.REGISTERS)
    if what == "KEK" and not reads_variables(ran):
        assert not found.differences
        assert any("ignores the UEFI variables of its image (KEK)" in note for note in wrong.notes)
        return
    assert found.verdict is tdx.MeasurementVerdict.DIFFERENT
    named = {pair.text.split(" differs")[0] for pair in found.differences}
    assert len(named) == 1, named
    assert what in named.pop()


def test_a_stack_that_behaves_differently_is_named(ran: vtpm.ReferenceBoot, inputs: tdx.BootInputs) -> None:
    changed = ran.prediction.variant.kernel_patched
    others = {"edk2": "202502", "qemu": "10.1"} if changed else {"edk2": "202411", "qemu": "9.2"}
    other = tdx.predict_reference_boot(inputs.changed(**others))
    found = tdx.compare(tdx.expected(other), ran.log, only=["PCR[4]", "PCR[9]"])
    assert found.verdict is tdx.MeasurementVerdict.DIFFERENT
    word = "with" if changed else "without"
    assert f"the kernel is measured {word} QEMU's changes to its header" in found.explanations[0]
    assert "everything that can be known is equal" in found.explanations[0]


def test_the_firmware_measures_what_was_changed(
    ran: vtpm.ReferenceBoot, inputs: tdx.BootInputs, tmp_path: Path
) -> None:
    """The changed byte of each input is in the changed log: the firmware really hashes these bytes."""
    everything = changed_inputs(inputs, tmp_path)["all"]
    assert ("KEK", GLOBAL) in read_variables(everything.firmware.read_bytes())
    log, stored = tmp_path / "log", tmp_path / "expected.json"
    argv = ["measure", "twin", everything.kernel, "--initrd", everything.initrd, "--append", everything.append]
    argv += ["--memory", "512M", "--firmware", everything.firmware, "--log", log, "--store", stored, "--json"]
    result = CliRunner().invoke(main, [str(word) for word in argv])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["verdict"] == "equal"
    again = tdx.read_log(log)
    assert tdx.compare(tdx.read_side(stored), again, only=vtpm.REGISTERS).verdict is tdx.MeasurementVerdict.EQUAL
    found = tdx.compare(ran.log, again, only=vtpm.REGISTERS)
    texts = " ".join(pair.text for pair in found.differences)
    of_variables = {"PCR[7]": "KEK"} if reads_variables(ran) else {}
    assert {pair.register for pair in found.differences} == {"PCR[4]", "PCR[9]", *of_variables}
    assert all(word in texts for word in ("kernel", "initrd", "command line", *of_variables.values()))


def test_the_log_is_stored_and_read_back(ran: vtpm.ReferenceBoot, tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(ran.raw)
    again = tdx.read_log(tmp_path / "log")
    assert again.events == ran.log.events
    assert again.size_bytes == len(ran.raw)
    stored = tdx.parse_expected(json.dumps(tdx.expected(ran.prediction).as_json()))
    assert tdx.compare(stored, again, only=vtpm.REGISTERS).verdict is tdx.MeasurementVerdict.EQUAL


def test_the_hardware_of_a_stopped_guest_is_captured(inputs: tdx.BootInputs, tmp_path: Path) -> None:
    assert inputs.initrd is not None
    spec = vm.VmSpec(
        kernel=inputs.kernel,
        initrd=inputs.initrd,
        append=inputs.append,
        memory_bytes=inputs.memory_bytes,
        firmware=OVMF,
        vcpus=2,
    )
    found = capture.capture(spec, tmp_path / "capture")
    assert found == read_capture(tmp_path / "capture")
    tables = linked_tables(*found.acpi.values())
    assert {b"FACS", b"DSDT", b"FACP", b"APIC", b"MCFG"} <= set(tables)
    assert processors(tables) == found.hardware.vcpus == 2
    structures = smbios.structures(found.smbios)
    assert smbios.memory_bytes(structures) == inputs.memory_bytes
    assert smbios.machine(structures) + "-machine" == found.hardware.machine
    assert found.fw_cfg["BootMenu"] == b"\0\0"
    of_this_machine = inputs.changed(
        capture=tmp_path / "capture", qemu=found.hardware.qemu, vcpus=2, devices=found.hardware.devices, cpuid="1:1"
    )
    assert tdx.predict(of_this_machine).inputs.capture == tmp_path / "capture"
    with pytest.raises(InvalidInput, match="vcpus is 1, captured was 2"):
        tdx.predict(of_this_machine.changed(vcpus=1))


def test_a_guest_that_does_not_leave_its_firmware_is_reported(inputs: tdx.BootInputs) -> None:
    with pytest.raises(GuestFailed, match="did not leave its firmware within 1 s"):
        vtpm.record(inputs, timeout_s=1)


def test_a_reference_boot_is_cancelled_and_leaves_nothing(inputs: tdx.BootInputs) -> None:
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        vtpm.record(inputs, cancel=token)
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if b"acon-vtpm-" in read(path)]


def test_a_capture_without_a_firmware_is_refused(inputs: tdx.BootInputs, tmp_path: Path) -> None:
    spec = vm.VmSpec(kernel=inputs.kernel, memory_bytes=inputs.memory_bytes)
    with pytest.raises(InvalidInput, match="while a firmware runs"):
        capture.capture(spec, tmp_path)
