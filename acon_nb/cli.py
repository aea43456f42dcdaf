"""`acon-nb`: one thin command per capability.

`--json` prints one JSON object on standard output and nothing else; progress and errors go to standard error.
Exit status: 0 done, 1 failed as named, 2 wrong usage.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

import acon_nb
from acon_nb.errors import AconError, InvalidInput, NoSpace
from acon_nb.progress import TextProgress
from acon_nb.units import format_bytes, format_seconds, parse_bytes


class _Group(click.Group):
    """Errors of the package become their text and their exit status; no traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except AconError as error:
            click.echo(f"acon-nb: {error}", err=True)
            ctx.exit(error.exit_status)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                click.echo(f"acon-nb: {NoSpace(Path(error.filename or '.'), 'writing stopped')}", err=True)
                ctx.exit(1)
            raise
        except KeyboardInterrupt:
            click.echo("acon-nb: interrupted; finished parts are kept", err=True)
            ctx.exit(1)


@click.group(cls=_Group)
@click.version_option(acon_nb.__version__)
@click.option("-v", "--verbose", is_flag=True, help="Say more on standard error.")
def main(verbose: bool) -> None:
    """Small Linux guests of confidential VMs, and what memory compression costs them."""
    logging.basicConfig(level=logging.DEBUG if verbose else logging.WARNING, format="%(levelname)s: %(message)s")


_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, default=str))


@main.command()
@_json
@click.option("--fresh", is_flag=True, help="Probe KVM anew instead of trusting this boot's finding.")
def doctor(as_json: bool, fresh: bool) -> None:
    """Tell what this host can do, and the command that mends what is missing."""
    from acon_nb import doctor as examination

    findings = examination.examine(fresh=fresh)
    found = examination.report(findings)
    if as_json:
        _print_json(found)
    else:
        click.echo(examination.table(findings))
    if not found["ok"]:
        sys.exit(1)


@main.group("kernel")
def kernel_group() -> None:
    """Configure and build guest kernels."""


def _kernel_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--profile", default="", help="Profiles or groups that add up, separated by commas."),
        click.option(
            "--source",
            default="debian:6.12",
            show_default=True,
            help="debian:VERSION, DIR, TARBALL[#sha256=HEX], GIT#REF.",
        ),
        click.option("--config", type=click.Path(path_type=Path), help="A .config to start from, not tinyconfig."),
        click.option(
            "--patch", "patches", type=click.Path(path_type=Path), multiple=True, help="A patch on the source."
        ),
        click.option("--set", "settings", multiple=True, metavar="OPT=VAL", help="A setting of your own, on top."),
    ):
        command = option(command)
    return command


def _build_spec(profile: str, **fields: Any) -> Any:
    from acon_nb import kernel

    return kernel.BuildSpec(profiles=tuple(name for name in profile.split(",") if name), **fields)


@kernel_group.command("build")
@_kernel_options
@click.option("--install", "directory", type=click.Path(path_type=Path), help="Also copy to DIR, as make install does.")
@_json
def kernel_build(directory: Path | None, as_json: bool, **fields: Any) -> None:
    """Build a bzImage (cached by content)."""
    from acon_nb import kernel

    image = kernel.build(_build_spec(**fields), on_progress=TextProgress())
    if directory is not None:
        for path in kernel.install(image, directory):
            click.echo(f"installed {path}", err=True)
    if as_json:
        values = {key: getattr(image, key) for key in ("image", "version", "config", "sha256", "seconds", "cached")}
        _print_json(values)
        return
    state = "from the cache" if image.cached else f"built in {format_seconds(image.seconds)}"
    size = format_bytes(image.image.stat().st_size)
    click.echo(f"{image.version}: {image.image} ({size}, {state})\nsha256 {image.sha256}")


@kernel_group.command("check")
@_kernel_options
@_json
def kernel_check(as_json: bool, **fields: Any) -> None:
    """Configure only, and say what became of each wish; exit status 1 if one that is not optional did not take."""
    from acon_nb import kernel

    rows = kernel.check(_build_spec(**fields), on_progress=TextProgress())
    if as_json:
        keys = ("option", "wanted", "got", "ok", "why")
        _print_json({"wishes": [{key: getattr(row, key) for key in keys} for row in rows]})
    else:
        for row in rows:
            if not row.ok:
                click.echo(f"CONFIG_{row.option} wanted {row.wanted}, is {row.got}: {row.why}")
        click.echo(f"{sum(row.ok for row in rows)} of {len(rows)} wishes took")
    if any(not row.ok and not row.optional for row in rows):
        sys.exit(1)


