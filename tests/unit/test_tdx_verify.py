"""Quotes verified: real ones of two versions, each byte of them changed, another root, debug TDs, logs."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from acon_nb.cli import main
from acon_nb.errors import CannotTell, InvalidInput
from acon_nb.tdx import TdIdentity, parse_identity, read_side
from acon_nb.tdx.verify.verdict import EvidenceVerdict, Wanted, verify

DATA = Path(__file__).with_name("data") / "tdx"
AT = datetime(2026, 6, 1, tzinfo=UTC)


def run(*arguments: object) -> tuple[int, str]:
    found = CliRunner().invoke(main, ["measure", "verify", *map(str, arguments)])
    assert not isinstance(found.exception, Exception) or isinstance(found.exception, SystemExit)
    return found.exit_code, found.output


@pytest.mark.parametrize("name", ["quote_v4", "quote_v5", "quote_extra_bytes"])
def test_a_real_quote_is_verified(name: str) -> None:
    result = verify(parse_identity((DATA / f"{name}.bin").read_bytes()), at=AT)
    assert result.verdict is EvidenceVerdict.VERIFIED
    assert result.signature.root.startswith("Intel SGX Root CA, SHA-256 44a0196b2b99f889")
    assert result.tcb.status == "unknown"
    assert any("no collateral was given" in note for note in result.notes)
    assert any("39 bytes follow the quote" in note for note in result.notes) == (name == "quote_extra_bytes")


@pytest.mark.parametrize("name", ["quote_v4", "quote_v5"])
def test_each_byte_of_a_real_quote_counts(name: str) -> None:
    raw = bytearray((DATA / f"{name}.bin").read_bytes())
    accepted = []
    for place in range(len(raw)):
        for change in (0x01, 0x20) if place % 16 == 0 else (0x20,):
            raw[place] ^= change
            try:
                result = verify(parse_identity(bytes(raw)), at=AT)
                accepted += [place] if result.verdict is not EvidenceVerdict.REFUTED else []
            except InvalidInput:
                pass
            raw[place] ^= change
    assert accepted == []


def test_a_quote_with_another_root_is_named_as_such() -> None:
    status, text = run("--json", DATA / "quote_other_root.bin")
    found = json.loads(text)
    assert status == 1
    assert found["verdict"] == "refuted"
    assert not found["signature"]["ok"]
    assert "another root" in found["reasons"][0]
    assert "e3f49e858865d54d" in found["signature"]["root"]


def test_the_json_has_the_names_that_stay() -> None:
    status, text = run("--json", DATA / "quote_v4.bin", "--log", DATA / "ccel_google.bin")
    found = json.loads(text)
    assert status == 0
    assert (found["verdict"], found["tcb_status"], found["differences"]) == ("verified", "unknown", [])
    assert found["signature"]["ok"]
    assert found["attributes"]["debug"] is False
    assert found["registers"]["RTMR[0]"].startswith("3fa2f61f395b7f5f")
    assert found["log"] == "equal"


def test_a_log_of_another_boot_refutes() -> None:
    status, text = run(DATA / "quote_v4.bin", "--log", DATA / "ccel_direct.bin")
    assert status == 1
    assert "refuted: different: RTMR[0]" in text
    assert run(DATA / "quote_v4.bin", "--expected", DATA / "ccel_direct.bin")[0] == 1
    assert run(DATA / "quote_v4.bin", "--expected", DATA / "quote_v4.bin")[0] == 0
    assert run(DATA / "quote_v4.bin", "--value", "reportdata=a0a1")[0] == 1


def test_a_debug_td_and_a_forged_register_are_refuted(tmp_path: Path) -> None:
    quote = (DATA / "quote_v4.bin").read_bytes()
    debug = parse_identity(quote[:168] + bytes([quote[168] | 1]) + quote[169:])
    result = verify(debug, at=AT)
    assert result.verdict is EvidenceVerdict.REFUTED
    assert any("debug TD" in reason for reason in result.reasons)
    assert not any("debug TD" in reason for reason in verify(debug, Wanted(allow_debug=True), at=AT).reasons)


def test_a_certificate_counts_only_while_it_is_valid() -> None:
    quote = read_side(DATA / "quote_v4.bin")
    assert isinstance(quote, TdIdentity)
    for year in (2017, 2050):
        result = verify(quote, at=datetime(year, 6, 1, tzinfo=UTC))
        assert result.verdict is EvidenceVerdict.REFUTED
        assert "is valid from" in result.reasons[0]


def test_a_report_cannot_be_verified_elsewhere() -> None:
    with pytest.raises(CannotTell, match="a TDREPORT is not signed"):
        verify(parse_identity((DATA / "tdreport_debug.bin").read_bytes()), at=AT)
    assert run(DATA / "tdreport_debug.bin")[0] == 3
    assert run(DATA / "ccel_google.bin")[0] == 4
    assert run(DATA / "none")[0] == 4
    assert run(DATA / "quote_v4.bin", "--collateral", DATA / "none")[0] == 4
