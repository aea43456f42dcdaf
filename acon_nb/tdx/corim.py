"""Write reference values as a CoRIM, the IETF's Concise Reference Integrity Manifest, signed with a key of the user's.

A CoRIM is CBOR; signed it is a COSE_Sign1. RTMRs are integrity registers of the base specification, MRTD is tee.mrtee
of Intel's profile, which takes a set of values (one for each page order of the host). Neither names a class for TDs:
the environment here is vendor and model, and a verifier has to be configured to know it. Sources:
draft-ietf-rats-corim (corim-map, signed-corim, concise-mid-tag, integrity-registers);
draft-cds-rats-intel-corim-profile (tee.mrtee, sets of digests); RFC 9052 (COSE).
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from acon_nb import user_file
from acon_nb.cache import atomic_file
from acon_nb.errors import InvalidInput, MissingRequirement
from acon_nb.tdx.reference import accepted_values
from acon_nb.tdx.stored import Expected

CONTENT_TYPE = "application/rim+cbor"
VENDOR, MODEL = "Intel Corporation", "TDX"
# CBOR tags and map keys of the two specifications
_OID, _UNSIGNED, _COMID, _SET = 111, 501, 506, 60020
_MEMBER, _SHA384 = 6, 7  # set operator; hash algorithm of IANA's Named Information registry
_REGISTERS, _MRTEE = 14, -83
_INTEL_PROFILE = bytes.fromhex("6086480186f84d011001")  # 2.16.840.1.113741.1.16.1
_MANIFEST_CREATOR, _TAG_CREATOR = 1, 0
_ALG, _TYPE, _KEY_ID, _META = 1, 3, 4, 8
_HINT = "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out key.pem"
_LIMIT_BYTES = 64 << 10


def corim(
    expected: Expected, *, only: Sequence[str] = (), also: Sequence[Expected] = (), creator: str = "acon-nb"
) -> bytes:
    """Return an unsigned CoRIM with the known registers of a prediction; the same values give the same bytes.

    `only` selects registers; `also` are other predictions whose values are accepted too. RTMR[3] is omitted unless it
    is selected. Errors: `InvalidInput` for a TPM's prediction, for a selected register that cannot be known, and if
    nothing is known; `MissingRequirement` without cwt.
    """
    cbor = _libraries()[0]
    triples = [[_environment(), [{1: values}]] for values in _measurements(cbor, expected, only, also)]
    if not triples:
        raise InvalidInput("corim", ", ".join(only), "none of its registers is known", hint="see --capture, --only")
    identity = uuid.UUID(bytes=hashlib.sha256(cbor.dumps(triples, canonical=True)).digest()[:16], version=5).bytes
    entity = {0: creator}
    tag = {1: {0: identity}, 2: [{**entity, 2: [_TAG_CREATOR]}], 4: {0: triples}}
    manifest = {
        0: identity,
        1: [cbor.CBORTag(_COMID, cbor.dumps(tag, canonical=True))],
        3: cbor.CBORTag(_OID, _INTEL_PROFILE),
        5: [{**entity, 2: [_MANIFEST_CREATOR]}],
    }
    encoded: bytes = cbor.dumps(cbor.CBORTag(_UNSIGNED, manifest), canonical=True)
    return encoded


def sign(manifest: bytes, key: Path, *, signer: str = "acon-nb") -> bytes:
    """Return a signed CoRIM: a COSE_Sign1 with a private key in PEM (EC P-256, P-384, P-521 or Ed25519).

    The key's identifier is the SHA-256 of its public key (DER). Errors: `InvalidInput` for an unsuitable key.
    """
    cbor, cose, cose_key = _libraries()
    private, public = _read_key(key)
    try:
        signing = cose_key.from_pem(private, kid=hashlib.sha256(public).digest())
    except (ValueError, TypeError) as error:
        raise InvalidInput("corim_key", key, f"cannot sign: {error}", hint=_HINT) from error
    protected = {
        _ALG: int(signing.alg),
        _TYPE: CONTENT_TYPE,
        _KEY_ID: hashlib.sha256(public).digest(),
        _META: cbor.dumps({0: {0: signer}}, canonical=True),
    }
    signed: bytes = cose.new().encode_and_sign(manifest, signing, protected=protected)
    return signed


def write_corim(
    path: Path,
    expected: Expected,
    *,
    key: Path | None = None,
    signer: str = "acon-nb",
    only: Sequence[str] = (),
    also: Sequence[Expected] = (),
) -> int:
    """Write a CoRIM to a file atomically, signed if a key is given; return its bytes. Errors: those of the others."""
    data = corim(expected, only=only, also=also, creator=signer)
    if key is not None:
        data = sign(data, key, signer=signer)
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)
    return len(data)


def _environment() -> dict[int, Any]:
    return {0: {1: VENDOR, 2: MODEL}}


def _measurements(
    cbor: Any, expected: Expected, only: Sequence[str], also: Sequence[Expected]
) -> list[Mapping[int, Any]]:
    """The measurement-values-map of each register, one for each value that is accepted."""
    accepted = accepted_values(expected, only=only, also=also)
    values: list[Mapping[int, Any]] = []
    if expected.mrtd and (not only or "MRTD" in only):
        digests = [[_SHA384, value] for value in sorted(set(expected.mrtd.values()))]
        values.append({_MRTEE: cbor.CBORTag(_SET, [_MEMBER, digests])})
    for name, each in accepted.items():
        values += [{_REGISTERS: {int(name[5]): [[_SHA384, value]]}} for value in each]
    return values


def _read_key(path: Path) -> tuple[bytes, bytes]:
    """The PEM of a private key, and its public key (DER)."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    raw = user_file.read_bytes("corim_key", path, hint=_HINT, most_bytes=_LIMIT_BYTES)
    try:
        private = serialization.load_pem_private_key(raw, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        reason = "needs a password" if "encrypted" in str(error) else "is not a private key in PEM"
        raise InvalidInput("corim_key", path, reason, hint=_HINT) from error
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return raw, private.public_key().public_bytes(serialization.Encoding.DER, form)


def _libraries() -> tuple[Any, Any, Any]:
    try:
        import cbor2
        from cwt import COSE, COSEKey
    except ImportError as error:
        hint = "pip install 'acon-nb[corim]'"
        raise MissingRequirement("cwt", "reference values as a CoRIM", hint=hint) from error
    return cbor2, COSE, COSEKey
