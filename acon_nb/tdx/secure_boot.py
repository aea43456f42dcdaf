"""Whether firmware with secure boot starts a kernel: its signature or hash against the image's db and dbx.

LIEF, which hashes the kernel anyway, verifies the signature itself (PKCS #7, the signed hash, each certificate's
signature): no second library is needed, and nothing of it is written by hand. Sources: UEFI specification 2.10,
sections 32.4.1 (EFI_SIGNATURE_LIST) and 32.5.3.3; edk2 SecurityPkg DxeImageVerificationLib, which ignores validity
periods.
"""

from __future__ import annotations

import hashlib
import struct
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acon_nb.errors import InvalidInput, WillNotBoot
from acon_nb.tdx.firmware import SectionType, read_tdvf
from acon_nb.tdx.kernel_image import authenticode_library
from acon_nb.tdx.variables import IMAGE_SECURITY, Variables, read_variables, secure_boot
from acon_nb.tdx.volumes import FirmwareContent, unpack

X509 = uuid.UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072").bytes_le
SHA256 = uuid.UUID("c1c41626-504c-4092-aca9-41f936934328").bytes_le
X509_SHA256 = uuid.UUID("3bd2a492-96c0-4079-b420-fcf98ef103ed").bytes_le
_LIST = struct.Struct("<16sIII")
_OWNER_BYTES = 16
_CHAIN_LIMIT = 8


@dataclass(frozen=True)
class Signature:
    """An entry of a signature database: its type, its owner, and a certificate (DER) or a hash."""

    kind: bytes
    owner: uuid.UUID
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Admission:
    """Whether the firmware starts an image, why, and the entry of db that admits it (None if nothing does)."""

    admitted: bool
    why: str
    by: Signature | None = None


def signatures(value: bytes) -> Iterator[Signature]:
    """Yield the entries of a db or dbx; what follows damage is ignored, as firmware does."""
    place = 0
    while place + _LIST.size <= len(value):
        kind, total, header, size = _LIST.unpack_from(value, place)
        first, end = place + _LIST.size + header, place + total
        if total < _LIST.size or end > len(value) or size <= _OWNER_BYTES:
            return
        for start in range(first, end - size + 1, size):
            entry = value[start : start + size]
            yield Signature(kind, uuid.UUID(bytes_le=entry[:_OWNER_BYTES]), entry[_OWNER_BYTES:])
        place = end


def admission(image: bytes, variables: Variables) -> Admission:
    """Return whether firmware whose secure boot is on, with these variables, starts a PE image."""
    lief = authenticode_library()
    allowed = list(signatures(variables.get(("db", IMAGE_SECURITY), b"")))
    denied = list(signatures(variables.get(("dbx", IMAGE_SECURITY), b"")))
    binary = lief.PE.parse(list(image))
    if binary is None:
        return Admission(admitted=False, why="it is not a PE image")
    digest = bytes(binary.authentihash(lief.PE.ALGORITHMS.SHA_256))
    if any(entry.kind == SHA256 and entry.data == digest for entry in denied):
        return Admission(admitted=False, why="its hash is in the firmware's dbx")
    refused = []
    for signature in binary.signatures:
        verdict = _signed(lief, binary, signature, allowed, denied)
        if verdict.admitted:
            return verdict
        refused.append(verdict.why)
    by = next((entry for entry in allowed if entry.kind == SHA256 and entry.data == digest), None)
    if by is not None:
        return Admission(admitted=True, why="its hash is in the firmware's db", by=by)
    return Admission(
        admitted=False, why="; ".join(refused) or "it is unsigned, and its hash is not in the firmware's db"
    )


def falls_back(content: FirmwareContent) -> bool:
    """Whether the firmware starts a kernel that it refuses by its legacy loader, as edk2 did before 2025."""
    return not content.has_text("EnableLegacyLoader")


def check_files(firmware: Path, kernel: Path) -> None:
    """Refuse a kernel that a firmware file with secure boot on does not start. Errors: `WillNotBoot`.

    A firmware that is not a TDVF, or whose variables cannot be read, is not judged here.
    """
    try:
        tdvf = read_tdvf(firmware)
    except InvalidInput:
        return
    variables = read_variables(b"".join(tdvf.raw(section) for section in tdvf.of(SectionType.CFV)))
    if not secure_boot(variables):
        return
    content = unpack(tdvf.image)
    if content.has_module("SecureBootConfigDxe") and not falls_back(content):
        check(kernel, kernel.read_bytes(), variables)


