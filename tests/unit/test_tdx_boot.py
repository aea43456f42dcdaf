"""Predictions: MRTD, the TD HOB, the kernel's header, events, registers, on a small firmware and kernel made here."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import lzma
import os
import struct
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from acon_nb import plots, tdx
from acon_nb.cli import main
from acon_nb.errors import Cancelled, InvalidInput
from acon_nb.progress import CancelToken
from acon_nb.tdx import (
    BootInputs,
    LogKind,
    MeasurementVerdict,
    PageOrder,
    compare,
    expected,
    parse_expected,
    predict,
    predict_reference_boot,
    reference,
)
from acon_nb.tdx.chain import chain_table
from acon_nb.tdx.eventlog import EventLog, LoggedEvent
from acon_nb.tdx.hob import below_4g_bytes, ram_ranges, td_hob
from acon_nb.tdx.inputs import boot_options, load
from acon_nb.tdx.kernel_image import authenticode, initrd_address, load_options, patched, read_kernel
from acon_nb.tdx.stacks import edk2_release, qemu_version, stack
from acon_nb.tdx.tables import change_table, event_table, register_table, section_table, stack_table
from acon_nb.tdx.variables import GLOBAL, IMAGE_SECURITY, measured, read_variables, secure_boot
from acon_nb.tdx.volumes import FirmwareContent, unpack

FOOTER = uuid.UUID("96b582de-1fb2-45f7-baea-a366c55a082d").bytes_le
METADATA = uuid.UUID("e47a6535-984a-4798-865e-4685a7bf8ec2").bytes_le
LZMA_SECTION = uuid.UUID("ee4e5898-3914-4259-9d6e-dc7bd79403cf").bytes_le
CC = uuid.UUID("96751a3d-72f4-41a6-a794-ed5d0e67ae6b").bytes_le
TCG2 = uuid.UUID("607f766c-7455-42be-930b-e4d76db2720f").bytes_le
STORE = uuid.UUID("aaf32c78-947b-439a-a180-2e144ec37792").bytes_le
SIZE = 256 << 10
CFV = 64 << 10
OLD = ("TdTcg2Dxe",)
NEW = ("TdTcg2Dxe", "SmbiosMeasurementDxe", "BootManagerMenuApp")
VECTORS = Path(os.environ.get("ACON_NB_VECTORS", "/nowhere"))
DEBIAN = Path("/usr/share/ovmf/OVMF.fd")


def store(variables: dict[tuple[str, uuid.UUID], bytes]) -> bytes:
    """A configuration volume with a store of authenticated variables."""
    body = b""
    for (name, guid), value in variables.items():
        raw = name.encode("utf-16-le") + b"\0\0"
        head = struct.pack("<HBBIQ16sIII16s", 0x55AA, 0x3F, 0, 7, 0, b"", 0, len(raw), len(value), guid.bytes_le)
        body += head + raw + value
        body += b"\xff" * (-len(body) % 4)
    head = STORE + struct.pack("<IBBHI", 28 + len(body) + 64, 0x5A, 0xFE, 0, 0)
    return (bytes(72) + head + body + b"\xff" * 64).ljust(CFV, b"\xff")


def tdvf(modules: tuple[str, ...] = OLD, texts: tuple[str, ...] = (), version: str = "", cfv: bytes = b"") -> bytes:
    """A TDVF of 256 KiB: a configuration volume, and a boot volume with an LZMA section of modules and texts."""
    inner = b"".join(b"\x15" + name.encode("utf-16-le") + b"\0\0" for name in modules)
    inner += b"\0".join(text.encode() for text in texts) + b"\0" + version.encode("utf-16-le") + b"\0\0"
    volume = inner.ljust(4096, b"\0")
    unpacked = b"".join((len(volume) + 4).to_bytes(3, "little") + b"\x17" + volume for _ in range(2))
    packed = lzma.compress(unpacked, format=lzma.FORMAT_ALONE)
    head = (24 + len(packed)).to_bytes(3, "little") + b"\x02" + LZMA_SECTION + struct.pack("<HH", 24, 1)
    image = bytearray((cfv or bytes(CFV)) + head + packed).ljust(SIZE, b"\xff")
    rows = [
        (CFV, SIZE - CFV, (1 << 32) - SIZE + CFV, SIZE - CFV, 0, 1),
        (0, CFV, (1 << 32) - SIZE, CFV, 1, 0),
        (0, 0, 0x810000, 0x10000, 3, 0),
        (0, 0, 0x80B000, 0x2000, 3, 0),
        (0, 0, 0x809000, 0x2000, 2, 0),
        (0, 0, 0x800000, 0x6000, 3, 0),
    ]
    sections = b"".join(struct.pack("<IIQQII", *row) for row in rows)
    descriptor = b"TDVF" + struct.pack("<III", 16 + len(sections), 1, len(rows)) + sections
    start = SIZE - 2048
    image[start : start + len(descriptor)] = descriptor
    table = struct.pack("<I", SIZE - start) + struct.pack("<H", 22) + METADATA
    table += struct.pack("<H", len(table) + 18) + FOOTER
    image[SIZE - 32 - len(table) : SIZE - 32] = table
    return bytes(image)


def bzimage(*, stub: bytes = CC + TCG2, xloadflags: int = 0x3F, text: bytes = b"6.12.0-test (a@b) #1") -> bytes:
    """A bzImage that is a PE file of one section."""
    raw = bytearray(0x2000)
    raw[:2] = b"MZ"
    struct.pack_into("<I", raw, 0x3C, 0x280)
    struct.pack_into("<H", raw, 0x1FE, 0xAA55)
    raw[0x202:0x206] = b"HdrS"
    struct.pack_into("<HHH", raw, 0x206, 0x20F, 0, 0)
    struct.pack_into("<H", raw, 0x20E, 0x500 - 0x200)
    struct.pack_into("<IIH", raw, 0x22C, 0x7FFFFFFF, 0x200000, 1)
    struct.pack_into("<H", raw, 0x236, xloadflags)
    coff = struct.pack("<HHIIIHH", 0x8664, 1, 0, 0, 0, 240, 0x206)
    optional = struct.pack("<HBBIIIII", 0x20B, 2, 20, 0x1C00, 0, 0, 0x1000, 0x1000)
    optional += struct.pack("<QIIHHHHHHIIIIHH", 0, 0x1000, 0x200, 0, 0, 0, 0, 0, 0, 0, 0x3000, 0x400, 0, 10, 0)
    optional += struct.pack("<QQQQII", 0, 0, 0, 0, 0, 16) + bytes(16 * 8)
    section = struct.pack("<8sIIIIIIHHI", b".text", 0x1C00, 0x1000, 0x1C00, 0x400, 0, 0, 0, 0, 0x60000020)
    pe = b"PE\0\0" + coff + optional + section
    raw[0x280 : 0x280 + len(pe)] = pe
    raw[0x500 : 0x500 + len(text) + 1] = text + b"\0"
    raw[0x800 : 0x800 + len(stub)] = stub
    return bytes(raw)


def by_hand(raw: bytes) -> bytes:
    """Authenticode as the specification has it, of a PE32+ file without a signature."""
    optional = struct.unpack_from("<I", raw, 0x3C)[0] + 24
    state = hashlib.sha384(raw[: optional + 64])
    state.update(raw[optional + 68 : optional + 144])
    state.update(raw[optional + 152 :] + bytes(-len(raw) % 8))
    return state.digest()


@pytest.fixture
def boot(tmp_path: Path) -> Callable[..., BootInputs]:
    def make(firmware: bytes | None = None, kernel: bytes | None = None, **fields: object) -> BootInputs:
        paths = {name: tmp_path / name for name in ("OVMF.fd", "bzImage", "initrd")}
        paths["OVMF.fd"].write_bytes(tdvf() if firmware is None else firmware)
        paths["bzImage"].write_bytes(bzimage() if kernel is None else kernel)
        paths["initrd"].write_bytes(b"the initrd")
        values: dict[str, object] = {"initrd": paths["initrd"], "qemu": "10.1", "edk2": "", **fields}
        return BootInputs(firmware=paths["OVMF.fd"], kernel=paths["bzImage"], **values)  # type: ignore[arg-type]

    return make


Boot = Callable[..., BootInputs]


def log_of(prediction: tdx.Prediction, **changed: bytes) -> EventLog:
    """The log that a boot would leave that does as predicted; `changed` gives events by label another digest."""
    events = []
    for number, event in enumerate(prediction.events):
        digest = changed.get(event.label.replace(" ", "_"), event.digest or b"?" * 48)
        data = {"kernel": b"", "command line": b'\xed";\x8f' + bytes(4), "initrd": b'\xec";\x8f' + bytes(4)}.get(
            event.label, event.label.encode()
        )
        if "VARIABLE" in event.type_name:
            data = bytes(16) + struct.pack("<QQ", len(event.label), 0) + event.label.encode("utf-16-le")
        if event.label == "TdxTable":
            data = b"\x08TdxTable"
        events.append(
            LoggedEvent(number=number, register=event.register, event_type=event.event_type, digest=digest, data=data)
        )
    return EventLog(kind=prediction.kind, events=tuple(events), size_bytes=0)


def test_both_page_orders_are_what_the_module_hashes(boot: Boot) -> None:
    """Against a second program: the hash as a list of calls, in each order."""
    image = tdvf()
    rows = [(CFV, SIZE - CFV, (1 << 32) - SIZE + CFV, SIZE - CFV, True), (0, CFV, (1 << 32) - SIZE, CFV, False)]
    rows += [(0, 0, start, size, False) for start, size in ((0x810000, 0x10000), (0x80B000, 0x2000))]
    rows += [(0, 0, start, size, False) for start, size in ((0x809000, 0x2000), (0x800000, 0x6000))]

    def add(page: int) -> bytes:
        return b"MEM.PAGE.ADD\0\0\0\0" + page.to_bytes(8, "little") + bytes(104)

    def extends(offset: int, start: int, page: int) -> bytes:
        found = b""
        for chunk in range(page, page + 4096, 256):
            found += b"MR.EXTEND\0\0\0\0\0\0\0" + chunk.to_bytes(8, "little") + bytes(104)
            found += image[offset + chunk - start : offset + chunk - start + 256]
        return found

    calls: dict[PageOrder, bytes] = {PageOrder.PAGE: b"", PageOrder.SECTION: b""}
    for offset, _, start, size, measured_too in rows:
        pages = range(start, start + size, 4096)
        calls[PageOrder.PAGE] += b"".join(
            add(page) + (extends(offset, start, page) if measured_too else b"") for page in pages
        )
        calls[PageOrder.SECTION] += b"".join(add(page) for page in pages)
        calls[PageOrder.SECTION] += b"".join(extends(offset, start, page) for page in pages if measured_too)
    found = tdx.mrtd(tdx.read_tdvf(boot().firmware))
    assert {order: found.of(order) for order in PageOrder} == {
        order: hashlib.sha384(data).digest() for order, data in calls.items()
    }


# Debian's OVMF.fd by SHA-256: version of the package, MRTD per page where another program computed it, what it does.
INSTALLED = {
    "7b456907dd0786d415999e801a1ac4637b8ed4d7cf5378cfc6edbe5e574dd773": (
        "2022.11-6+deb12u2",
        "4c7206f0f483c524f12c366c711e9049030a8d47c471ee5aa9c4999a08de4057fb887fed0744d5631a212967fb231c47",
        {"secure_boot"},
    ),
    "14954040cc754ade0c625ac3470ea46d4c14318b5b1396de4ef77090203d76db": (
        "2025.02-8+deb13u1",
        "",
        {"rtmr", "acpi", "separator_rtmr1", "named_kernel"},
    ),
}


@pytest.mark.skipif(not DEBIAN.is_file(), reason="Debian's ovmf is not installed")
def test_debian_s_firmware_as_installed() -> None:
    image = DEBIAN.read_bytes()
    digest = hashlib.sha256(image).hexdigest()
    if digest not in INSTALLED:
        pytest.skip(f"another ovmf than {' and '.join(row[0] for row in INSTALLED.values())}")
    _, mrtd, on = INSTALLED[digest]
    found = tdx.mrtd(tdx.read_tdvf(DEBIAN))
    assert found.per_page.hex() == (mrtd or found.per_page.hex())
    switches = stack(unpack(image))
    assert {switch.name for switch in switches.switches if switch.on} == on
    assert switches.token == "suffix"
    for split in Path("/usr/share/OVMF").glob("OVMF_CODE*.fd"):
        with pytest.raises(InvalidInput, match=r"split image|no TDX metadata"):
            tdx.read_tdvf(split)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ((0, SIZE * 2, 0, SIZE * 2, 3, 0), "beyond the image"),
        ((0, 0, 0x800001, 0x1000, 3, 0), "whole pages"),
        ((0, 0, 0x800000, 1 << 40, 3, 0), "an impossible size"),
        ((0, 0, (1 << 64) - 4096, 0x2000, 3, 0), "beyond any memory"),
    ],
)
def test_an_implausible_section_is_refused(boot: Boot, row: tuple[int, ...], words: str) -> None:
    image = bytearray(tdvf())
    struct.pack_into("<IIQQII", image, SIZE - 2048 + 16 + 2 * 32, *row)
    with pytest.raises(InvalidInput, match=words):
        predict(boot(bytes(image)))


@pytest.mark.parametrize(
    ("gib", "digest"),
    [
        (2, "0b8772e5b0b41b83e6044a68397e02f49fb47066b4fbe4917ea2c45c64f323fdacbb37948f821ebaf8bc9c938ba8a749"),
        (64, "8ae1e425351df7992c444586eff99d35af3b779aa2b0e981cb4b73bc5b279f2ade19b6a62a203fc3c3bbdaae80af596d"),
    ],
)
def test_the_td_hob_is_that_of_real_tds(boot: Boot, gib: int, digest: str) -> None:
    raw = td_hob(tdx.read_tdvf(boot().firmware), gib << 30)
    assert hashlib.sha384(raw).hexdigest() == digest


@given(st.integers(32, 1 << 20))
def test_memory_is_described_once_and_completely(mib: int) -> None:
    rows = ram_ranges(mib << 20, [(0x810000, 0x10000), (0x809000, 0x2000)])
    assert sum(size for _, size, _ in rows) == mib << 20
    assert rows == sorted(rows)
    assert sum(size for _, size, kind in rows if kind == 0) == 0x12000
    assert below_4g_bytes(mib << 20) < 0xB0000000


def test_too_little_memory_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no free range"):
        ram_ranges(4 << 20, [(0x810000, 0x10000)])


def test_the_kernel_s_hash_is_that_of_the_specification(boot: Boot) -> None:
    kernel = read_kernel(boot().kernel)
    assert authenticode(kernel.image, kernel.path) == by_hand(kernel.image)
    raw = patched(kernel, "vga=0x317 quiet", 1000, 1 << 30)
    assert authenticode(raw, kernel.path) == by_hand(raw)
    assert (kernel.release, kernel.measures_cc, kernel.measures_tpm) == ("6.12.0-test", True, True)


def test_what_qemu_writes_into_the_header(boot: Boot) -> None:
    kernel = read_kernel(boot().kernel)
    raw = patched(kernel, "console=ttyS0", 0x1234, 512 << 20)
    changed = [place for place in range(len(raw)) if raw[place] != kernel.image[place]]
    assert set(changed) <= {0x210, 0x211, *range(0x218, 0x220), 0x224, 0x225, *range(0x228, 0x22C)}
    assert (raw[0x210], raw[0x211] & 0x80) == (0xB0, 0x80)
    address, size = struct.unpack_from("<II", raw, 0x218)
    assert (address, size) == (((512 << 20) - 0x28000 - 1 - 0x1234) & ~4095, 0x1234)
    assert patched(kernel, "console=ttyS0", None, 512 << 20)[0x218:0x220] == kernel.image[0x218:0x220]


@pytest.mark.parametrize(
    ("word", "mode"),
    [("normal", 0xFFFF), ("ext", 0xFFFE), ("ask", 0xFFFD), ("0x317", 0x317), ("791", 791), ("0317", 0o317), ("x", 0)],
)
def test_vga_is_read_as_qemu_reads_it(boot: Boot, word: str, mode: int) -> None:
    raw = patched(read_kernel(boot().kernel), f"quiet vga={word} x", None, 1 << 30)
    assert struct.unpack_from("<H", raw, 0x1FA)[0] == mode


def test_an_initrd_lies_where_the_kernel_lets_it() -> None:
    low = bzimage(xloadflags=0)
    assert initrd_address(low, 4096, 2560 << 20) == (0x7FFFFFFF - 4096) & ~4095
    assert initrd_address(bzimage(), 4096, 2560 << 20) == ((2560 << 20) - 0x28001 - 4096) & ~4095
    assert initrd_address(bzimage(), 4096, 8 << 30) == ((2 << 30) - 0x28001 - 4096) & ~4095
    with pytest.raises(InvalidInput, match="larger than the memory"):
        initrd_address(bzimage(), 3 << 30, 4 << 30)


@pytest.mark.parametrize(
    ("raw", "words"),
    [(b"no kernel", "not a bzImage"), (b"ZM" + bzimage()[2:], "no EFI stub"), (b"", "not a bzImage")],
)
def test_a_file_that_is_not_a_kernel_is_refused(boot: Boot, raw: bytes, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        predict(boot(kernel=raw))


def test_a_kernel_whose_pe_is_damaged_is_refused(boot: Boot) -> None:
    raw = bytearray(bzimage())
    struct.pack_into("<I", raw, 0x3C, 0xFFFFFF00)
    with pytest.raises(InvalidInput, match="is not an EFI application"):
        predict(boot(kernel=bytes(raw)))


def test_the_command_line_is_widened_byte_by_byte() -> None:
    assert load_options("ab", token="") == b"a\0b\0\0\0"
    assert load_options("a", token="suffix") == "a initrd=initrd\0".encode("utf-16-le")
    assert load_options("a", token="prefix") == "initrd=initrd a\0".encode("utf-16-le")
    assert load_options("é", token="") == b"\xc3\0\xa9\0\0\0"
    assert load_options("", token="suffix") == " initrd=initrd\0".encode("utf-16-le")
    vector = load_options("console=ttyS0 earlyprintk=ttyS0 test=1 rdinit=/init", token="suffix")
    assert hashlib.sha384(vector).hexdigest().startswith("53d0c7eb51eaf0fea478fd1658e853e1")


def test_boot_options_are_those_of_real_logs() -> None:
    digests = [hashlib.sha384(value).hexdigest()[:12] for _, value in boot_options(menu=False)]
    assert digests == ["1dd6f7b457ad", "23ada07f5261"]
    digests = [hashlib.sha384(value).hexdigest()[:12] for _, value in boot_options(menu=True)]
    assert digests == ["52b9a02de946", "5068e6a9ded2", "dd424f2eeb35"]


def test_variables_are_measured_as_in_real_logs() -> None:
    digests = [hashlib.sha384(row.hashed).hexdigest()[:8] for row in measured({}, secure_boot_built=True)]
    assert digests == ["cfa4e2c6", "6f2e3cbc", "d607c0ef", "08a74f89", "18cc6e01"]
    assert hashlib.sha384(measured({}, secure_boot_built=False)[0].hashed).hexdigest()[:8] == "9dc3a1f8"


def test_enrolled_keys_are_read_from_the_firmware(boot: Boot) -> None:
    keys = {("PK", GLOBAL): b"owner", ("db", IMAGE_SECURITY): b"certificates"}
    found = read_variables(store(keys))
    assert found == keys
    assert secure_boot(found)
    prediction = predict(boot(tdvf((*OLD, "SecureBootConfigDxe"), cfv=store(keys))))
    events = {event.label: event for event in prediction.events if event.register == "RTMR[0]"}
    assert "5 bytes" in events["PK"].what
    why = [event.why for event in prediction.unknown if event.type_name == "EV_EFI_VARIABLE_AUTHORITY"]
    assert why
    assert "secure boot is on" in why[0]
    assert prediction.registers["RTMR[0]"] is None


def test_firmware_without_secure_boot_starts_without_the_variables_of_its_image(boot: Boot) -> None:
    """edk2 copies them into its store only with SECURE_BOOT_ENABLE; the image's volume is measured all the same."""
    keys = {("KEK", GLOBAL): b"key"}
    prediction, bare = predict(boot(tdvf(cfv=store(keys)))), predict(boot(tdvf(cfv=store({}))))
    digests = [{event.label: event.digest for event in one.events} for one in (prediction, bare)]
    assert digests[0]["KEK"] == digests[1]["KEK"]
    assert digests[0]["CFV"] != digests[1]["CFV"]
    assert any("ignores the UEFI variables of its image (KEK)" in note for note in prediction.notes)
    assert not any("ignores" in note for note in bare.notes)
    reads = predict(boot(tdvf((*OLD, "SecureBootConfigDxe"), cfv=store(keys))))
    assert {event.label: event.digest for event in reads.events}["KEK"] != digests[0]["KEK"]
    assert not any("ignores" in note for note in reads.notes)


