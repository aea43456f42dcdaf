"""Intel's collateral from files: what it says of a platform's TCB, with its own signatures and dates verified.

A folder may hold the answers of Intel's Provisioning Certification Service as files (TCB info, QE identity, CRLs,
issuer chains), or one JSON with all of them, as dcap-qvl writes it. Source: Intel SGX and TDX Provisioning
Certification Service API, version 4; its guide, "How to determine the TCB status".
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography import x509

from acon_nb.errors import InvalidInput
from acon_nb.tdx.verify import certificates
from acon_nb.tdx.verify.certificates import Chain, PckFacts, Refuted
from acon_nb.tdx.verify.parts import QuoteParts

_LIMIT_BYTES = 8 << 20
_LIMIT_FILES = 64
_HINT = "collect TCB info, QE identity, both CRLs and the issuers' certificates with Intel's PCS or a PCCS"
# From good to bad: what a platform's and its enclave's status make together is the worse of them.
STATUSES = (
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "Revoked",
)
REFUTING = STATUSES[4:]


@dataclass
class Collateral:
    """What was found: signed JSON as text with its signature, certificates, and revocation lists."""

    signed: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    certificates: list[x509.Certificate] = field(default_factory=list)
    lists: list[x509.CertificateRevocationList] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class TcbResult:
    """The status of a platform's TCB, "unknown" if it is not known; the reason or the advisories in words."""

    status: str
    text: str
    advisories: tuple[str, ...] = ()
    platform_revoked: bool = False


def read_collateral(folder: Path) -> Collateral:
    """Read a folder with collateral. Errors: `InvalidInput`."""
    try:
        files = sorted(path for path in (folder.iterdir() if folder.is_dir() else [folder]) if path.is_file())
        if not files or len(files) > _LIMIT_FILES or sum(path.stat().st_size for path in files) > _LIMIT_BYTES:
            raise InvalidInput("collateral", folder, "has no files, or too many for collateral", hint=_HINT)
        raw = [(path, path.read_bytes()) for path in files]
    except OSError as error:
        raise InvalidInput("collateral", folder, error.strerror or "cannot be read", hint=_HINT) from error
    collateral = Collateral()
    for path, data in raw:
        try:
            _take(data, collateral)
        except (*certificates.UNREADABLE, KeyError, RecursionError) as error:
            raise InvalidInput("collateral", path, "is damaged collateral", hint=_HINT) from error
    return collateral


def _take(data: bytes, collateral: Collateral) -> None:
    """Sort a piece of collateral by its content; what is none is left out."""
    start = data.lstrip()
    if start[:1] == b"{":
        _json(start.decode("utf-8", "strict").strip(), collateral)
    elif b"-----BEGIN CERTIFICATE-----" in data:
        collateral.certificates += x509.load_pem_x509_certificates(data)
    elif b"-----BEGIN X509 CRL-----" in data:
        collateral.lists.append(x509.load_pem_x509_crl(data))
    elif data[:1] == b"\x30":
        try:
            collateral.lists.append(x509.load_der_x509_crl(data))
        except ValueError:
            collateral.certificates.append(x509.load_der_x509_certificate(data))


def _json(text: str, collateral: Collateral) -> None:
    members = json.loads(text)
    for name in ("tcbInfo", "enclaveIdentity"):
        if name in members:
            collateral.signed[name] = (_exact(text, name), bytes.fromhex(members["signature"]))
    for name, body in (("tcbInfo", "tcb_info"), ("enclaveIdentity", "qe_identity")):
        if body in members:
            collateral.signed[name] = (members[body], _octets(members[f"{body}_signature"]))
    for name, value in members.items():
        if name.endswith("_chain") and isinstance(value, str):
            collateral.certificates += x509.load_pem_x509_certificates(value.encode())
        elif name.endswith("crl") and value:
            collateral.lists.append(x509.load_der_x509_crl(_octets(value)))


