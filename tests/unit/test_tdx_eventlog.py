"""Event logs and quotes: the vectors' registers are pinned, and whatever is not a log is refused."""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acon_nb.errors import InvalidInput
from acon_nb.tdx import LogKind, compare, parse_identity, parse_log, parse_side, read_identity, read_log
from acon_nb.tdx.binding import binding_of
from acon_nb.tdx.describe import label_of, text_of
from acon_nb.tdx.eventlog import EventLog, extend, parse_ccel_table

VECTORS = Path(os.environ.get("ACON_NB_VECTORS", "/nowhere"))
needs_vectors = pytest.mark.skipif(not VECTORS.is_dir(), reason="ACON_NB_VECTORS names no folder of vectors")

GOOGLE = (
    "3fa2f61f395b7f5feefb4ec2df61297f109ad8abcd6410c1b7df60f21f37b19297fc35e544039c7e1edece752afd17f6",
    "f62dbc072bd5d3f3438b7b35c39a727f5aea2ffc2473f43723953f530daf62504f0a7944aa62c41a86e8a878c2b122c1",
    "4969684dc87381fc3b3134176c8d8806eaf0a901859f5f70cfae8d17714b46c10a8de219048c9fc09f11f381a6fbe7c1",
)


def spec_id(index: int = 1, algorithms: tuple[tuple[int, int], ...] = ((0xC, 48),)) -> bytes:
    body = b"Spec ID Event03\0" + bytes(4) + b"\0\2\0\2" + struct.pack("<I", len(algorithms))
    body += b"".join(struct.pack("<HH", *row) for row in algorithms) + b"\0"
    return struct.pack("<II20xI", index, 3, len(body)) + body


def record(index: int, kind: int, data: bytes, digest: bytes | None = None) -> bytes:
    digest = hashlib.sha384(data).digest() if digest is None else digest
    return struct.pack("<IIIH", index, kind, 1, 0xC) + digest + struct.pack("<I", len(data)) + data


@needs_vectors
def test_a_log_of_google_cloud_gives_its_quote() -> None:
    log = read_log(VECTORS / "go-tdx-guest/ccel_data.dat")
    quote = read_identity(VECTORS / "go-tdx-guest/cos-113-tdx-quote.dat")
    values = log.registers()
    assert [values[f"RTMR[{number}]"].hex() for number in range(3)] == list(GOOGLE)
    assert {name: quote.registers[name] for name in values} == values
    assert compare(log, quote).verdict == "equal"
    assert quote.form == "quote of version 4"
    assert "not verified" in quote.note


@needs_vectors
def test_a_register_that_was_extended_after_the_log_is_reported() -> None:
    log = read_log(VECTORS / "evidence-api/ccel_data.bin")
    found = compare(log, read_identity(VECTORS / "evidence-api/quote.bin"))
    verdicts = {row.register: row.verdict.value for row in found.registers}
    assert verdicts == {"RTMR[0]": "equal", "RTMR[1]": "equal", "RTMR[2]": "different", "RTMR[3]": "equal"}
    assert any("the log lacks what came later (IMA, an agent)" in text for text in found.explanations)


@needs_vectors
def test_a_direct_boot_with_the_old_separators() -> None:
    log = read_log(VECTORS / "trustee/CCEL_data_ovmf")
    starts = [log.registers()[f"RTMR[{number}]"].hex()[:8] for number in range(3)]
    assert starts == ["8566f998", "775b9f6b", "94eaf7a7"]
    labels = [(event.register, label_of(event)) for event in log.events]
    assert ("RTMR[2]", "command line") in labels
    assert ("RTMR[2]", "initrd") in labels
    assert labels.count(("RTMR[0]", "separator")) == 2
    assert ("RTMR[1]", "separator") not in labels


@needs_vectors
def test_the_log_of_a_reference_boot_replays_to_what_its_guest_read_from_the_tpm() -> None:
    values = read_log(VECTORS / "swtpm/bk1.eventlog.bin").registers()
    lines = (VECTORS / "swtpm/bk1.pcr-sha384.txt").read_text().split("\n")
    read = {f"PCR[{row.split()[2]}]": row.split()[3].lower() for row in lines if row}
    assert values
    assert {name: value.hex() for name, value in values.items()} == {name: read[name] for name in values}