def test_variables_are_unknown_if_it_is_unknown_whether_the_firmware_reads_them(boot: Boot) -> None:
    image = tdvf().replace(LZMA_SECTION, bytes(16))
    prediction = predict(boot(image, edk2="202411"))
    unknown = {event.label: event.why for event in prediction.unknown}
    assert set(unknown) == {"SecureBoot", "PK", "KEK", "db", "dbx", "ACPI DATA"}
    assert "can be unpacked" in unknown["KEK"]


def test_boot_options_in_the_image_make_those_of_the_firmware_unknown(boot: Boot) -> None:
    own = {("Boot0007", GLOBAL): b"option", ("BootOrder", GLOBAL): b"\7\0"}
    prediction = predict(boot(tdvf((*OLD, "SecureBootConfigDxe"), cfv=store(own))))
    assert {event.label for event in prediction.unknown} == {"BootOrder", "Boot0000"}
    assert all("Boot0007, BootOrder" in event.why for event in prediction.unknown)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=8)), max_size=6))
def test_no_damage_to_a_store_makes_it_fail(changes: list[tuple[int, bytes]]) -> None:
    raw = bytearray(store({("PK", GLOBAL): b"owner", ("db", IMAGE_SECURITY): b"x" * 99}))
    for place, data in changes:
        raw[place : place + len(data)] = data
    assert isinstance(read_variables(bytes(raw)), dict)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 600), st.binary(min_size=1, max_size=8))
