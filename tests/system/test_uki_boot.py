"""UKIs of several systemd-stubs on the OVMF of three Debian suites: all that a TPM gets is as predicted.

The stubs come from four suites, the newer UKIs from ukify. One boot each: stubs differ in what they measure and in how
they start the kernel, firmware does not care which stub it is, so each stub meets one firmware at least.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from acon_nb import tdx
from acon_nb.cache import Cache
from acon_nb.kernel import KernelImage
from acon_nb.td import vtpm
from acon_nb.tdx.describe import label_of
from tests import esp
from tests.system.firmwares import STUBS, firmware_of, stub_of, unpacked

pytestmark = [pytest.mark.system, pytest.mark.weekly]
LINE = " console=ttyS0\tquiet \n"


def uki(stub: Path, out: Path, sections: dict[str, Path]) -> Path:
    """A UKI as its manual has it made with objcopy: each section at the next address that is free."""
    raw = stub.read_bytes()
    header = struct.unpack_from("<I", raw, 0x3C)[0]
    count, optional = struct.unpack_from("<H12xH", raw, header + 6)
    base, align = struct.unpack_from("<QI", raw, header + 24 + 24)
    table = [struct.unpack_from("<8sII", raw, header + 24 + optional + 40 * number) for number in range(count)]
    end, words = max(address + size for _, size, address in table), []
    for name, path in sections.items():
        end = -(-end // align) * align
        words += ["--add-section", f"{name}={path}", "--change-section-vma", f"{name}={base + end:#x}"]
        end += path.stat().st_size
    subprocess.run(["objcopy", *words, stub, out], check=True)
    return out


def profiles(suite: str, out: Path, sections: dict[str, Path], store: Cache) -> Path:
    """A UKI of ukify with a second profile, which has a command line of its own."""
    modules = unpacked("python3-pefile", suite, store).path("usr/lib/python3/dist-packages")
    environ = {**os.environ, "PYTHONPATH": str(modules)}
    ukify: list[str | Path] = [sys.executable, unpacked("systemd-ukify", suite, store).path("usr/bin/ukify"), "build"]
    stub = stub_of(suite, store)
    second = out.with_suffix(".profile")
    words: list[str | Path] = [
        "--profile",
        "ID=second",
        "--cmdline",
        "console=ttyS0 single",
        "--stub",
        stub.with_name("addonx64.efi.stub"),
    ]
    subprocess.run([*ukify, *words, "--output", second], env=environ, check=True, capture_output=True)
    words = ["--linux", sections[".linux"], "--initrd", sections[".initrd"], "--cmdline", f"@{sections['.cmdline']}"]
    words += ["--os-release", f"@{sections['.osrel']}", "--uname", "6.12", "--stub", stub, "--profile", "ID=first"]
    words += ["--join-profile", second, "--output", out]
    subprocess.run([*ukify, *words], env=environ, check=True, capture_output=True)
    return out


@pytest.fixture(scope="module")
def sections(guide_kernel: KernelImage, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    for program in ("swtpm", "swtpm_setup", "objcopy", "apt-get"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing (tools/setup.sh test)")
    folder = tmp_path_factory.mktemp("uki")
    texts = {
        ".osrel": b"ID=debian\nVERSION_ID=13\n",
        ".cmdline": LINE.encode(),
        ".initrd": bytes(range(256)) * 401 + b"x",
    }
    texts[".pcrpkey"] = b"not a key, but measured and passed on as one\n"
    for name, data in texts.items():
        (folder / name[1:]).write_bytes(data)
    return {**{name: folder / name[1:] for name in texts}, ".linux": guide_kernel.image}


def boot(path: Path, suite: str, store: Cache, append: str = "", disk: Path | None = None) -> vtpm.ReferenceBoot:
    firmware = firmware_of(suite, store)
    ran = vtpm.run(tdx.BootInputs(firmware=firmware, kernel=path, append=append, disk=disk, memory_bytes=512 << 20))
    assert ran.comparison.verdict is tdx.MeasurementVerdict.EQUAL, ran.comparison.headline
    assert {"PCR[4]", "PCR[9]", "PCR[11]"} <= {row.register for row in ran.comparison.registers}
    return ran


@pytest.mark.parametrize(
    ("stub", "firmware"), [*((stub, "trixie") for stub in STUBS), ("bookworm", "bookworm"), ("sid", "sid")]
)
def test_all_that_a_uki_measures_is_predicted(
    stub: str, firmware: str, sections: dict[str, Path], store: Cache, tmp_path: Path
) -> None:
    ran = boot(uki(stub_of(stub, store), tmp_path / "uki.efi", sections), firmware, store)
    assert ran.prediction.material.uki is not None
    assert ran.prediction.material.uki.release >= STUBS[stub]


@pytest.mark.parametrize(("stub", "firmware"), [("bookworm", "bookworm"), ("trixie", "trixie")])
def test_a_uki_on_a_disk_is_predicted_to_the_boot_options(
    stub: str, firmware: str, sections: dict[str, Path], store: Cache, tmp_path: Path
) -> None:
    path = uki(stub_of(stub, store), tmp_path / "uki.efi", sections)
    (tmp_path / "disk.raw").write_bytes(esp.disk(path.read_bytes()))
    ran = boot(path, firmware, store, disk=tmp_path / "disk.raw")
    assert {"Boot0002", "partition table"} <= {label_of(event) for event in ran.log.events}


def test_a_second_try_to_leave_the_firmware_is_named(sections: dict[str, Path], store: Cache, tmp_path: Path) -> None:
    """OVMF 2026.08 refuses the first after it booted from a disk; all else is as predicted."""
    path = uki(stub_of("trixie", store), tmp_path / "uki.efi", sections)
    (tmp_path / "disk.raw").write_bytes(esp.disk(path.read_bytes()))
    firmware = firmware_of("sid", store)
    ran = vtpm.run(
        tdx.BootInputs(firmware=firmware, kernel=path, append="", disk=tmp_path / "disk.raw", memory_bytes=512 << 20)
    )
    different = [row.register for row in ran.comparison.registers if row.verdict is not tdx.MeasurementVerdict.EQUAL]
    assert different == ["PCR[5]"]
    assert "first call of ExitBootServices failed" in ran.comparison.explanations[0]
    assert "everything that can be known is equal" in ran.comparison.explanations[0]


@pytest.mark.parametrize("append", ["", "@1", "@1 console=ttyS0 debug", " console=ttyS0\tro "])
def test_a_profile_and_a_command_line_are_measured(
    append: str, sections: dict[str, Path], store: Cache, tmp_path: Path
) -> None:
    given = append.removeprefix("@1 ") not in ("", "@1")
    ran = boot(profiles("trixie", tmp_path / "uki.efi", sections, store), "trixie", store, append)
    logged = {event.register for event in ran.log.events}
    assert ("PCR[12]" in logged) == (given or "@1" in append)


def test_a_byte_of_a_section_changes_its_event_and_the_files_alone(
    sections: dict[str, Path], store: Cache, tmp_path: Path
) -> None:
    stub = stub_of("trixie", store)
    ran = boot(uki(stub, tmp_path / "uki.efi", sections), "trixie", store)
    other = tmp_path / "osrel"
    other.write_bytes(sections[".osrel"].read_bytes().replace(b"13", b"12"))
    changed = uki(stub, tmp_path / "changed.efi", {**sections, ".osrel": other})
    wrong = tdx.predict_reference_boot(ran.prediction.inputs.changed(kernel=changed))
    registers = ["PCR[4]", "PCR[9]", "PCR[11]"]
    found = tdx.compare(tdx.expected(wrong), ran.log, only=registers)
    named = [(pair.register, pair.text.split(" differs")[0]) for pair in found.differences]
    assert named == [
        ("PCR[4]", "UKI (Authenticode hash of the whole file)"),
        ("PCR[9]", "initrd that systemd-stub hands over"),
        ("PCR[11]", "content of the section .osrel"),
    ]
