"""`acon-nb bench nightly`: one night measured, compared with those before, reported."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from acon_nb.cli import completion
from acon_nb.cli.base import as_json_option, html_file, print_json
from acon_nb.cli.bench import bench_group

_history_option = click.option("--history", type=click.Path(path_type=Path), default=Path("history"), show_default=True)
_plan_option = click.option(
    "--plan",
    default="quick,tour",
    show_default=True,
    shell_complete=completion.plans,
    help="Built-in plans or TOML files, with commas.",
)
_accepted_option = click.option(
    "--accepted", default="", help="A night or a date: the level that it measured is held from then on."
)


@bench_group.command("nightly")
@_history_option
@_plan_option
@click.option("--night", default="", help="This night's name, a date first.  [default: now, UTC]")
@click.option("--nights", type=int, default=30, show_default=True, help="Nights that are looked at.")
@click.option("--limit-instructions", type=float, default=0.002, show_default=True, help="Share that may be lost.")
@click.option("--limit-wall", type=float, default=0.05, show_default=True, help="Share that may be lost.")
@click.option("--limit-memory", type=float, default=0.005, show_default=True, help="Share that may be lost.")
@_accepted_option
@click.option("--tree", type=click.Path(path_type=Path), help="A git tree of the kernel: regressions are bisected.")
@click.option("--commit", default="HEAD", show_default=True, help="What of --tree is built: a branch, tag or commit.")
@click.option(
    "--markdown", type=click.Path(path_type=Path), help="Append the verdict to a file in Markdown, for a job's page."
)
@click.option("--compare", nargs=2, metavar="A B", help="Compare two nights of the history instead of measuring one.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path("reports/nightly.html"), show_default=True
)
@as_json_option
def bench_nightly(
    history: Path,
    plan: str,
    night: str,
    nights: int,
    limit_instructions: float,
    limit_wall: float,
    limit_memory: float,
    accepted: str,
    tree: Path | None,
    commit: str,
    markdown: Path | None,
    compare: tuple[str, str] | None,
    output: Path,
    as_json: bool,
) -> None:
    """Measure a night, compare it with the nights before, write a report; status 1 on a regression (docs/nightly.md).

    The report is OUTPUT, the verdict for machines is next to it as .json. Both, and the history, are written whatever
    the verdict is.
    """
    from acon_nb import reports
    from acon_nb.analysis import nightly
    from acon_nb.analysis.history import Limits
    from acon_nb.changes import dashboard
    from acon_nb.changes import nights as changes_of_nights
    from acon_nb.jupyter import notebooks

    html_file(output, hint="such as reports/nightly.html")
    if compare:
        _compare(history, plan, compare, output, as_json=as_json)
        return
    limits = Limits(instructions=limit_instructions, wall=limit_wall, memory=limit_memory)
    spec = nightly.NightlySpec(
        history=history,
        plan=plan,
        night=night,
        nights=nights,
        limits=limits,
        accepted=accepted,
        tree=tree,
        commit=commit,
    )
    changes_of_nights.plans_of(spec)  # an invalid plan or tree is refused now, not by a notebook
    summary = output.with_suffix(".json")
    parameters = {
        "history": str(spec.history),
        "plan": spec.plan,
        "night": spec.night,
        "nights": spec.nights,
        **{f"limit_{name}": value for name, value in dataclasses.asdict(limits).items()},
        "accepted": spec.accepted,
        "tree": "" if spec.tree is None else str(spec.tree.resolve()),
        "commit": spec.commit,
        "summary": str(summary),
    }
    reports.make(notebooks.folder() / "90_nightly.ipynb", output, parameters)
    data = nightly.read(summary)
    board = dashboard.of(history, plan, nights=nights, limits=limits, accepted=accepted, reports=output.parent)
    pages = dashboard.write(board, output.with_name("nights.html"))
    if markdown is not None:
        with markdown.open("a") as file:  # a job's page takes what several steps write
            file.write(data["markdown"])
    if as_json:
        print_json(data)
    else:
        for line in data["sentences"]:
            click.echo(line)
        for one in data["bisections"]:
            click.echo(one["text"])
        click.echo(f"report: {output}, all nights: {pages}, for machines: {summary}, history: {history}")
    if not data["passed"]:
        raise SystemExit(1)


@bench_group.command("nights")
@_history_option
@_plan_option
@click.option("--nights", type=int, default=30, show_default=True, help="Nights that the last one is judged by.")
@_accepted_option
@click.option(
    "--reports", type=click.Path(path_type=Path), help="Folder of reports to link.  [default: that of the page]"
)
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("reports/nights.html"), show_default=True)
def bench_nights(history: Path, plan: str, nights: int, accepted: str, reports: Path | None, output: Path) -> None:
    """Write a page over all nights: trends, verdicts, any two compared, links to reports and profiles."""
    from acon_nb.changes import dashboard

    html_file(output, hint="such as reports/nights.html")
    board = dashboard.of(history, plan, nights=nights, accepted=accepted, reports=reports or output.parent)
    dashboard.write(board, output)
    click.echo(f"{board.last.sentences()[0]}\npage: {output}, {len(board.nights)} nights")


def _compare(history: Path, plan: str, nights: tuple[str, str], output: Path, *, as_json: bool) -> None:
    from acon_nb.changes import night_pages

    compared = night_pages.compare(history, plan, *nights)
    path = night_pages.write(compared, output)
    if as_json:
        print_json(compared.values())
        return
    click.echo(compared.text())
    click.echo(f"page: {path}")