def test_no_damage_to_a_compressed_section_makes_it_fail(place: int, data: bytes) -> None:
    raw = bytearray(tdvf())
    raw[CFV + place : CFV + place + len(data)] = data
    content = unpack(bytes(raw))
    assert isinstance(content.version, str)
    assert isinstance(content.volumes(), tuple)


def test_a_small_section_that_unpacks_to_too_much_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    from acon_nb.tdx import volumes

    monkeypatch.setattr(volumes, "_UNPACKED_LIMIT_BYTES", 1 << 16)
    packed = lzma.compress(bytes(1 << 22), format=lzma.FORMAT_ALONE)
    head = (24 + len(packed)).to_bytes(3, "little") + b"\x02" + LZMA_SECTION + struct.pack("<HH", 24, 1)
    assert len(unpack(head + packed).unpacked) <= 1 << 16


def test_the_image_tells_its_switches() -> None:
    old = stack(unpack(tdvf(OLD, (" initrd=initrd",))), qemu="10.1")
    assert (old.token, old.on("separator_rtmr1"), old.kernel_patched) == ("suffix", False, True)
    new = stack(unpack(tdvf(NEW, ("initrd=initrd ", "etc/boot/", "ACPI DATA"), "2026.08-2")), qemu="10.1")
    assert (new.edk2, new.token, new.on("separator_rtmr1"), new.kernel_patched) == ("202608", "prefix", True, False)
    assert all(new.on(name) for name in ("rtmr", "acpi", "smbios", "boot_menu"))
    assert not new.on("fw_cfg")
    without = stack(unpack(tdvf(OLD, ("etc/boot/",))), qemu="9.2")
    assert without.on("separator_rtmr1")
    assert without.kernel_patched
    assert "202502" in next(row.known_by for row in without.switches if row.name == "separator_rtmr1")


