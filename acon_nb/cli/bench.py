"""`acon-nb bench`: run studies of any kind, and analyse their rows."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from acon_nb.cli import completion
from acon_nb.cli.base import as_json_option, jobs_option, main, out_option, print_json, results_option, rows_of
from acon_nb.errors import InvalidInput
from acon_nb.progress import TextProgress

if TYPE_CHECKING:
    import pandas as pd

    from acon_nb.study.plan import Plan
    from acon_nb.study.runner import Study


@main.group("bench")
def bench_group() -> None:
    """Measure guests."""


@bench_group.command("study")
@click.argument("plan_name", metavar="PLAN", shell_complete=completion.plans)
@out_option
@click.option("--runs", type=int, help="Runs of each cell, in place of the plan's.")
@click.option("--again", is_flag=True, help="Measure again what an earlier run of the plan has measured.")
@jobs_option
@click.option("--dry-run", is_flag=True, help="List the cells and exit.")
@as_json_option
def bench_study(
    plan_name: str,
    out: Path,
    runs: int | None,
    again: bool,
    jobs: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run a plan: a TOML file, or a built-in plan by its name; a stopped one resumes (docs/study.md)."""
    import dataclasses

    from acon_nb.study import plan as plans
    from acon_nb.study.kinds import study_of

    plan = plans.load(plan_name)
    if runs is not None:
        plan = dataclasses.replace(plan, runs=runs)
    study = study_of(plan, out, session=uuid.uuid4().hex if again else "", jobs=jobs, parallel=jobs)
    if dry_run:
        print_plan(study)
        return
    end_of_study(plan, study.run(on_progress=TextProgress()), out, as_json=as_json)


@bench_group.command("watch")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--study", "study_name", default="", help="Which study, if several run into FOLDER.")
@click.option("--cancel", is_flag=True, help="Stop it; what it measured is kept.")
@click.option("--once", is_flag=True, help="Print its state and exit.")
@click.option("--log", "cell", default="", metavar="CELL", help="Print the end of the latest log of a cell, and exit.")
@as_json_option
def bench_watch(folder: Path, study_name: str, cancel: bool, once: bool, cell: str, as_json: bool) -> None:
    """Follow the study that runs into FOLDER, whoever started it; ^C leaves it running (docs/study.md)."""
    import dataclasses

    from acon_nb.study import live
    from acon_nb.study.state import headline, log_of

    study = live.attach(folder, study_name)
    if cell:
        click.echo(log_of(study.cell(cell)))
        return
    if cancel:
        study.cancel()
    if not (once or as_json):
        for line in study.log()[-10:]:
            click.echo(line, err=True)
        study.wait(on_progress=TextProgress(every_s=1.0))
    if as_json:
        print_json({"running": study.running, "owner": study.owner, "state": dataclasses.asdict(study.state)})
    else:
        click.echo(f"{study.name}: {headline(study.state)}")


def print_plan(study: Study) -> None:
    """Print the cells of a study and how long it will take. Errors: those of `Study.check`."""
    study.check()
    for cell in study.state.cells:
        role = f" ({cell.role})" if cell.role else ""
        click.echo(f"{cell.label}: {cell.planned} runs, {cell.clock} clock{role}")
    if study.expected is not None:
        click.echo(study.expected.text())


def end_of_study(plan: Plan, rows: pd.DataFrame, out: Path, *, as_json: bool, **more: Any) -> None:
    """Print the rows of a completed study, as its kind shows them; exit with 1 if a run failed and failures are errors.

    `more` is added to the JSON.
    """
    from acon_nb.analysis import tables
    from acon_nb.study.kinds import kind

    failed, sentences = tables.failures(rows, out), tables.study_sentences(rows)
    if as_json:
        print_json(
            {"plan": plan.name, "sentences": sentences, "runs": json.loads(rows.to_json(orient="records")), **more}
        )
    else:
        further = [f"\n{title}\n{tables.table_text(one)}\n" for title, one in tables.more_tables(rows).items()]
        click.echo("\n".join([tables.table_text(tables.study_table(rows)), *further, *sentences]))
    for text in failed:
        click.echo(text, err=True)
    if failed and not kind(plan.study).failures_are_results:
        raise SystemExit(1)


