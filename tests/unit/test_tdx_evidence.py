"""Evidence in the forms in which projects publish it, and what a comparison makes of it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from acon_nb import tdx
from acon_nb.cli import main
from acon_nb.errors import InvalidInput
from acon_nb.tdx import EventLog, TdIdentity, compare, parse_log, parse_side, read_side
from acon_nb.tdx.binding import Binding, binding_of
from acon_nb.tdx.eventlog import extend

DATA = Path(__file__).with_name("data") / "tdx"
QUOTE = (DATA / "quote_v4.bin").read_bytes()
CCEL = (DATA / "ccel_google.bin").read_bytes()
INIT = "INIT sha384/" + 96 * "0"
ACON = (
    "github.com/intel/ACON AddManifest sha384/7ec795c3fe89687d4514a1e4f95b2421012fd0b877eba9d5d5f33a1314fe7e10"
    "a5b38b0890d890df59b716f55f41e2ff/1be479a625d00cc800da463a19baf111a5f69fa1858d78d124813236bc5b198bd551648273a0f658"
    "24b13490263362ef"
)


def run(*arguments: object) -> tuple[int, str]:
    found = CliRunner().invoke(main, ["measure", *map(str, arguments)])
    assert not isinstance(found.exception, Exception) or isinstance(found.exception, SystemExit)
    return found.exit_code, found.output


def registers(side: Any) -> dict[str, bytes]:
    found: dict[str, bytes] = side.registers if isinstance(side, TdIdentity) else side.registers()
    return found


def with_rtmr3(value: bytes, quote: bytes = QUOTE) -> bytes:
    return quote[: 48 + 472] + value + quote[48 + 472 + 48 :]


def quoted(raw: bytes) -> str:
    """Bytes as protobuf's text format writes them."""
    return '"' + "".join(chr(one) if one in b"azAZ09" else f"\\{one:03o}" for one in raw) + '"'


def text_message(raw: bytes) -> str:
    """A quote of version 4 as go-tdx-guest's `attest -outform textproto` writes it."""
    body = raw[48:632]
    sizes = {
        "tee_tcb_svn": 16,
        "mr_seam": 48,
        "mr_signer_seam": 48,
        "seam_attributes": 8,
        "td_attributes": 8,
        "xfam": 8,
    }
    sizes |= {"mr_td": 48, "mr_config_id": 48, "mr_owner": 48, "mr_owner_config": 48}
    lines, at = [], 0
    for name, size in sizes.items():
        lines.append(f"  {name}: {quoted(body[at : at + size])}")
        at += size
    lines += [f"  rtmrs: {quoted(body[at + 48 * n : at + 48 * n + 48])}" for n in range(4)]
    lines.append(f"  report_data: {quoted(body[at + 192 :])}")
    (size,) = struct.unpack_from("<I", raw, 632)
    data = raw[636 : 636 + size]
    outer, report = data[134:], data[134:518]
    (auth,) = struct.unpack_from("<H", outer, 448)
    chain = outer[450 + auth + 6 :]
    enclave = {"cpu_svn": 16, "misc_select": 4, "reserved1": 28, "attributes": 16, "mr_enclave": 32, "reserved2": 32}
    enclave |= {"mr_signer": 32, "reserved3": 96, "isv_prod_id": 2, "isv_svn": 2, "reserved4": 60, "report_data": 64}
    inner, at = [], 0
    for name, size_ in enclave.items():
        part = report[at : at + size_]
        number = name in ("misc_select", "isv_prod_id", "isv_svn")
        inner.append(f"{name}: {int.from_bytes(part, 'little') if number else quoted(part)}")
        at += size_
    return "\n".join(
        [
            "# a comment",
            f"header: {{ version: 4 attestation_key_type: 2 tee_type: 129 qe_svn: {quoted(raw[8:10])}",
            f"  pce_svn: {quoted(raw[10:12])} qe_vendor_id: {quoted(raw[12:28])} user_data: {quoted(raw[28:48])} }}",
            "td_quote_body: {",
            *lines,
            f"}}\nsigned_data_size: {size}",
            f"signed_data {{ signature: {quoted(data[:64])} ecdsa_attestation_key: {quoted(data[64:128])}",
            f"certification_data {{ certificate_data_type: 6 size: {len(outer)} qe_report_certification_data {{",
            f"qe_report {{ {' '.join(inner)} }}",
            f"qe_report_signature: {quoted(outer[384:448])}",
            f"qe_auth_data {{ parsed_data_size: {auth} data: {quoted(outer[450 : 450 + auth])} }}",
            f"pck_certificate_chain_data {{ certificate_data_type: 5 size: {len(chain)}",
            f"pck_cert_chain: {quoted(chain)} }}",
            "}}}",
            f"extra_bytes: {quoted(raw[636 + size :])}",
        ]
    )


def varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def dstack_events(log: EventLog) -> list[dict[str, Any]]:
    return [
        {
            "imr": int(event.register[5]),
            "event_type": event.event_type,
            "digest": event.digest.hex(),
            "event": "",
            "event_payload": event.data.hex(),
        }
        for event in log.events
    ]


FORMS = {
    "binary": QUOTE,
    "hexadecimal": QUOTE.hex().encode(),
    "with 0x": b"0x" + QUOTE.hex().upper().encode() + b"\n",
    "hexadecimal in lines": "\n".join(QUOTE.hex()[n : n + 60] for n in range(0, 2 * len(QUOTE), 60)).encode(),
    "base64": base64.encodebytes(QUOTE),
    "base64 for URLs": base64.urlsafe_b64encode(QUOTE).rstrip(b"="),
    "base64 in quotes": b'"' + base64.b64encode(QUOTE) + b'"',
    "hexadecimal as base64": base64.b64encode(QUOTE.hex().encode()),
    "dstack": json.dumps({"quote": QUOTE.hex(), "event_log": "[]", "report_data": "00"}).encode(),
    "Trustee": json.dumps({"cc_eventlog": None, "quote": base64.b64encode(QUOTE).decode()}).encode(),
    "Trust Authority": json.dumps({"tdx": {"quote": base64.b64encode(QUOTE).decode(), "runtime_data": ""}}).encode(),
    "evidence as text": json.dumps({"tee": "tdx", "evidence": json.dumps({"quote": QUOTE.hex()})}).encode(),
    "numbers": json.dumps({"intel_quote": list(QUOTE)}).encode(),
    "MessagePack": json.dumps(
        {
            "attestation": msgspec.msgpack.encode(
                {"version": 1, "platform": {"kind": "tdx", "data": {"quote": list(QUOTE), "event_log": []}}}
            ).hex()
        }
    ).encode(),
    "protobuf as text": text_message(QUOTE).encode(),
}


def compact(value: int) -> bytes:
    """A compact number of SCALE."""
    for mode, size in ((0, 1), (1, 2), (2, 4)):
        if value < 1 << (8 * size - 2):
            return (value << 2 | mode).to_bytes(size, "little")
    return b"\3" + value.to_bytes(4, "little")


def sized(value: bytes | str) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return compact(len(raw)) + raw


def scaled(quote: bytes, events: list[dict[str, Any]], applications: list[tuple[str, bytes]]) -> bytes:
    """The first version of dstack's attestation."""
    out = b"\0\0" + sized(quote) + compact(len(events))
    for row in events:
        out += struct.pack("<II", row["imr"], row["event_type"]) + sized(bytes.fromhex(row["digest"]))
        out += sized(row["event"]) + sized(bytes.fromhex(row["event_payload"]))
    out += compact(len(applications)) + b"".join(sized(name) + sized(payload) for name, payload in applications)
    return out + bytes(64) + sized("{}")


FORMS["SCALE"] = scaled(QUOTE, [], []).hex().encode()
FORMS["SCALE in JSON"] = json.dumps({"attestation": scaled(QUOTE, [], []).hex()}).encode()


