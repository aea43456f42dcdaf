"""The status of a platform's TCB from collateral, against dcap-qvl: certificates, quote and collateral made here."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from acon_nb.tdx import parse_identity
from acon_nb.tdx.verify import certificates
from acon_nb.tdx.verify.collateral import STATUSES, read_collateral
from acon_nb.tdx.verify.verdict import EvidenceVerdict, Verification, verify

dcap_qvl = pytest.importorskip("dcap_qvl")
DATA = Path(__file__).with_name("data") / "tdx"
AT = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
FMSPC, PCE_ID = "00806f050000", "0000"


def der(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = bytes([size]) if size < 0x80 else b"\x82" + size.to_bytes(2, "big")
    return bytes([tag]) + length + content


def identified(path: tuple[int, ...], value: bytes) -> bytes:
    return der(0x30, der(6, bytes.fromhex("2a864886f84d010d01") + bytes(path)) + value)


def sgx_extension(svns: list[int], pce_svn: int) -> bytes:
    tcb = b"".join(identified((2, n + 1), der(2, bytes([svn]))) for n, svn in enumerate(svns))
    tcb += identified((2, 17), der(2, bytes([pce_svn]))) + identified((2, 18), der(4, bytes(svns)))
    rows = identified((1,), der(4, bytes(16))) + identified((2,), der(0x30, tcb))
    rows += identified((3,), der(4, bytes.fromhex(PCE_ID))) + identified((4,), der(4, bytes.fromhex(FMSPC)))
    return der(0x30, rows + identified((5,), der(10, b"\1")))


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def raw_signature(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


@dataclass
class World:
    """Intel's infrastructure in small."""

    keys: dict[str, ec.EllipticCurvePrivateKey] = field(default_factory=dict)
    certificates: dict[str, x509.Certificate] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.issue("root", "Intel SGX Root CA", "root", authority=True)
        self.issue("platform", "Intel SGX PCK Platform CA", "root", authority=True)
        self.issue("signer", "Intel SGX TCB Signing", "root", authority=False)
        extension = x509.UnrecognizedExtension(
            x509.ObjectIdentifier("1.2.840.113741.1.13.1"), sgx_extension([5] * 16, 11)
        )
        self.issue("pck", "Intel SGX PCK Certificate", "platform", authority=False, extension=extension)

    def issue(
        self, who: str, common: str, issuer: str, *, authority: bool, extension: x509.ExtensionType | None = None
    ) -> None:
        key = self.keys[who] = ec.generate_private_key(ec.SECP256R1())
        above = name(common) if issuer == who else self.certificates[issuer].subject
        usage = dict.fromkeys(
            (
                *("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
                *("encipher_only", "decipher_only"),
            ),
            False,
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(common))
            .issuer_name(above)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(AT - 300 * DAY)
            .not_valid_after(AT + 3000 * DAY)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, **usage),
                critical=True,
            )
        )
        if extension is not None:
            builder = builder.add_extension(extension, critical=False)
        self.certificates[who] = builder.sign(self.keys[issuer], hashes.SHA256())

    def pem(self, *who: str) -> bytes:
        return b"".join(self.certificates[each].public_bytes(Encoding.PEM) for each in who)

    def revocations(self, issuer: str, *revoked: str, end: datetime = AT + 30 * DAY) -> bytes:
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificates[issuer].subject)
            .last_update(AT - 30 * DAY)
            .next_update(end)
            .add_extension(x509.CRLNumber(1), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.keys[issuer].public_key()), critical=False
            )
        )
        for each in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(self.certificates[each].serial_number)
                .revocation_date(AT - 10 * DAY)
                .build()
            )
        return builder.sign(self.keys[issuer], hashes.SHA256()).public_bytes(Encoding.DER)

    def quote(self) -> bytes:
        """A real quote's body and quoting enclave, signed by this world."""
        real = (DATA / "quote_v4.bin").read_bytes()
        key = ec.generate_private_key(ec.SECP256R1())
        numbers = key.public_key().public_numbers()
        point = numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
        auth = bytes(32)
        report = real[636 + 134 : 636 + 134 + 320] + hashlib.sha256(point + auth).digest() + bytes(32)
        chain = self.pem("pck", "platform", "root")
        inner = report + raw_signature(self.keys["pck"], report) + struct.pack("<H", 32) + auth
        inner += struct.pack("<HI", 5, len(chain)) + chain
        data = raw_signature(key, real[:632]) + point + struct.pack("<HI", 6, len(inner)) + inner
        return real[:632] + struct.pack("<I", len(data)) + data

    def collateral(self, **changed: Any) -> dict[str, Any]:
        """Collateral as dcap-qvl has it; `changed` changes the contents."""
        real = (DATA / "quote_v4.bin").read_bytes()
        report = real[636 + 134 :][:384]
        dates = {"issueDate": "2026-05-20T00:00:00Z", "nextUpdate": changed.get("end", "2026-06-20T00:00:00Z")}
        level = {
            "sgxtcbcomponents": [{"svn": changed.get("svn", 5)}] * 16,
            "pcesvn": changed.get("pcesvn", 11),
            "tdxtcbcomponents": [{"svn": svn} for svn in real[48:64]],
        }
        lowest = {**level, "sgxtcbcomponents": [{"svn": 0}] * 16, "pcesvn": 0}
        zero = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
        info = {
            "id": "TDX",
            "version": 3,
            **dates,
            "fmspc": changed.get("fmspc", FMSPC).upper(),
            "pceId": PCE_ID,
            "tcbType": 0,
            "tcbEvaluationDataNumber": 17,
            "tdxModule": zero,
            "tdxModuleIdentities": [
                {
                    "id": "TDX_01",
                    **zero,
                    "tcbLevels": [
                        {
                            "tcb": {"isvsvn": changed.get("module_svn", 2)},
                            "tcbDate": "2025-01-01T00:00:00Z",
                            "tcbStatus": changed.get("module", "UpToDate"),
                        }
                    ],
                }
            ],
            "tcbLevels": [
                {"tcb": level, "tcbDate": "2025-01-01T00:00:00Z", "tcbStatus": changed.get("platform", "UpToDate")},
                {
                    "tcb": lowest,
                    "tcbDate": "2020-01-01T00:00:00Z",
                    "tcbStatus": "OutOfDate",
                    "advisoryIDs": ["INTEL-SA-00001"],
                },
            ],
        }
        (enclave_svn,) = struct.unpack_from("<H", report, 258)
        identity = {
            "id": "TD_QE",
            "version": 2,
            **dates,
            "tcbEvaluationDataNumber": 17,
            "miscselect": "00000000",
            "miscselectMask": "FFFFFFFF",
            "attributes": "11000000000000000000000000000000",
            "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
            "mrsigner": report[128:160].hex().upper(),
            "isvprodid": 2,
            "tcbLevels": [
                {
                    "tcb": {"isvsvn": enclave_svn},
                    "tcbDate": "2025-01-01T00:00:00Z",
                    "tcbStatus": changed.get("enclave", "UpToDate"),
                }
            ],
        }
        info_text, identity_text = (json.dumps(each, separators=(",", ":")) for each in (info, identity))
        signer = self.pem("signer", "root").decode()
        return {
            "pck_crl_issuer_chain": self.pem("platform", "root").decode(),
            "root_ca_crl": self.revocations("root", *changed.get("root_revokes", ())).hex(),
            "pck_crl": self.revocations("platform", *changed.get("revokes", ())).hex(),
            "tcb_info_issuer_chain": signer,
            "tcb_info": info_text,
            "tcb_info_signature": raw_signature(self.keys["signer"], info_text.encode()).hex(),
            "qe_identity_issuer_chain": signer,
            "qe_identity": identity_text,
            "qe_identity_signature": raw_signature(self.keys["signer"], identity_text.encode()).hex(),
        }


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture
def verified(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Verification]:
    """Verify the world's quote with its collateral, its root in the place of Intel's."""
    root = {**certificates.facts()["root"], "sha256": certificates.fingerprint(world.certificates["root"])}
    pinned = MappingProxyType({**certificates.facts(), "root": root})
    monkeypatch.setattr(certificates, "facts", lambda: pinned)

    def run(collateral: dict[str, Any]) -> Verification:
        (tmp_path / "collateral.json").write_text(json.dumps(collateral))
        return verify(parse_identity(world.quote()), collateral=read_collateral(tmp_path), at=AT)

    return run