def check(path: Path, image: bytes, variables: Variables) -> Admission:
    """Return the admission of a kernel. Errors: `WillNotBoot` if the firmware refuses it."""
    verdict = admission(image, variables)
    if not verdict.admitted:
        names = [_subject(entry.data) for entry in signatures(variables.get(("db", IMAGE_SECURITY), b""))]
        known = ", ".join(sorted({name for name in names if name})) or "no certificate"
        hint = (
            "use a firmware without secure boot, sign the kernel with a key in the firmware's db, or give QEMU 10.0 or "
            "later -shim with a shim that the firmware accepts"
        )
        raise WillNotBoot(
            f"this TDVF will not boot this kernel: {path.name}: {verdict.why}",
            hint=hint,
            details=[f"the firmware's db has: {known}"],
        )
    return verdict


def _signed(
    lief: Any, binary: Any, signature: Any, allowed: Sequence[Signature], denied: Sequence[Signature]
) -> Admission:
    checks = lief.PE.Signature.VERIFICATION_CHECKS
    state = binary.verify_signature(signature, checks.SKIP_CERT_TIME)
    if state != lief.PE.Signature.VERIFICATION_FLAGS.OK:
        return Admission(admitted=False, why=f"its signature is not valid ({str(state).rpartition('.')[2]})")
    signers = list(signature.signers)
    leaf = signers[0].cert if signers else None
    if leaf is None:
        return Admission(admitted=False, why="its signature names no certificate")
    chain = _chain(leaf, list(signature.certificates))
    name = _common_name(leaf.subject)
    if any(_denies(entry, bytes(cert.raw)) for entry in denied for cert in chain):
        return Admission(admitted=False, why=f"a certificate of its signer {name!r} is in the firmware's dbx")
    for entry in allowed:
        if entry.kind == X509 and _vouches(lief, entry.data, chain):
            return Admission(admitted=True, why=f"signed by {name!r}, which the firmware's db accepts", by=entry)
    issuer = _common_name(chain[-1].issuer)
    return Admission(admitted=False, why=f"it is signed by {name!r} of {issuer!r}, which is not in the firmware's db")


def _chain(leaf: Any, others: Sequence[Any]) -> list[Any]:
    """The signer's certificate and those above it that the signature carries, each verified by the next."""
    chain = [leaf]
    while len(chain) < _CHAIN_LIMIT:
        last = chain[-1]
        above = (it for it in others if it.subject == last.issuer and it.subject != last.subject)
        issuer = next((it for it in above if _issued(last, it)), None)
        if issuer is None:
            break
        chain.append(issuer)
    return chain


def _issued(certificate: Any, issuer: Any) -> bool:
    """Whether `issuer` signed a certificate; validity periods do not matter to firmware."""
    flags = type(certificate).VERIFICATION_FLAGS
    state = issuer.verify(certificate)
    period = (flags.BADCERT_EXPIRED, flags.BADCERT_FUTURE, flags.BADCRL_EXPIRED, flags.BADCRL_FUTURE)
    remaining = int(state)
    for flag in period:
        remaining &= ~int(flag)
    return remaining == 0


def _vouches(lief: Any, trusted: bytes, chain: Sequence[Any]) -> bool:
    """Whether a certificate of db is in the chain, or signed its last one."""
    if any(bytes(cert.raw) == trusted for cert in chain):
        return True
    parsed = lief.PE.x509.parse(list(trusted))
    return bool(parsed) and any(cert.issuer == parsed[0].subject and _issued(cert, parsed[0]) for cert in chain)


def _denies(entry: Signature, certificate: bytes) -> bool:
    if entry.kind == X509:
        return entry.data == certificate
    return entry.kind == X509_SHA256 and entry.data[:32] == hashlib.sha256(_signed_part(certificate)).digest()


def _signed_part(certificate: bytes) -> bytes:
    """TBSCertificate, the first element of a certificate, of which dbx has the hash."""
    outer = _header(certificate, 0)
    start = outer[0]
    inner, size = _header(certificate, start)
    return certificate[start : inner + size]


def _header(data: bytes, place: int) -> tuple[int, int]:
    """Where the content of a DER element starts, and its length."""
    if place + 2 > len(data):
        return len(data), 0
    length = data[place + 1]
    if length < 0x80:
        return place + 2, length
    count = length & 0x7F
    return place + 2 + count, int.from_bytes(data[place + 2 : place + 2 + count], "big")


def _subject(certificate: bytes) -> str:
    """The name of a certificate, or ""; LIEF 1.0 reads none before it has read a signature."""
    from cryptography import x509

    try:
        subject = x509.load_der_x509_certificate(certificate).subject
    except ValueError:
        return ""
    names = subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return _common_name(f"CN={names[0].value!s}") if names else ""


def _common_name(name: str) -> str:
    for part in name.split(", "):
        if part.startswith("CN="):
            text = part[3:]
            return text if text.isprintable() else ascii(text)
    return name[:80]
