"""`acon-nb bench swap` and `acon-nb bench corpora`: what memory compression saves and costs (docs/swap.md)."""

from __future__ import annotations

import dataclasses
import json
import uuid
from pathlib import Path

import click

from acon_nb.cli.base import as_json_option, print_json
from acon_nb.cli.bench import bench_group
from acon_nb.errors import InvalidInput
from acon_nb.progress import TextProgress

_PRESETS = ("smoke", "tutorial", "answers", "paper")


@bench_group.command("swap")
@click.option(
    "--preset",
    type=click.Choice(_PRESETS),
    help="smoke: minutes; tutorial: ten; answers: some hours; paper: a day or two.",
)
@click.option("--plan", "plan_file", type=click.Path(path_type=Path), help="A plan of your own (TOML, study = swap).")
@click.option("--out", type=click.Path(path_type=Path), default=Path("results"), show_default=True)
@click.option("--runs", type=int, help="Runs (seeds) of each cell, in place of the plan's.")
@click.option("--again", is_flag=True, help="Measure anew what an earlier run of the plan has measured.")
@click.option("--parallel", type=int, help="Guests of the instruction clock at a time (default: a CPU each).")
@click.option("--dry-run", is_flag=True, help="List the cells and end.")
@as_json_option
def bench_swap(
    preset: str | None,
    plan_file: Path | None,
    out: Path,
    runs: int | None,
    again: bool,
    parallel: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Compare no swap, disk, zram and zswap; a stopped study goes on where it was."""
    from acon_nb.bench import plan as plans
    from acon_nb.bench.experiments import study_of
    from acon_nb.bench.swap import tables
    from acon_nb.bench.tables import failures

    if (preset is None) == (plan_file is None):
        raise click.UsageError("give --preset or --plan, one of the two")
    plan = plans.load(str(plan_file or preset))
    if plan.study != "swap":
        raise InvalidInput("study", plan.study, "is no swap study", hint='study = "swap", or acon-nb bench study')
    if runs is not None:
        plan = dataclasses.replace(plan, runs=runs)
    study = study_of(plan, out, session=uuid.uuid4().hex if again else "", parallel=parallel)
    if dry_run:
        for cell in study.state.cells:
            click.echo(f"{cell.label}: {cell.planned} runs, {cell.clock} clock")
        return
    rows = study.run(on_progress=TextProgress())
    failed = failures(rows, out)
    said = tables.checks(rows)
    if as_json:
        print_json({"plan": plan.name, "checks": said, "runs": json.loads(rows.to_json(orient="records"))})
    else:
        click.echo(tables.swap_table(rows).T.to_string(header=False))
        click.echo("\n".join(said))
    for text in failed:  # an end by OOM or a hang is a result of such a study, and no failure of the command
        click.echo(text, err=True)


@bench_group.command("corpora")
@click.argument("names", nargs=-1)
@click.option("--again", is_flag=True, help="Make them anew.")
@click.option("--out", type=click.Path(path_type=Path), help="Also copy them to a folder.")
@as_json_option
def bench_corpora(names: tuple[str, ...], again: bool, out: Path | None, as_json: bool) -> None:
    """Dump pages of real memory, 4 MiB each: redis, python, compiler, files (default: all). Says their ratios."""
    from acon_nb.bench.swap import corpora, data, tables

    found = {}
    for name in names or corpora.NAMES:
        if again:
            corpora.forget(name)
        path = corpora.build(name, on_progress=TextProgress())
        found[name] = data.corpus_ratios(path)
        if out is not None:
            corpora.copy(path, out)
    if as_json:
        print_json({name: dataclasses.asdict(ratios) for name, ratios in found.items()})
    else:
        click.echo(tables.data_table(found).to_string(index=False))
