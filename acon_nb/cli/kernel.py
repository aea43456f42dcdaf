"""`acon-nb kernel`: configure and build guest kernels."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click

from acon_nb.cli import completion
from acon_nb.cli.base import as_json_option, main, print_json
from acon_nb.progress import TextProgress


@main.group("kernel")
def kernel_group() -> None:
    """Configure and build guest kernels."""


def _kernel_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option(
            "--profile",
            default="",
            shell_complete=completion.profiles,
            help="Profiles or groups that add up, separated by commas.",
        ),
        click.option(
            "--source",
            default="debian:6.12",
            show_default=True,
            help="debian:SERIES[@SUITE], deb:FILE, DIR, TARBALL[#sha256=HEX], GIT#REF.",
        ),
        click.option(
            "--config", type=click.Path(path_type=Path), help="A .config to start from instead of tinyconfig."
        ),
        click.option(
            "--map",
            "rename",
            is_flag=True,
            help="Set the options of --config by the names that the source has for them.",
        ),
        click.option(
            "--patch", "patches", type=click.Path(path_type=Path), multiple=True, help="A patch to apply to the source."
        ),
        click.option("--cc", default="", help="The compiler, as kbuild's CC= (gcc-13, clang; default: gcc)."),
        click.option("--llvm", default="", help="Build with LLVM's tools, as kbuild's LLVM= (1, -19, FOLDER/)."),
        click.option("--set", "settings", multiple=True, metavar="OPT=VAL", help="An option to set in addition."),
    ):
        command = option(command)
    return command


def _build_spec(profile: str, **fields: Any) -> Any:
    from acon_nb import kernel

    return kernel.BuildSpec(profiles=tuple(name for name in profile.split(",") if name), **fields)


@kernel_group.command("build")
@_kernel_options
@click.option("--modules", is_flag=True, help="Allow modules (MODULES=y): --set OPT=m builds one.")
@click.option(
    "--prove", is_flag=True, help="Build it again from nothing elsewhere; exit status 1 if a byte differs, and where."
)
@click.option("--install", "directory", type=click.Path(path_type=Path), help="Also copy to DIR, as make install does.")
@as_json_option
def kernel_build(modules: bool, prove: bool, directory: Path | None, as_json: bool, **fields: Any) -> None:
    """Build a bzImage (cached by content), and the modules of options that are m."""
    from acon_nb import kernel
    from acon_nb.kernel import pins
    from acon_nb.kernel.tables import image_text

    if modules:
        fields["settings"] = (*fields["settings"], "MODULES=y")
    spec = _build_spec(**fields)
    proof = kernel.prove(spec, on_progress=TextProgress()) if prove else None
    image = proof.image if proof else kernel.build(spec, on_progress=TextProgress())
    if pins.has_public_key(image.config):
        click.echo(f"note: {pins.NOT_SECRET}", err=True)
    if directory is not None:
        for path in kernel.install(image, directory):
            click.echo(f"installed {path}", err=True)
    if as_json:
        values = {
            key: getattr(image, key) for key in ("image", "version", "config", "sha256", "seconds", "cached", "modules")
        }
        if proof:
            values |= {"sha256_again": proof.sha256_again, "difference": proof.difference or None}
        print_json(values)
    else:
        click.echo(image_text(image))
        if proof:
            click.echo(proof.text)
    if proof and proof.difference:
        sys.exit(1)


@kernel_group.command("sources")
@click.option("--suite", "suites", multiple=True, help="Only this suite of Debian (repeatable; default: all).")
@click.option("--here", is_flag=True, help="Only what the lists of this host's apt have; nothing is fetched.")
@as_json_option
def kernel_sources(suites: tuple[str, ...], here: bool, as_json: bool) -> None:
    """List what --source debian:SERIES[=VERSION][@SUITE] can fetch, by suite."""
    from acon_nb import kernel

    listed = kernel.packaged(() if here else suites or kernel.SUITES, on_progress=TextProgress())
    if as_json:
        rows = [asdict(row) for row in listed.sources]
        print_json({"sources": rows, "unreachable": listed.unreachable})
        return
    for row in listed.sources:
        click.echo(f"{row.source:34} {row.version:24} {row.suite}{'' if row.newest else ' (older)'}")
    for suite, reason in listed.unreachable.items():
        click.echo(f"{suite}: {reason}", err=True)
    if not listed.sources:
        click.echo("apt's lists have no linux-source-*: apt-get update, or give another --source", err=True)
        sys.exit(1)


@kernel_group.command("check")
@_kernel_options
@as_json_option
def kernel_check(as_json: bool, **fields: Any) -> None:
    """Configure without compiling; exit status 1 if a requested option that is not optional was not applied."""
    from acon_nb import kernel
    from acon_nb.kernel import dotconfig

    spec = _build_spec(**fields)
    configured = kernel.configure(spec, on_progress=TextProgress())
    rows, renamed = configured.results, configured.renamed
    if as_json:
        keys = ("option", "wanted", "got", "ok", "why")
        options = [{key: getattr(row, key) for key in keys} for row in rows]
        print_json({"options": options, "renamed": renamed, "advice": configured.advice or None})
    else:
        for old, new in renamed.items():
            click.echo(f"CONFIG_{old} is CONFIG_{new} here: {configured.values.get(new, 'n')}")
        for row in rows:
            if not row.ok:
                click.echo(f"CONFIG_{row.option} wanted {row.wanted}, is {row.got}: {row.why}")
        click.echo(dotconfig.summary(rows))
        if configured.advice:
            click.echo(configured.advice)
    if any(not row.ok and not row.optional for row in rows):
        sys.exit(1)


@kernel_group.command("diff")
@click.argument("left", shell_complete=completion.profiles_or_files)
@click.argument("right", shell_complete=completion.profiles_or_files)
@click.option("--kernel-version", default="6.12", show_default=True, help="The version for which profiles apply.")
@as_json_option
def kernel_diff(left: str, right: str, kernel_version: str, as_json: bool) -> None:
    """Compare LEFT and RIGHT: profiles (a,b for their sum) or .config files. Exit status 1 if they differ."""
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
@click.option(
    "--groups",
    default="",
    shell_complete=completion.profiles,
    help="Groups in the order in which they are added (default: the guide's).",
)
@click.option(
    "--per-option", is_flag=True, help="Leave out each option alone instead (minutes each; resumes with --out)."
)
@click.option(
    "--profile",
    default="guide",
    show_default=True,
    shell_complete=completion.profiles,
    help="With --per-option: whose options.",
)
@click.option("--options", default="", help="With --per-option: only these (default: each that the profile turns on).")
@click.option("--source", default="debian:6.12", show_default=True, help="As for kernel build.")
@click.option("--memory", default="512M", show_default=True, help="Memory of the guest that boots each kernel.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for the rows (Parquet); steps that it already has are not measured again.",
)
@click.option("--plot", type=click.Path(path_type=Path), help="Also plot the result: FILE.png, FILE.svg or FILE.pdf.")
@as_json_option
def kernel_cost(
    groups: str,
    per_option: bool,
    profile: str,
    options: str,
    out: Path | None,
    plot: Path | None,
    as_json: bool,
    **guest: str,
) -> None:
    """Measure what each group of options adds to image, memory and boot: one build and boot each (an hour cold)."""
    from acon_nb import plots, results
    from acon_nb.boot import kernel_cost as cost
    from acon_nb.boot import option_cost
    from acon_nb.errors import InvalidInput
    from acon_nb.validation import words

    table: Callable[[Any], Any]
    if per_option:
        if groups or plot is not None:
            raise InvalidInput("per_option", "yes", "leaves options out of one kernel", hint="omit --groups and --plot")
        spec = option_cost.OptionCostSpec(profiles=words(profile), options=words(options), **guest)
        name, measure, table = "options", partial(option_cost.measure, spec), option_cost.cost_table
    else:
        chosen = tuple(group for group in groups.split(",") if group) or cost.default_groups()
        name, measure, table = "steps", partial(cost.measure, cost.CostSpec(groups=chosen, **guest)), cost.cost_table
        if plot is not None:
            plots.picture_format(plot)
    rows = measure(out=results.Store(out) if out else None, on_progress=TextProgress())
    if plot is not None:
        plots.save(plots.plot_cost(rows), plot)
    if as_json:
        print_json({name: json.loads(rows.to_json(orient="records"))})
    else:
        click.echo(table(rows).to_string(index=False))


@kernel_group.command("unused")
@click.argument("profiles", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PROFILE...")
@click.option("--kernel", "kernel_path", type=click.Path(path_type=Path), required=True, help="The profiles' bzImage.")
@click.option("--source", default="debian:6.12", show_default=True, help="What it was built from, as for kernel build.")
@click.option("--config", type=click.Path(path_type=Path), help="Its .config.  [default: the one kept with it]")
@click.option("--build", type=click.Path(path_type=Path), help="Folder of its build.  [default: known if built here]")
@click.option("--most", type=click.IntRange(1), default=30, show_default=True, help="How many options are shown.")
@click.option("--check", is_flag=True, help="Build and boot the kernel without each option shown; resumes.")
@as_json_option
def kernel_unused(
    profiles: tuple[Path, ...],
    kernel_path: Path,
    source: str,
    config: Path | None,
    build: Path | None,
    most: int,
    check: bool,
    as_json: bool,
) -> None:
    """Propose options whose code never ran in any PROFILE: a saved one, or a folder, such as a study's results."""
    from acon_nb.profile import unused

    loaded = unused.loaded(profiles, kernel_path)
    made = unused.report(kernel_path, loaded, source=source, config=config, build=build, on_progress=TextProgress())
    values = unused.json_values(made)
    if not as_json:
        click.echo(unused.text(made, most))
    if check:
        values["checked"] = _checked_options(made.options[:most], kernel_path, config, source, quiet=as_json)
    if as_json:
        print_json(values)


def _checked_options(
    options: Any, kernel_path: Path, config: Path | None, source: str, *, quiet: bool
) -> list[dict[str, Any]]:
    from acon_nb import boot
    from acon_nb.boot import unused_check
    from acon_nb.profile import unused
    from acon_nb.vm import Clock

    initrd = boot.default_initrd()
    cell = boot.BootCell(
        name=kernel_path.name, kernel=kernel_path, initrd=initrd, clock=Clock.INSTRUCTIONS, timeout_s=900
    )
    path = unused.config_path(kernel_path, config)
    rows = []
    for row in unused_check.check(options, cell, path, source=source, on_progress=TextProgress()):
        rows.append(asdict(row))
        if not quiet:
            click.echo(row.text)
    return rows
