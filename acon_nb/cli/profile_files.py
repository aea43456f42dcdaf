"""Options of `acon-nb bench profile` that write a profile for other tools and for a browser."""

from __future__ import annotations

import functools
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
    """Add an option for each kind of file; the command receives those that were given as `files`."""

    @functools.wraps(command)
    def with_files(**options: Any) -> Any:
        given = {name: options.pop(name) for name in _OPTIONS}
        return command(files={name: path for name, path in given.items() if path is not None}, **options)

    added: Callable[..., Any] = with_files
    for name, text in reversed(_OPTIONS.items()):
        added = click.option(f"--{name}", type=click.Path(path_type=Path), metavar="FILE", help=text)(added)
    return added


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