def test_the_first_attestation_of_dstack_replays() -> None:
    """Its events of the boot and of applications, where the digests of the latter may be left out."""
    boot = parse_side(CCEL)
    assert isinstance(boot, EventLog)
    applications = [("app-id", b"\x86\xb0"), ("system-ready", b"")]
    value = bytes(48)
    for name, payload in applications:
        data = struct.pack("<I", 134217729) + b":" + name.encode() + b":" + payload
        value = extend(value, hashlib.sha384(data).digest())
    rows = [
        {"imr": 3, "event_type": 134217729, "digest": "", "event": name, "event_payload": payload.hex()}
        for name, payload in applications
    ]
    quote = with_rtmr3(value)
    for events in (dstack_events(boot) + rows, dstack_events(boot)):
        raw = scaled(quote, events, applications)
        for form in (raw, raw.hex().encode(), json.dumps({"attestation": raw.hex()}).encode()):
            side = parse_side(form)
            assert isinstance(side, TdIdentity)
            assert side.log is not None
            assert side.log.registers() == {name: side.registers[name] for name in side.log.registers()}
            assert compare(boot, side).verdict == "equal"
    for size in range(0, len(raw), 97):
        with pytest.raises(InvalidInput):
            parse_side(raw[:size])
    with pytest.raises(InvalidInput):
        parse_side(raw + b"x")


@pytest.mark.parametrize("form", FORMS)
def test_a_quote_is_read_in_each_form(form: str) -> None:
    side = parse_side(FORMS[form])
    assert isinstance(side, TdIdentity)
    assert side.raw == QUOTE
    assert side.registers["RTMR[0]"].hex().startswith("3fa2f61f395b7f5f")
    assert form == "binary" or "read from" in side.form


def test_a_binary_message_of_go_tdx_guest_is_put_together() -> None:
    def field(number: int, value: bytes | int) -> bytes:
        if isinstance(value, int):
            return varint(number << 3) + varint(value)
        return varint(number << 3 | 2) + varint(len(value)) + value

    head = (
        field(1, 4)
        + field(2, 2)
        + field(3, 129)
        + b"".join(field(4 + n, QUOTE[a:b]) for n, (a, b) in enumerate(((8, 10), (10, 12), (12, 28), (28, 48))))
    )
    at, body = 48, b""
    for number, size in enumerate((16, 48, 48, 8, 8, 8, 48, 48, 48, 48), 1):
        body += field(number, QUOTE[at : at + size])
        at += size
    body += b"".join(field(11, QUOTE[at + 48 * n : at + 48 * n + 48]) for n in range(4)) + field(12, QUOTE[568:632])
    message = field(1, head) + field(2, body)
    with pytest.raises(InvalidInput):  # without its signature it is no quote
        parse_side(message)


def test_a_report_of_configfs_is_read(tmp_path: Path) -> None:
    (tmp_path / "outblob").write_bytes(QUOTE)
    (tmp_path / "provider").write_text("tdx_guest\n")
    assert "configfs-tsm" in read_side(tmp_path).form  # type: ignore[union-attr]
    (tmp_path / "provider").write_text("sev_guest\n")
    with pytest.raises(InvalidInput, match="is a report of sev_guest"):
        read_side(tmp_path)


def test_logs_in_json_replay_to_the_binary_log() -> None:
    log = parse_side(CCEL)
    assert isinstance(log, EventLog)
    trustee = {
        "uefi_event_logs": [
            {
                "index": int(event.register[5]) + 1,
                "type": f"{event.event_type:#010x}",
                "type_name": event.type_name,
                "digests": [{"alg": "SHA-384", "digest": event.digest.hex()}],
                "event": base64.b64encode(event.data).decode(),
                "details": {},
            }
            for event in log.events
        ]
    }
    for text in (json.dumps(dstack_events(log)), json.dumps(trustee), "\n".join(map(json.dumps, dstack_events(log)))):
        side = parse_side(text.encode())
        assert isinstance(side, EventLog)
        assert side.registers() == log.registers()
        assert [binding_of(event) for event in side.events] == [binding_of(event) for event in log.events]