def test_a_requested_release_wins() -> None:
    content = unpack(tdvf(OLD, (" initrd=initrd",), "2025.02-1"))
    assert stack(content).on("separator_rtmr1")
    assert not stack(content, edk2="edk2-stable202408").on("separator_rtmr1")
    asked = stack(content, edk2="202508", qemu="10.2")
    assert asked.token == "prefix"
    assert "as requested" in next(row.known_by for row in asked.switches if row.name == "token_first")
    assert [edk2_release(text) for text in ("202411", "2024.11-2", "edk2-stable202411", "")] == ["202411"] * 3 + [""]
    assert qemu_version("10.1") == (10, 1)
    for wrong in (edk2_release, qemu_version):
        with pytest.raises(InvalidInput):
            wrong("newest")


def test_every_switch_has_a_source() -> None:
    rows = stack(FirmwareContent(b"", b"")).switches
    assert len({row.name for row in rows}) == len(rows) >= 10
    assert all(row.source and row.what and row.known_by for row in rows)


def test_a_whole_prediction_of_a_simple_firmware(boot: Boot) -> None:
    prediction = predict(boot(memory_bytes=1 << 30, append="console=hvc0"))
    names = [(event.register, event.label) for event in prediction.events]
    assert names == [
        ("RTMR[0]", "TdxTable"),
        ("RTMR[0]", "CFV"),
        *(("RTMR[0]", name) for name in ("SecureBoot", "PK", "KEK", "db", "dbx", "separator")),
        ("RTMR[1]", "kernel"),
        ("RTMR[0]", "BootOrder"),
        ("RTMR[0]", "Boot0000"),
        ("RTMR[1]", "Calling EFI Application from Boot Option"),
        ("RTMR[0]", "separator"),
        ("RTMR[2]", "command line"),
        ("RTMR[2]", "initrd"),
        ("RTMR[1]", "Exit Boot Services Invocation"),
        ("RTMR[1]", "Exit Boot Services Returned with Success"),
    ]
    line = hashlib.sha384("console=hvc0 initrd=initrd\0".encode("utf-16-le")).digest()
    first = hashlib.sha384(bytes(48) + line).digest()
    second = hashlib.sha384(first + hashlib.sha384(b"the initrd").digest()).digest()
    assert prediction.registers["RTMR[2]"] == second
    assert prediction.registers["RTMR[3]"] == bytes(48)
    assert not prediction.unknown
    assert all(event.source and event.what for event in prediction.events)


