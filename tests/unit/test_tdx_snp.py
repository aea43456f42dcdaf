"""Launch digests of SEV-SNP guests, against an independent program written from AMD's and QEMU's documents."""

from __future__ import annotations

import hashlib
import json
import random
import struct
import uuid
from pathlib import Path

import pytest
from click.testing import CliRunner

from acon_nb.cli import main
from acon_nb.errors import InvalidInput
from acon_nb.tdx.snp import SnpInputs, predict_snp, vcpu_types
from tests.unit import bzimages

PAGE = 4096
FOOTER, HASHES, RESET, METADATA = (
    uuid.UUID(text).bytes_le
    for text in (
        "96b582de-1fb2-45f7-baea-a366c55a082d",
        "7255371f-3a3b-4b04-927b-1da6efa8d454",
        "00f771de-1a7e-4fcb-890e-68c77e2fb44e",
        "dc886566-984a-4798-a75e-5585a7bf67cc",
    )
)
SEC_MEM, SECRETS, CPUID, CAA, KERNEL_HASHES = 1, 2, 3, 4, 0x10
Section = tuple[int, int, int]


def firmware(sections: list[Section], *, hashes_at: int, reset: int, pages: int, seed: int) -> bytes:
    """An image with the tables of OvmfPkg/AmdSev at its end, and random code."""
    items = b"".join(struct.pack("<III", *section) for section in sections)
    metadata = b"ASEV" + struct.pack("<III", 16 + len(items), 1, len(sections)) + items
    image = bytearray(random.Random(seed).randbytes(pages * PAGE))
    start = len(image) - 2048
    image[start : start + len(metadata)] = metadata
    entries = b""
    for guid, data in (
        (HASHES, struct.pack("<II", hashes_at, 0x400)),
        (RESET, struct.pack("<I", reset)),
        (METADATA, struct.pack("<I", 2048)),
    ):
        entries += data + struct.pack("<H", len(data) + 18) + guid
    entries += struct.pack("<H", len(entries) + 18) + FOOTER
    end = len(image) - 32
    image[end - len(entries) : end] = entries
    return bytes(image)


def sha384(data: bytes) -> bytes:
    return hashlib.sha384(data).digest()


def launch_digest(
    image: bytes,
    sections: list[Section],
    hashes_at: int,
    reset: int,
    vcpus: int,
    cpu: int,
    features: int,
    files: list[bytes] | None,
) -> bytes:
    """AMD's SNP firmware ABI, 8.17.2 (PAGE_INFO), and QEMU's order of the pages."""
    digest = bytes(48)

    def add(kind: int, address: int, content: bytes) -> None:
        nonlocal digest
        digest = sha384(digest + content + struct.pack("<HBBBBBBQ", 0x70, kind, 0, 0, 0, 0, 0, address))

    base = (1 << 32) - len(image)
    for offset in range(0, len(image), PAGE):
        add(1, base + offset, sha384(image[offset : offset + PAGE]))
    for address, size, kind in sections:
        if kind == KERNEL_HASHES and files is not None:
            add(1, address, sha384(hashes_page(hashes_at % PAGE, files)))
        elif kind in (SEC_MEM, CAA, KERNEL_HASHES):
            for offset in range(0, size, PAGE):
                add(3, address + offset, bytes(48))
        else:
            add({SECRETS: 5, CPUID: 6}[kind], address, bytes(48))
    for number in range(vcpus):
        add(2, 0xFFFFFFFFF000, sha384(save_area(0xFFFFFFF0 if number == 0 else reset, cpu, features)))
    return digest


def hashes_page(offset: int, files: list[bytes]) -> bytes:
    """QEMU's SevHashTable: command line, initrd, kernel."""
    names = (
        "97d02dd8-bd20-4c94-aa78-e7714d36ab2a",
        "44baf731-3a2f-4bd7-9af1-41e29169781d",
        "4de79437-abd2-427f-b835-d5b172d2045b",
    )
    rows = b"".join(
        uuid.UUID(name).bytes_le + struct.pack("<H", 50) + hashlib.sha256(data).digest()
        for name, data in zip(names, files, strict=True)
    )
    table = uuid.UUID("9438d606-4f22-4cc9-b479-a793d411fd21").bytes_le + struct.pack("<H", 18 + len(rows)) + rows
    table += bytes(-len(table) % 16)
    return (bytes(offset) + table).ljust(PAGE, b"\0")


def save_area(start: int, cpu: int, features: int) -> bytes:
    """The state of a vCPU at its reset: AMD APM volume 2, table B-4."""
    area = bytearray(PAGE)

    def segment(at: int, attributes: int, selector: int = 0, base: int = 0) -> None:
        struct.pack_into("<HHIQ", area, at, selector, attributes, 0xFFFF, base)

    segment(0x10, 0x9B, 0xF000, start & 0xFFFF0000)
    for at, attributes in ((0, 0x93), (0x20, 0x93), (0x30, 0x93), (0x40, 0x93), (0x50, 0x93)):
        segment(at, attributes)
    for at, attributes in ((0x60, 0), (0x70, 0x82), (0x80, 0), (0x90, 0x8B)):
        segment(at, attributes)
    for at, value in (
        (0xD0, 0x1000),
        (0x148, 0x40),
        (0x158, 0x10),
        (0x160, 0x400),
        (0x168, 0xFFFF0FF0),
        (0x170, 2),
        (0x178, start & 0xFFFF),
        (0x268, 0x7040600070406),
        (0x310, cpu),
        (0x3B0, features),
        (0x3E8, 1),
    ):
        struct.pack_into("<Q", area, at, value)
    struct.pack_into("<I", area, 0x408, 0x1F80)
    struct.pack_into("<H", area, 0x410, 0x37F)
    return bytes(area)


