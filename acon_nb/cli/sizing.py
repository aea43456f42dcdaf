"""`acon-nb bench sizing`: how large zram or zswap's pool should be, from the cells of a study."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from acon_nb.cli import completion
from acon_nb.cli.base import as_json_option, print_json, results_option, rows_of
from acon_nb.cli.bench import bench_group
from acon_nb.errors import InvalidInput


@bench_group.command("sizing")
@click.argument("study_name", metavar="STUDY", shell_complete=completion.studies)
@results_option
@click.option("--ratio", type=float, multiple=True, default=(1.7, 2.3, 3.5), show_default=True, help="Of the codec.")
@click.option(
    "--pressure", type=float, multiple=True, default=(1.25, 1.5, 2.0, 2.5), show_default=True,
    help="Working set over available memory.",
)  # fmt: skip
@click.option("--clock", type=click.Choice(["wall", "instructions"]), help="Rows of one clock.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="A file for the figure (.png, .pdf, .svg).")
@as_json_option
def bench_sizing(
    study_name: str,
    folder: Path,
    ratio: tuple[float, ...],
    pressure: tuple[float, ...],
    clock: str | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """How large zram, or zswap's pool, should be, by compressibility and pressure; with the model's error."""
    from acon_nb.plots.style import save
    from acon_nb.plots.swap.sizing import plot_sizing
    from acon_nb.swap.analysis.rows import counted
    from acon_nb.swap.analysis.sizing import sizing

    for name, numbers in (("ratio", ratio), ("pressure", pressure)):
        for number in numbers:
            if not 0.1 <= number <= 100:
                raise InvalidInput(name, number, "is out of range", hint="0.1 to 100, such as 2.3")
    rows = rows_of(folder, "swap", study_name)
    fitted = sizing(counted(rows, clock or ""))
    table = fitted.table(ratio, pressure)
    if output is not None:
        save(plot_sizing(fitted, ratio, max(3.0, *pressure)), output)
    if as_json:
        sizes = table.astype(object).where(table.notna(), None).to_dict("records")
        print_json(
            {
                "study": study_name, "holds": fitted.holds, "error": fitted.error, "errors": dict(fitted.errors),
                "model": dataclasses.asdict(fitted.model), "sizes": sizes, "left_out": list(fitted.left_out),
            }
        )  # fmt: skip
        return
    click.echo("\n".join(fitted.sentences()))
    for row in table.to_dict("records"):
        percent = row["zswap_pool_percent"]
        pool = f"zswap's pool {percent:.0f} % of the guest's memory" if percent == percent else "zswap: the disk helps"
        full = ": all of the working set, nothing is left to give way" if row["full"] else ""
        click.echo(
            f"ratio {row['ratio']:g}, pressure {row['pressure']:g}: zram of {row['zram_size']:.2f} times the available "
            f"memory, {row['zram_ram']:.2f} times of it in RAM{full}; {pool}"
        )
