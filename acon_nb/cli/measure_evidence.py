"""`acon-nb measure replay`, `compare` and `verify`: what was measured."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from acon_nb.cli.base import as_json_option, print_json
from acon_nb.cli.measure_base import (
    FILE,
    STATUS,
    allow_debug_option,
    comparison_json,
    identity_json,
    measure_group,
    names,
    only_option,
    print_comparison,
    print_identity,
    print_notes,
)

_VERIFIED = {"verified": 0, "refuted": 1, "cannot_know": 3}
_kind_option = click.option(
    "--kind",
    type=click.Choice(["ccel", "tcg2"]),
    help="Whose logs these are: a TD's (CCEL) or a TPM's; default: detected.",
)


def _expectation_options(command: Callable[..., None]) -> Callable[..., None]:
    """What is expected besides a file."""
    for option in (
        allow_debug_option,
        click.option(
            "--value",
            "values",
            multiple=True,
            metavar="NAME=HEX",
            help="An expected value: MRTD, RTMR[3], ATTRIBUTES, XFAM, MRCONFIGID, MROWNER, MROWNERCONFIG, REPORTDATA.",
        ),
        click.option("--application-log", type=FILE, help="The log of what extended RTMR[3]: AAEL, dstack's, acond's."),
    ):
        command = option(command)
    return command


@measure_group.command("replay")
@click.argument("file", type=FILE)
@_kind_option
@allow_debug_option
@as_json_option
def measure_replay(file: Path, kind: str | None, allow_debug: bool, as_json: bool) -> None:
    """Replay an event log: print each event and the final registers; for a quote, its registers and attributes.

    FILE may be any form that is published: a log (binary, JSON), an application's log, a quote (binary, hexadecimal,
    base64, protobuf), evidence in JSON, a folder of configfs-tsm. The signature of a quote is not verified here.
    """
    from acon_nb import tdx
    from acon_nb.tdx.compare import notes_of

    side = tdx.read_side(file, _kind(kind))
    registers = side.registers() if isinstance(side, tdx.EventLog) else side.registers
    identity = side if isinstance(side, tdx.TdIdentity) else None
    log = side if isinstance(side, tdx.EventLog) else identity.log if identity is not None else None
    rows = [] if log is None else _event_rows(log)
    if as_json:
        print_json(
            {
                "form": _form(side),
                "registers": {name: value.hex() if value else None for name, value in registers.items()},
                "attributes": identity_json(identity),
                "events": rows,
                "notes": list(notes_of(side)),
            }
        )
    else:
        click.echo(f"found: {_form(side)}")
        for row in rows:
            digest, data = row["sha384"][:16], {"bound": "=", "unbound": " ", "forged": "!"}[row["data"]]
            click.echo(f"{row['number']:4} {row['register']:8} {digest} {data} {row['type']}  {row['label']}")
        for name, value in registers.items():
            click.echo(f"{name:8} {value.hex() if value else 'cannot be known offline'}")
        print_identity(identity)
        print_notes(notes_of(side))
    if identity is not None and identity.debug and not allow_debug:
        click.echo("this is a debug TD: its host can read it and change what it measures", err=True)
        sys.exit(STATUS["different"])


@measure_group.command("compare")
@click.argument("expected", type=FILE)
@click.argument("measured", type=FILE)
@only_option
@_kind_option
@_expectation_options
@as_json_option
def measure_compare(
    expected: Path,
    measured: Path,
    only: str,
    kind: str | None,
    values: tuple[str, ...],
    application_log: Path | None,
    allow_debug: bool,
    as_json: bool,
) -> None:
    """Compare EXPECTED with MEASURED, event by event, and name the first difference.

    Each is a stored prediction (measure predict --json), or anything that `measure replay` reads. Digests decide.
    RTMR[3] is compared only with --application-log, an expected log, or --value. Signatures are not verified here.
    """
    from acon_nb import tdx

    first, second = tdx.read_side(expected, _kind(kind)), tdx.read_side(measured, _kind(kind))
    comparison = tdx.compare(
        first,
        second,
        only=names(only, None),
        values=tdx.parse_values(values),
        application=None if application_log is None else tdx.read_application_log(application_log),
        allow_debug=allow_debug,
    )
    print_comparison(comparison, as_json)
    sys.exit(STATUS[comparison.verdict.value])


@measure_group.command("verify")
@click.argument("quote", type=FILE)
@click.option("--log", "log_file", type=FILE, help="The event log; default: the one that came with the quote.")
@click.option("--expected", type=FILE, help="A stored prediction, or other evidence, with which it must agree.")
@click.option("--collateral", type=FILE, help="A folder with Intel's TCB info, QE identity, CRLs and certificates.")
@_expectation_options
@as_json_option
def measure_verify(
    quote: Path,
    log_file: Path | None,
    expected: Path | None,
    collateral: Path | None,
    values: tuple[str, ...],
    application_log: Path | None,
    allow_debug: bool,
    as_json: bool,
) -> None:
    """Verify QUOTE: its signatures up to Intel's root, the TCB, the event log, attributes, and what was expected.

    QUOTE may be evidence in any form that `measure replay` reads. Without --collateral the status of the platform's TCB
    is unknown, and said to be. Exit status: 0 verified, 1 refuted, 3 cannot know.
    """
    from acon_nb import tdx
    from acon_nb.tdx.verify import collateral as collaterals
    from acon_nb.tdx.verify import verdict

    wanted = verdict.Wanted(
        log=None if log_file is None else tdx.read_any_log(log_file),
        expected=None if expected is None else tdx.read_side(expected),
        values=tdx.parse_values(values),
        application=None if application_log is None else tdx.read_application_log(application_log),
        allow_debug=allow_debug,
    )
    trusted = None if collateral is None else collaterals.read_collateral(collateral)
    result = verdict.verify(tdx.read_quote(quote), wanted, collateral=trusted)
    if as_json:
        print_json(_verification_json(result))
    else:
        _print_verification(result)
    sys.exit(_VERIFIED[result.verdict.value])


def _print_verification(result: Any) -> None:
    click.echo(result.headline)
    click.echo(
        f"signature: {'verified' if result.signature.ok else result.signature.text}; root: {result.signature.root}"
    )
    click.echo(f"TCB status: {result.tcb.status}" + (f": {result.tcb.text}" if result.tcb.text else ""))
    for reason in result.reasons[1:]:
        click.echo(f"also: {reason}")
    for name, value in result.identity.registers.items():
        click.echo(f"{name:13} {value.hex()}")
    print_identity(result.identity)
    for comparison in result.comparisons:
        for text in comparison.explanations:
            click.echo(f"explained: {text}")
    print_notes(result.notes)


def _verification_json(result: Any) -> dict[str, Any]:
    rows = [comparison_json(each) for each in result.comparisons]
    return {
        "verdict": result.verdict.value,
        "headline": result.headline,
        "reasons": list(result.reasons),
        "signature": {"ok": result.signature.ok, "root": result.signature.root, "text": result.signature.text},
        "tcb_status": result.tcb.status,
        "tcb_text": result.tcb.text,
        "advisories": list(result.tcb.advisories),
        "attributes": identity_json(result.identity),
        "registers": {name: value.hex() for name, value in result.identity.registers.items()},
        "log": None if result.log is None else result.log.verdict.value,
        "expected": None if result.expected is None else result.expected.verdict.value,
        "differences": [row for each in rows for row in each["differences"]],
        "explanations": [text for each in rows for text in each["explanations"]],
        "notes": list(result.notes),
    }


def _kind(kind: str | None) -> Any:
    from acon_nb.tdx import LogKind

    return None if kind is None else LogKind(kind.upper())


def _form(side: Any) -> str:
    from acon_nb.tdx import EventLog

    if isinstance(side, EventLog):
        return f"{side.form}, of a {'TD' if side.kind.value == 'CCEL' else 'TPM'} ({side.kind_known_by})"
    return str(getattr(side, "form", "stored prediction"))


def _event_rows(log: Any) -> list[dict[str, Any]]:
    from acon_nb.tdx.binding import binding_of
    from acon_nb.tdx.describe import label_of

    return [
        {
            "number": event.number,
            "register": event.register,
            "type": event.type_name,
            "label": label_of(event),
            "sha384": event.digest.hex(),
            "data_bytes": len(event.data),
            "data": binding_of(event).value,
        }
        for event in log.events
    ]
