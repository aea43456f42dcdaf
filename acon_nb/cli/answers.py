"""`acon-nb bench answers`: a swap study in words, figures and tables."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from acon_nb.cli import completion
from acon_nb.cli.base import as_json_option, print_json, results_option, rows_of
from acon_nb.cli.bench import bench_group


@bench_group.command("answers")
@click.argument("study_name", metavar="STUDY", shell_complete=completion.studies)
@results_option
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), help="Folder for figures and tables.")
@click.option("--data", default="", help="A level of data of the study.  [default: each]")
@click.option("--pressure", type=float, default=0.0, help="Working set over available memory; the nearest answers.")
@click.option("--disk-preset", default="", help="A disk of the study, such as sata-ssd.  [default: each]")
@click.option("--disk-latency", default="", help="The device as on hardware, such as 80us; the nearest answers.")
@click.option("--workload", default="", help="A workload of the study.  [default: each]")
@click.option("--pattern", default="", help="A pattern of accesses of the study.  [default: each]")
@click.option("--metric", default="access_ops_per_s", show_default=True, shell_complete=completion.metrics)
@click.option("--clock", type=click.Choice(["wall", "instructions"]), help="Rows of one clock.  [default: each]")
@click.option("--decide", default="", help="Factors that are decided too, such as kernel.  [default: situations]")
@as_json_option
def bench_answers(
    study_name: str,
    folder: Path,
    output: Path | None,
    data: str,
    pressure: float,
    disk_preset: str,
    disk_latency: str,
    workload: str,
    pattern: str,
    metric: str,
    clock: str | None,
    decide: str,
    as_json: bool,
) -> None:
    """Answer a swap study: which swap for which data, pressure and device, at what cost, and how sure that is."""
    from acon_nb.plots.swap.files import save_answers
    from acon_nb.swap.analysis.question import Question
    from acon_nb.swap.analysis.study import SwapAnalysis

    question = Question(
        data=data, pressure=pressure, disk_preset=disk_preset, disk_latency=disk_latency, workload=workload,
        pattern=pattern, metric=metric, clock=clock or "", decide=decide,
    )  # fmt: skip
    rows = rows_of(folder, "swap", study_name)
    analysis = SwapAnalysis(rows, question)
    files = save_answers(analysis, output) if output is not None else []
    if as_json:
        records = json.loads(json.dumps([dataclasses.asdict(one) for one in analysis.explanations]))
        print_json({"study": study_name, "explanations": records, "files": [str(path) for path in files]})
        return
    for one in analysis.explanations:
        click.echo("\n".join(one.lines))
    for path in files:
        click.echo(str(path))
