"""Write reference values as a file for a verifier: the JSON message of Trustee's RVPS.

Why this format: the policy that Trustee ships for TDX reads these names (`rvps.toml` has its rules), a value may have
alternatives where the policy looks for one in a list (MRTD has two, one per page order of the host), and rvps-tool
accepts the file unchanged. Other verifiers take a CoRIM: see `corim`. Source: confidential-containers/trustee,
rvps/README.md, "Client Tool"; attestation-service/src/ear_token/ear_default_policy_cpu.rego.
"""

from __future__ import annotations

import base64
import json
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from acon_nb.cache import atomic_file
from acon_nb.errors import InvalidInput
from acon_nb.tdx.eventlog import LogKind
from acon_nb.tdx.stored import Expected

_SCHEMA = Path(__file__).with_name("rvps.schema.json")
_RULES = Path(__file__).with_name("rvps.toml")
_EVENTS = {("RTMR[1]", "kernel"): "tdvfkernel", ("RTMR[2]", "command line"): "tdvfkernelparams"}
Values = dict[str, list[str] | str]


def accepted_values(
    expected: Expected, *, only: Sequence[str] = (), also: Sequence[Expected] = ()
) -> dict[str, tuple[bytes, ...]]:
    """Return the known values of each RTMR, that of `expected` first, then those of other predictions.

    `only` selects registers; RTMR[3] belongs to the guest and is omitted unless selected. Errors: `InvalidInput` for a
    TPM's prediction, and for a selected register that cannot be known.
    """
    if expected.kind is not LogKind.TD:
        hint = "use predict, not predict_reference_boot"
        raise InvalidInput("prediction", expected.kind, "is not that of a TD", hint=hint)
    accepted = {}
    for name, value in expected.registers.items():
        if only and name not in only:
            continue
        if value is None and only:
            hint = "capture the hardware (acon-nb measure capture), or omit the register"
            raise InvalidInput("only", name, "cannot be known offline", hint=hint)
        if value is not None and (only or name != "RTMR[3]"):
            others = (other.registers.get(name) for other in also)
            accepted[name] = tuple(dict.fromkeys([value, *filter(None, others)]))
    return accepted


def reference_values(
    expected: Expected, *, only: Sequence[str] = (), xfam: Sequence[bytes] = (), also: Sequence[Expected] = ()
) -> Values:
    """Return the known values under the names of Trustee's policy.

    They are mr_td (both page orders), rtmr_0 to rtmr_2, tdvfkernel and tdvfkernelparams (the digests of the kernel and
    its command line), and xfam, which depends on the processor and has to be given. `only` selects registers; `also`
    are other predictions whose values are accepted too. RTMR[3] belongs to the guest and is omitted unless selected.
    An event's digest that differs in `also` is omitted, since the policy takes one. Errors: `InvalidInput` for a TPM's
    prediction, and for a selected register that cannot be known.
    """
    accepted = accepted_values(expected, only=only, also=also)
    values: Values = {}
    if not only or "MRTD" in only:
        values["mr_td"] = sorted({value.hex() for value in expected.mrtd.values()})
    values |= {f"rtmr_{name[5]}": [value.hex() for value in each] for name, each in accepted.items()}
    elsewhere = {(event.register, event.label, event.digest) for other in also for event in other.events}
    for event in expected.events:
        name = _EVENTS.get((event.register, event.label), "")
        same = not also or (event.register, event.label, event.digest) in elsewhere
        if name and event.digest is not None and same and (not only or event.register in only):
            values[name] = event.digest.hex()
    if xfam:
        values["xfam"] = sorted({value.hex() for value in xfam})
    return values


def unmet(values: Values) -> list[str]:
    """Return the names that Trustee's policy reads for TDX and that have no value here."""
    return [name for name in rules() if name not in values]


@cache
def rules() -> Mapping[str, Mapping[str, str]]:
    """Return the rules of Trustee's policy for TDX by the name of the value that each reads."""
    facts: Mapping[str, Mapping[str, str]] = tomllib.loads(_RULES.read_text())["value"]
    return facts


def message(values: Values) -> dict[str, Any]:
    """Return the RVPS message with these values, checked against the schema. Errors: `InvalidInput`."""
    _check("values", values)
    payload = base64.b64encode(json.dumps(values, sort_keys=True).encode()).decode()
    envelope = {"version": "0.1.0", "type": "sample", "payload": payload}
    _check("message", envelope)
    return envelope


def write_message(
    path: Path,
    expected: Expected,
    *,
    only: Sequence[str] = (),
    xfam: Sequence[bytes] = (),
    also: Sequence[Expected] = (),
) -> Values:
    """Write the message to a file atomically (for `rvps-tool register --path FILE`); return its values."""
    values = reference_values(expected, only=only, xfam=xfam, also=also)
    text = json.dumps(message(values), indent=1) + "\n"
    with atomic_file(path) as temporary:
        temporary.write_text(text)
    return values


def read_message(text: str) -> Values:
    """Read the values from an RVPS message. Errors: `InvalidInput` if it does not match the schema."""
    try:
        envelope = json.loads(text)
        _check("message", envelope)
        values: Values = json.loads(base64.b64decode(envelope["payload"], validate=True))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(
            "message", text[:40], f"is not an RVPS message: {error}", hint="see docs/measured-boot.md"
        ) from error
    _check("values", values)
    return values


@cache
def _schema() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(_SCHEMA.read_text())
    return schema


def _check(part: str, value: Any) -> None:
    import jsonschema

    schema = _schema()["$defs"][part]
    error = next(jsonschema.Draft202012Validator(schema).iter_errors(value), None)
    if error is not None:
        hint = "see acon_nb/tdx/rvps.schema.json"
        raise InvalidInput(part, error.json_path, error.message[:120], hint=hint)