CPUS = {"EPYC-v4": (23, 1, 2), "EPYC-Rome": (23, 49, 0), "EPYC-Milan": (25, 1, 1), "EPYC-Genoa": (25, 17, 0)}


def signature(family: int, model: int, stepping: int) -> int:
    """CPUID leaf 1, EAX."""
    return (family - 15) << 20 | (model >> 4) << 16 | 0xF << 8 | (model & 0xF) << 4 | stepping


def test_1000_random_guests_agree_with_an_independent_program(tmp_path: Path) -> None:
    source = random.Random(20)
    image_path, kernel_path, initrd_path = (tmp_path / name for name in ("ovmf", "vmlinuz", "initrd"))
    for number in range(1000):
        hashes_at = 0x80F000 + source.randrange(0, PAGE - 0x100, 16)
        sections: list[Section] = [(0x800000, PAGE * source.randint(1, 9), SEC_MEM), (0x80D000, PAGE, SECRETS)]
        sections += [(0x80E000, PAGE, CPUID), (0x80F000, PAGE, KERNEL_HASHES)]
        sections += [(0x811000, PAGE, CAA)] * source.randint(0, 1)
        source.shuffle(sections)
        reset = source.randrange(1 << 32)
        image = firmware(sections, hashes_at=hashes_at, reset=reset, pages=source.randint(1, 6), seed=number)
        kernel, initrd = source.randbytes(source.randint(1, 999)), source.randbytes(source.randint(0, 999))
        append = "".join(source.choices("abc =é./", k=source.randint(0, 60)))
        hashed, vcpus, features = source.random() < 0.8, source.randint(1, 12), source.randrange(1 << 8)
        cpu = source.choice(list(CPUS))
        for path, data in ((image_path, image), (kernel_path, kernel), (initrd_path, initrd)):
            path.write_bytes(data)
        inputs = SnpInputs(
            firmware=image_path,
            kernel=kernel_path,
            initrd=initrd_path if initrd else None,
            append=append,
            vcpus=vcpus,
            vcpu_type=cpu,
            guest_features=features,
            kernel_hashes=hashed,
        )
        files = [append.encode() + b"\0", initrd, kernel] if hashed else None
        expected = launch_digest(image, sections, hashes_at, reset, vcpus, signature(*CPUS[cpu]), features, files)
        assert predict_snp(inputs).launch_digest == expected, number


@pytest.fixture
def guest(tmp_path: Path) -> SnpInputs:
    sections = [(0x800000, PAGE, SEC_MEM), (0x80F000, PAGE, KERNEL_HASHES)]
    (tmp_path / "ovmf").write_bytes(firmware(sections, hashes_at=0x80F000, reset=0x80B004, pages=4, seed=1))
    bzimages.write(tmp_path / "vmlinuz")
    return SnpInputs(firmware=tmp_path / "ovmf", kernel=tmp_path / "vmlinuz", append="quiet")


def test_firmware_that_cannot_measure_the_kernel_is_refused_unless_that_is_wanted(guest: SnpInputs) -> None:
    sections = [(0x800000, PAGE, SEC_MEM)]
    guest.firmware.write_bytes(firmware(sections, hashes_at=0x80F000, reset=0x80B004, pages=4, seed=1))
    with pytest.raises(InvalidInput, match="SNP_KERNEL_HASHES"):
        predict_snp(guest)
    without = predict_snp(SnpInputs(firmware=guest.firmware, kernel=guest.kernel, kernel_hashes=False))
    assert any("not covered" in note for note in without.notes)


def test_damaged_firmware_is_refused_and_never_a_traceback(guest: SnpInputs) -> None:
    image = guest.firmware.read_bytes()
    source = random.Random(3)
    for _ in range(400):
        raw = bytearray(image)
        for _ in range(source.randint(1, 4)):
            raw[source.randrange(len(raw) - 2200, len(raw))] = source.randrange(256)
        guest.firmware.write_bytes(raw)
        try:
            predict_snp(guest)
        except InvalidInput as error:
            assert error.field == "firmware"  # noqa: PT017
    guest.firmware.write_bytes(bytes(4097))
    with pytest.raises(InvalidInput, match="4097 bytes"):
        SnpInputs(firmware=guest.firmware, kernel=guest.kernel)
    guest.firmware.write_bytes(image)
    with pytest.raises(InvalidInput, match="Pentium"):
        predict_snp(SnpInputs(firmware=guest.firmware, kernel=guest.kernel, vcpu_type="Pentium"))


def test_the_command_prints_the_digest_and_says_that_no_hardware_confirmed_it(guest: SnpInputs) -> None:
    assert "EPYC-Turin" in vcpu_types()
    argv = ["measure", "predict", "--snp", "--firmware", str(guest.firmware), "--initrd", "-", "--append", "quiet"]
    shown = CliRunner().invoke(main, [*argv, "--memory", "512M", str(guest.kernel), "--json"], env={"VP": "1"})
    assert shown.exit_code == 0, shown.output
    answer = json.loads(shown.stdout)
    assert answer["launch_digest"] == predict_snp(guest).launch_digest.hex()
    assert "not compared with an attestation report" in answer["notes"][0]
    for option in (["--only", "mrtd"], ["--guest-features", "many"], ["--vcpu-type", "Pentium"]):
        assert CliRunner().invoke(main, [*argv, str(guest.kernel), *option]).exit_code == 2
    guest.firmware.write_bytes(bytes(PAGE))
    assert CliRunner().invoke(main, [*argv, str(guest.kernel)]).exit_code == 4
