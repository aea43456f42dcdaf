"""Shared parts of all commands: the group that converts errors into messages and exit statuses, and --json."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import acon_nb
from acon_nb.errors import AconError, InvalidInput, NoSpace

if TYPE_CHECKING:
    import pandas as pd

INTERRUPTED = 128 + signal.SIGINT
_DISK = (errno.EIO, errno.ESTALE, errno.EREMOTEIO, errno.ENXIO, errno.ENODEV, errno.ETIMEDOUT, errno.EUCLEAN)
_SENTENCE = 1000  # characters of a command's first sentence


def open_missing_descriptors() -> None:
    """Open what cron and services may have closed of standard input, output and error: on /dev/null.

    Otherwise the next file that is opened gets the number, and is read or written by whatever means the terminal.
    """
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if mode == "r" else os.O_WRONLY)  # the lowest free number: fd
        if getattr(sys, name) is None:
            setattr(sys, name, open(fd, mode, closefd=False))  # noqa: SIM115 # for the life of the process


open_missing_descriptors()


class WholeHelp(click.Group):
    """Lists its commands with whole sentences: click cuts them at the width of the terminal."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [
            (name, one.get_short_help_str(_SENTENCE)) for name, one in commands if one is not None and not one.hidden
        ]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


WholeHelp.group_class = WholeHelp


class _Group(WholeHelp):
    """Prints errors of the package without a traceback and ends with their exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except AconError as error:
            click.echo(f"acon-nb: {error}", err=True)
            ctx.exit(error.exit_status)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                click.echo(f"acon-nb: {NoSpace(Path(error.filename or '.'), 'writing stopped')}", err=True)
                ctx.exit(1)
            if error.errno in _DISK:
                click.echo(f"acon-nb: reading or writing a file failed: {error.strerror}", err=True)
                click.echo("  hint: its disk or file system reports this: see dmesg", err=True)
                ctx.exit(1)
            if error.errno == errno.EPIPE or not isinstance(error.filename, str | bytes):
                raise  # click handles a closed pipe; anything else is a bug
            click.echo(f"acon-nb: {_short(os.fsdecode(error.filename))}: {error.strerror}", err=True)
            ctx.exit(1)
        except KeyboardInterrupt:
            click.echo("acon-nb: interrupted; finished parts are kept", err=True)
            ctx.exit(INTERRUPTED)


@click.group(cls=_Group)
@click.version_option(acon_nb.__version__)
@click.option("-v", "--verbose", is_flag=True, help="Log more to standard error.")
def main(verbose: bool) -> None:
    """Small Linux guests of confidential VMs, and what memory compression costs them."""
    logging.basicConfig(level=logging.DEBUG if verbose else logging.WARNING, format="%(levelname)s: %(message)s")


_FOLDER = click.Path(path_type=Path)
_RESULTS = Path("results")
out_option = click.option(
    "--out", type=_FOLDER, default=_RESULTS, show_default=True, help="Folder that the rows are written into."
)
results_option = click.option(
    "--results",
    "--out",
    "folder",
    type=_FOLDER,
    default=_RESULTS,
    show_default=True,
    help="Folder that the rows are read from; --out is its earlier name.",
)
jobs_option = click.option(
    "--jobs",
    "--parallel",
    "jobs",
    type=int,
    help="Compilers, and guests of the instruction clock, at a time; --parallel is its earlier name.  [default: one "
    "per CPU]",
)
as_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def _short(name: str) -> str:
    """Quote a file's name on one line, truncated if it is longer than any real path."""
    return repr(name if len(name) <= 200 else name[:200] + "...")


def warn(lines: Iterable[str]) -> None:
    """Print warnings on standard error."""
    for line in lines:
        click.echo(f"warning: {line}", err=True)


def rows_of(folder: Path, kind: str, study: str | None) -> pd.DataFrame:
    """Load the rows of a study (None: of all), and name damaged files. Errors: `InvalidInput` if there are none."""
    from acon_nb import results

    rows = results.load(folder, kind, study)
    for name in rows.attrs["set_aside"]:
        click.echo(f"set aside, damaged: {name}", err=True)
    if rows.empty and study is None:
        raise InvalidInput("results", folder, "has no rows", hint="run a study with --out first: acon-nb bench study")
    if rows.empty:
        hint = f"one of: {', '.join(results.Store(folder).studies(kind)) or 'none yet'}"
        raise InvalidInput("study", study, f"has no rows in {folder}", hint=hint)
    return rows


def html_file(output: Path | None, *, hint: str) -> Path:
    """Return the path of a page to write. Errors: `InvalidInput` for none, and for a name without .html."""
    if output is None or output.suffix != ".html":
        raise InvalidInput("output", output, "is not an .html file", hint=hint)
    return output


def print_json(value: Any) -> None:
    """Print one JSON object on standard output."""
    click.echo(json.dumps(value, default=str))