@kernel_group.command("diff")
@click.argument("left")
@click.argument("right")
@click.option("--kernel-version", default="6.12", show_default=True, help="For which profiles are looked up.")
@_json
def kernel_diff(left: str, right: str, kernel_version: str, as_json: bool) -> None:
    """What differs between LEFT and RIGHT: profiles (a,b adds up) or .config files. Exit status 1 if anything does."""
    from acon_nb import kernel

    sides = [kernel.values_of(side, kernel_version) for side in (left, right)]
    rows = kernel.diff(*sides)
    if as_json:
        _print_json({"differences": [asdict(row) for row in rows]})
    else:
        for row in rows:
            click.echo(f"CONFIG_{row.option}: {row.left} -> {row.right}")
    if rows:
        sys.exit(1)


@main.group("initrd")
def initrd_group() -> None:
    """Make initrd images."""


@initrd_group.command("from")
@click.argument("image")
@click.option("-o", "output", type=click.Path(path_type=Path), required=True, help="FILE.cpio[.gz|.bz2|.xz|.zst|.lz4]")
@_json
def initrd_from(image: str, output: Path, as_json: bool) -> None:
    """Make an initrd of IMAGE (busybox, dir:D, tar:F), with /init added; nothing is unpacked to disk."""
    from acon_nb import initrd

    tree = initrd.tree_of(image, on_progress=TextProgress())
    for warning in initrd.gen_init(tree):
        click.echo(f"warning: {warning}", err=True)
    _say_image(initrd.create(tree, output), as_json)


@initrd_group.command("create")
@click.argument("tree", type=click.Path(path_type=Path))
@click.argument("image", type=click.Path(path_type=Path), required=False)
@_json
def initrd_create(tree: Path, image: Path | None, as_json: bool) -> None:
    """Pack the folder TREE (default IMAGE: initrd-NAME.cpio beside it; C=gz|bz2|xz|zst|lz4 compresses)."""
    from acon_nb import initrd

    suffix = os.environ.get("C", "")
    folder = tree.absolute()
    target = image or folder.parent / f"initrd-{folder.name}.cpio"
    if suffix:
        target = target.with_name(f"{target.name}.{suffix}")
    _say_image(initrd.create(initrd.from_folder(folder), target, mtime=None), as_json)


def _say_image(made: Any, as_json: bool) -> None:
    if as_json:
        _print_json(asdict(made))
    else:
        click.echo(f"{made.path}: {format_bytes(made.bytes)} ({format_bytes(made.archive_bytes)} unpacked)")


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
@_json
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
        _print_json({"clock": clock, "runs": rows})
        return
    for phase in rows[0]["phases_ns"]:
        summary = stats.summarise([row["phases_ns"][phase] for row in rows])
        click.echo(f"{phase:>14}: {summary.text(1e9, 's', 6)} ({clock} clock)")


@bench_group.command("swap")
@click.option("--preset", type=click.Choice(["smoke"]), required=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("results"), show_default=True)
@_json
def bench_swap(preset: str, out: Path, as_json: bool) -> None:
    """Put the guide's open question once: disk, zram and zswap under a tmpfs past the memory."""
    from acon_nb import tour

    del preset  # one so far
    spec = tour.TourSpec(out=out)
    runs = tour.swaps(spec, tour.prepare(spec, on_progress=TextProgress()), on_progress=TextProgress())
    if as_json:
        _print_json({"runs": json.loads(runs.to_json(orient="records"))})
    else:
        click.echo(tour.swap_table(runs).T.to_string(header=False))


@main.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
def notebooks(directory: Path) -> None:
    """Copy the notebooks to DIRECTORY; files that are there already are kept."""
    from acon_nb import notebook_files

    for path, copied in notebook_files.copy(directory):
        click.echo(f"{path}{'' if copied else ' (kept)'}")


@main.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False), default=Path("acon-notebooks"))
@click.pass_context
def lab(ctx: click.Context, directory: Path) -> None:
    """Open JupyterLab on a copy of the notebooks in DIRECTORY; further options go to JupyterLab."""
    from acon_nb import notebook_files

    notebook_files.copy(directory)
    notebook_files.exec_lab(directory, ctx.args)


@main.command()
@click.argument("notebook", type=click.Path(path_type=Path))
@click.option("-o", "output", type=click.Path(path_type=Path), required=True, help="FILE.html")
@click.option("-p", "parameters", multiple=True, nargs=2, metavar="NAME VALUE", help="A parameter of the notebook.")
def report(notebook: Path, output: Path, parameters: tuple[tuple[str, str], ...]) -> None:
    """Run NOTEBOOK by papermill, write one self-contained HTML file, and print its path and findings."""
    from acon_nb import report as reports

    if output.suffix != ".html":
        raise InvalidInput("output", output, "is no .html file", hint="such as reports/tour.html")
    lines = reports.make(notebook, output, {name: _typed(value) for name, value in parameters})
    click.echo(f"report: {output}")
    for line in lines:
        click.echo(line)


def _typed(text: str) -> Any:
    """A parameter's value: JSON where it is that (numbers, true), else text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


if __name__ == "__main__":
    main()
