"""`acon-nb bench boot`, `phases`, `initcalls` and `memory`: boot a kernel, and see where time and memory go."""

from __future__ import annotations

import contextlib
import json
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from acon_nb.cli import completion
from acon_nb.cli.base import as_json_option, print_json, results_option, rows_of
from acon_nb.cli.bench import bench_group
from acon_nb.errors import InvalidInput
from acon_nb.progress import TextProgress

if TYPE_CHECKING:
    from acon_nb.boot.initcalls import Boot


@bench_group.command("boot")
@click.option("--kernel", "kernel_path", type=click.Path(path_type=Path), required=True)
@click.option("--initrd", "initrd_path", type=click.Path(path_type=Path), help="Any initrd.  [default: busybox]")
@click.option(
    "--ready",
    default="",
    metavar="init|console:REGEX|port:NUMBER|message",
    help="When the guest is ready, and is ended.  [default: init; without --initrd the end of /init]",
)
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
    ready: str,
    clock: str,
    runs: int,
    memory: str,
    machine: str,
    append: str,
    out: Path | None,
    as_json: bool,
) -> None:
    """Boot a kernel several times and time its phases, with an initrd of yours or busybox."""
    from acon_nb.analysis.tables import failures
    from acon_nb.stats import inference
    from acon_nb.study.clock_parts import parts_of_row, waits_of_row
    from acon_nb.study.kinds import study_of
    from acon_nb.study.plan import Plan

    initrd = f"file:{initrd_path}" if initrd_path else "busybox"
    levels = {"kernel": str(kernel_path), "initrd": initrd, "clock": clock, "memory": memory, "machine": machine}
    fixed = {**levels, "append": append, "ready": ready}
    plan = Plan(name="single", study="boot", fixed=fixed, runs=runs, warmups=0)
    with _folder(out) as folder:
        rows = study_of(plan, folder, session=uuid.uuid4().hex).run(on_progress=TextProgress())
        failed = failures(rows, folder)
    prefix = "host_ns_" if clock == "wall" else "guest_ns_"
    columns = [name for name in map(str, rows.columns) if name.startswith(prefix)]
    if as_json:
        records = json.loads(rows.to_json(orient="records"))
        known = [[name for name in columns if row[name] is not None] for row in records]
        phases = [
            {name.split("_ns_")[1]: row[name] for name in names} for row, names in zip(records, known, strict=True)
        ]
        measured = [
            {**row, "phases_ns": times, "parts": parts_of_row(row), "waits": waits_of_row(row)}
            for row, times in zip(records, phases, strict=True)
        ]
        print_json({"clock": clock, "runs": measured})
    elif not failed:
        click.echo(f"{'ready':>14}: {rows['ready'].iloc[0]}")
        for name in columns:
            if rows[name].isna().any():
                continue
            summary = inference.summarise(list(rows[name]))
            click.echo(f"{name.split('_ns_')[1]:>14}: {summary.text(1e9, 's', 6)} ({clock} clock)")
    for text in failed:
        click.echo(text, err=True)
    if failed:
        raise SystemExit(1)


@bench_group.command("phases")
@click.argument("study_name", metavar="STUDY", shell_complete=completion.studies)
@results_option
@click.option("--plot", type=click.Path(path_type=Path), help="Write a figure: .png, .svg or .pdf.")
@as_json_option
def bench_phases(study_name: str, folder: Path, plot: Path | None, as_json: bool) -> None:
    """Show the phases of each cell of a study: firmware, unpacking, kernel, /init."""
    from acon_nb import plots
    from acon_nb.boot import phases

    if plot is not None:
        plots.picture_format(plot)
    rows = rows_of(folder, "boot", study_name)
    if plot is not None:
        plots.save(plots.plot_phases(rows), plot)
    if as_json:
        print_json({"study": study_name, "phases": json.loads(phases.phase_rows(rows).to_json(orient="records"))})
        return
    click.echo(phases.phase_table(rows).to_string(index=False))