@bench_group.command("rows")
@results_option
@click.option("--kind", default="", help="The kind of study, where rows of several have that name.")
@click.option("--study", "study_name", shell_complete=completion.studies, help="Only this study.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help=".csv .json .md .tex .parquet")
def bench_rows(folder: Path, kind: str, study_name: str | None, output: Path) -> None:
    """Export the rows of a folder of results."""
    from acon_nb import results

    table = rows_of(folder, kind, study_name)
    click.echo(f"{results.export(table, output)}: {len(table)} rows")


@bench_group.command("compare")
@click.argument("study_name", metavar="STUDY", shell_complete=completion.studies)
@results_option
@click.option("--kind", default="", help="The kind of study, where rows of several have that name.")
@click.option(
    "--metric",
    required=True,
    shell_complete=completion.metrics,
    help="Such as guest_ns_reset_to_init, host_ns_init, memavailable_bytes.",
)
@click.option("--clock", type=click.Choice(["wall", "instructions"]), help="Which rows, where the study has both.")
@click.option("--factor", default="cell", show_default=True, help="The factor whose levels are compared.")
@click.option("--baseline", help="The level to compare with.  [default: the first]")
@click.option("--minimum-effect", type=float, help="The share below which a difference does not matter.")
@click.option("--session", help="The rows of one session.  [default: the newest of each cell]")
@as_json_option
def bench_compare(
    study_name: str,
    folder: Path,
    kind: str,
    metric: str,
    clock: str | None,
    factor: str,
    baseline: str | None,
    minimum_effect: float | None,
    session: str | None,
    as_json: bool,
) -> None:
    """Report how the cells of a study differ, and how sure that is (docs/study.md)."""
    from acon_nb.analysis import compare
    from acon_nb.results import metrics
    from acon_nb.results import select as choose

    rows = rows_of(folder, kind, study_name)
    measure = metrics.metric(metric)
    rows = choose.on_clock_of(rows[rows["clock"] == clock] if clock else rows, measure)
    if session is None and factor != "session":
        rows, older = choose.newest(rows)
        if older:
            click.echo(f"{older} older rows of these cells are left out (--session NAME takes others)", err=True)
    elif session is not None:
        rows = rows[rows["session"] == session]
    if rows.empty:
        hint = "omit --clock and --session to see all rows"
        raise InvalidInput("metric", metric, "has no rows of that clock and session", hint=hint)
    comparisons = compare.compare(rows, metric, factor=factor, baseline=baseline, minimum_effect=minimum_effect)
    if as_json:
        print_json({"study": study_name, "comparisons": json.loads(comparisons.to_json(orient="records"))})
        return
    for row in comparisons.to_dict("records"):
        click.echo(compare.sentence({str(key): value for key, value in row.items()}))


@bench_group.command("plot")
@click.argument("study_name", metavar="STUDY", shell_complete=completion.studies)
@results_option
@click.option("--kind", default="", help="The kind of study, where rows of several have that name.")
@click.option(
    "--metric",
    shell_complete=completion.metrics,
    help="Such as guest_ns_reset_to_init, host_ns_init, memavailable_bytes.",
)
@click.option("--figure", help="A figure that the kind of study has, in place of a measure.")
@click.option("--clock", type=click.Choice(["wall", "instructions"]), help="Which rows, where the study has both.")
@click.option("--x", default="cell", show_default=True, help="The factor on the x axis.")
@click.option("--colour", default="", help="A factor shown by colour.")
@click.option("--facet", default="", help="A factor with a panel for each level.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help=".png .svg .pdf")
def bench_plot(
    study_name: str,
    folder: Path,
    kind: str,
    metric: str | None,
    figure: str | None,
    clock: str | None,
    x: str,
    colour: str,
    facet: str,
    output: Path,
) -> None:
    """Draw a measure of a study by its factors, and report how the levels differ (docs/study.md)."""
    from acon_nb import plots
    from acon_nb.analysis import explore

    plots.picture_format(output)
    rows = rows_of(folder, kind, study_name)
    if figure is not None:
        _refuse_with_figure(metric=metric, x=x != explore.CELL, colour=colour, facet=facet)
        _plot_figure(rows[rows["clock"] == clock] if clock else rows, figure, output)
        return
    if metric is None:
        raise click.UsageError("give --metric or --figure")
    view = explore.View(metric=metric, clock=clock or "", x=x, colour=colour, facet=facet)
    explored = explore.explore(rows, view)
    plots.save(plots.plot_study(explored), output)
    for text in explored.sentences:
        click.echo(text)
    click.echo(f"plot: {output}, {len(explored.rows)} runs")


def _plot_figure(rows: pd.DataFrame, name: str, output: Path) -> None:
    """Draw one of the figures of the rows' kind."""
    from acon_nb import plots
    from acon_nb.study.kinds import kind

    plots.save(kind(str(rows["kind"].iloc[0])).figure(name)(rows), output)
    click.echo(f"plot: {output}, {len(rows)} runs")


def _refuse_with_figure(**options: object) -> None:
    used = [f"--{name}" for name, value in options.items() if value]
    if used:
        raise click.UsageError(f"{', '.join(used)} cannot be combined with --figure")