def oracle(world: World, collateral: dict[str, Any]) -> str:
    """The status by dcap-qvl, or "refused"."""
    root = world.certificates["root"].public_bytes(Encoding.DER)
    made = dcap_qvl.QuoteCollateralV3.from_json(json.dumps(collateral))
    try:
        return str(dcap_qvl.verify_with_root_ca(world.quote(), made, root, int(AT.timestamp())).status)
    except ValueError:
        return "refused"


@pytest.mark.parametrize(
    ("part", "status"),
    [
        *(("platform", status) for status in STATUSES),
        *(("enclave", status) for status in ("UpToDate", "OutOfDate", "Revoked")),
    ],
)
def test_a_status_is_what_dcap_qvl_finds(
    world: World, verified: Callable[..., Verification], part: str, status: str
) -> None:
    collateral = world.collateral(**{part: status})
    result = verified(collateral)
    assert result.tcb.status == status, result.tcb.text
    assert oracle(world, collateral) in (status, "refused" if status == "Revoked" else status)
    refuted = STATUSES.index(status) >= STATUSES.index("OutOfDate")
    assert result.verdict is (EvidenceVerdict.REFUTED if refuted else EvidenceVerdict.VERIFIED)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"end": "2026-05-25T00:00:00Z"}, "is valid from"),
        ({"fmspc": "112233445566"}, "is of platform 112233445566"),
    ],
)
def test_collateral_that_does_not_hold_leaves_the_status_unknown(
    world: World, verified: Callable[..., Verification], changed: dict[str, Any], words: str
) -> None:
    result = verified(world.collateral(**changed))
    assert (result.tcb.status, result.verdict) == ("unknown", EvidenceVerdict.UNKNOWN)
    assert words in result.tcb.text
    assert oracle(world, world.collateral(**changed)) == "refused"


