"""One verdict over a TD's evidence: signatures, TCB, attributes, the log's replay, and what was expected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum

from acon_nb.errors import CannotTell
from acon_nb.tdx.compare import MeasurementComparison, MeasurementVerdict, compare, notes_of
from acon_nb.tdx.eventlog import EventLog
from acon_nb.tdx.evidence.reader import Side
from acon_nb.tdx.quote import TdIdentity
from acon_nb.tdx.verify.collateral import REFUTING, Collateral, TcbResult, tcb_of
from acon_nb.tdx.verify.signature import SignatureResult, verify_signature

_NO_COLLATERAL = "no collateral was given: whether the platform's TCB is current, or was revoked, is not known"


class EvidenceVerdict(StrEnum):
    """What verifying evidence came to: a code for files, with `text` for people."""

    VERIFIED = "verified"
    REFUTED = "refuted"
    UNKNOWN = "cannot_know"

    @property
    def text(self) -> str:
        """The verdict in words."""
        return self.value.replace("_", " ")


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The result of verifying a quote.

    `reasons` say why it was refuted or cannot be known; `log` and `expected` are the comparisons with the log and with
    what was expected, None if there was nothing to compare.
    """

    verdict: EvidenceVerdict
    identity: TdIdentity
    signature: SignatureResult
    tcb: TcbResult
    reasons: tuple[str, ...]
    log: MeasurementComparison | None
    expected: MeasurementComparison | None
    notes: tuple[str, ...]

    @property
    def comparisons(self) -> tuple[MeasurementComparison, ...]:
        """The comparisons that were made."""
        return tuple(each for each in (self.log, self.expected) if each is not None)

    @property
    def headline(self) -> str:
        """The result in one sentence."""
        if self.reasons:
            return f"{self.verdict.text}: {self.reasons[0]}"
        parts = ["signed by an Intel quoting enclave", f"TCB status {self.tcb.status}"]
        parts += ["its log leads to its registers"] if self.log is not None else []
        parts += ["its registers are as expected"] if self.expected is not None else []
        return f"{self.verdict.text}: {', '.join(parts)}"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What evidence is held against: a log, a prediction or other evidence, single values, an application's log."""

    log: EventLog | None = None
    expected: Side | None = None
    values: Mapping[str, bytes] = field(default_factory=dict)
    application: EventLog | None = None
    allow_debug: bool = False


def verify(
    identity: TdIdentity,
    wanted: Wanted | None = None,
    *,
    collateral: Collateral | None = None,
    at: datetime | None = None,
) -> Verification:
    """Verify a quote at a time (default: now). Errors: `CannotTell` for a TDREPORT, which nobody else can verify."""
    if identity.form.startswith("TDREPORT"):
        what = "a TDREPORT is not signed: its MAC can be checked only on the processor that made it"
        raise CannotTell(what, hint="get a quote from it: configfs-tsm does")
    wanted = wanted or Wanted()
    at = at or datetime.now(UTC)
    signature = verify_signature(identity.raw, at)
    tcb = TcbResult(status="unknown", text=_NO_COLLATERAL)
    if collateral is not None and signature.ok and signature.parts is not None and signature.chain is not None:
        tcb = tcb_of(signature.parts, signature.chain, collateral, at)
    log = wanted.log or identity.log
    replay = None if log is None else _compare(log, identity, wanted, values=True)
    measured = identity if identity.log is not None or log is None else replace(identity, log=log)
    against = None if wanted.expected is None else _compare(wanted.expected, measured, wanted, values=log is None)
    if against is None and replay is None and wanted.values:
        against = _compare(identity, identity, wanted, values=True)
    refuting = [*_signature_reasons(signature), *_debug(identity, wanted)]
    if tcb.status in REFUTING:
        refuting.append(f"the platform's TCB is {tcb.status}" + (f": {tcb.text}" if tcb.text else ""))
    unknown = [f"TCB status: {tcb.text}"] if collateral is not None and tcb.status == "unknown" and signature.ok else []
    for each in (replay, against):
        if each is not None and not each.equal:
            (refuting if each.verdict is MeasurementVerdict.DIFFERENT else unknown).append(each.headline)
    verdict = EvidenceVerdict.REFUTED if refuting else EvidenceVerdict.UNKNOWN if unknown else EvidenceVerdict.VERIFIED
    return Verification(
        verdict=verdict,
        identity=identity,
        signature=signature,
        tcb=tcb,
        reasons=(*refuting, *unknown),
        log=replay,
        expected=against,
        notes=_notes(identity, log, signature, tcb),
    )


def _compare(side: Side, identity: TdIdentity, wanted: Wanted, *, values: bool) -> MeasurementComparison:
    """Compare a side with the quote; debugging is a reason of its own, so it is not counted twice."""
    return compare(
        side,
        identity,
        values=wanted.values if values else {},
        application=wanted.application,
        allow_debug=True,
    )


def _signature_reasons(signature: SignatureResult) -> tuple[str, ...]:
    return () if signature.ok else (signature.text,)


def _debug(identity: TdIdentity, wanted: Wanted) -> tuple[str, ...]:
    if not identity.debug or wanted.allow_debug:
        return ()
    return (f"this is a debug TD ({', '.join(identity.attribute_names)}): its host can read and change it",)


def _notes(identity: TdIdentity, log: EventLog | None, signature: SignatureResult, tcb: TcbResult) -> tuple[str, ...]:
    notes = [identity.form, *identity.notes, *(notes_of(log) if log is not None else ())]
    if signature.parts is not None and any(signature.parts.extra):
        notes.append(f"{len(signature.parts.extra)} bytes follow the quote, which nothing signs: they were ignored")
    if tcb.status == "unknown":
        notes.append(f"TCB status unknown: {tcb.text}")
    if tcb.advisories:
        notes.append(f"advisories that apply: {', '.join(tcb.advisories)}")
    if log is None and any(identity.registers["RTMR[3]"]):
        notes.append("RTMR[3] was extended by applications; no log of it was given")
    return tuple(dict.fromkeys(notes))
