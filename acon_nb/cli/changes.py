"""`acon-nb bench bisect` and `bench series`: what a commit or a series of patches changes (docs/series.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from acon_nb.cli import completion
from acon_nb.cli.base import as_json_option, print_json
from acon_nb.cli.bench import bench_group
from acon_nb.progress import TextProgress

_path = click.Path(path_type=Path)


@bench_group.command("bisect")
@click.option("--tree", type=_path, required=True, help="A git tree of the kernel; it is only read.")
@click.option("--good", required=True, help="A commit that has the old number.")
@click.option("--bad", required=True, help="A later commit that has the new one.")
@click.option(
    "--metric",
    required=True,
    shell_complete=completion.metrics,
    help="Such as guest_ns_reset_to_init, executed_ns, kernel_bytes.",
)
@click.option("--limit", default="", help="A difference that does not matter: 1000, or 0.5%.  [default: none]")
@click.option(
    "--plan", default="", shell_complete=completion.plans, help="A plan whose cell is measured.  [default: one boot]"
)
@click.option("--cell", default="", help="The label of one of its cells, or a part that only one has.")
@click.option(
    "--profile",
    default="",
    shell_complete=completion.profiles,
    help="Profiles of kernel options, with commas.  [default: the cell's]",
)
@click.option("--config", type=_path, help="A .config to start from instead of tinyconfig.")
@click.option("--set", "settings", multiple=True, metavar="OPT=VAL", help="An option to set in addition.")
@click.option("--jobs", type=click.IntRange(min=1), help="Compilers at a time.  [default: one per CPU]")
@click.option("--out", type=_path, help="Folder of the rows and the state.  [default: the user cache]")
@as_json_option
def bench_bisect(jobs: int | None, as_json: bool, **fields: Any) -> None:
    """Find the commit between GOOD and BAD that changed a number: one build and one guest for each step.

    Exit status 0: found; 1: failed as named; 3: cannot tell, as the two ends are equal or what is left does not build.
    """
    from acon_nb.changes import bisection

    answer = bisection.bisect(bisection.BisectSpec(**fields), jobs=jobs, on_progress=TextProgress())
    if as_json:
        print_json(answer.values())
    else:
        click.echo(bisection.text_of(answer))


@bench_group.command("series")
@click.argument("commits", metavar="[BASE..HEAD]", default="")
@click.option("--tree", type=_path, help="A git tree of the kernel; it is only read.")
@click.option("--mbox", type=_path, help="A mailbox with the patches, as of lore.kernel.org.")
@click.option("--patches", type=_path, help="A folder of patches, as git format-patch writes them.")
@click.option("--source", default="", help="What patches apply to: debian:6.12, DIR; or give --tree and BASE.")
@click.option("--suite", default="quick", show_default=True, help="The guests: boot, quick or full (docs/series.md).")
@click.option("--each", is_flag=True, help="Judge every patch, not the series alone.")
@click.option(
    "--profile",
    default="",
    shell_complete=completion.profiles,
    help="Profiles of kernel options, with commas.  [default: the suite's]",
)
@click.option("--config", type=_path, help="A .config to start from instead of tinyconfig.")
@click.option("--set", "settings", multiple=True, metavar="OPT=VAL", help="An option to set in addition.")
@click.option("--jobs", type=click.IntRange(min=1), help="Compilers at a time.  [default: one per CPU]")
@click.option("--out", type=_path, help="Folder of the rows.  [default: the user cache]")
@click.option("--markdown", is_flag=True, help="For a pull request, in place of plain text of 72 columns.")
@as_json_option
def bench_series(jobs: int | None, markdown: bool, as_json: bool, **fields: Any) -> None:
    """Report what a series of patches changes: both ends built, the same guests run, every count compared.

    Exit status 0: done, whatever the verdict; 1: failed as named.
    """
    from acon_nb.changes import series, series_text

    if markdown and as_json:
        raise click.UsageError("--markdown cannot be combined with --json")
    report = series.judge(series.SeriesSpec(**fields), jobs=jobs, on_progress=TextProgress())
    if as_json:
        print_json(report.values())
    else:
        click.echo(series_text.markdown(report) if markdown else series_text.plain(report))