@needs_vectors
def test_logs_of_two_kernels_differ_first_in_the_kernel() -> None:
    first, second = (read_log(VECTORS / f"swtpm/{name}.eventlog.bin") for name in ("bk1", "deb61"))
    found = compare(first, second)
    assert [row.register for row in found.registers if row.verdict == "different"] == ["PCR[4]", "PCR[9]"]
    assert "kernel differs: expected sha384 c562a66d" in found.headline


@needs_vectors
def test_quotes_of_both_versions() -> None:
    fifth = read_identity(VECTORS / "go-tdx-guest/quote_v5_sample.dat")
    assert fifth.form == "quote of version 5"
    assert fifth.registers["MRTD"].hex().startswith("7348651a34b2")
    assert fifth.registers["RTMR[3]"] == bytes(48)
    fourth = read_identity(VECTORS / "go-tdx-guest/tdx_prod_quote_SPR_E4.dat")
    assert fourth.form == "quote of version 4"
    assert not fourth.debug


@needs_vectors
def test_the_acpi_table_says_where_the_log_lies() -> None:
    raw = (VECTORS / "go-tdx-guest/ccel_table.dat").read_bytes()
    table = parse_ccel_table(raw)
    assert (table.cc_type, table.log_bytes) == (2, 262144)
    with pytest.raises(InvalidInput, match="checksum"):
        parse_ccel_table(raw[:-1] + b"\1")
    for damaged in (b"", raw[:40], b"DSDT" + raw[4:]):
        with pytest.raises(InvalidInput, match="is not an ACPI table CCEL"):
            parse_ccel_table(damaged)


@needs_vectors
@pytest.mark.parametrize("name", ["go-tdx-guest/ccel_data.dat", "trustee/CCEL_data_ovmf", "swtpm/bk1.eventlog.bin"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_damage_to_a_real_log_does_more_than_refuse_it(name: str, data: st.DataObject) -> None:
    raw = bytearray((VECTORS / name).read_bytes()[:19000])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(raw) - 4))
        raw[place : place + 4] = data.draw(st.binary(min_size=4, max_size=4))
    try:
        found = parse_log(bytes(raw[: data.draw(st.integers(0, len(raw)))]))
    except InvalidInput:
        return
    assert all(label_of(event) is not None for event in found.events)
    assert found.size_bytes <= len(raw)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), st.booleans())
