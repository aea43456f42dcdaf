"""Certificates of Intel's SGX infrastructure: read strictly, chained to the root that intel.toml pins."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from acon_nb.tdx.printable import printable

_FACTS = Path(__file__).with_name("intel.toml")
_LIMIT = 8
UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension)
_SGX = x509.ObjectIdentifier("1.2.840.113741.1.13.1")
_SGX_DER = bytes.fromhex("2a864886f84d010d01")  # the same, as DER


class Refuted(Exception):
    """A check failed: the text says which, as a sentence about the evidence."""


@dataclass(frozen=True)
class Chain:
    """Certificates from the leaf to the root."""

    certificates: tuple[x509.Certificate, ...]

    @property
    def leaf(self) -> x509.Certificate:
        """The first certificate."""
        return self.certificates[0]

    @property
    def root(self) -> x509.Certificate:
        """The last certificate."""
        return self.certificates[-1]


@cache
def facts() -> Mapping[str, Mapping[str, Any]]:
    """Return the pinned facts of intel.toml."""
    return tomllib.loads(_FACTS.read_text())


def fingerprint(certificate: x509.Certificate) -> str:
    """Return a certificate's SHA-256."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def name_of(certificate: x509.Certificate) -> str:
    """Return a certificate's common name, as it may be shown."""
    try:
        names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        return printable(str(names[0].value), 80) if names else "a certificate without a name"
    except UNREADABLE:
        return "a certificate with an invalid name"


@lru_cache(maxsize=16)
def parse_chain(pem: bytes, *, strict: bool = True) -> Chain:
    """Read certificates as PEM; `strict` takes them only exactly as Intel's infrastructure writes them.

    Errors: `Refuted`.
    """
    text = pem.rstrip(b"\0")
    try:
        certificates = tuple(x509.load_pem_x509_certificates(text))
        again = b"".join(each.public_bytes(Encoding.PEM) for each in certificates)
    except UNREADABLE as error:
        raise Refuted("its certificates cannot be read") from error
    if len(certificates) > _LIMIT:
        raise Refuted(f"it has {len(certificates)} certificates")
    if strict and (text not in (again, again[:-1]) or pem[len(text) :] not in (b"", b"\0")):
        raise Refuted("its certificates are not written as Intel writes them: a byte was changed")
    return Chain(certificates)


def check_root(chain: Chain) -> None:
    """Check that a chain ends at Intel's root. Errors: `Refuted`, which names the other root."""
    if fingerprint(chain.root) != facts()["root"]["sha256"]:
        raise Refuted(f"another root: {name_of(chain.root)}, SHA-256 {fingerprint(chain.root)}, is not Intel's")


def check_chain(chain: Chain, at: datetime) -> None:
    """Check each signature, name, role and date up to the root, and that the root is Intel's. Errors: `Refuted`."""
    check_root(chain)
    certificates = chain.certificates
    for number, certificate in enumerate(certificates):
        issuer = certificates[min(number + 1, len(certificates) - 1)]
        check_issued(certificate, issuer)
        check_dates(certificate, at)
        if number and not _may_sign(certificate):
            raise Refuted(f"{name_of(certificate)} is not a certificate of an authority")


