"""Write reference values as a file for a verifier: the JSON message of Trustee's RVPS.

Why this format: the policy that Trustee ships for TDX reads mr_td, rtmr_1 and rtmr_2 by these names, a value may have
alternatives (MRTD has two, one per page order of the host), and rvps-tool accepts the file unchanged. A CoRIM, as
Veraison uses it, is CBOR that needs a key and a profile of its own; its values would be the same digests.
Source: confidential-containers/trustee, rvps/README.md, "Client Tool"; attestation-service's default policy.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from acon_nb.cache import atomic_file
from acon_nb.errors import InvalidInput
from acon_nb.tdx.eventlog import LogKind
from acon_nb.tdx.stored import Expected

_SCHEMA = Path(__file__).with_name("rvps.schema.json")


def reference_values(expected: Expected, *, only: Sequence[str] = ()) -> dict[str, list[str]]:
    """Return the known values under the names of Trustee's policy: mr_td (both page orders) and rtmr_0 to rtmr_2.

    `only` selects registers. RTMR[3] belongs to the guest and is omitted unless selected. Errors: `InvalidInput` for a
    TPM's prediction, and for a selected register that cannot be known.
    """
    if expected.kind is not LogKind.TD:
        raise InvalidInput(
            "prediction", expected.kind, "is not that of a TD", hint="use predict, not predict_reference_boot"
        )
    values: dict[str, list[str]] = {}
    if not only or "MRTD" in only:
        values["mr_td"] = sorted({value.hex() for value in expected.mrtd.values()})
    for name, value in expected.registers.items():
        if only and name not in only:
            continue
        if value is None and only:
            hint = "capture the ACPI tables (acon-nb measure acpi), or omit the register"
            raise InvalidInput("only", name, "cannot be known offline", hint=hint)
        if value is not None and (only or name != "RTMR[3]"):
            values[f"rtmr_{name[5]}"] = [value.hex()]
    return values


def message(values: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return the RVPS message with these values, checked against the schema. Errors: `InvalidInput`."""
    _check("values", values)
    payload = base64.b64encode(json.dumps(values, sort_keys=True).encode()).decode()
    envelope = {"version": "0.1.0", "type": "sample", "payload": payload}
    _check("message", envelope)
    return envelope


def write_message(path: Path, expected: Expected, *, only: Sequence[str] = ()) -> dict[str, list[str]]:
    """Write the message to a file atomically (for `rvps-tool register --path FILE`); return its values."""
    values = reference_values(expected, only=only)
    text = json.dumps(message(values), indent=1) + "\n"
    with atomic_file(path) as temporary:
        temporary.write_text(text)
    return values


def read_message(text: str) -> dict[str, list[str]]:
    """Read the values from an RVPS message. Errors: `InvalidInput` if it does not match the schema."""
    try:
        envelope = json.loads(text)
        _check("message", envelope)
        values: dict[str, list[str]] = json.loads(base64.b64decode(envelope["payload"], validate=True))
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
