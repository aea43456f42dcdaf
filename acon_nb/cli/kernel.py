"""`acon-nb kernel`: configure and build guest kernels."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from acon_nb.cli.base import as_json_option, main, print_json
from acon_nb.progress import TextProgress
from acon_nb.units import parse_bytes


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
@as_json_option
def kernel_build(directory: Path | None, as_json: bool, **fields: Any) -> None:
    """Build a bzImage (cached by content)."""
    from acon_nb import kernel
    from acon_nb.kernel.tables import image_text

    image = kernel.build(_build_spec(**fields), on_progress=TextProgress())
    if directory is not None:
        for path in kernel.install(image, directory):
            click.echo(f"installed {path}", err=True)
    if as_json:
        values = {key: getattr(image, key) for key in ("image", "version", "config", "sha256", "seconds", "cached")}
        print_json(values)
        return
    click.echo(image_text(image))


@kernel_group.command("check")
@_kernel_options
@as_json_option
def kernel_check(as_json: bool, **fields: Any) -> None:
    """Configure only, and say what became of each wish; exit status 1 if one that is not optional did not take."""
    from acon_nb import kernel

    rows = kernel.check(_build_spec(**fields), on_progress=TextProgress())
    if as_json:
        keys = ("option", "wanted", "got", "ok", "why")
        print_json({"wishes": [{key: getattr(row, key) for key in keys} for row in rows]})
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
@as_json_option
def kernel_diff(left: str, right: str, kernel_version: str, as_json: bool) -> None:
    """What differs between LEFT and RIGHT: profiles (a,b adds up) or .config files. Exit status 1 if anything does."""
    from acon_nb import kernel

    rows = kernel.difference(left, right, kernel_version)
    if as_json:
        print_json({"differences": [asdict(row) for row in rows]})
    else:
        for row in rows:
            click.echo(f"CONFIG_{row.option}: {row.left} -> {row.right}")
    if rows:
        sys.exit(1)


@kernel_group.command("cost")
@click.option("--groups", default="", help="Groups in the order in which they add up (default: the guide's order).")
@click.option("--source", default="debian:6.12", show_default=True, help="As of kernel build.")
@click.option("--memory", default="512M", show_default=True, help="Of the guest that each kernel is booted in.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder that keeps the rows as Parquet.")
@click.option("--plot", type=click.Path(path_type=Path), help="Also draw it: FILE.png, FILE.svg or FILE.pdf.")
@as_json_option
def kernel_cost(groups: str, source: str, memory: str, out: Path | None, plot: Path | None, as_json: bool) -> None:
    """Measure what each group of options adds to image, memory and boot: a build and a boot a group (an hour cold)."""
    from acon_nb import plots
    from acon_nb.bench import kernel_cost as cost
    from acon_nb.bench import results

    chosen = tuple(name for name in groups.split(",") if name) or cost.GROUPS
    spec = cost.CostSpec(groups=chosen, source=source, memory_bytes=parse_bytes(memory, field="memory", bare="M"))
    if plot is not None:
        plots.picture_format(plot)
    steps = cost.measure(spec, out=results.Store(out) if out else None, on_progress=TextProgress())
    if plot is not None:
        plots.save(plots.plot_cost(steps), plot)
    if as_json:
        print_json({"steps": json.loads(steps.to_json(orient="records"))})
    else:
        click.echo(cost.cost_table(steps).to_string(index=False))
