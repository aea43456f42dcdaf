"""`acon-nb bench`: measure guests."""

from __future__ import annotations

import contextlib
import json
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from acon_nb.cli.base import as_json_option, main, print_json
from acon_nb.errors import InvalidInput
from acon_nb.progress import TextProgress

if TYPE_CHECKING:
    import pandas as pd


@main.group("bench")
def bench_group() -> None:
    """Measure guests."""


@bench_group.command("boot")
@click.option("--kernel", "kernel_path", type=click.Path(path_type=Path), required=True)
@click.option("--initrd", "initrd_path", type=click.Path(path_type=Path), help="Default: busybox with the report.")
@click.option("--clock", type=click.Choice(["wall", "instructions"]), required=True)
@click.option("--runs", type=int, required=True)
@click.option("--memory", default="512M", show_default=True)
@click.option("--machine", type=click.Choice(["q35", "microvm"]), default="q35", show_default=True)
@click.option("--append", default="console=ttyS0 panic=-1 quiet", show_default=True, help="Kernel command line.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder that keeps the rows as Parquet.")
@as_json_option
def bench_boot(
    kernel_path: Path,
    initrd_path: Path | None,
    clock: str,
    runs: int,
    memory: str,
    machine: str,
    append: str,
    out: Path | None,
    as_json: bool,
) -> None:
    """Boot a kernel several times and time its phases."""
    from acon_nb.bench import stats
    from acon_nb.bench.experiments import study_of
    from acon_nb.bench.plan import Plan

    initrd = f"file:{initrd_path}" if initrd_path else "busybox"
    levels = {"kernel": str(kernel_path), "initrd": initrd, "clock": clock, "memory": memory, "machine": machine}
    plan = Plan(name="single", fixed={**levels, "append": append}, runs=runs, warmups=0)
    with _folder(out) as folder:
        rows = study_of(plan, folder, session=uuid.uuid4().hex).run(on_progress=TextProgress())
        failed = _failures(rows, folder)
    prefix = "host_ns_" if clock == "wall" else "guest_ns_"
    columns = [name for name in map(str, rows.columns) if name.startswith(prefix)]
    if as_json:
        records = json.loads(rows.to_json(orient="records"))
        phases = [{name.split("_ns_")[1]: row[name] for name in columns} for row in records]
        print_json({"clock": clock, "runs": [{**row, "phases_ns": p} for row, p in zip(records, phases, strict=True)]})
    elif not failed:
        for name in columns:
            summary = stats.summarise(list(rows[name]))
            click.echo(f"{name.split('_ns_')[1]:>14}: {summary.text(1e9, 's', 6)} ({clock} clock)")
    _end(failed)