def test_the_evidence_of_dstack_replays_with_the_events_of_its_applications() -> None:
    boot = parse_side(CCEL)
    assert isinstance(boot, EventLog)
    events: list[dict[str, Any]] = dstack_events(boot)
    value = bytes(48)
    for version, name, payload in (
        (None, "app-id", "86b0e55f"),
        (2, "compose-hash", "07a2"),
        (None, "system-ready", ""),
    ):
        row = {"imr": 3, "event_type": 134217729, "digest": "", "event": name, "event_payload": payload}
        hashed = struct.pack("<I", 134217729) + b":" + name.encode() + b":" + bytes.fromhex(payload)
        if version:
            row["version"] = version
            hashed = f'{{"name":"{name}","payload":"{payload}","type":134217729}}'.encode()
        events.append(row)
        value = extend(value, hashlib.sha384(hashed).digest())
    evidence = {"quote": with_rtmr3(value).hex(), "event_log": json.dumps(events)}
    side = parse_side(json.dumps(evidence).encode())
    assert isinstance(side, TdIdentity)
    assert side.log is not None
    assert side.log.registers()["RTMR[3]"] == value == side.registers["RTMR[3]"]
    found = compare(boot, side)
    assert found.verdict == "equal"
    assert {row.register: row.verdict.value for row in found.registers}["RTMR[3]"] == "not_compared"
    events[-1]["event_payload"] = "01"
    forged = parse_side(json.dumps({**evidence, "event_log": events}).encode())
    assert compare(boot, forged).verdict == "extended_without_log"
    assert any("does not lead to its value" in note for note in compare(boot, forged).notes)


def test_a_published_log_of_dstack_leads_to_its_quote_s_register() -> None:
    """Events and RTMR[3] of a real TD: dstack, verifier/fixtures/tdx-lite-getquote.json (Apache-2.0)."""
    key = (
        "3059301306072a8648ce3d020106082a8648ce3d030107034200042f71e234d7339a1ceaca09c3c391eb816c533f980adaab"
        "34f16ead093ff0ac100d9c03253a3056f6d27735125433180b3e61c54a78f3fd13337869e0051dee06"
    )
    compose = "86b0e55f2fa8e4fb69d890f14f54d5612707646e2573d54e0d2ddaaade77caa9"
    rows = [
        ("system-preparing", ""),
        ("app-id", compose[:40]),
        ("compose-hash", compose),
        ("instance-id", "050bf89570575fe8fab4cb8f0a62a9e64efe8ead"),
        ("boot-mr-done", ""),
        ("os-image-hash", "07a2388c7a6a1b6a646d443f1517990a4ec294471d63146cda9d56972765051d"),
        ("key-provider", json.dumps({"name": "kms", "id": key}, separators=(",", ":")).encode().hex()),
        ("storage-fs", b"zfs".hex()),
        ("system-ready", ""),
    ]
    events = [
        {"imr": 3, "event_type": 134217729, "digest": "", "event": name, "event_payload": payload}
        for name, payload in rows
    ]
    assert registers(parse_side(json.dumps(events).encode()))["RTMR[3]"].hex() == (
        "6f24c170d0fd63fc2b1b53202eea47b013978437fa6982cf5e0438ff95c208994aaa0f4ebab2e3a66824b5b56869137e"
    )


