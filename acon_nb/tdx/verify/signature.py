"""The chain of signatures of a quote, from its body to Intel's root."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

from acon_nb.errors import InvalidInput
from acon_nb.tdx.verify import certificates
from acon_nb.tdx.verify.certificates import Chain, Refuted
from acon_nb.tdx.verify.parts import QuoteParts, parse_parts


@dataclass(frozen=True, kw_only=True)
class SignatureResult:
    """Whether a quote is Intel's word; `root` names the root of its certificates, `text` says what failed, or "".

    `parts` and `chain` are there as far as the quote could be read.
    """

    ok: bool
    root: str
    text: str
    parts: QuoteParts | None = None
    chain: Chain | None = None


def verify_signature(raw: bytes, at: datetime) -> SignatureResult:
    """Verify a quote's signatures at a time; never raises for what a quote contains."""
    root, chain, parts = "", None, None
    try:
        parts = parse_parts(raw)
        _check_extra(parts.extra)
        chain = certificates.parse_chain(parts.chain)
        root = f"{certificates.name_of(chain.root)}, SHA-256 {certificates.fingerprint(chain.root)}"
        certificates.check_root(chain)
        _check_quote(parts, chain)
        certificates.check_chain(chain, at)
    except InvalidInput as error:
        return SignatureResult(ok=False, root=root, text=f"the quote {error.reason}")
    except Refuted as error:
        return SignatureResult(ok=False, root=root, text=str(error), parts=parts, chain=chain)
    return SignatureResult(ok=True, root=root, text="", parts=parts, chain=chain)


def _check_quote(parts: QuoteParts, chain: Chain) -> None:
    facts = certificates.facts()["enclave"]
    if parts.vendor.hex() != facts["vendor"]:
        raise Refuted(f"its quoting enclave is of another vendor, {parts.vendor.hex()}")
    certificates.pck_facts(chain.leaf)  # a leaf without them is no PCK certificate
    certificates.check_signature(certificates.key_of(parts.key), parts.signature, parts.signed, "the quote")
    bound = hashlib.sha256(parts.key + parts.qe_auth).digest()
    if parts.qe_report_data != bound + bytes(32):
        raise Refuted("its attestation key is not the one that the quoting enclave's report names")
    key = certificates.public_key(chain.leaf)
    certificates.check_signature(key, parts.qe_signature, parts.qe_report, "the quoting enclave's report")
    if parts.qe_mrsigner.hex() != facts["mrsigner"] or parts.qe_product[0] != facts["isv_prod_id"]:
        raise Refuted("it was signed by an enclave that is not Intel's quoting enclave for TDs")
    if parts.qe_attributes[0] & 2:
        raise Refuted("its quoting enclave runs under a debugger")


def _check_extra(extra: bytes) -> None:
    """Refuse a quote whose padding is not zero; bytes of another kind after it are not part of it."""
    if any(extra) and 0 in extra:
        raise Refuted("what follows the quote is neither zero nor free of zeros: its padding was changed")
