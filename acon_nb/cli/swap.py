"""`acon-nb bench swap`, `setups` and `corpora`: what memory compression saves and costs (docs/swap.md)."""

from __future__ import annotations

import dataclasses
import uuid
from pathlib import Path

import click

from acon_nb.cli.base import as_json_option, jobs_option, out_option, print_json
from acon_nb.cli.bench import bench_group, end_of_study, print_plan
from acon_nb.cli.image import CommandWords, answer_image, image_options, question_of
from acon_nb.errors import InvalidInput
from acon_nb.progress import TextProgress

_PRESETS = ("smoke", "tour", "quickstart", "tutorial", "disks", "answers", "paper")


@bench_group.command("swap", cls=CommandWords)
@click.option(
    "--preset",
    type=click.Choice(_PRESETS),
    help="smoke, tour: minutes; quickstart, tutorial: ten; answers: an hour or so; paper: a day or two.",
)
@click.option("--plan", "plan_file", type=click.Path(path_type=Path), help="A plan of your own (TOML, study = swap).")
@out_option
@click.option("--runs", type=int, help="Runs (seeds) of each cell, in place of the plan's.")
@click.option("--again", is_flag=True, help="Measure anew what an earlier run of the plan has measured.")
@jobs_option
@click.option("--dry-run", is_flag=True, help="List the cells and end.")
@image_options
@as_json_option
def bench_swap(
    preset: str | None,
    plan_file: Path | None,
    out: Path,
    runs: int | None,
    again: bool,
    jobs: int | None,
    dry_run: bool,
    image: str,
    command: str,
    env: tuple[str, ...],
    at: str,
    setups: str,
    seeds: int | None,
    run_for: str,
    driver: str,
    ready: str,
    limit: str,
    clock: str | None,
    kernel: str,
    as_json: bool,
) -> None:
    """Compare no swap, disk, zram and zswap, for a plan or for your own image; a stopped study resumes where it was.

    With --image a program of your own is measured, and then runs in each set-up at shares of its peak. --command takes
    the words up to the next option of these.
    """
    from acon_nb.study import plan as plans
    from acon_nb.study.kinds import study_of

    asked = {
        "command": command, "environment": env, "at": at, "setups": setups, "seeds": seeds, "run_for": run_for,
        "driver": driver, "ready": ready, "limit": limit, "clock": clock, "kernel": kernel,
    }  # fmt: skip
    if [bool(preset), bool(plan_file), bool(image)].count(True) != 1:
        raise click.UsageError("give --preset, --plan or --image, one of the three")
    if image:
        if runs is not None:
            raise click.UsageError("--runs is for plans: --seeds is how often each set-up of an image runs")
        question = question_of(image, **asked)
        answer_image(question, out, again=again, jobs=jobs, dry_run=dry_run, as_json=as_json)
        return
    if given := [name for name, value in asked.items() if value not in ("", None, ())]:
        raise click.UsageError(f"{given[0]} is for --image")
    plan = plans.load(str(plan_file or preset))
    if plan.study != "swap":
        raise InvalidInput("study", plan.study, "is not a swap study", hint='study = "swap", or acon-nb bench study')
    if runs is not None:
        plan = dataclasses.replace(plan, runs=runs)
    study = study_of(plan, out, session=uuid.uuid4().hex if again else "", jobs=jobs, parallel=jobs)
    if dry_run:
        print_plan(study)
        return
    end_of_study(plan, study.run(on_progress=TextProgress()), out, as_json=as_json)


@bench_group.command("setups")
@click.option(
    "--kernel",
    type=click.Path(path_type=Path),
    help="A bzImage.  [default: the kernel of swap studies, if it is built]",
)
@as_json_option
def bench_setups(kernel: Path | None, as_json: bool) -> None:
    """List the named set-ups with their sources, and whether a kernel has what they need."""
    from acon_nb.swap import needs, tables

    known = needs.kernel_of(kernel)
    rows = needs.setup_rows(known)
    if as_json:
        print_json({"release": known.release if known else None, "setups": rows})
        return
    click.echo(tables.setups_text(rows, known.release if known else ""))


@bench_group.command("workloads")
@as_json_option
def bench_workloads(as_json: bool) -> None:
    """List the workloads that a plan may name (workload_name), with their packages and what they report."""
    from acon_nb.swap import workloads

    if as_json:
        print_json([dataclasses.asdict(one) for one in workloads.workloads().values()])
    else:
        click.echo(workloads.table().to_string(index=False))


@bench_group.command("corpora")
@click.argument("names", nargs=-1)
@click.option("--again", is_flag=True, help="Make them anew.")
@click.option("--file", "files", type=click.Path(path_type=Path), multiple=True, help="The statistics of any file.")
@click.option("--pid", type=int, help="Sample a process' memory into the file pid-PID.pages, which only you can read.")
@click.option("--out", type=click.Path(path_type=Path), help="Also copy them to a folder (--pid: default is this one).")
@as_json_option
def bench_corpora(
    names: tuple[str, ...], again: bool, files: tuple[Path, ...], pid: int | None, out: Path | None, as_json: bool
) -> None:
    """Dump pages of real memory, 4 MiB each: redis, python, compiler, files (default: all). Says their ratios."""
    from acon_nb.swap import corpora, data, page_sample, tables

    if files or pid is not None:
        if names or again:
            raise click.UsageError("give names of corpora, or --file and --pid")
        paths = list(files)
        if pid is not None:
            paths.append(page_sample.dump_process(pid, out or Path()))
        by_path = {str(path): page_sample.statistics_of_file(path) for path in paths}
        if as_json:
            print_json({name: dataclasses.asdict(one) for name, one in by_path.items()})
            return
        click.echo("\n".join(page_sample.statistics_text(name, one) for name, one in by_path.items()))
        if pid is not None:
            click.echo(f"Written to {paths[-1]}, mode 0600: it may hold secrets.")
            click.echo(f'In a plan: data = "file:{paths[-1]}"')
        return
    by_corpus = {}
    for name in names or corpora.NAMES:
        if again:
            corpora.forget(name)
        path = corpora.build(name, on_progress=TextProgress())
        by_corpus[name] = data.corpus_ratios(path)
        if out is not None:
            corpora.copy(path, out)
    if as_json:
        print_json({name: dataclasses.asdict(ratios) for name, ratios in by_corpus.items()})
    else:
        click.echo(tables.data_table(by_corpus).to_string(index=False))