@pytest.mark.parametrize(
    ("lines", "value"),
    [
        ([ACON], "e7d7d201073316d7e782aa1db45f91a572321053001fb67793d88351770e4c34552533409091748f39b367c5e254a013"),
        (
            ["image-rs CreateContainer docker.io/library/alpine"],
            "71563a23b430b8637970b866169052815ef9434056516dc9f78c1b3bfb745cee18a2ca92aa53c8122be5cbe59a100764",
        ),
        (
            [
                f"github.com/confidential-containers CreateContainer docker.io/library/{n}"
                for n in ("alpine", "busybox")
            ],
            "0de62b45b29775495d278c85ad63ff45e59406e509506b26c545a5419316e1c4bd2b00a4e803051fa98b550767e13f06",
        ),
    ],
)
def test_logs_of_applications_lead_to_the_values_of_their_projects(
    lines: list[str], value: str, tmp_path: Path
) -> None:
    """The values are those of the projects' own tests: intel/acon, attest; trustee, verifier, eventlog."""
    log, quote = tmp_path / "log", tmp_path / "quote"
    log.write_text("\n".join([INIT, *lines]) + "\n")
    quote.write_bytes(with_rtmr3(bytes.fromhex(value)))
    assert registers(read_side(log))["RTMR[3]"].hex() == value
    (tmp_path / "ccel").write_bytes(CCEL)
    assert run("compare", tmp_path / "ccel", quote)[0] == 3
    assert run("compare", tmp_path / "ccel", quote, "--application-log", log)[0] == 0
    assert run("compare", tmp_path / "ccel", quote, "--value", f"rtmr3={value}")[0] == 0
    log.write_text("\n".join([INIT, *lines, "a b c"]) + "\n")
    status, text = run("compare", tmp_path / "ccel", quote, "--application-log", log)
    assert status == 1
    assert "it matches the log up to event" in text


def test_the_agent_s_binary_records_are_a_log() -> None:
    def entry(text: bytes) -> bytes:
        data = struct.pack("<II", 0x4141454C, len(text)) + text
        return struct.pack("<IIIH", 4, 6, 1, 0xC) + hashlib.sha384(data).digest() + struct.pack("<I", len(data)) + data

    alone = parse_side(entry(b"one two three") + entry(b"four five six"))
    assert isinstance(alone, EventLog)
    assert [binding_of(event) for event in alone.events] == [Binding.BOUND] * 2
    appended = parse_side(CCEL[: parse_log(CCEL).size_bytes] + entry(b"one two three"))
    assert isinstance(appended, EventLog)
    assert appended.registers()["RTMR[3]"] != bytes(48)


def test_digests_decide_and_forged_data_are_named() -> None:
    direct = DATA / "ccel_direct.bin"
    for name, word in (
        ("same_digests_old_tag", ""),
        ("forged_var_name", "event 3"),
        ("forged_action_text", "event 14"),
    ):
        status, text = run("compare", direct, DATA / f"{name}.bin")
        assert status == 0, text
        assert ("forged or damaged" in text) == bool(word)
        assert word in text
    assert binding_of(parse_log(direct.read_bytes()).events[0]) is Binding.UNBOUND


@pytest.mark.parametrize("name", ["tdreport_debug.bin", "q4_debug"])
def test_a_debug_td_never_ends_with_0(name: str, tmp_path: Path) -> None:
    path = DATA / name
    if name == "q4_debug":
        path = tmp_path / name
        path.write_bytes(QUOTE[: 48 + 120] + bytes([QUOTE[168] | 1]) + QUOTE[169:])
    for command in (("replay",), ("replay", "--json"), ("compare", path), ("compare", "--json", path)):
        status, text = run(*command, path)
        assert status == 1
        assert "debug" in text
        assert run(*command, "--allow-debug", path)[0] == 0


def test_what_a_td_was_created_with_is_shown_and_can_be_expected() -> None:
    path = DATA / "quote_v4.bin"
    quote = read_side(path)
    assert isinstance(quote, TdIdentity)
    for name, value in quote.properties.items():
        assert value.hex() in run("replay", path)[1]
        assert run("compare", path, path, "--value", f"{name}={value.hex()}")[0] == 0
        other = bytes([value[0] ^ 1, *value[1:]])
        status, text = run("compare", path, path, "--value", f"{name.lower()}={other.hex()}")
        assert status == 1
        assert f"different: {name}: differs" in text
    assert "SEPT_VE_DISABLE" in run("replay", path)[1]
    assert run("compare", path, path, "--value", "attributes=0x10000000")[0] == 0
    for wrong in ("nothing=00", "xfam=00", "mrtd=zz", "mrtd"):
        assert run("compare", path, path, "--value", wrong)[0] == 2
    assert run("compare", path, DATA / "ccel_google.bin", "--value", f"xfam={'00' * 8}")[0] == 2