def test_two_statuses_make_one(world: World, verified: Callable[..., Verification]) -> None:
    collateral = world.collateral(platform="ConfigurationNeeded", enclave="OutOfDate")
    assert verified(collateral).tcb.status == "OutOfDateConfigurationNeeded" == oracle(world, collateral)
    collateral = world.collateral(platform="SWHardeningNeeded", enclave="OutOfDate")
    assert verified(collateral).tcb.status == "OutOfDate" == oracle(world, collateral)


def test_an_old_platform_and_a_revoked_one_are_refuted(world: World, verified: Callable[..., Verification]) -> None:
    old = verified(world.collateral(svn=6))
    assert (old.tcb.status, old.tcb.advisories) == ("OutOfDate", ("INTEL-SA-00001",))
    assert oracle(world, world.collateral(svn=6)) == "OutOfDate"
    for changed in ({"revokes": ["pck"]}, {"root_revokes": ["platform"]}):
        result = verified(world.collateral(**changed))
        assert (result.tcb.status, result.verdict) == ("Revoked", EvidenceVerdict.REFUTED)
        assert oracle(world, world.collateral(**changed)) == "refused"


def test_changed_collateral_proves_nothing(world: World, verified: Callable[..., Verification]) -> None:
    good = world.collateral()
    for key, old, new in (("tcb_info", "UpToDate", "uptodate"), ("qe_identity", '"isvprodid":2', '"isvprodid":3')):
        result = verified({**good, key: good[key].replace(old, new)})
        assert result.tcb.status == "unknown"
        assert "signature" in result.tcb.text
    for missing in ("tcb_info", "qe_identity", "pck_crl"):
        bad = {name: value for name, value in good.items() if name != missing}
        assert verified(bad).tcb.status == "unknown"
