"""The text logs of applications that extend RTMR[3]: Trustee's attestation agent (AAEL) and the guide's acond.

Both write "INIT sha384/VALUE" first, VALUE being the register's before, then a line for each event: a domain, an
operation, and what else belongs to it. Each line is measured, the first too, as the SHA-384 of its text without the
line's end. Source: guest-components, attestation-agent, eventlog; intel/acon, acond, container and report.
"""

from __future__ import annotations

import hashlib
import re

from acon_nb.errors import InvalidInput
from acon_nb.tdx.eventlog import AAEL_LINE, APPLICATION, ZERO, EventLog, LoggedEvent, LogKind

_INIT = re.compile(r"INIT (sha\d+)/([0-9a-fA-F]*)")
_LINES = 100_000
_ACOND = "github.com/intel/ACON "


def is_text_log(text: str) -> bool:
    """Whether a text starts like a log of an application."""
    return text.startswith("INIT ")


def parse_text_log(text: str, *, source: str) -> EventLog:
    """Parse the log of an application. Errors: `InvalidInput` that names the line."""
    lines = text.rstrip("\n").split("\n")
    if len(lines) > _LINES:
        raise InvalidInput("log", source, f"has more than {_LINES} lines", hint="give only the application's log")
    first = _INIT.fullmatch(lines[0].rstrip("\r"))
    hint = "its first line reads INIT sha384/ and 96 digits; a TD's registers take SHA-384 alone"
    if first is None or first[1] != "sha384" or len(first[2]) != 2 * len(ZERO):
        raise InvalidInput("log", source, "does not start with the state of an RTMR", hint=hint)
    state = bytes.fromhex(first[2])
    events = []
    for number, line in enumerate(line.rstrip("\r") for line in lines):
        if number and (len(line.split(" ", 2)) < 2 or line.startswith("INIT ")):
            reason = f"has no domain and operation in line {number + 1}"
            raise InvalidInput("log", source, reason, hint="a line reads: DOMAIN OPERATION CONTENT")
        data = line.encode(errors="surrogateescape")
        digest = hashlib.sha384(data).digest()
        events.append(LoggedEvent(number=number, register=APPLICATION, event_type=AAEL_LINE, digest=digest, data=data))
    writer = "the guide's acond" if any(line.startswith(_ACOND) for line in lines) else "Trustee's attestation agent"
    before = () if state == ZERO else (f"{APPLICATION} was {state.hex()} before this log: what led there is not in it",)
    return EventLog(
        kind=LogKind.TD,
        events=tuple(events),
        size_bytes=len(text),
        notes=before,
        form=f"application log of {writer} (text)",
        kind_known_by="its first line",
        initial={} if state == ZERO else {APPLICATION: state},
    )