@pytest.mark.skipif(not VECTORS.is_dir(), reason="ACON_NB_VECTORS names no folder of vectors")
def test_the_log_of_a_real_td_is_as_predicted_but_for_its_own_files(boot: Boot) -> None:
    """A direct boot with 2 GiB: all that does not hang on files which we lack is equal, in the same order."""
    log = tdx.read_log(VECTORS / "trustee/CCEL_data_ovmf")
    prediction = predict(boot(tdvf(OLD, ("ACPI DATA",)), memory_bytes=2 << 30, edk2="202408"))
    assert [(event.register, event.event_type) for event in log.events] == [
        (event.register, event.event_type) for event in prediction.events
    ]
    found = compare(expected(prediction), log)
    by_verdict = {
        verdict: [pair.what for pair in found.events if pair.verdict is verdict] for verdict in MeasurementVerdict
    }
    assert [text.split(",")[0] for text in by_verdict[MeasurementVerdict.DIFFERENT]] == [
        "configuration volume",
        "kernel (Authenticode hash)",
        "kernel command line in UTF-16",
        "initrd (the file itself)",
    ]
    assert len(by_verdict[MeasurementVerdict.UNKNOWN]) == 3
    assert len(by_verdict[MeasurementVerdict.EQUAL]) == len(log.events) - 7


def test_acpi_is_unknown_until_it_is_captured(boot: Boot, tmp_path: Path) -> None:
    firmware = tdvf(OLD, ("ACPI DATA",))
    prediction = predict(boot(firmware))
    assert [event.label for event in prediction.unknown] == ["ACPI DATA"] * 3
    assert prediction.registers["RTMR[0]"] is None
    assert prediction.registers["RTMR[1]"] is not None
    with pytest.raises(InvalidInput, match="is not a folder"):
        predict(boot(firmware, capture=tmp_path / "capture"))


def test_acpi_of_another_kind_of_guest_is_not_taken_for_a_tpm_s(boot: Boot, tmp_path: Path) -> None:
    """A guest with a TPM has other tables, and one more file, which its firmware measures before the last."""
    inputs = boot(tdvf(OLD, ("ACPI DATA",)))
    files = {name: name.encode() for name in ("table-loader", "rsdp", "tables")}
    without = predict_reference_boot(inputs).with_hardware(files)
    assert [event.what for event in without.unknown if event.label == "ACPI DATA"] == [
        "ACPI: etc/table-loader",
        "ACPI: etc/acpi/rsdp",
        "ACPI: etc/tpm/log",
        "ACPI: etc/acpi/tables",
    ]
    known = without.with_hardware({**files, "tpm/log": b"log"})
    digests = [event.digest for event in known.events if event.label == "ACPI DATA"]
    assert digests == [hashlib.sha384(data).digest() for data in (b"table-loader", b"rsdp", b"log", b"tables")]
    assert known.registers["PCR[1]"] is not None


@pytest.mark.parametrize(
    ("stub", "words", "events"), [(TCG2, "does not support the CC protocol", 0), (CC[:8] + b"mov" + CC[8:], "", 2)]
)
def test_an_old_kernel_measures_no_command_line(boot: Boot, stub: bytes, words: str, events: int) -> None:
    prediction = predict(boot(kernel=bzimage(stub=stub)))
    assert len([event for event in prediction.events if event.register == "RTMR[2]"]) == events
    assert words in " ".join(prediction.notes)


def test_a_firmware_that_measures_nothing_is_reported(boot: Boot) -> None:
    prediction = predict(boot(tdvf(())))
    assert prediction.events == ()
    assert set(prediction.registers.values()) == {bytes(48)}
    assert "stay zero" in prediction.notes[0]