@bench_group.command("initcalls")
@click.argument("logs", metavar="[LOG [LOG]]", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--study",
    "study_name",
    shell_complete=completion.studies,
    help="The cells of a study that logged their initcalls, in place of logs.",
)
@click.option("--cell", "cells", multiple=True, help="A cell of the study, or two; part of its label is enough.")
@results_option
@click.option("--system-map", type=click.Path(path_type=Path), help="Names for a kernel without KALLSYMS.")
@click.option("--most", type=click.IntRange(1), default=20, show_default=True, help="How many initcalls.")
@click.option("--plot", type=click.Path(path_type=Path), help="Write a figure: .png, .svg or .pdf.")
@as_json_option
def bench_initcalls(
    logs: tuple[Path, ...],
    study_name: str | None,
    cells: tuple[str, ...],
    folder: Path,
    system_map: Path | None,
    most: int,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Show the longest initcalls of a boot, or the differences of two (a log as of dmesg with initcall_debug)."""
    from acon_nb import plots
    from acon_nb.boot import initcalls

    if plot is not None:
        plots.picture_format(plot)
    boots = _boots(logs, study_name, cells, folder, system_map)
    if len(boots) > 2:
        hint = f"choose one or two with --cell: {'; '.join(boots)}"
        raise InvalidInput("boots", len(boots), "are more than two", hint=hint)
    names = list(boots)
    first = boots[names[0]]
    if len(names) == 2:
        pair = initcalls.apart(names[0], names[1])
        table = initcalls.difference(first, boots[names[1]], names=pair)
        figure = plots.plot_initcall_difference(table, names=pair, most=most, clock=first.clock) if plot else None
        table = table.head(most)
    else:
        table = initcalls.call_table(first, most=most)
        figure = plots.plot_initcalls(first, most=most) if plot else None
    if plot is not None and figure is not None:
        plots.save(figure, plot)
    if as_json:
        texts: dict[str, Any] = {name: initcalls.sentences(boot) for name, boot in boots.items()}
        print_json({"boots": texts, "rows": json.loads(table.to_json(orient="records"))})
        return
    for name, boot in boots.items():
        for text in initcalls.sentences(boot):
            click.echo(f"{name}: {text}")
    click.echo(table.to_string(index=False))


def _boots(
    logs: tuple[Path, ...], study_name: str | None, cells: tuple[str, ...], folder: Path, system_map: Path | None
) -> dict[str, Boot]:
    from acon_nb import user_file
    from acon_nb.boot import initcalls
    from acon_nb.guest import symbols

    if bool(logs) == bool(study_name):
        raise InvalidInput("logs", len(logs), "and a study cannot stand together, nor both be missing", hint="give one")
    if study_name:
        rows = rows_of(folder, "boot", study_name)
        boots = initcalls.of_rows(rows.to_dict("records"), folder)  # type: ignore[arg-type]
        chosen = {name: boot for name, boot in boots.items() if not cells or any(cell in name for cell in cells)}
        if not chosen:
            hint = f"one of: {'; '.join(boots)}"
            raise InvalidInput("cell", ", ".join(cells), "logged no initcalls", hint=hint)
        return chosen
    logged: dict[str, Boot] = {}
    for path in logs:
        text = user_file.read_text("logs", path, hint="a boot's log with initcall_debug", errors="replace")
        if system_map is not None:
            text = symbols.named(text, symbols.read_map(system_map))
        logged[str(path)] = initcalls.read(text)
    return logged


@bench_group.command("memory")
@click.argument("study_name", metavar="STUDY", shell_complete=completion.studies)
@results_option
@click.option("--cell", help="A cell's label.  [default: the first that was booted]")
@click.option("--plot", type=click.Path(path_type=Path), help="Write a figure: .png, .svg or .pdf.")
@as_json_option
def bench_memory(study_name: str, folder: Path, cell: str | None, plot: Path | None, as_json: bool) -> None:
    """Show where the guest's memory went, from its RAM down to MemAvailable."""
    from acon_nb import plots
    from acon_nb.boot import memory
    from acon_nb.results.select import usable

    if plot is not None:
        plots.picture_format(plot)
    rows, _ = usable(rows_of(folder, "boot", study_name))
    labels = list(dict.fromkeys(rows["cell"])) if not rows.empty else []
    if not labels:
        raise InvalidInput("study", study_name, "has no run that ended well", hint="its rows say why: bench rows")
    if cell is not None and cell not in labels:
        raise InvalidInput("cell", cell, "has no run that ended well", hint=f"one of: {'; '.join(labels)}")
    row: dict[str, Any] = rows[rows["cell"] == (cell or labels[0])].to_dict("records")[-1]  # type: ignore[assignment]
    table = memory.memory_table(row)
    if plot is not None:
        plots.save(plots.plot_memory_parts(row), plot)
    if as_json:
        print_json({"cell": row["cell"], "parts": json.loads(table.to_json(orient="records"))})
        return
    for text in memory.sentences(row):
        click.echo(f"{row['cell']}: {text}")
    click.echo(table.drop(columns="why").to_string(index=False))


@contextlib.contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    """The folder of results, or one that goes at the end."""
    if out is not None:
        yield out
        return
    with tempfile.TemporaryDirectory(prefix="acon-nb-") as name:
        yield Path(name)
