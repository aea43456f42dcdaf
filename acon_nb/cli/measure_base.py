"""Shared parts of the `measure` commands: the group with its exit statuses, names of registers, printing."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from acon_nb.cli.base import WholeHelp, main
from acon_nb.errors import AconError, InvalidInput
from acon_nb.progress import TextProgress, silent

FILE = click.Path(path_type=Path)
STATUS = {"equal": 0, "different": 1, "cannot_know": 3, "extended_without_log": 3}
USAGE, CANNOT_KNOW, FAILED = 2, 3, 4
# The fields of `InvalidInput` that name a file's content and not an option.
_FILES = {"file", "log", "quote", "prediction", "table", "kernel", "firmware", "initrd", "acpi", "pasted", "message"}
_FILES |= {"VMLINUZ", "RD", "BIOS", "shim", "capture", "collateral", "uki", "disk", "igvm", "certificate", "corim_key"}


class MeasureGroup(WholeHelp):
    """Ends with one exit status for each kind of result, and without a traceback for any input."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command, and turn its errors into a message and an exit status."""
        try:
            return super().invoke(ctx)
        except AconError as error:
            click.echo(f"acon-nb: {error}", err=True)
            ctx.exit(status_of(error))
        except OSError as error:
            if error.errno == errno.EPIPE or not isinstance(error.filename, str | bytes):
                raise  # click handles a closed pipe; anything else is a bug
            click.echo(f"acon-nb: {str(error.filename)[:200]!r}: {error.strerror}", err=True)
            ctx.exit(FAILED)


def status_of(error: AconError) -> int:
    """Return the exit status of an error: 2 for wrong usage, 4 for a file or a tool, or the error's own."""
    if isinstance(error, InvalidInput):
        return FAILED if error.field in _FILES else USAGE
    return FAILED if error.exit_status == AconError.exit_status else error.exit_status


@main.group("measure", cls=MeasureGroup)
def measure_group() -> None:
    """Measured boot: MRTD and RTMRs before the boot, event logs and quotes after it.

    \b
    Exit status: 0 equal or verified, 1 different or refuted, 2 wrong usage, 3 cannot know,
    4 a tool or a file failed, 5 will not boot
    """


only_option = click.option(
    "--only", default="", metavar="NAMES", help="The registers to consider: mrtd,rtmr1,rtmr2 or pcr4,..."
)
allow_debug_option = click.option("--allow-debug", is_flag=True, help="Accept a debug TD, which proves nothing.")


def names(text: str, known: list[str] | None) -> list[str]:
    """Parse register names as people write them: rtmr1, RTMR[1], mrtd. Errors: `click.UsageError`."""
    words = []
    for word in filter(None, (part.strip() for part in text.split(","))):
        match = re.fullmatch(r"(mrtd)|(rtmr|pcr)\[?(\d{1,2})\]?", word, re.IGNORECASE)
        name = "" if match is None else match[1] or f"{match[2]}[{match[3]}]"
        if not name or (known is not None and name.upper() not in known):
            examples = ", ".join(known or ["rtmr1"])
            raise click.UsageError(f"--only: {word!r} is not a register here; valid ones: {examples}")
        words.append(name.upper())
    return words


def progress() -> Any:
    """Progress for a person who waits; none for a log, where only the result matters."""
    return TextProgress() if sys.stderr.isatty() else silent


def print_comparison(comparison: Any, as_json: bool) -> None:
    """Print a comparison as JSON, or for a person."""
    if as_json:
        from acon_nb.cli.base import print_json

        print_json(comparison_json(comparison))
        return
    click.echo(comparison.headline)
    for row in comparison.registers:
        click.echo(f"  {row.register}: {row.verdict.text}" + (f": {row.text}" if row.text != row.verdict.text else ""))
    for pair in comparison.differences:
        click.echo(f"  {pair.register}, event {pair.number}: {pair.text}")
    for text in comparison.explanations:
        click.echo(f"explained: {text}")
    print_identity(comparison.identity)
    print_notes(comparison.notes)


def comparison_json(comparison: Any) -> dict[str, Any]:
    """Return a comparison as JSON values."""
    differences = [_pair(row) for row in comparison.registers if row.verdict.value == "different"]
    return {
        "verdict": comparison.verdict.value,
        "equal": comparison.equal,
        "headline": comparison.headline,
        "registers": [_pair(item) for item in comparison.registers],
        "events": [_pair(item) for item in comparison.events],
        "differences": [*differences, *(_pair(item) for item in comparison.differences)],
        "explanations": list(comparison.explanations),
        "attributes": identity_json(comparison.identity),
        "notes": list(comparison.notes),
    }


def identity_json(identity: Any) -> dict[str, Any] | None:
    """Return what a TD was created with, as JSON values."""
    if identity is None:
        return None
    properties = {name.lower(): value.hex() for name, value in identity.properties.items()}
    return {"debug": identity.debug, "names": list(identity.attribute_names), **properties}


def print_identity(identity: Any) -> None:
    """Print what a TD was created with."""
    if identity is None:
        return
    for name, value in identity.properties.items():
        meaning = f"  ({', '.join(identity.attribute_names) or 'none'})" if name == "ATTRIBUTES" else ""
        click.echo(f"{name:13} {value.hex()}{meaning}")


def print_notes(notes: Sequence[str]) -> None:
    """Print notes on standard error."""
    for note in notes:
        click.echo(f"note: {note}", err=True)


def _pair(item: Any) -> dict[str, Any]:
    values = {name: value.hex() if isinstance(value, bytes) else value for name, value in asdict(item).items()}
    return {**values, "verdict": item.verdict.value}