def check_issued(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    """Check that one certificate was signed with another's key. Errors: `Refuted`."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (*UNREADABLE, InvalidSignature) as error:
        raise Refuted(f"{name_of(certificate)} was not signed by {name_of(issuer)}") from error


def check_dates(certificate: x509.Certificate, at: datetime) -> None:
    """Check that a certificate is valid at a time. Errors: `Refuted`."""
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not start <= at <= end:
        raise Refuted(f"{name_of(certificate)} is valid from {start:%Y-%m-%d} to {end:%Y-%m-%d}, not at {at:%Y-%m-%d}")


def check_signature(key: ec.EllipticCurvePublicKey, signature: bytes, data: bytes, what: str) -> None:
    """Check an ECDSA signature (r and s, 32 bytes each) over SHA-256. Errors: `Refuted`."""
    r, s = (int.from_bytes(signature[n : n + 32], "big") for n in (0, 32))
    try:
        key.verify(encode_dss_signature(r, s), data, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError) as error:
        raise Refuted(f"the signature of {what} is wrong") from error


def key_of(point: bytes) -> ec.EllipticCurvePublicKey:
    """Return the P-256 key with the coordinates x and y. Errors: `Refuted`."""
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + point)
    except ValueError as error:
        raise Refuted("its attestation key is not a point of P-256") from error


def public_key(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    """Return a certificate's key, which must be one of P-256. Errors: `Refuted`."""
    try:
        key = certificate.public_key()
    except UNREADABLE as error:
        raise Refuted("a key of its certificates cannot be read") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Refuted(f"{name_of(certificate)} has no key of P-256")
    return key


@dataclass(frozen=True, kw_only=True)
class PckFacts:
    """What a PCK certificate says of its platform: FMSPC, PCEID, and the SVNs of its TCB."""

    fmspc: str
    pce_id: str
    components: tuple[int, ...]
    pce_svn: int


def pck_facts(certificate: x509.Certificate) -> PckFacts:
    """Read Intel's extension of a PCK certificate. Errors: `Refuted`."""
    try:
        extension = certificate.extensions.get_extension_for_oid(_SGX).value
        assert isinstance(extension, x509.UnrecognizedExtension)
        values = dict(_members(extension.value))
        return PckFacts(
            fmspc=values[(4,)].hex(),
            pce_id=values[(3,)].hex(),
            components=tuple(int.from_bytes(values[(2, n)], "big") for n in range(1, 17)),
            pce_svn=int.from_bytes(values[(2, 17)], "big"),
        )
    except (*UNREADABLE, x509.ExtensionNotFound, KeyError, IndexError) as error:
        raise Refuted("its PCK certificate lacks Intel's facts about the platform") from error


def _members(raw: bytes) -> Iterator[tuple[tuple[int, ...], bytes]]:
    """Yield (last numbers of the identifier, value) of Intel's nested list of identifiers with values."""
    for tag, content in _der(next(iter(_der(raw)))[1]):
        if tag != 0x30:
            raise ValueError("not a list of pairs")
        (kind, identifier), (value_tag, value) = list(_der(content))[:2]
        if kind != 6 or not identifier.startswith(_SGX_DER):
            raise ValueError("not an identifier of Intel's")
        path = tuple(identifier[len(_SGX_DER) :])
        if value_tag == 0x30:
            yield from _members(_wrapped(value))
        yield path, value


def _wrapped(content: bytes) -> bytes:
    size = len(content)
    length = bytes([size]) if size < 0x80 else b"\x82" + size.to_bytes(2, "big")
    return b"\x30" + length + content


def _der(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (tag, content) of each value in DER."""
    offset = 0
    while offset < len(raw):
        tag, size = raw[offset], raw[offset + 1]
        offset += 2
        if size >= 0x80:
            count = size & 0x7F
            if not 1 <= count <= 3:
                raise ValueError("a length of DER is invalid")
            size = int.from_bytes(raw[offset : offset + count], "big")
            offset += count
        if size > len(raw) - offset:
            raise ValueError("a value of DER is truncated")
        yield tag, raw[offset : offset + size]
        offset += size


def _may_sign(certificate: x509.Certificate) -> bool:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except (*UNREADABLE, x509.ExtensionNotFound):
        return False
    return constraints.ca and usage.key_cert_sign


def revoked(certificates: Sequence[x509.Certificate], lists: Sequence[x509.CertificateRevocationList]) -> str:
    """Return the name of the first certificate that a revocation list has, or ""."""
    for certificate in certificates:
        for each in lists:
            revoked = each.get_revoked_certificate_by_serial_number(certificate.serial_number)
            if each.issuer == certificate.issuer and revoked is not None:
                return name_of(certificate)
    return ""