MOVES = {
    "kernel": {"RTMR[1]"},
    "initrd": {"RTMR[2]"},
    "initrd_size": {"RTMR[1]", "RTMR[2]"},
    "append": {"RTMR[2]"},
    "memory_bytes": {"RTMR[0]", "RTMR[1]"},
    "firmware": {"MRTD"},
    "variable": {"RTMR[0]"},
}


@pytest.mark.parametrize("changed", MOVES)
def test_one_byte_of_an_input_changes_the_registers_that_depend_on_it(boot: Boot, changed: str) -> None:
    kernel, firmware = bytearray(bzimage()), bytearray(tdvf())
    before = predict(boot())
    inputs = boot()
    if changed == "kernel":
        kernel[0x1FF0] ^= 1
    elif changed == "firmware":
        firmware[SIZE - 4096] ^= 1
    elif changed == "variable":
        firmware[100] ^= 1
    elif changed == "append":
        inputs = boot(append="console=ttyS1")
    elif changed == "memory_bytes":
        inputs = boot(memory_bytes=1 << 30)
    inputs.kernel.write_bytes(kernel)
    inputs.firmware.write_bytes(firmware)
    assert inputs.initrd is not None
    inputs.initrd.write_bytes({"initrd": b"The initrd", "initrd_size": b"the initrd!"}.get(changed, b"the initrd"))
    after = predict(inputs)
    moved = {name for name, value in before.registers.items() if after.registers[name] != value}
    if before.mrtd != after.mrtd:
        moved.add("MRTD")
    assert moved == MOVES[changed]
    table = change_table(before, after).set_index("register")
    assert set(table.index[table["result"] == "changed"]) == moved


def test_a_prediction_goes_to_json_and_back(boot: Boot) -> None:
    made = expected(predict(boot(tdvf(OLD, ("ACPI DATA",)))))
    assert parse_expected(json.dumps(made.as_json())) == made
    assert made.as_json()["registers"]["RTMR[0]"] is None


@settings(max_examples=100, deadline=None)
@given(st.recursive(st.none() | st.integers() | st.text(max_size=9), lambda x: st.lists(x, max_size=3)))
@pytest.mark.parametrize("field", ["kind", "mrtd", "events", "alternatives", "notes"])
def test_a_stored_prediction_that_was_damaged_is_refused(field: str, value: object) -> None:
    made = {"form": "acon-nb measurement 1", "kind": "CCEL", "mrtd": {}, "events": [], "alternatives": [], "notes": []}
    assert parse_expected(json.dumps(made)).events == ()
    with contextlib.suppress(InvalidInput):
        parse_expected(json.dumps({**made, field: value}))


def test_what_was_measured_as_predicted_is_equal(boot: Boot) -> None:
    prediction = predict(boot())
    found = compare(expected(prediction), log_of(prediction))
    assert found.verdict is MeasurementVerdict.EQUAL
    assert not found.explanations
    assert found.headline == "equal: RTMR[0], RTMR[1], RTMR[2], RTMR[3]"


def test_what_cannot_be_known_is_not_reported_as_equal(boot: Boot) -> None:
    prediction = predict(boot(tdvf(OLD, ("ACPI DATA",))))
    found = compare(expected(prediction), log_of(prediction))
    assert found.verdict is MeasurementVerdict.UNKNOWN
    assert "RTMR[0]" in found.headline
    assert (
        compare(expected(prediction), log_of(prediction), only=["RTMR[1]", "RTMR[2]"]).verdict
        is MeasurementVerdict.EQUAL
    )


def test_the_event_that_drifted_is_named_first(boot: Boot) -> None:
    prediction = predict(boot())
    found = compare(expected(prediction), log_of(prediction, initrd=b"x" * 48))
    assert found.verdict is MeasurementVerdict.DIFFERENT
    (only,) = found.differences
    assert (only.register, only.number) == ("RTMR[2]", 1)
    assert only.text.startswith("initrd (the file itself) differs: expected sha384 ")
    assert b"x".hex() * 48 in only.text
    assert any("depends on initrd" in text for text in found.explanations)


STACKS = {
    "token": ({"edk2": "202508"}, {"edk2": "202502"}, "the token initrd=initrd comes after the command line"),
    "patch": ({"edk2": "202502", "qemu": "9.2"}, {"edk2": "202502"}, "without QEMU's changes to its header"),
    "separator": ({"edk2": "202411"}, {"edk2": "202408"}, "the separator at ready to boot goes to RTMR[0]"),
}


@pytest.mark.parametrize("what", STACKS)
def test_the_other_stack_that_matches_is_found(boot: Boot, what: str) -> None:
    ours, theirs, words = STACKS[what]
    real = predict(boot(**theirs))
    wrong = expected(predict(boot(**ours)))
    found = compare(wrong, log_of(real), only=["RTMR[1]", "RTMR[2]"])
    assert found.verdict is MeasurementVerdict.DIFFERENT
    assert words in found.explanations[0]
    assert "everything that can be known is equal" in found.explanations[0]


def test_a_guest_without_its_initrd_is_found(boot: Boot) -> None:
    real = predict(boot(initrd=None))
    found = compare(expected(predict(boot())), log_of(real))
    assert any("the guest was given no initrd" in text for text in found.explanations)


def quote_of(prediction: tdx.Prediction, order: PageOrder) -> tdx.TdIdentity:
    assert prediction.mrtd is not None
    registers = [prediction.registers[f"RTMR[{number}]"] or b"?" * 48 for number in range(4)]
    body = bytes(136) + prediction.mrtd.of(order) + bytes(144) + b"".join(registers) + bytes(64)
    return tdx.parse_identity(struct.pack("<HHI", 4, 2, 0x81).ljust(48, b"\0") + body)


@pytest.mark.parametrize("order", list(PageOrder))
def test_a_quote_of_either_page_order_matches(boot: Boot, order: PageOrder) -> None:
    prediction = predict(boot())
    found = compare(expected(prediction), quote_of(prediction, order))
    assert found.verdict is MeasurementVerdict.EQUAL
    assert found.registers[0].text == f"equal, pages added and extended {order}"


