"""The signed parts of a quote. Every length is checked: nothing in a quote is left unread.

Source: Intel TDX DCAP Quoting Library API, appendix 3 (Quote Format); Intel SGX ECDSA Quote Library API, appendix 4.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from acon_nb.errors import InvalidInput
from acon_nb.tdx.quote import body_of

_ECDSA_P256 = 2
_QE_REPORT, _PEM_CHAIN = 6, 5
_REPORT_BYTES = 384
_HINT = "give the whole quote, as the TD got it"


@dataclass(frozen=True, kw_only=True)
class QuoteParts:
    """A quote taken to pieces; `signed` is what its own signature covers, `chain` the certificates as PEM.

    `extra` is what follows the quote in the file and is not part of it.
    """

    signed: bytes
    vendor: bytes
    signature: bytes
    key: bytes
    qe_report: bytes
    qe_signature: bytes
    qe_auth: bytes
    chain: bytes
    tee_tcb_svn: bytes
    seam_attributes: bytes
    mrsigner_seam: bytes
    extra: bytes

    @property
    def qe_report_data(self) -> bytes:
        """The 64 bytes that the quoting enclave put into its report."""
        return self.qe_report[320:]

    @property
    def qe_mrsigner(self) -> bytes:
        """Who signed the quoting enclave."""
        return self.qe_report[128:160]

    @property
    def qe_attributes(self) -> bytes:
        """The attributes of the quoting enclave: 16 bytes."""
        return self.qe_report[48:64]

    @property
    def qe_misc_select(self) -> bytes:
        """MISCSELECT of the quoting enclave: 4 bytes."""
        return self.qe_report[16:20]

    @property
    def qe_product(self) -> tuple[int, int]:
        """ISVPRODID and ISVSVN of the quoting enclave."""
        product, version = struct.unpack_from("<HH", self.qe_report, 256)
        return product, version


class _Cursor:
    """Takes bytes in order; refuses to pass the end."""

    def __init__(self, raw: bytes, what: str, source: str) -> None:
        self.raw, self.offset, self._what, self._source = raw, 0, what, source

    def take(self, size: int) -> bytes:
        if size > len(self.raw) - self.offset:
            raise InvalidInput("quote", self._source, f"is truncated in its {self._what}", hint=_HINT)
        self.offset += size
        return self.raw[self.offset - size : self.offset]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def rest(self) -> bytes:
        return self.take(len(self.raw) - self.offset)


def parse_parts(raw: bytes, *, source: str = "quote") -> QuoteParts:
    """Take a quote of version 4 or 5 to pieces. Errors: `InvalidInput`."""
    start, size = body_of(raw, source)
    (key_type,) = struct.unpack_from("<H", raw, 2)
    if key_type != _ECDSA_P256:
        raise InvalidInput(
            "quote", source, f"has an attestation key of type {key_type}", hint="only ECDSA-256 is known"
        )
    end = start + size
    whole = _Cursor(raw[end:], "signature", source)
    data = _Cursor(whole.take(whole.number(4)), "signature", source)
    signature, key = data.take(64), data.take(64)
    outer = _certification(data, _QE_REPORT, source)
    report, report_signature = outer.take(_REPORT_BYTES), outer.take(64)
    auth = outer.take(outer.number(2))
    chain = _certification(outer, _PEM_CHAIN, source).rest()
    for cursor in (outer, data):
        if cursor.offset != len(cursor.raw):
            raise InvalidInput("quote", source, "has more in its signature than its sizes say", hint=_HINT)
    return QuoteParts(
        signed=raw[:end],
        vendor=raw[12:28],
        signature=signature,
        key=key,
        qe_report=report,
        qe_signature=report_signature,
        qe_auth=auth,
        chain=chain,
        tee_tcb_svn=raw[start : start + 16],
        mrsigner_seam=raw[start + 64 : start + 112],
        seam_attributes=raw[start + 112 : start + 120],
        extra=whole.rest(),
    )


def _certification(cursor: _Cursor, wanted: int, source: str) -> _Cursor:
    kind = cursor.number(2)
    if kind != wanted:
        raise InvalidInput("quote", source, f"has certification data of type {kind}, not {wanted}", hint=_HINT)
    return _Cursor(cursor.take(cursor.number(4)), "certification data", source)
