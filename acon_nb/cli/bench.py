"""`acon-nb bench`: measure guests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from acon_nb.cli.base import as_json_option, main, print_json
from acon_nb.progress import TextProgress
from acon_nb.units import parse_bytes


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
    from acon_nb.bench import boot, results, stats
    from acon_nb.vm import Clock

    initrd = initrd_path or boot.default_initrd()
    cell = boot.BootCell(
        name=kernel_path.name,
        kernel=kernel_path,
        initrd=initrd,
        clock=Clock(clock),
        memory_bytes=parse_bytes(memory, field="memory", bare="M"),
        machine=machine,
        append=append,
    )
    store = results.Store(out) if out else None
    rows: list[dict[str, Any]] = []

    def keep(run: boot.BootRun, facts: Any) -> None:
        row = {**results.stamp(facts), "memory_bytes": cell.memory_bytes, **results.flat(run)}
        if store:
            store.add("boot", row)
        rows.append({**row, "phases_ns": run.host_ns if clock == "wall" else run.guest_ns})

    boot.run_many([cell], runs, on_run=keep, on_progress=TextProgress())
    if as_json:
        print_json({"clock": clock, "runs": rows})
        return
    for phase in rows[0]["phases_ns"]:
        summary = stats.summarise([row["phases_ns"][phase] for row in rows])
        click.echo(f"{phase:>14}: {summary.text(1e9, 's', 6)} ({clock} clock)")


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
