"""Read the measurement registers from a TD's evidence: quotes of version 4 and 5, and TDREPORTs.

Signatures are not verified here, but by `acon_nb.tdx.verify`. Source: Intel TDX DCAP Quoting
Library API, appendix "TD Quote" (versions 4 and 5); Intel TDX Module ABI Specification, TDREPORT_STRUCT.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from acon_nb import user_file
from acon_nb.errors import InvalidInput
from acon_nb.tdx.eventlog import EventLog

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
_SGX = 0
# Bits of ATTRIBUTES: Intel TDX Module ABI Specification, "ATTRIBUTES"; those of the first byte are for debugging alone.
ATTRIBUTES: Mapping[int, str] = {
    0: "DEBUG",
    4: "HGS_PLUS_PROF",
    5: "PERF_PROF",
    6: "PMT_PROF",
    16: "ICSSD",
    24: "LASS",
    28: "SEPT_VE_DISABLE",
    29: "MIGRATABLE",
    30: "PKS",
    31: "KL",
    62: "TPA",
    63: "PERFMON",
}
_UNDER_DEBUG = 0xFF  # a TD with any of these is not to be trusted: the same specification
# What a TD is created with, and the requester's data: the names of expected values.
PROPERTIES = ("ATTRIBUTES", "XFAM", "MRCONFIGID", "MROWNER", "MROWNERCONFIG", "REPORTDATA")


@dataclass(frozen=True, kw_only=True)
class TdIdentity:
    """A TD's identity according to its quote or report. `form` is what was read; `registers` has MRTD and RTMR[0..3].

    `attributes` and `xfam` are those that the TD was created with; `report_data` holds the 64 bytes chosen by the
    requester. `note` states that no signature was verified. `raw` holds the bytes of the quote or report, with what
    follows it; `log` is the event log that came with it, and `notes` what was odd about it.
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
    raw: bytes = field(default=b"", repr=False)
    log: EventLog | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()

    @property
    def debug(self) -> bool:
        """Whether the host may inspect this TD (attribute DEBUG or profiling); its measurements are then worthless."""
        return bool(self.attributes & _UNDER_DEBUG)

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """The names of the attributes that are set; a bit without a name is given by its number."""
        return tuple(ATTRIBUTES.get(bit, f"bit {bit}") for bit in range(64) if self.attributes >> bit & 1)

    @property
    def properties(self) -> dict[str, bytes]:
        """What the TD was created with and the requester's data, by the names in `PROPERTIES`, as in a quote."""
        values = (
            self.attributes.to_bytes(8, "little"),
            self.xfam.to_bytes(8, "little"),
            self.mrconfigid,
            self.mrowner,
            self.mrownerconfig,
            self.report_data,
        )
        return dict(zip(PROPERTIES, values, strict=True))


def read_identity(path: Path) -> TdIdentity:
    """Read a quote or a TDREPORT from a file. Errors: `InvalidInput`."""
    hint = "a quote comes from configfs-tsm: /sys/kernel/config/tsm/report/NAME/outblob"
    return parse_identity(user_file.read_bytes("quote", path, hint=hint, most_bytes=_LIMIT_BYTES), source=str(path))


def is_identity(raw: bytes) -> bool:
    """Whether bytes start like a TD quote, or are a TDREPORT."""
    if len(raw) == _REPORT_BYTES and raw[0] == _REPORT_TYPE_TDX:
        return True
    return len(raw) >= _HEADER_BYTES and struct.unpack_from("<HHI", raw)[::2] in ((4, _TEE_TDX), (5, _TEE_TDX))


def parse_identity(raw: bytes, *, source: str = "quote") -> TdIdentity:
    """Read a quote (version 4 or 5) or a TDREPORT of 1024 bytes. Errors: `InvalidInput`."""
    if len(raw) > _LIMIT_BYTES:
        raise InvalidInput("quote", source, "is too large for a quote", hint="give only the quote")
    if len(raw) == _REPORT_BYTES and raw[0] == _REPORT_TYPE_TDX:
        return _report(raw, source)
    hint = "give a TD quote of version 4 or 5, or a TDREPORT"
    if len(raw) < _HEADER_BYTES + 6:
        raise InvalidInput("quote", source, "is too short for a quote", hint=hint)
    version, _, tee = struct.unpack_from("<HHI", raw)
    if version in (3, 4) and tee == _SGX:
        raise InvalidInput("quote", source, f"is a quote of an SGX enclave (version {version}), not of a TD", hint=hint)
    if version not in (4, 5) or tee != _TEE_TDX:
        reason = f"is not a TD quote of version 4 or 5 (version {version}, TEE type {tee:#x})"
        raise InvalidInput("quote", source, reason, hint=hint)
    start, size = body_of(raw, source)
    return _body(f"quote of version {version}", raw[start : start + size], raw)


def body_of(raw: bytes, source: str = "quote") -> tuple[int, int]:
    """Return where the body of a quote starts and its size in bytes. Errors: `InvalidInput`."""
    hint = "give the whole quote"
    start, size = _HEADER_BYTES, _BODY_BYTES[2]
    if raw[0] == 5:
        kind, claimed = struct.unpack_from("<HI", raw, _HEADER_BYTES)
        if kind not in _BODY_BYTES or claimed != _BODY_BYTES[kind]:
            raise InvalidInput("quote", source, f"has a body of type {kind} and {claimed} bytes", hint=hint)
        start, size = _HEADER_BYTES + 6, claimed
    if start + size > len(raw):
        raise InvalidInput("quote", source, "is truncated in its body", hint=hint)
    return start, size


def _body(form: str, body: bytes, raw: bytes) -> TdIdentity:
    """TD quote body: SVNs and SEAM's measurements first, then the TD's."""
    attributes, xfam = struct.unpack_from("<QQ", body, 120)
    digests = [body[136 + _DIGEST_BYTES * n : 136 + _DIGEST_BYTES * (n + 1)] for n in range(8)]
    return _identity(form, attributes, xfam, digests, body[520:584], raw)


def _report(raw: bytes, source: str) -> TdIdentity:
    if hashlib.sha384(raw[_TDINFO:]).digest() != raw[_INFO_HASH : _INFO_HASH + _DIGEST_BYTES]:
        hint = "request it again from the TD (TDG.MR.REPORT)"
        raise InvalidInput(
            "quote", source, "is a damaged TDREPORT: its registers do not match their own hash", hint=hint
        )
    attributes, xfam = struct.unpack_from("<QQ", raw, _TDINFO)
    start = _TDINFO + 16
    digests = [raw[start + _DIGEST_BYTES * n : start + _DIGEST_BYTES * (n + 1)] for n in range(8)]
    return _identity("TDREPORT", attributes, xfam, digests, raw[128:192], raw)


def _identity(
    form: str, attributes: int, xfam: int, digests: list[bytes], report_data: bytes, raw: bytes
) -> TdIdentity:
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
        raw=raw,
    )