@pytest.mark.parametrize("name", ["twice384.bin", "json_register_x.json", "json_inf.json"])
def test_a_damaged_file_is_4_without_a_traceback(name: str) -> None:
    for command in ("replay", "compare"):
        assert run(command, *[DATA / name] * (2 if command == "compare" else 1))[0] == 4


@pytest.mark.parametrize("name", ["escape_label.bin", "escape_var.bin", "json_escape_what.json"])
def test_escape_sequences_of_evidence_do_not_reach_a_terminal(name: str) -> None:
    for command in (("replay", DATA / name), ("compare", DATA / name, DATA / "ccel_direct.bin")):
        text = run(*command)[1]
        assert all(one.isprintable() or one == "\n" for one in text)


def test_the_kind_of_a_log_can_be_given() -> None:
    path = DATA / "hdr0_td.bin"
    assert "RTMR[0]" in run("replay", path)[1]
    assert "PCR[1]" in run("replay", "--kind", "tcg2", path)[1]
    assert run("compare", "--kind", "tcg2", path, path)[0] == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"hello there", "is neither hexadecimal nor base64"),
        (b"{}", "without a quote, a log or a prediction"),
        (b'{"quote": 1}', "without a quote"),
        (b'{"quote": "%%%"}', "is not an encoded quote"),
        (b'{"a": 1, "a": 2}', "a name occurs twice"),
        (b"[" * 100_000, "is not valid JSON"),
        (b'{"quote": ' + b"[" * 900 + b"]" * 900 + b"}", "nested too deeply|not valid JSON|without a quote"),
        (b'[{"imr": 9e99, "event_type": 1, "digest": ""}]', "invalid event 0"),
        (b'[{"imr": 0, "event_type": 1, "digest": "00"}]', "invalid event 0"),
        (b"eyJhbGciOiJFUzM4NCJ9.eyJzdWIi.sig", "is a verifier's token"),
        (b"INIT sha256/00\na b c", "does not start with the state of an RTMR"),
        ((INIT + "\nword").encode(), "no domain and operation in line 2"),
        (b"00000000: 0400 0200 8100\n00000010: 0400 0200\n00000020: 0400 0200\n00000030: 04\n", "dump with offsets"),
        (b"header: { version: 4 ", "invalid message as text"),
        (b"", "too short"),
    ],
)
def test_what_is_no_evidence_is_refused_by_name(text: bytes, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        parse_side(text)


def test_two_quotes_in_one_document_are_not_chosen_from() -> None:
    other = with_rtmr3(b"\1" * 48)
    with pytest.raises(InvalidInput, match="2 different quotes"):
        parse_side(json.dumps({"quote": QUOTE.hex(), "evidence": {"quote": other.hex()}}).encode())


@settings(max_examples=60, deadline=None)
@given(form=st.sampled_from(sorted(FORMS)), place=st.integers(0, 1 << 20), junk=st.binary(max_size=4))
def test_no_damage_to_evidence_does_more_than_refuse_it(form: str, place: int, junk: bytes) -> None:
    raw = FORMS[form]
    place %= len(raw)
    with contextlib.suppress(InvalidInput):
        assert parse_side(raw[:place] + junk + raw[place + len(junk) :]) is not None
    with contextlib.suppress(InvalidInput):
        assert parse_side(raw[:place]) is not None


@settings(max_examples=50, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just(QUOTE.hex()[:200]),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(
                    ["quote", "event_log", "imr", "digest", "event_type", "cc_eventlog", "evidence", "form"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_read_or_refused(value: Any) -> None:
    with contextlib.suppress(InvalidInput):
        parse_side(json.dumps(value).encode())


def test_pasted_text_and_files_are_read_alike(tmp_path: Path) -> None:
    for name, raw in FORMS.items():
        if name == "binary":
            continue
        (tmp_path / "file").write_bytes(raw)
        assert tdx.parse_pasted(raw.decode()) == read_side(tmp_path / "file")
