"""`acon-nb doctor`, `notebooks`, `lab`, `tour` and `report`: checks the host, and copies and runs notebooks."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from acon_nb.cli.base import as_json_option, html_file, main, print_json


@main.command()
@as_json_option
@click.option("--fresh", is_flag=True, help="Probe KVM again instead of using the result cached since boot.")
def doctor(as_json: bool, fresh: bool) -> None:
    """Report what this host can do, what is missing, and the command that fixes it."""
    from acon_nb import doctor as checks

    findings = checks.examine(fresh=fresh)
    result = checks.report(findings)
    if as_json:
        print_json(result)
    else:
        click.echo(checks.table(findings))
    if not result["ok"]:
        sys.exit(1)


@main.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
def notebooks(directory: Path) -> None:
    """Copy the notebooks to DIRECTORY; existing files are kept."""
    from acon_nb.jupyter import notebooks as notebook_files

    for path, copied in notebook_files.copy(directory):
        click.echo(f"{path}{'' if copied else ' (kept)'}")


@main.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False), default=Path("acon-notebooks"))
@click.pass_context
def lab(ctx: click.Context, directory: Path) -> None:
    """Open JupyterLab on a copy of the notebooks in DIRECTORY; further options are passed to JupyterLab."""
    from acon_nb.jupyter import notebooks as notebook_files

    notebook_files.copy(directory)
    argv = notebook_files.lab_argv(directory, ctx.args, root=os.geteuid() == 0)
    if "--allow-root" in argv and "--allow-root" not in ctx.args:
        click.echo(f"JupyterLab runs as root and is reachable on {notebook_files.LOOPBACK} only", err=True)
    notebook_files.exec_lab(argv)


_OUTPUT = "-o reports/tour.html"
_parameters_option = click.option(
    "-p", "parameters", multiple=True, nargs=2, metavar="NAME VALUE", help="A parameter of the notebook."
)


@main.command()
@click.option(
    "-o",
    "output",
    type=click.Path(path_type=Path),
    default=Path("reports/tour.html"),
    help="FILE.html  [default: reports/tour.html]",
)
@_parameters_option
def tour(output: Path, parameters: tuple[tuple[str, str], ...]) -> None:
    """Build, boot and measure: the notebook 00_tour run into a report, some ten minutes the first time."""
    _report("tour", output, parameters)


@main.command()
@click.argument("notebook", required=False)
@click.option("-o", "output", type=click.Path(path_type=Path), help="FILE.html  [default with --repeat: next to that]")
@_parameters_option
@click.option("--repeat", "earlier", type=click.Path(path_type=Path), help="Make this report again, as it says.")
def report(
    notebook: str | None, output: Path | None, parameters: tuple[tuple[str, str], ...], earlier: Path | None
) -> None:
    """Run NOTEBOOK with papermill, write one self-contained HTML file, and print its path and findings.

    NOTEBOOK is a path, or the name of one that comes with the package, such as tour.
    """
    from acon_nb import reports

    if (notebook is None) == (earlier is None) or (earlier is not None and parameters):
        raise click.UsageError("give NOTEBOOK with -p, or --repeat FILE.html")
    if notebook is not None:
        _report(notebook, output, parameters)
    elif earlier is not None:
        output = html_file(output or earlier.parent / f"{earlier.stem}-again.html", hint=_OUTPUT)
        lines, differences = reports.repeat(earlier, output)
        _print_report(output, [*lines, *(f"differs: {text}" for text in differences)])


def _report(notebook: str, output: Path | None, parameters: tuple[tuple[str, str], ...]) -> None:
    from acon_nb import reports
    from acon_nb.jupyter import notebooks as notebook_files

    path = Path(notebook)
    output = html_file(output, hint=_OUTPUT)
    lines = reports.make(
        path if path.is_file() else notebook_files.named(notebook),
        output,
        {name: _typed(value) for name, value in parameters},
    )
    _print_report(output, lines)


def _print_report(output: Path, lines: list[str]) -> None:
    click.echo(f"report: {output}")
    for line in lines:
        click.echo(line)


def _typed(text: str) -> Any:
    """Parse a parameter's value as JSON (numbers, true) if possible, else take it as text."""
    try:
        return json.loads(text)
    except ValueError:
        return text