def _octets(value: Any) -> bytes:
    return bytes(value) if isinstance(value, list) else bytes.fromhex(value)


def _exact(text: str, name: str) -> str:
    """The text of a member exactly as it was signed."""
    start = text.index(f'"{name}"') + len(name) + 2
    while text[start] in ": \r\n\t":
        start += 1
    return text[start : json.JSONDecoder().raw_decode(text, start)[1]]


def tcb_of(parts: QuoteParts, chain: Chain, collateral: Collateral, at: datetime) -> TcbResult:
    """Return the TCB status of the platform that made a quote; "unknown" with the reason if the collateral fails."""
    try:
        pck = certificates.pck_facts(chain.leaf)
        _check_lists(chain, collateral, at)
        if name := certificates.revoked(chain.certificates, collateral.lists):
            return TcbResult(status="Revoked", text=f"{name} was revoked", platform_revoked=True)
        info = _signed(collateral, "tcbInfo", at)
        identity = _signed(collateral, "enclaveIdentity", at)
        if str(info["fmspc"]).lower() != pck.fmspc or str(info["pceId"]).lower() != pck.pce_id:
            raise Refuted(f"the TCB info is of platform {info['fmspc']}, not of {pck.fmspc}")
        if info.get("id") != "TDX" or identity.get("id") != "TD_QE":
            raise Refuted("the collateral is that of SGX, not of TDX")
        levels = [_platform(info, pck, parts), *_module(info, parts), _enclave(identity, parts)]
    except Refuted as error:
        return TcbResult(status="unknown", text=str(error))
    except (KeyError, ValueError, TypeError, AttributeError, IndexError, RecursionError) as error:
        return TcbResult(status="unknown", text=f"the collateral lacks something or is damaged ({error!r:.80})")
    statuses = [level["tcbStatus"] for level in levels]
    status = max(statuses, key=STATUSES.index)
    if status == "OutOfDate" and any("Configuration" in each for each in statuses):
        status = "OutOfDateConfigurationNeeded"
    advisories = sorted({str(each)[:40] for level in levels for each in level.get("advisoryIDs", ())})
    return TcbResult(status=status, text="", advisories=tuple(advisories))


def _check_lists(chain: Chain, collateral: Collateral, at: datetime) -> None:
    """Check that there is a valid revocation list of each authority that issued one of the quote's certificates."""
    for certificate in chain.certificates[:-1]:
        issuer = chain.certificates[chain.certificates.index(certificate) + 1]
        for each in collateral.lists:
            if each.issuer != certificate.issuer:
                continue
            if not each.is_signature_valid(certificates.public_key(issuer)):
                raise Refuted(f"a revocation list of {certificates.name_of(issuer)} has a wrong signature")
            end = each.next_update_utc
            if end is None or not each.last_update_utc <= at <= end:
                raise Refuted(f"the revocation list of {certificates.name_of(issuer)} ended at {end:%Y-%m-%d}")
            break
        else:
            raise Refuted(f"there is no revocation list of {certificates.name_of(issuer)}")


def _signed(collateral: Collateral, name: str, at: datetime) -> dict[str, Any]:
    """Return the content of signed JSON after its signature, its signer and its dates were verified."""
    if name not in collateral.signed:
        raise Refuted(f"there is no {'TCB info' if name == 'tcbInfo' else 'QE identity'}")
    text, signature = collateral.signed[name]
    roots = [
        c for c in collateral.certificates if certificates.fingerprint(c) == certificates.facts()["root"]["sha256"]
    ]
    for signer in collateral.certificates:
        if not roots or signer in roots or certificates.name_of(signer) != "Intel SGX TCB Signing":
            continue
        chain = Chain((signer, roots[0]))
        certificates.check_chain(chain, at)
        if certificates.revoked((signer,), collateral.lists):
            raise Refuted("the certificate that signed the collateral was revoked")
        certificates.check_signature(certificates.public_key(signer), signature, text.encode(), f"the {name}")
        content: dict[str, Any] = json.loads(text)
        issued, end = (datetime.fromisoformat(content[key]) for key in ("issueDate", "nextUpdate"))
        if not issued <= at <= end:
            raise Refuted(f"the {name} is valid from {issued:%Y-%m-%d} to {end:%Y-%m-%d}, not at {at:%Y-%m-%d}")
        return content
    raise Refuted("there are no certificates of Intel's TCB signing key and root")


