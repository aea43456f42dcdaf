"""Options of `acon-nb bench profile` that write a profile for other tools and for a browser."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from acon_nb.profile.model import Profile

_OPTIONS = {
    "folded": "Write folded stacks (flamegraph.pl, inferno).",
    "pprof": "Write a .pb.gz for go tool pprof.",
    "speedscope": "Write JSON for speedscope.",
    "callgrind": "Write a file for KCachegrind and callgrind_annotate.",
    "flame": "Write an interactive flame graph, one HTML file that loads nothing; with --diff of the difference.",
}


def file_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add an option for each kind of file."""
    for name, text in reversed(_OPTIONS.items()):
        command = click.option(f"--{name}", type=click.Path(path_type=Path), metavar="FILE", help=text)(command)
    return command


def given_files(**paths: Path | None) -> dict[str, Path]:
    """The files that were asked for, by the names of `file_options`."""
    return {name: path for name, path in paths.items() if path is not None}


def check_files(files: Mapping[str, Path], *, is_difference: bool) -> None:
    """Refuse formats of one profile for a difference. Errors: `click.UsageError`."""
    wrong = [f"--{name}" for name in files if name != "flame"] if is_difference else []
    if wrong:
        raise click.UsageError(f"{', '.join(wrong)} cannot be combined with --diff")


def write_files(profile: Profile, files: Mapping[str, Path]) -> None:
    """Write the files of a profile that were requested, and name them on standard error."""
    from acon_nb.profile import exports

    for path in exports.save(profile, files):
        click.echo(f"written: {path}", err=True)


def write_difference(before: Profile, after: Profile, files: Mapping[str, Path]) -> None:
    """Write the flame graph of a difference, if it was requested, and name it on standard error."""
    from acon_nb.profile import flame

    if "flame" in files:
        names = flame.names_of(before, after)
        click.echo(f"written: {flame.save(flame.difference(before, after, names=names), files['flame'])}", err=True)
