"""`acon-nb bench profile`: what each function of a guest executed, exactly."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from acon_nb.cli.base import as_json_option, print_json
from acon_nb.cli.bench import bench_group
from acon_nb.progress import TextProgress

if TYPE_CHECKING:
    from acon_nb.profile.model import Profile

_PATH = click.Path(path_type=Path)


@bench_group.command("profile")
@click.option("--kernel", "kernel_path", type=_PATH, required=True, help="A bzImage, or a saved profile.")
@click.option("--diff", "other_path", type=_PATH, help="Compare with another kernel's profile, or a saved one.")
@click.option(
    "--build",
    type=_PATH,
    help="Folder of the kernel's build, or its vmlinux with debug information.  [default: known if built here]",
)
@click.option("--initrd", "initrd_path", type=_PATH, help="Any initrd.  [default: busybox]")
@click.option("--until", type=click.Choice(["init", "ready", "end"]), default="init", show_default=True)
@click.option("--memory", default="512M", show_default=True)
@click.option("--append", default="console=ttyS0 panic=-1 quiet", show_default=True, help="Kernel command line.")
@click.option(
    "--system-map", type=_PATH, help="The kernel's System.map.  [default: the one next to it, or its symbols]"
)
@click.option("--timeout", "timeout_s", type=click.FloatRange(1), default=600, show_default=True, help="Seconds.")
@click.option("--most", type=click.IntRange(1), default=30, show_default=True, help="How many functions are shown.")
@click.option("--save", "save_path", type=_PATH, help="Write the profile as JSON.")
@as_json_option
def bench_profile(
    kernel_path: Path,
    other_path: Path | None,
    build: Path | None,
    initrd_path: Path | None,
    until: str,
    memory: str,
    append: str,
    system_map: Path | None,
    timeout_s: float,
    most: int,
    save_path: Path | None,
    as_json: bool,
) -> None:
    """Count what each function of a boot executes, exactly (docs/profile.md)."""
    from acon_nb import boot
    from acon_nb.boot import profile_diff
    from acon_nb.units import parse_bytes
    from acon_nb.vm import Clock

    cell = boot.BootCell(
        name=kernel_path.name,
        kernel=kernel_path,
        initrd=initrd_path or boot.default_initrd(),
        clock=Clock.INSTRUCTIONS,
        memory_bytes=parse_bytes(memory, field="memory", bare="M"),
        append=append,
        system_map=system_map,
        timeout_s=timeout_s,
    )
    if other_path is not None:
        profile_diff.is_saved(other_path)
    made = profile_diff.of_path(kernel_path, cell, until=until, build=build, on_progress=TextProgress())
    if save_path is not None:
        made.save(save_path)
    if other_path is not None:
        other = profile_diff.of_path(other_path, cell, until=until, on_progress=TextProgress())
        show_difference(made, other, most=most, as_json=as_json)
        return
    show(made, most=most, as_json=as_json)


def show(profile: Profile, *, most: int, as_json: bool) -> None:
    """Print a profile: the ranked functions, or all of them as JSON."""
    from acon_nb.profile import tables

    if as_json:
        print_json(profile_json(profile))
        return
    click.echo("\n".join([tables.ranked_text(profile, most), *tables.sentences(profile)]))


def show_difference(before: Profile, after: Profile, *, most: int, as_json: bool) -> None:
    """Print how two profiles differ: a sentence and tables, or all changes as JSON."""
    from acon_nb.profile import diff, diff_text

    compared = diff.difference(before, after)
    if as_json:
        print_json(diff.json_values(compared))
        return
    click.echo(diff_text.text(compared, most))


def profile_json(profile: Profile) -> dict[str, Any]:
    """The profile as the command's JSON."""
    from acon_nb.profile import tables

    return {
        "total": profile.total,
        "functions": [
            {
                "name": one.name,
                "self": one.self_count,
                "phase": one.phase,
                "file": one.file,
                "region": one.region.value,
            }
            for one in profile.functions
        ],
        "unattributed": profile.unattributed,
        "sha256": profile.sha256,
        "phases": tables.phase_counts(profile),
        "origin": dict(profile.origin),
    }
