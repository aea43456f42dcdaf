"""What every command shares: the group that turns errors into their text and exit status, and --json."""

from __future__ import annotations

import errno
import json
import logging
import os
from pathlib import Path
from typing import Any

import click

import acon_nb
from acon_nb.errors import AconError, NoSpace


class _Group(click.Group):
    """Errors of the package become their text and their exit status; no traceback."""

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
            if error.errno == errno.EPIPE or not isinstance(error.filename, str | bytes):
                raise  # click ends a closed pipe; the rest is a bug
            click.echo(f"acon-nb: {_short(os.fsdecode(error.filename))}: {error.strerror}", err=True)
            ctx.exit(1)
        except KeyboardInterrupt:
            click.echo("acon-nb: interrupted; finished parts are kept", err=True)
            ctx.exit(1)


@click.group(cls=_Group)
@click.version_option(acon_nb.__version__)
@click.option("-v", "--verbose", is_flag=True, help="Say more on standard error.")
def main(verbose: bool) -> None:
    """Small Linux guests of confidential VMs, and what memory compression costs them."""
    logging.basicConfig(level=logging.DEBUG if verbose else logging.WARNING, format="%(levelname)s: %(message)s")


as_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def _short(name: str) -> str:
    """A file's name on one line, cut where it is longer than any path."""
    return repr(name if len(name) <= 200 else name[:200] + "...")


def print_json(value: Any) -> None:
    """Print one JSON object on standard output."""
    click.echo(json.dumps(value, default=str))