def _platform(info: Mapping[str, Any], pck: PckFacts, parts: QuoteParts) -> Mapping[str, Any]:
    """The highest TCB level that the platform reaches: each SVN at least as high."""
    skip = 2 if parts.tee_tcb_svn[1] else 0  # the first two belong to the TDX module's own identity
    for level in info["tcbLevels"]:
        tcb = level["tcb"]
        sgx = [each["svn"] for each in tcb["sgxtcbcomponents"]]
        tdx = [each["svn"] for each in tcb["tdxtcbcomponents"]]
        if (
            _reaches(pck.components, sgx)
            and pck.pce_svn >= tcb["pcesvn"]
            and _reaches(parts.tee_tcb_svn[skip:], tdx[skip:])
        ):
            return _known(level)
    raise Refuted("the platform reaches none of the levels of the TCB info")


def _module(info: Mapping[str, Any], parts: QuoteParts) -> Iterator[Mapping[str, Any]]:
    """The TDX module: who signed it, its attributes, and its level if the quote names a version."""
    version = parts.tee_tcb_svn[1]
    module = info["tdxModule"]
    if version:
        known = [each for each in info.get("tdxModuleIdentities", ()) if each["id"] == f"TDX_{version:02X}"]
        if not known:
            raise Refuted(f"the TCB info does not know version {version} of the TDX module")
        module = known[0]
        level = next((each for each in module["tcbLevels"] if parts.tee_tcb_svn[0] >= each["tcb"]["isvsvn"]), None)
        if level is None:
            raise Refuted("the TDX module reaches none of the levels of the TCB info")
        yield _known(level)
    mask = int(module["attributesMask"], 16)
    if bytes.fromhex(module["mrsigner"]) != parts.mrsigner_seam:
        raise Refuted("the TDX module was signed by somebody else")
    if int.from_bytes(parts.seam_attributes, "big") & mask != int(module["attributes"], 16):
        raise Refuted("the TDX module has other attributes than the TCB info allows")


def _enclave(identity: Mapping[str, Any], parts: QuoteParts) -> Mapping[str, Any]:
    """The quoting enclave: its identity, and the level that it reaches."""
    product, version = parts.qe_product
    masked = (
        (parts.qe_misc_select, identity["miscselect"], identity["miscselectMask"]),
        (parts.qe_attributes, identity["attributes"], identity["attributesMask"]),
    )
    for value, wanted, mask in masked:
        if int.from_bytes(value, "big") & int(mask, 16) != int(wanted, 16):
            raise Refuted("the quoting enclave has other attributes than the QE identity allows")
    if parts.qe_mrsigner != bytes.fromhex(identity["mrsigner"]) or product != identity["isvprodid"]:
        raise Refuted("the quoting enclave is not the one of the QE identity")
    for level in identity["tcbLevels"]:
        if version >= level["tcb"]["isvsvn"]:
            return _known(level)
    raise Refuted("the quoting enclave reaches none of the levels of the QE identity")


def _reaches(values: Sequence[int], wanted: Sequence[int]) -> bool:
    return len(values) == len(wanted) and all(have >= need for have, need in zip(values, wanted, strict=True))


def _known(level: Mapping[str, Any]) -> Mapping[str, Any]:
    if level["tcbStatus"] not in STATUSES:
        raise Refuted(f"the TCB status {level['tcbStatus']!r:.40} is not known")
    return level
