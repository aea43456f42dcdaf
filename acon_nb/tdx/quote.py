"""Read the measurement registers from a TD's evidence: quotes of version 4 and 5, and TDREPORTs.

Signatures are not verified here: only a verifier can tell whether a quote is genuine. Source: Intel TDX DCAP Quoting
Library API, appendix "TD Quote" (versions 4 and 5); Intel TDX Module ABI Specification, TDREPORT_STRUCT.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path

from acon_nb.errors import InvalidInput

_HEADER_BYTES = 48
_TEE_TDX = 0x81
_BODY_BYTES = {2: 584, 3: 648}  # body type of a version 5 quote: TDX 1.0, TDX 1.5
_REPORT_BYTES = 1024
_REPORT_TYPE_TDX = 0x81
_TDINFO = 512  # where TDINFO_STRUCT starts in a TDREPORT
_INFO_HASH = 80  # TEE_INFO_HASH, SHA-384 of TDINFO_STRUCT
_LIMIT_BYTES = 1 << 20
_DIGEST_BYTES = 48
_NOTE = "its signature was not verified"


@dataclass(frozen=True, kw_only=True)
class TdIdentity:
    """A TD's identity according to its quote or report. `form` is what was read; `registers` has MRTD and RTMR[0..3].

    `attributes` and `xfam` are those that the TD was created with; `report_data` holds the 64 bytes chosen by the
    requester. `note` states that no signature was verified.
    """

    form: str
    registers: dict[str, bytes]
    attributes: int
    xfam: int
    mrconfigid: bytes
    mrowner: bytes
    mrownerconfig: bytes
    report_data: bytes
    note: str = _NOTE

    @property
    def debug(self) -> bool:
        """Whether the host may inspect this TD (attribute DEBUG); then its measurements are worthless."""
        return bool(self.attributes & 1)


def read_identity(path: Path) -> TdIdentity:
    """Read a quote or a TDREPORT from a file. Errors: `InvalidInput`."""
    try:
        with path.open("rb") as file:
            raw = file.read(_LIMIT_BYTES + 1)
    except OSError as error:
        hint = "a quote comes from configfs-tsm: /sys/kernel/config/tsm/report/NAME/outblob"
        raise InvalidInput("quote", path, error.strerror or "cannot be read", hint=hint) from error
    return parse_identity(raw, source=str(path))


def parse_identity(raw: bytes, *, source: str = "quote") -> TdIdentity:
    """Read a quote (version 4 or 5) or a TDREPORT of 1024 bytes. Errors: `InvalidInput`."""
    if len(raw) > _LIMIT_BYTES:
        raise InvalidInput("quote", source, "is too large for a quote", hint="give only the quote")
    if len(raw) == _REPORT_BYTES and raw[0] == _REPORT_TYPE_TDX:
        return _report(raw, source)
    hint = "give a TD quote of version 4 or 5, or a TDREPORT, as binary"
    if len(raw) < _HEADER_BYTES + 6:
        raise InvalidInput("quote", source, "is too short for a quote", hint=hint)
    version, _, tee = struct.unpack_from("<HHI", raw)
    if version not in (4, 5) or tee != _TEE_TDX:
        reason = f"is not a TD quote of version 4 or 5 (version {version}, TEE type {tee:#x})"
        raise InvalidInput("quote", source, reason, hint=hint)
    start, size = _HEADER_BYTES, _BODY_BYTES[2]
    if version == 5:
        kind, claimed = struct.unpack_from("<HI", raw, _HEADER_BYTES)
        if kind not in _BODY_BYTES or claimed != _BODY_BYTES[kind]:
            raise InvalidInput("quote", source, f"has a body of type {kind} and {claimed} bytes", hint=hint)
        start, size = _HEADER_BYTES + 6, claimed
    if start + size > len(raw):
        raise InvalidInput("quote", source, "is truncated in its body", hint=hint)
    return _body(f"quote of version {version}", raw[start : start + size])


def _body(form: str, body: bytes) -> TdIdentity:
    """TD quote body: SVNs and SEAM's measurements first, then the TD's."""
    attributes, xfam = struct.unpack_from("<QQ", body, 120)
    digests = [body[136 + _DIGEST_BYTES * n : 136 + _DIGEST_BYTES * (n + 1)] for n in range(8)]
    return _identity(form, attributes, xfam, digests, body[520:584])


def _report(raw: bytes, source: str) -> TdIdentity:
    if hashlib.sha384(raw[_TDINFO:]).digest() != raw[_INFO_HASH : _INFO_HASH + _DIGEST_BYTES]:
        hint = "request it again from the TD (TDG.MR.REPORT)"
        raise InvalidInput(
            "quote", source, "is a damaged TDREPORT: its registers do not match their own hash", hint=hint
        )
    attributes, xfam = struct.unpack_from("<QQ", raw, _TDINFO)
    start = _TDINFO + 16
    digests = [raw[start + _DIGEST_BYTES * n : start + _DIGEST_BYTES * (n + 1)] for n in range(8)]
    return _identity("TDREPORT", attributes, xfam, digests, raw[128:192])


def _identity(form: str, attributes: int, xfam: int, digests: list[bytes], report_data: bytes) -> TdIdentity:
    mrtd, mrconfigid, mrowner, mrownerconfig, *rtmrs = digests
    registers = {"MRTD": mrtd, **{f"RTMR[{number}]": value for number, value in enumerate(rtmrs)}}
    return TdIdentity(
        form=form,
        registers=registers,
        attributes=attributes,
        xfam=xfam,
        mrconfigid=mrconfigid,
        mrowner=mrowner,
        mrownerconfig=mrownerconfig,
        report_data=report_data,
        note="its MAC was not verified" if form == "TDREPORT" else _NOTE,
    )