@bench_group.command("study")
@click.argument("plan_name", metavar="PLAN")
@click.option("--out", type=click.Path(path_type=Path), default=Path("results"), show_default=True)
@click.option("--runs", type=int, help="Runs of each cell, in place of the plan's.")
@click.option("--again", is_flag=True, help="Measure anew what an earlier run of the plan has measured.")
@click.option("--jobs", type=int, help="Compilers at a time, for builds alone.")
@click.option("--parallel", type=int, help="Guests of the instruction clock at a time (default: a CPU each).")
@click.option("--dry-run", is_flag=True, help="List the cells and end.")
@as_json_option
def bench_study(
    plan_name: str,
    out: Path,
    runs: int | None,
    again: bool,
    jobs: int | None,
    parallel: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run a plan: a TOML file, or a built-in plan by its name; a stopped one goes on (docs/study.md)."""
    import dataclasses

    from acon_nb.bench import plan as plans
    from acon_nb.bench import tables
    from acon_nb.bench.experiments import study_of

    plan = plans.load(plan_name)
    if runs is not None:
        plan = dataclasses.replace(plan, runs=runs)
    study = study_of(plan, out, session=uuid.uuid4().hex if again else "", jobs=jobs, parallel=parallel)
    if dry_run:
        for cell in study.state.cells:
            click.echo(f"{cell.label}: {cell.planned} runs, {cell.clock} clock")
        return
    rows = study.run(on_progress=TextProgress())
    failed = _failures(rows, out)
    if as_json:
        print_json({"plan": plan.name, "runs": json.loads(rows.to_json(orient="records"))})
    else:
        click.echo(tables.study_table(rows).to_string(index=False))
    _end(failed)


@bench_group.command("rows")
@click.option("--out", type=click.Path(path_type=Path), default=Path("results"), show_default=True)
@click.option("--kind", default="boot", show_default=True)
@click.option("--study", "study_name", help="One study alone.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help=".csv .json .md .tex .parquet")
def bench_rows(out: Path, kind: str, study_name: str | None, output: Path) -> None:
    """Export the rows of a folder of results."""
    from acon_nb.bench import results

    table = results.load(out, kind, study_name)
    for name in table.attrs["set_aside"]:
        click.echo(f"set aside, damaged: {name}", err=True)
    click.echo(f"{results.export(table, output)}: {len(table)} rows")


@bench_group.command("compare")
@click.argument("study_name", metavar="STUDY")
@click.option("--out", type=click.Path(path_type=Path), default=Path("results"), show_default=True)
@click.option("--kind", default="boot", show_default=True)
@click.option("--metric", required=True, help="Such as guest_ns_reset_to_init, host_ns_init, memavailable_bytes.")
@click.option("--clock", type=click.Choice(["wall", "instructions"]), help="Which rows, where the study has both.")
@click.option("--factor", default="cell", show_default=True, help="The factor whose levels are compared.")
@click.option("--baseline", help="The level to compare with.  [default: the first]")
@click.option("--minimum-effect", type=float, help="The share below which a difference does not matter.")
@click.option("--session", help="The rows of one session.  [default: the newest of each cell]")
@as_json_option
def bench_compare(
    study_name: str,
    out: Path,
    kind: str,
    metric: str,
    clock: str | None,
    factor: str,
    baseline: str | None,
    minimum_effect: float | None,
    session: str | None,
    as_json: bool,
) -> None:
    """Say how the cells of a study differ, and how sure that is (docs/study.md)."""
    from acon_nb.bench import compare, metrics
    from acon_nb.bench import rows as choose

    rows = _rows_of(out, kind, study_name)
    measure = metrics.metric(metric)
    rows = choose.on_clock_of(rows[rows["clock"] == clock] if clock else rows, measure)
    if session is None and factor != "session":
        rows, older = choose.newest(rows)
        if older:
            click.echo(f"{older} older rows of these cells are left out (--session NAME takes others)", err=True)
    elif session is not None:
        rows = rows[rows["session"] == session]
    if rows.empty:
        hint = "leave --clock and --session away to see what there is"
        raise InvalidInput("metric", metric, "has no rows of that clock and session", hint=hint)
    found = compare.compare(rows, metric, factor=factor, baseline=baseline, minimum_effect=minimum_effect)
    if as_json:
        print_json({"study": study_name, "comparisons": json.loads(found.to_json(orient="records"))})
        return
    for row in found.to_dict("records"):
        click.echo(compare.sentence({str(key): value for key, value in row.items()}))


@bench_group.command("plot")
@click.argument("study_name", metavar="STUDY")
@click.option("--out", type=click.Path(path_type=Path), default=Path("results"), show_default=True)
@click.option("--kind", default="boot", show_default=True)
@click.option("--metric", required=True, help="Such as guest_ns_reset_to_init, host_ns_init, memavailable_bytes.")
@click.option("--clock", type=click.Choice(["wall", "instructions"]), help="Which rows, where the study has both.")
@click.option("--x", default="cell", show_default=True, help="The factor across.")
@click.option("--colour", default="", help="A factor told by colour.")
@click.option("--facet", default="", help="A factor with a panel for each level.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help=".png .svg .pdf")
def bench_plot(
    study_name: str,
    out: Path,
    kind: str,
    metric: str,
    clock: str | None,
    x: str,
    colour: str,
    facet: str,
    output: Path,
) -> None:
    """Draw a measure of a study by its factors, and say how the levels differ (docs/study.md)."""
    from acon_nb import plots
    from acon_nb.bench import explore

    plots.picture_format(output)
    view = explore.View(metric=metric, clock=clock or "", x=x, colour=colour, facet=facet)
    found = explore.explore(_rows_of(out, kind, study_name), view)
    plots.save(plots.plot_study(found), output)
    for text in found.sentences:
        click.echo(text)
    click.echo(f"plot: {output}, {len(found.rows)} runs")


@bench_group.command("selfcheck")
@click.option("--real", is_flag=True, help="Boot the guide's kernel against itself, on both clocks (takes a while).")
@click.option("--comparisons", type=int, help="How many.  [default: 200; with --real 20 a clock]")
@click.option("--clock", type=click.Choice(["wall", "instructions"]), help="With --real: one clock alone.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("results"), show_default=True)
@as_json_option
def bench_selfcheck(real: bool, comparisons: int | None, clock: str | None, out: Path, as_json: bool) -> None:
    """Compare equals with each other: how often the tool raises a false alarm (docs/statistics.md)."""
    from acon_nb.bench import selfcheck

    if comparisons is not None and comparisons < 1:
        raise InvalidInput("comparisons", comparisons, "is no such number", hint="1 or more")
    if real:
        wanted = (clock,) if clock else ("wall", "instructions")
        found = [selfcheck.booted(out, name, comparisons or 20, on_progress=TextProgress()) for name in wanted]
    else:
        found = [selfcheck.simulated(comparisons or 200)]
    if as_json:
        print_json({"passed": all(check.passed for check in found), "checks": [check.as_dict() for check in found]})
    else:
        for check in found:
            click.echo(check.text())
    if not all(check.passed for check in found):
        raise SystemExit(1)


def _rows_of(out: Path, kind: str, study: str) -> pd.DataFrame:
    """The rows of a study, those of damaged files named. Errors: `InvalidInput` for one that has none."""
    from acon_nb.bench import results

    rows = results.load(out, kind, study)
    for name in rows.attrs["set_aside"]:
        click.echo(f"set aside, damaged: {name}", err=True)
    if rows.empty:
        hint = f"one of: {', '.join(results.Store(out).studies(kind)) or 'none yet'}"
        raise InvalidInput("study", study, f"has no rows in {out}", hint=hint)
    return rows


@contextlib.contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    """The folder of results, or one that goes at the end."""
    if out is not None:
        yield out
        return
    with tempfile.TemporaryDirectory(prefix="acon-nb-") as name:
        yield Path(name)


def _failures(rows: pd.DataFrame, folder: Path) -> list[str]:
    """The runs that were not whole, each with its end and the last lines of its log."""
    from acon_nb.bench.tables import failures

    return failures(rows, folder)


def _end(failed: list[str]) -> None:
    for text in failed:
        click.echo(text, err=True)
    if failed:
        raise SystemExit(1)


@bench_group.command("swap")
@click.option("--preset", type=click.Choice(["smoke"]), required=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("results"), show_default=True)
@as_json_option
def bench_swap(preset: str, out: Path, as_json: bool) -> None:
    """Put the guide's open question once: disk, zram and zswap under a tmpfs past the memory."""
    from acon_nb import tour

    del preset  # one so far
    spec = tour.TourSpec(out=out)
    runs = tour.swaps(spec, tour.prepare(spec, on_progress=TextProgress()), on_progress=TextProgress())
    if as_json:
        print_json({"runs": json.loads(runs.to_json(orient="records"))})
    else:
        click.echo(tour.swap_table(runs).T.to_string(header=False))