def test_a_quote_of_another_stack_and_firmware(boot: Boot) -> None:
    real = predict(boot(edk2="202502"))
    quote = quote_of(real, PageOrder.PAGE)
    found = compare(expected(predict(boot(edk2="202508"))), quote, only=["MRTD", "RTMR[1]", "RTMR[2]"])
    assert "the token initrd=initrd comes after the command line" in found.explanations[0]
    other = compare(expected(predict(boot(tdvf(version="2024.02-1")))), quote, only=["MRTD"])
    assert "neither page order matches" in other.registers[0].text


def test_reference_values_are_what_rvps_takes(boot: Boot, tmp_path: Path) -> None:
    made = expected(predict(boot(tdvf(OLD, ("ACPI DATA",)))))
    path = tmp_path / "values.json"
    values = reference.write_message(path, made)
    assert set(values) == {"mr_td", "rtmr_1", "rtmr_2", "tdvfkernel", "tdvfkernelparams"}
    assert len(values["mr_td"]) == 2
    sent = json.loads(path.read_text())
    assert (sent["version"], sent["type"]) == ("0.1.0", "sample")
    assert json.loads(base64.b64decode(sent["payload"])) == values == reference.read_message(path.read_text())
    with pytest.raises(InvalidInput, match="cannot be known offline"):
        reference.reference_values(made, only=["RTMR[0]"])
    assert set(reference.reference_values(made, only=["RTMR[3]"])) == {"rtmr_3"}


@pytest.mark.parametrize(
    "change",
    [{"version": "9"}, {"type": "other"}, {"payload": "not base64!"}, {"more": 1}, {"payload": "e30="}],
)
def test_a_message_of_another_form_is_refused(boot: Boot, change: dict[str, object]) -> None:
    made = reference.message(reference.reference_values(expected(predict(boot()))))
    with pytest.raises(InvalidInput):
        reference.read_message(json.dumps({**made, **change}))
    with pytest.raises(InvalidInput):
        reference.message({"mr_td": ["too short"]})


def test_a_tpm_s_prediction_is_not_a_reference_value(boot: Boot) -> None:
    boot_prediction = tdx.predict_reference_boot(boot())
    assert boot_prediction.kind is LogKind.TPM
    assert boot_prediction.mrtd is None
    with pytest.raises(InvalidInput, match="not that of a TD"):
        reference.reference_values(expected(boot_prediction))


def test_the_tables_tell_all(boot: Boot) -> None:
    prediction = predict(boot(tdvf(OLD, ("ACPI DATA",))))
    assert len(event_table(prediction)) == len(prediction.events)
    registers = register_table(prediction).set_index("register")
    assert registers.loc["RTMR[0]", "value"] == "cannot be known offline"
    assert registers.loc["MRTD, per page", "depends on"] == "firmware"
    assert "initrd" in registers.loc["RTMR[2]", "depends on"]
    assert list(section_table(prediction.material.firmware)["section"])[:3] == ["BFV", "CFV", "TEMP_MEM"]
    assert len(stack_table(prediction.material.stack)) == len(prediction.material.stack.switches)


