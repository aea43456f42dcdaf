"""`acon-nb bench profile`: what each function of a guest executed, exactly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from acon_nb.cli import completion
from acon_nb.cli.base import as_json_option, print_json, results_option
from acon_nb.cli.bench import bench_group
from acon_nb.cli.profile_files import check_files, file_options, given_files, write_difference, write_files
from acon_nb.progress import TextProgress

if TYPE_CHECKING:
    from acon_nb.profile.model import Profile

_PATH = click.Path(path_type=Path)
_OF_A_BOOT = ("initrd_path", "until", "memory", "append", "system_map", "timeout_s", "build", "calls")
_OF_A_STUDY = ("cell", "folder")


@dataclass(frozen=True, kw_only=True)
class _Boot:
    """The guest to profile, as the options give it."""

    kernel_path: Path
    build: Path | None
    initrd_path: Path | None
    until: str
    calls: bool
    memory: str
    append: str
    system_map: Path | None
    timeout_s: float


@bench_group.command("profile")
@click.argument("study_name", metavar="[STUDY]", required=False, shell_complete=completion.studies)
@click.option("--kernel", "kernel_path", type=_PATH, help="A bzImage, or a saved profile, in place of a study.")
@click.option("--diff", "other_path", type=_PATH, help="Compare with another kernel's profile, or a saved one.")
@click.option(
    "--build",
    type=_PATH,
    help="Folder of the kernel's build, or its vmlinux with debug information.  [default: known if built here]",
)
@click.option("--initrd", "initrd_path", type=_PATH, help="Any initrd.  [default: busybox]")
@click.option("--until", type=click.Choice(["init", "ready", "end"]), default="init", show_default=True)
@click.option("--calls", is_flag=True, help="Count by call stack, too; also shows functions with all that they call.")
@click.option("--memory", default="512M", show_default=True)
@click.option("--append", default="console=ttyS0 panic=-1 quiet", show_default=True, help="Kernel command line.")
@click.option(
    "--system-map", type=_PATH, help="The kernel's System.map.  [default: the one next to it, or its symbols]"
)
@click.option("--timeout", "timeout_s", type=click.FloatRange(1), default=600, show_default=True, help="Seconds.")
@click.option("--cell", default="", help="A cell of the study; part of its label is enough.")
@results_option
@click.option(
    "--by",
    type=click.Choice(["function", "file", "folder", "subsystem"]),
    default="function",
    show_default=True,
    help="What is counted together; files are those of the kernel's source.",
)
@click.option("--most", type=click.IntRange(1), default=30, show_default=True, help="How many rows are shown.")
@click.option("--save", "save_path", type=_PATH, help="Write the profile as JSON.")
@file_options
@as_json_option
def bench_profile(
    study_name: str | None,
    kernel_path: Path | None,
    other_path: Path | None,
    cell: str,
    folder: Path,
    by: str,
    most: int,
    save_path: Path | None,
    as_json: bool,
    folded: Path | None,
    pprof: Path | None,
    speedscope: Path | None,
    callgrind: Path | None,
    flame: Path | None,
    **boot: Any,
) -> None:
    """Count what each function of a boot executes, exactly, or show a study's stored profile (docs/profile.md)."""
    from acon_nb.boot import profile_diff

    if (study_name is None) == (kernel_path is None):
        raise click.UsageError("give a STUDY or --kernel")
    _refuse(*((_OF_A_STUDY, "STUDY") if study_name is None else (_OF_A_BOOT, "--kernel")))
    if other_path is not None and by != "function":
        raise click.UsageError("--by cannot be combined with --diff, which shows files and folders too")
    files = given_files(folded=folded, pprof=pprof, speedscope=speedscope, callgrind=callgrind, flame=flame)
    check_files(files, is_difference=other_path is not None)
    saved = other_path is not None and profile_diff.is_saved(other_path)
    asked = None if kernel_path is None else _Boot(kernel_path=kernel_path, **boot)
    if asked is None and other_path is not None and not saved:
        raise click.UsageError("--diff of a STUDY takes a saved profile")
    profile = _stored(str(study_name), cell, folder) if asked is None else _booted(asked, asked.kernel_path)
    if save_path is not None:
        profile.save(save_path)
    if other_path is None:
        write_files(profile, files)
        show(profile, by=by, most=most, as_json=as_json)
        return
    other = _saved(other_path) if asked is None else _booted(asked, other_path)
    write_difference(profile, other, files)
    show_difference(profile, other, most=most, as_json=as_json)


def _refuse(names: tuple[str, ...], needed: str) -> None:
    """Refuse options that were given and would not act."""
    context = click.get_current_context()
    given = [name for name in names if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    options = [parameter.opts[0] for parameter in context.command.params if parameter.name in given]
    if options:
        raise click.UsageError(f"{', '.join(options)} needs {needed}")


def _booted(asked: _Boot, path: Path) -> Profile:
    """The profile of a kernel, or the saved one, at `path`; `--build` is of the kernel that was given first."""
    from acon_nb import boot
    from acon_nb.boot import profile_diff
    from acon_nb.units import parse_bytes
    from acon_nb.vm import Clock

    cell = boot.BootCell(
        name=asked.kernel_path.name,
        kernel=asked.kernel_path,
        initrd=asked.initrd_path or boot.default_initrd(),
        clock=Clock.INSTRUCTIONS,
        memory_bytes=parse_bytes(asked.memory, field="memory", bare="M"),
        append=asked.append,
        system_map=asked.system_map,
        timeout_s=asked.timeout_s,
    )
    build = asked.build if path == asked.kernel_path else None
    return profile_diff.of_path(
        path, cell, until=asked.until, calls=asked.calls, build=build, on_progress=TextProgress()
    )


def _saved(path: Path) -> Profile:
    from acon_nb.profile.model import load

    return load(path)


def _stored(study: str, cell: str, out: Path) -> Profile:
    """The profile that a cell of a study kept."""
    from acon_nb import results
    from acon_nb.profile import stored

    rows = results.load(out, study=study)
    label, profile = stored.profile_of(rows.to_dict("records"), out, cell)  # type: ignore[arg-type]
    click.echo(f"{study}: {label}", err=True)
    return profile


def show(profile: Profile, *, by: str, most: int, as_json: bool) -> None:
    """Print a profile: the ranked functions, or what they are grouped by; all of them as JSON."""
    from acon_nb.profile import tables

    if as_json:
        groups = {} if by == "function" else {"by": tables.grouped(profile, by).to_dict("records")}
        print_json({**profile_json(profile), **groups})
        return
    parts = [tables.ranked_text(profile, most) if by == "function" else tables.grouped_text(profile, by, most)]
    if profile.stacks:
        parts += ["", tables.inclusive_text(profile, most), ""]
    click.echo("\n".join([*parts, *tables.sentences(profile)]))


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

    inclusive = [
        {"name": name, "phase": phase, "inclusive": count} for (phase, name), count in tables.inclusive(profile).items()
    ]
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
        **({"inclusive": inclusive} if profile.stacks else {}),
    }
