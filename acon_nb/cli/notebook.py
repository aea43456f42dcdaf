"""`acon-nb doctor`, `notebooks`, `lab` and `report`: the workbench itself."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from acon_nb.cli.base import as_json_option, main, print_json
from acon_nb.errors import InvalidInput


@main.command()
@as_json_option
@click.option("--fresh", is_flag=True, help="Probe KVM anew instead of trusting this boot's finding.")
def doctor(as_json: bool, fresh: bool) -> None:
    """Tell what this host can do, and the command that mends what is missing."""
    from acon_nb import doctor as examination

    findings = examination.examine(fresh=fresh)
    found = examination.report(findings)
    if as_json:
        print_json(found)
    else:
        click.echo(examination.table(findings))
    if not found["ok"]:
        sys.exit(1)


@main.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
def notebooks(directory: Path) -> None:
    """Copy the notebooks to DIRECTORY; files that are there already are kept."""
    from acon_nb import notebook_files

    for path, copied in notebook_files.copy(directory):
        click.echo(f"{path}{'' if copied else ' (kept)'}")


@main.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False), default=Path("acon-notebooks"))
@click.pass_context
def lab(ctx: click.Context, directory: Path) -> None:
    """Open JupyterLab on a copy of the notebooks in DIRECTORY; further options go to JupyterLab."""
    from acon_nb import notebook_files

    notebook_files.copy(directory)
    notebook_files.exec_lab(directory, ctx.args)


@main.command()
@click.argument("notebook", type=click.Path(path_type=Path))
@click.option("-o", "output", type=click.Path(path_type=Path), required=True, help="FILE.html")
@click.option("-p", "parameters", multiple=True, nargs=2, metavar="NAME VALUE", help="A parameter of the notebook.")
def report(notebook: Path, output: Path, parameters: tuple[tuple[str, str], ...]) -> None:
    """Run NOTEBOOK by papermill, write one self-contained HTML file, and print its path and findings."""
    from acon_nb import report as reports

    if output.suffix != ".html":
        raise InvalidInput("output", output, "is no .html file", hint="such as reports/tour.html")
    lines = reports.make(notebook, output, {name: _typed(value) for name, value in parameters})
    click.echo(f"report: {output}")
    for line in lines:
        click.echo(line)


def _typed(text: str) -> Any:
    """A parameter's value: JSON where it is that (numbers, true), else text."""
    try:
        return json.loads(text)
    except ValueError:
        return text