def test_any_bytes_are_read_or_refused(data: bytes, with_header: bool) -> None:
    raw = spec_id() + data if with_header else data
    for read in (parse_log, parse_side, parse_identity):
        with contextlib.suppress(InvalidInput):
            read(raw)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.sampled_from([4, 6, 0xD, 0x80000002]), st.binary(max_size=60)), max_size=8)
)
@pytest.mark.parametrize("end", [b"", bytes(64), b"\xff" * 16])
def test_what_is_written_is_replayed(end: bytes, rows: list[tuple[int, int, bytes]]) -> None:
    raw = spec_id() + b"".join(record(*row) for row in rows)
    log = parse_log(raw + end)
    expected = {f"RTMR[{number}]": bytes(48) for number in range(4)}
    for index, _, data in rows:
        name = f"RTMR[{index - 1}]"
        expected[name] = hashlib.sha384(expected[name] + hashlib.sha384(data).digest()).digest()
    assert log.registers() == expected
    assert log.size_bytes == len(raw)
    assert log.kind is LogKind.TD


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "is not an event log"),
        (spec_id(algorithms=((0xB, 32),)), "has no SHA-384"),
        (spec_id(algorithms=((0xC, 32),)), "digests of 32 bytes"),
        (spec_id()[:56] + b"\xff" * 4 + spec_id()[60:], "damaged header"),
        (spec_id() + struct.pack("<III", 1, 4, 0xFFFFFFFF), "claims 4294967295 digests in event 0"),
        (spec_id() + struct.pack("<IIIH", 1, 4, 1, 0x99) + bytes(80), "has a digest of 0x0099"),
        (spec_id() + record(1, 4, b"data")[:-1], "is truncated in event 0"),
        (spec_id() + struct.pack("<III", 1, 4, 0) + bytes(4), "no SHA-384 digest in event 0"),
        (spec_id() + record(1, 4, b"")[:-4] + b"\xff" * 4, "is truncated in event 0"),
    ],
)
def test_a_false_log_is_refused_with_the_offset(raw: bytes, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        parse_log(raw)


def test_what_is_not_measured_is_left_out_and_noted() -> None:
    log = parse_log(spec_id() + record(1, 3, b"note") + record(9, 4, b"far") + record(2, 4, b"\0\0\0\0"))
    assert [event.register for event in log.events] == ["RTMR[1]"]
    assert log.notes == ("event 0 is EV_NO_ACTION: not measured", "event 1 has index 9, which is not a register")


def test_whose_log_it_is_is_told_by_all_that_it_shows() -> None:
    separator = record(1, 4, b"\0\0\0\0")
    tpm = parse_log(spec_id(index=0) + record(0, 8, b"version") + separator)
    assert tpm.kind is LogKind.TPM
    assert list(tpm.registers()) == ["PCR[0]", "PCR[1]"]
    assert tpm.kind_known_by == "it measures into index 0, which a TD does not have"
    banks = ((0xB, 32), (0xC, 48))
    two = struct.pack("<IIIH", 1, 4, 2, 0xB) + bytes(32) + struct.pack("<H", 0xC) + bytes(48) + bytes(4)
    assert parse_log(spec_id(index=0, algorithms=banks) + two).kind is LogKind.TPM
    # td-shim's header has index 0 as well
    shim = parse_log(spec_id(index=0) + separator + record(2, 7, b""))
    assert list(shim.registers()) == [f"RTMR[{number}]" for number in range(4)]
    hob = parse_log(spec_id(index=0, algorithms=banks) + two[:-4] + struct.pack("<I", 9) + b"\x08TdxTable")
    assert (hob.kind, hob.kind_known_by) == (LogKind.TD, "it measures a TD HOB")
    assert parse_log(spec_id(index=0) + separator, LogKind.TPM).kind is LogKind.TPM


def test_a_record_with_two_digests_of_one_bank_is_refused() -> None:
    digests = b"".join(struct.pack("<H", 0xC) + bytes([n]) * 48 for n in (1, 2))
    raw = spec_id(algorithms=((0xC, 48), (0xB, 32))) + struct.pack("<III", 1, 4, 2) + digests + bytes(4)
    with pytest.raises(InvalidInput, match=r"two digests of 0x000c.*in event 0"):
        parse_log(raw)


def report(**changed: bytes) -> bytes:
    """A TDREPORT whose registers are 1, 2, 3, ..."""
    info = struct.pack("<QQ", 0, 0xE7) + b"".join(bytes([number]) * 48 for number in range(1, 10))
    info = info.ljust(512, b"\0")
    head = b"\x81" + bytes(79) + changed.get("hash", hashlib.sha384(info).digest()) + b"d" * 64
    return head.ljust(512, b"\0") + info


def test_a_tdreport_is_read_and_its_own_hash_checked() -> None:
    found = parse_identity(report())
    assert found.form == "TDREPORT"
    assert [value[0] for value in found.registers.values()] == [1, 5, 6, 7, 8]
    assert (found.mrconfigid[0], found.mrowner[0], found.mrownerconfig[0]) == (2, 3, 4)
    assert found.report_data == b"d" * 64
    with pytest.raises(InvalidInput, match="do not match their own hash"):
        parse_identity(report(hash=bytes(48)))


def quote(version: int, body: bytes, *, tee: int = 0x81, kind: int = 2, size: int | None = None) -> bytes:
    head = struct.pack("<HHI", version, 2, tee).ljust(48, b"\0")
    return head + (struct.pack("<HI", kind, len(body) if size is None else size) if version == 5 else b"") + body


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (quote(3, bytes(600)), "version 3"),
        (quote(4, bytes(600), tee=0), "is a quote of an SGX enclave"),
        (quote(4, bytes(600), tee=1), "TEE type 0x1"),
        (quote(4, bytes(583)), "is truncated"),
        (quote(5, bytes(648), kind=9), "body of type 9"),
        (quote(5, bytes(648), kind=3, size=0xFFFFFFFF), "4294967295 bytes"),
        (quote(5, bytes(500), size=584), "is truncated"),
        (b"short", "too short"),
        (bytes(2 << 20), "too large for a quote"),
    ],
)
def test_a_false_quote_is_refused(raw: bytes, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        parse_identity(raw)


def test_a_debug_td_is_named() -> None:
    body = bytearray(648)
    body[120] = 1
    found = parse_identity(quote(5, bytes(body), kind=3))
    assert found.debug
    log = parse_log(spec_id())
    assert any("debug TD" in note for note in compare(log, found).notes)


def test_a_quote_of_an_earlier_moment_and_an_event_too_many_are_found() -> None:
    data = [bytes([number]) for number in range(4)]
    log = parse_log(spec_id() + b"".join(record(2, 0xD, row) for row in data))

    def shown(rows: list[bytes]) -> bytes:
        value = bytes(48)
        for row in rows:
            value = extend(value, hashlib.sha384(row).digest())
        return quote(4, bytes(328 + 48) + value + bytes(584 - 328 - 96))

    early = compare(log, parse_identity(shown(data[:2])))
    assert any("RTMR[1]: it matches the log up to event 2" in text for text in early.explanations)
    fewer = compare(log, parse_identity(shown([data[0], *data[2:]])))
    assert any("RTMR[1]: it matches the log without its event 1" in text for text in fewer.explanations)


def test_sides_without_a_common_register_are_not_compared() -> None:
    with pytest.raises(InvalidInput, match="no register in common"):
        compare(parse_log(spec_id()), parse_log(spec_id(index=0) + record(0, 4, b"\0\0\0\0")))
    log = parse_log(spec_id())
    with pytest.raises(InvalidInput, match="is not a register of both sides"):
        compare(log, log, only=["PCR[4]"])
    assert [row.register for row in compare(log, log, only=["RTMR[1]"]).registers] == ["RTMR[1]"]


def test_text_of_a_guest_is_cut_and_made_printable() -> None:
    assert text_of(b"one\n two\0rest") == "one two"
    assert text_of(b"\x1b[31mred") == b"\x1b[31mred".hex()
    assert len(text_of(b"x" * 5000)) == 100
    assert isinstance(parse_log(spec_id()), EventLog)


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    for read in (read_log, read_identity):
        with pytest.raises(InvalidInput, match="No such file"):
            read(tmp_path / "none")


def test_the_events_of_systemd_s_boot_loader_and_stub_have_their_names() -> None:
    """systemd-stub describes events in UTF-16: two for each section of a UKI, its name and its content."""

    def wide(text: str) -> bytes:
        return (text + "\0").encode("utf-16-le")

    def tagged(number: int, text: str) -> bytes:
        return struct.pack("<II", number, len(wide(text))) + wide(text)

    def sha(data: bytes) -> bytes:
        return hashlib.sha384(data).digest()

    rows = [
        (0xD, wide(".linux"), sha(b".linux\0"), "section .linux: name", "bound"),
        (0xD, wide(".linux"), sha(b"MZ..."), "section .linux: content", "unbound"),
        (0xD, wide(".pcrpkey"), sha(b".pcrpkey\0"), "section .pcrpkey: name", "bound"),
        (0xD, wide("quiet é"), sha(wide("quiet é")), "quiet é", "bound"),
        (0xD, wide("Credentials initrd"), sha(b"cpio"), "Credentials initrd", "unbound"),
        (0xD, b"grub_cmd: set a=1\0", sha(b"set a=1"), "grub_cmd: set a=1", "bound"),
        (
            0x6,
            tagged(0xF5BC582A, "loader.conf"),
            sha(b"timeout 1"),
            "systemd-boot's loader.conf loader.conf",
            "unbound",
        ),
        (0x6, tagged(0x13AED6DB, "1"), sha(b"1"), "systemd-stub: profile of the UKI 1", "unbound"),
        (0xD, wide("\x1b[2J"), sha(b"x"), None, "unbound"),
    ]
    log = parse_log(spec_id() + b"".join(record(3, kind, data, digest) for kind, data, digest, _, _ in rows))
    for event, (_, data, _, label, binding) in zip(log.events, rows, strict=True):
        assert binding_of(event).value == binding, data
        if label is not None:
            assert label_of(event) == label
        assert label_of(event).isprintable()