def test_the_chain_is_drawn_with_what_moved(boot: Boot) -> None:
    firmware = tdvf(OLD, ("ACPI DATA",))
    before = predict(boot(firmware))
    chain = chain_table(predict(boot(firmware, append="other")), before)
    assert set(chain.loc[chain["moved"], "component"]) == {"command line"}
    assert set(chain.loc[~chain["known"], "component"]) == {"ACPI tables"}
    temporary = chain.set_index("component").loc["TEMP_MEM: addresses", "bytes"]
    assert temporary == 0x10000 + 0x2000 + 0x6000
    figure = plots.plot_chain(chain)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert "ACPI tables (3 events)" in texts
    assert any(text.startswith("RTMR[0]\ncannot be known") for text in texts)
    assert texts.count("firmware (Boot FV)") == 2
    assert "kernel's EFI stub" in texts


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"memory_bytes": 123}, "whole number of MiB"),
        ({"append": "a\nb"}, "kernel command line"),
        ({"append": "x" * 2048}, "kernel command line"),
        ({"initrd": Path("/none")}, "is not a file"),
        ({"edk2": "new"}, "is not a valid release of edk2"),
        ({"qemu": "new"}, "is not a valid version of QEMU"),
    ],
)
def test_bad_inputs_are_refused_at_once(boot: Boot, fields: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        boot(**fields)


def test_hashing_the_initrd_tells_its_progress_and_can_be_cancelled(boot: Boot) -> None:
    inputs = boot()
    assert inputs.initrd is not None
    with inputs.initrd.open("wb") as file:
        file.truncate(130 << 20)
    events: list[float | None] = []
    load(inputs, on_progress=lambda event: events.append(event.done))
    assert events[-1] == 1.0
    assert len(events) == 3
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        load(inputs, cancel=token)


class TestCommands:
    """`acon-nb measure`, by its exit status."""

    def run(self, *argv: object, **environment: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["measure", *map(str, argv)], env={"BIOS": "", "RD": "", **environment})
        return result.exit_code, result.stdout

    @pytest.fixture
    def files(self, boot: Boot) -> list[object]:
        inputs = boot()
        given = ["--firmware", inputs.firmware, "--initrd", inputs.initrd, "--memory", "1G", "--qemu", "9.2"]
        return [inputs.kernel, *given]

    def test_a_prediction_is_stored_and_compared(self, files: list[object], tmp_path: Path) -> None:
        status, text = self.run("predict", "--json", *files)
        assert status == 0
        (tmp_path / "a").write_text(text)
        assert json.loads(text)["kind"] == "CCEL"
        assert json.loads(text)["stack"]
        status, text = self.run("predict", "--json", *files, "--append", "other")
        (tmp_path / "b").write_text(text)
        assert self.run("compare", tmp_path / "a", tmp_path / "a")[0] == 0
        status, text = self.run("compare", tmp_path / "a", tmp_path / "b", "--json")
        assert status == 1
        answer = json.loads(text)
        assert answer["verdict"] == "different"
        assert "command line" in answer["headline"]
        assert self.run("compare", tmp_path / "a", tmp_path / "b", "--only", "rtmr1")[0] == 0

    def test_what_cannot_be_known_is_3(self, files: list[object], tmp_path: Path) -> None:
        Path(str(files[2])).write_bytes(tdvf(OLD, ("ACPI DATA",)))
        status, text = self.run("predict", *files)
        assert status == 3
        assert "RTMR[0]  cannot be known offline" in text
        assert self.run("predict", *files, "--only", "mrtd,rtmr1,RTMR[2]", "--rvps", tmp_path / "v")[0] == 0
        assert set(reference.read_message((tmp_path / "v").read_text())) == {
            "mr_td",
            "rtmr_1",
            "rtmr_2",
            "tdvfkernel",
            "tdvfkernelparams",
        }

    def test_wrong_usage_is_2(self, files: list[object], tmp_path: Path) -> None:
        assert self.run("predict", *files, "--only", "rtmr9")[0] == 2
        assert self.run("predict", *files, "--memory", "3000000000000G")[0] == 2

    def test_a_file_that_cannot_be_read_is_4(self, files: list[object], tmp_path: Path) -> None:
        assert self.run("predict", tmp_path / "none")[0] == 4
        assert self.run("replay", tmp_path / "none")[0] == 4
        assert self.run("compare", tmp_path, tmp_path)[0] == 4

    def test_a_log_is_replayed(self, tmp_path: Path) -> None:
        body = b"Spec ID Event03\0" + bytes(4) + b"\0\2\0\2\1\0\0\0\x0c\0\x30\0\0"
        (tmp_path / "log").write_bytes(struct.pack("<II20xI", 1, 3, len(body)) + body)
        status, text = self.run("replay", "--json", tmp_path / "log")
        assert status == 0
        assert json.loads(text)["registers"]["RTMR[3]"] == "00" * 48


def test_a_large_initrd_is_streamed(boot: Boot) -> None:
    inputs = boot()
    assert inputs.initrd is not None
    with inputs.initrd.open("wb") as file:
        file.truncate(64 << 20)
    material = load(inputs)
    assert material.initrd_bytes == 64 << 20
    assert material.initrd_digest == hashlib.sha384(bytes(64 << 20)).digest()


def identity_of(prediction: tdx.Prediction, **registers: bytes) -> tdx.TdIdentity:
    """The identity of a TD that did as predicted; a register that cannot be known is filled with ones."""
    values = {name: value or b"\1" * 48 for name, value in prediction.registers.items()}
    assert prediction.mrtd is not None
    zero = bytes(48)
    return tdx.TdIdentity(
        form="quote",
        registers={"MRTD": prediction.mrtd.per_page, **values, **registers},
        attributes=0,
        xfam=0,
        mrconfigid=zero,
        mrowner=zero,
        mrownerconfig=zero,
        report_data=bytes(64),
    )


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"memory_bytes": 1 << 30}, "the memory is 1 GiB, not 2 GiB"),
        ({"memory_bytes": 64 << 30}, "the memory is 64 GiB, not 2 GiB"),
        ({"append": "console=ttyS0 quiet"}, "the command line has 'quiet' at its end"),
        ({"append": "console=ttyS0 "}, "the command line has a space at its end"),
        ({"memory_bytes": 8 << 30, "append": ""}, "the memory is 8 GiB, not 2 GiB and the command line is empty"),
        ({"memory_bytes": 512 << 20, "qemu": "10.2"}, "without QEMU's changes to its header and the memory is 512 MiB"),
    ],
)
def test_drifted_inputs_are_found_from_a_quote_and_a_stored_prediction(
    boot: Boot, fields: dict[str, object], words: str
) -> None:
    inputs = boot(tdvf(version="2024.11-1"), qemu="9.2")
    stored = parse_expected(json.dumps(expected(predict(inputs)).as_json()))
    measured = predict(inputs.changed(**fields))
    found = compare(stored, identity_of(measured))
    assert found.verdict == "different"
    assert any("drift: everything that can be known fits if" in text and words in text for text in found.explanations)


def test_drift_that_is_not_plausible_leads_to_what_remains_and_the_log(boot: Boot) -> None:
    prediction = predict(boot(tdvf(), qemu="9.2", edk2="202411"))
    found = compare(expected(prediction), identity_of(prediction, **{"RTMR[1]": b"\7" * 48}))
    assert any("no plausible change of one or two inputs leads to RTMR[1]" in text for text in found.explanations)
    assert any("kernel, qemu" in text and "as expected, by another register" in text for text in found.explanations)
    assert found.explanations[-1].startswith("drift: give the event log")


def test_the_kernels_of_a_stored_prediction_are_those_of_their_memory(boot: Boot) -> None:
    inputs = boot(tdvf(), qemu="9.2", edk2="202411")
    facts = expected(predict(inputs)).facts
    assert facts is not None
    for size in (512 << 20, 1 << 30, 16 << 30):
        other = predict(inputs.changed(memory_bytes=size))
        kernel = next(event for event in other.events if event.label == "kernel")
        assert facts.kernels[str(below_4g_bytes(size))] == kernel.digest


def test_an_empty_initrd_is_none(boot: Boot) -> None:
    """OVMF offers the kernel no initrd of 0 bytes, and so adds no token either."""
    inputs = boot()
    assert inputs.initrd is not None
    inputs.initrd.write_bytes(b"")
    for made in (predict(inputs), predict_reference_boot(inputs)):
        events = [event for event in made.events if event.type_name == "EV_EVENT_TAG"]
        assert [event.label for event in events] == ["command line"]
        assert events[0].digest == hashlib.sha384(load_options(inputs.append, token="")).digest()


def test_reference_values_meet_the_rules_of_trustee_s_policy(boot: Boot) -> None:
    made = expected(predict(boot()))
    values = reference.reference_values(made, xfam=[bytes.fromhex("e702060000000000")])
    assert reference.unmet(values) == []
    assert reference.unmet(reference.reference_values(made)) == ["xfam"]
    for name, rule in reference.rules().items():
        assert isinstance(values[name], list if rule["compared"] == "in" else str)
    assert reference.read_message(json.dumps(reference.message(values))) == values
